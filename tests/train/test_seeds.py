"""Whatever takes a seed takes a whole number or a key of `jax.random`, old or new."""

import json

import jax
import numpy as np
import pytest

from jaxsnn.bss2.emulate import EmulatedChip
from jaxsnn.errors import UsageError
from jaxsnn.nir import build, initializers
from jaxsnn.nir.initializers import seed_words
from jaxsnn.train import Rate, fit, on_chip, splits_of_arrays, yinyang, yinyang_splits
from jaxsnn.train.data.datasets import stratified
from jaxsnn.train.data.images import distorted
from jaxsnn.train.data.labelled_files import load_splits
from jaxsnn.train.loop.epoch import key_of
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, small_net

KEYS = {
    "old": lambda: jax.random.PRNGKey(7),
    "new": lambda: jax.random.key(7),
    "numbers": lambda: np.array([0, 7], np.uint32),
}
#: Arrays that are drawn from a seed.
DRAWN = {
    "initializers.normal": lambda seed: initializers.normal()(seed, (3, 2)),
    "initializers.uniform": lambda seed: initializers.uniform()(seed, (3, 2)),
    "initializers.kaiming_normal": lambda seed: initializers.kaiming_normal()(seed, (3, 2)),
    "initializers.kaiming_uniform": lambda seed: initializers.kaiming_uniform()(seed, (3, 2)),
    "initializers.xavier_normal": lambda seed: initializers.xavier_normal()(seed, (3, 2)),
    "initializers.xavier_uniform": lambda seed: initializers.xavier_uniform()(seed, (3, 2)),
    "sequential": lambda seed: small_net(seed=seed).nodes["1"].weight,
    "network": lambda seed: built(seed).nodes["w"].weight,
    "yinyang": lambda seed: yinyang(20, seed).x,
    "yinyang_splits": lambda seed: yinyang_splits(seed, (20, 10, 10)).test.x,
    "load_splits": lambda seed: load_splits("yinyang", seed)[0].test.x,
    "splits_of_arrays": lambda seed: (
        splits_of_arrays(np.arange(100.0).reshape(50, 2), np.arange(50) % 2, seed=seed).train.x
    ),
    "stratified": lambda seed: stratified(np.arange(60) % 3, 0.3, seed)[0],
    "distorted": lambda seed: distorted(np.eye(8)[None], seed),
    "Rate": lambda seed: Rate(highest=100.0, duration=1.0, seed=seed)(np.array([[0.5, 0.5]])).time,
    "key_of": lambda seed: jax.random.normal(key_of(seed), (3,)),
}


def built(seed):
    nodes = {"in": build.input(2), "w": build.linear(3), "out": build.output()}
    return build.network(nodes, [("in", "w", "out")], seed=seed)


@pytest.mark.parametrize("name", DRAWN)
def test_both_kinds_of_keys_are_the_same_seed_and_another_one_than_a_number(name):
    draw = DRAWN[name]
    first, *others = (np.asarray(draw(make())) for make in KEYS.values())
    for by_key in others:
        np.testing.assert_array_equal(by_key, first)
    assert not np.array_equal(draw(jax.random.key(8)), first)
    by_number = np.asarray(draw(7))
    np.testing.assert_array_equal(draw(np.int64(7)), by_number)
    assert by_number.shape != first.shape or not np.array_equal(by_number, first)


def test_a_whole_number_draws_what_it_always_drew():
    expected = np.random.default_rng(3).normal(1.0, 2.0, (4, 2))
    np.testing.assert_array_equal(initializers.normal(1.0, 2.0)(3, (4, 2)), expected)
    rng = np.random.default_rng(3)
    np.testing.assert_array_equal(initializers.normal(1.0, 2.0)(rng, (4, 2)), expected)
    second = initializers.normal(1.0, 2.0)(rng, (4, 2))
    assert not np.array_equal(second, expected)  # a generator advances
    assert (
        jax.random.key_data(key_of(3)).tolist() == jax.random.key_data(jax.random.key(3)).tolist()
    )


def test_a_run_by_a_key_is_repeated_recorded_and_resumed(tmp_path):
    def train(seed, **options):
        settings = {"epochs": 2, "dropout": 0.1, "progress": None} | options
        return fit(small_net(), DATA, seed=seed, **settings)

    first = train(jax.random.key(5), checkpoint=tmp_path)
    assert first.settings["seed"] == [0, 5]
    json.dumps(first.as_dict())
    assert train(jax.random.PRNGKey(5)).as_dict() == first.as_dict()
    again = train(jax.random.key(5), checkpoint=tmp_path, resume=True)
    assert again.as_dict() == first.as_dict()
    assert_refused(
        lambda: train(5, checkpoint=tmp_path, resume=True),
        UsageError,
        r"seed = \[0, 5\], and this run has 5: resume with the settings of",
    )
    number = train(5)
    assert number.settings["seed"] == 5
    assert number.history[-1] != first.history[-1]


def test_a_mapping_is_searched_for_by_a_key():
    graph = build.sequential(
        build.input(3),
        build.linear(2, weight=initializers.normal(2.5, 0.6)),
        build.cubalif(tau_mem="20ms", tau_syn="10ms"),
        seed=jax.random.key(0),
    )
    chip = EmulatedChip(seed=1)
    mapped = on_chip(graph, chip=chip, seed=jax.random.key(3))
    assert mapped.device == on_chip(graph, chip=chip, seed=jax.random.PRNGKey(3)).device


@pytest.mark.parametrize(
    "draw", [lambda seed: small_net(seed=seed), lambda seed: fit(small_net(), DATA, seed=seed)]
)
@pytest.mark.parametrize(
    "seed", [-1, 1.5, "7", np.zeros((2, 2), np.uint32), np.zeros(2, np.float32), np.zeros(2, int)]
)
def test_what_is_neither_is_refused(seed, draw):
    message = r"seed is .*: pass an integer (of at least|from) 0\b"
    assert_refused(lambda: draw(seed), UsageError, message)


def test_several_keys_are_refused():
    keys = jax.random.split(jax.random.key(0))
    assert_refused(lambda: seed_words(keys), UsageError, r"one key of jax\.random")


def test_building_by_a_seed_loads_no_jax(run_python):
    code = """
import sys
import numpy as np
from jaxsnn.nir import build
build.sequential(build.input(2), build.linear(3), seed=np.array([0, 7], np.uint32))
print([name for name in ("jax", "optax") if name in sys.modules])
"""
    assert run_python(code).stdout == "[]\n"
