"""Lava, Nengo and SpiNNaker2, whose behaviour is known from their sources: small networks against
NumPy written from these facts.
"""

import re

import numpy as np
import pytest

from jaxsnn.errors import DialectError, GraphError
from jaxsnn.nir import build, dialect_of, read, write
from jaxsnn.nir.convert.importers import importer_problems
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.dialects.inference import possible
from tests.helpers.random_spikes import random_raster
from tests.helpers.refusals import assert_refused
from tests.nir.conversions import played

rng = np.random.default_rng(0)
X = random_raster(0, (60, 3, 5), 0.3)
#: As in lava-dl: weights are multiples of 1/64, decays of 1/4096.
W = rng.integers(-20, 60, (4, 5)) / 64
D_I, D_V, LEVEL = 1024 / 4096, 410 / 4096, 96 / 64
TIMES = {"tau_mem": 1e-4 / D_V, "tau_syn": 1e-4 / D_I, "r": 1 / D_V, "w_in": 1 / D_I}


def lava(**changes):
    neuron = build.cubalif(**{"v_threshold": LEVEL} | TIMES | changes)
    return build.sequential(build.input(5), build.linear(4, weight=W), neuron, dialect="lava")


def slayer(x):
    """lava-dl: whole numbers of 2^-12, decays rounded toward 0."""
    x, quantum = np.round(x @ W.T * 4096).astype(np.int64), 4096
    d_i, d_v = quantum - int(D_I * quantum), quantum - int(D_V * quantum)

    def decayed(state, factor):
        return np.sign(state) * ((np.abs(state) * factor) >> 12)

    i, v, spikes, membranes = np.zeros_like(x[0]), np.zeros_like(x[0]), [], []
    for x_now in x:
        i = decayed(i, d_i) + x_now
        v = decayed(v, d_v) + i
        membranes.append(v / 4096)
        spikes.append(v > LEVEL * quantum)
        v = np.where(spikes[-1], 0, v)
    return np.array(spikes, float), np.array(membranes)


def test_lava_fires_what_its_whole_numbers_do():
    graph = lava()
    spikes, membranes = slayer(X)
    assert np.abs(membranes - LEVEL).min() > 1e-5
    assert 0.05 < spikes.mean() < 0.95
    np.testing.assert_array_equal(played(graph, X), spikes)


@pytest.mark.parametrize(
    ("make", "claim", "why"),
    [
        (
            lambda: lava(),
            f"between spikes: up to {2**-12 * (1 + 1 / D_I) / D_V:.2g}",
            "rounds them toward 0",
        ),
        (lambda: nengo()[1], "only on the time-stepped engine", ""),
    ],
    ids=["lava", "nengo"],
)
def test_what_is_known_from_a_source_alone_is_remarked(make, claim, why):
    """How far Lava's rounding may be off, and when Nengo fires; nobody ran either."""
    graph = make()
    (remark,) = graph.repairs
    assert claim in remark.what
    assert why in remark.why
    assert "based on its source code" in graph.dialect.why


def test_the_bound_on_lava_s_rounding_is_that_of_the_slowest_neuron():
    taus = {"r": np.array([4.0, 16, 8, 4]), "w_in": np.array([2.0, 4, 4, 2])}
    taus |= {"tau_mem": 1e-4 * taus["r"], "tau_syn": 1e-4 * taus["w_in"]}
    assert f"between spikes: up to {2**-12 * (1 + 4) * 16:.2g}" in lava(**taus).repairs[0].what
    never = {"r": np.array([4.0, np.inf, 4, 4]), "tau_mem": np.array([4e-4, np.inf, 4e-4, 4e-4])}
    assert "between spikes: increasing with every time step" in lava(**never).repairs[0].what
    assert not plainly_integrating().with_dialect(dialect_of("lava")).repairs


def plainly_integrating():
    return build.sequential(build.input(5), build.lif(tau=TAU, r=2.0), seed=0, dialect="nir")


def of_r(r):
    """A decay 1/r of a step."""
    return {"r": np.array(r), "tau_mem": 1e-4 * np.array(r)}


def of_w_in(w_in):
    return {"w_in": np.array(w_in), "tau_syn": 1e-4 * np.array(w_in)}


def of_level(*levels):
    return {"v_threshold": np.array(levels * (4 // len(levels)))}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        (of_r(4096 / 3) | of_w_in(4096 / 5) | of_level(97 / 64), None),
        (of_level(1.5, 1.5 + 1e-2 / 64 * 0.9), None),
        (of_level(1e-2 / 64), None),
        (of_level(1.5, 1.5 + 1e-2 / 64 * 1.1), "v_threshold in multiples of 1/64"),
        (of_level(1.01), "v_threshold in multiples of 1/64, but node '2' has 1.01"),
        (of_level(1 + 1 / 128), "v_threshold in multiples of 1/64"),
        (of_level(1.5, 96.5 / 64), "node '2' has 1.50781"),
        (of_r(10.0), "1/r in multiples of 1/4096, but node '2' has 0.1"),
        # Half-way between two multiples.
        (of_r(4096 / 410.5), "1/r in .* node '2' has 0.10022"),
        (of_r([4, 4, 4, 4096 / 7.5]), "1/r in .* 0.0018"),
        (of_w_in(4096 / 1024.5), "1/w_in in .* has 0.250122"),
        ({"r": 1.0}, "lava writes one dt = tau/r"),
    ],
)
def test_numbers_that_lava_may_have_written(changes, says):
    if says is None:
        assert lava(**changes).dialect.name == "lava"
    else:
        assert_refused(lambda: lava(**changes), DialectError, says, node="2")


def test_what_lava_s_reader_does_to_its_numbers():
    leaks = build.cubalif(v_threshold=np.array([0.5, 1.0, 1.0, 1.0]), v_leak=0.25, **TIMES)
    graph = build.sequential(build.input(4), leaks, dialect="nir", time_unit="s")
    problems = {problem.code: str(problem) for problem in importer_problems(graph, "lava")}
    assert "decays to multiples of 1/4096" in problems["rounded"]
    assert "one v_threshold for all neurons, not 0.5 to 1" in problems["differs"]
    assert "requires v_leak = 0, not 0.25" in problems["unread"]


def test_lava_to_another_framework():
    graph = lava()
    converted = convert(graph, to="snntorch").graph
    np.testing.assert_array_equal(played(converted, X), played(graph, X))


DT, TAU = 1e-3, 0.02


def nengo(*, weight=None, **changes):
    neuron = build.lif(**{"tau": TAU, "v_threshold": 1.5} | changes)
    weight = rng.uniform(0.0, 0.01, (4, 5)) if weight is None else weight
    layers = build.linear(4, weight=weight), neuron
    return weight, build.sequential(build.input(5), *layers, dialect="nengo", dt=DT)


def test_nengo_fires_what_its_source_says():
    weight, graph = nengo()
    v, spikes = np.zeros((3, 4)), []
    for x_now in X:
        current = x_now @ weight.T / DT / 1.5
        v = v - (current - v) * np.expm1(-DT / TAU)
        spikes.append(v > 1)
        v = np.where(v > 1, 0, np.maximum(v, 0))
    expected = np.array(spikes, float)
    assert 0.05 < expected.mean() < 0.9
    np.testing.assert_array_equal(played(graph, X), expected)


def looped():
    nodes = {"in": build.input(4), "lif": build.lif(tau=TAU), "out": build.output(4)}
    nodes["w"] = build.linear(4, weight=np.eye(4))
    edges = [("in", "lif", "out"), ("lif", "w", "lif")]
    return build.network(nodes, edges, dialect="nengo", dt=DT)


def shifted(*bias):
    layer = build.affine(weight=np.full((2, 5), 0.5), bias=np.array(bias))
    return build.sequential(build.input(5), layer, build.lif(tau=TAU), dialect="nengo", dt=DT)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: nengo(r=2.0), "r = 1, but node '2' has 2"),
        (lambda: nengo(v_leak=np.array([0.1, -0.3, 0, 0])), "v_leak = 0, but node '2' has -0.3"),
        (lambda: nengo(v_reset=np.array([-0.4, 0.3, 0, 0])), "v_reset = 0, but node '2' has -0.4"),
        (
            lambda: nengo(tau=np.array([0.01, 0.02, 0.02, 0.02])),
            "one tau per node, .* 0.01 to 0.02",
        ),
        # Nengo keeps membranes above 0.
        (
            lambda: nengo(weight=np.array([[0.5, -0.25, 0, 0, 0]] * 4)),
            r"'1' has weight = -0\.25",
        ),
        (lambda: shifted(-0.5, -1.0), "'1' has bias = -1"),
        (looped, "from '(lif|w)' to '(lif|w)' closes a loop"),
    ],
)
def test_what_nengo_does_not_take_is_refused(make, says):
    assert_refused(make, DialectError, says)


def test_nengo_takes_what_never_brings_a_membrane_below_0():
    for graph in (nengo(weight=np.zeros((4, 5)))[1], shifted(0.0, 0.5)):
        (remark,) = graph.repairs
        assert (remark.node, graph.dialect.name) == ("2", "nengo")
    assert_refused(lambda: shifted(0.5, -1e-9), DialectError, "'1' has bias = -1e-09", node="1")


@pytest.fixture
def plain(tmp_path):
    layers = build.linear(4, weight=np.full((4, 5), 0.3)), build.lif(tau=TAU)
    write(tmp_path / "x.nir", build.sequential(build.input(5), *layers, dialect="norse", dt=DT))
    return tmp_path / "x.nir"


def test_broken_files_are_not_said_to_be_of_who_refuses_them():
    """The dialects in which a broken file is sound are listed; Nengo raises for a weight below 0."""
    layers = build.linear(1, weight=np.array([[-1.0]])), build.lif(tau=-1.0)
    assert_refused(lambda: build.sequential(build.input(1), *layers), GraphError)


def test_nothing_is_simulated_in_the_name_of_spinnaker2(plain):
    says = "LIF, which spinnaker2 does not support"
    assert_refused(lambda: read(plain, dialect="spinnaker2"), DialectError, says)


@pytest.mark.parametrize(
    ("weights", "worst"),
    [([3, -7], None), ([2, 3.2, 0.6, -1.1], "0.6"), ([-3.45, 2], "-3.45")],
)
def test_weights_that_spinnaker2_rounds(weights, worst):
    layers = build.linear(weight=np.array([weights], float)), build.lif(tau=TAU)
    graph = build.sequential(build.input(len(weights)), *layers, dialect="norse", dt=DT)
    problems = [p for p in importer_problems(graph, "spinnaker2") if p.node == "1"]
    assert [problem.severity for problem in problems] == ["warning"] * (worst is not None)
    assert all(f"has the weight {worst}," in problem.message for problem in problems)


@pytest.mark.parametrize("name", ["snn_mlir", "nengo", "spinnaker2"])
def test_who_writes_no_files_is_never_guessed(name):
    layers = build.linear(4, weight=np.full((4, 5), 0.5)), build.lif(tau=TAU)
    graph = build.sequential(build.input(5), *layers, dialect="nir")
    choices = possible(graph)
    assert "nir" in choices
    assert name not in choices


@pytest.mark.parametrize(("name", "errors"), [("lava", True), ("nengo", False)])
def test_what_their_readers_take(name, errors, plain):
    problems = importer_problems(read(plain), name)
    refused = [
        problem
        for problem in problems
        if problem.severity == "error"
        and re.search(r"does not support node|of type LIF", problem.message)
    ]
    assert bool(refused) is errors, [str(problem) for problem in problems]
