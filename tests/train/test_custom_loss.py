"""A loss, an encoder, a constraint and a regulariser from outside, as docs/guide_loss.md writes them:
nothing in the package is touched.
"""

import json
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.errors import UsageError
from jaxsnn.nir import write
from jaxsnn.train import LOSSES, TrainOptions, evaluate, fit, register_loss
from jaxsnn.train.loop.epoch import by_value, of_one_run
from jaxsnn.train.losses.losses import _LOSSES
from tests.extending_page import code_of, defined_by
from tests.helpers import packages
from tests.helpers.command_line import call, refused
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, QUICK, small_net

SECTIONS = "A loss", "An encoder, a constraint, a regulariser"
PAGE = defined_by(*SECTIONS)
Hinge, CountMargin, Backwards, Rounded, FewSpikes = (
    PAGE[name] for name in ("Hinge", "CountMargin", "Backwards", "Rounded", "FewSpikes")
)


@pytest.fixture
def hinge():
    """The loss, registered for one test."""
    yield register_loss(Hinge)
    del _LOSSES["hinge"]


def test_a_loss_that_is_registered_trains_by_its_name(hinge):
    assert hinge is Hinge is LOSSES["hinge"]
    trained = fit(small_net(), DATA, **QUICK, loss="hinge")
    before, best = trained.history[0], trained.history[trained.best_epoch]
    assert before.validation_accuracy < 0.5
    assert best.validation_accuracy > 0.65
    fields = {"population": "4", "tau": 0.01, "t_max": 0.065, "margin": 0.5}
    assert trained.settings["loss"] == {"name": "hinge", **fields}
    # The loss reads only first spikes, so the population stops after the first.
    assert trained.settings["engine"]["first_spike_only"] == ["4"]
    assert evaluate(trained.graph, DATA.test, loss="hinge", bias=True) == trained.test_accuracy


def test_its_fields_are_options_of_the_loss(hinge):
    options = {"loss": "hinge", "epochs": 1}
    wide = fit(small_net(), DATA, **options, loss_options={"margin": 2.0})
    assert wide.settings["loss"]["margin"] == 2.0
    assert_refused(
        lambda: fit(small_net(), DATA, **options, loss_options={"marign": 2.0}),
        UsageError,
        "loss_options has no field 'marign': did you mean 'marg",
    )


def test_a_loss_that_inherits_all_but_the_formula_trains():
    loss = CountMargin(population="4", tau=10e-3, t_max=60e-3)
    trained = fit(small_net(), DATA, **QUICK, loss=loss)
    before, best = trained.history[0], trained.history[trained.best_epoch]
    assert before.validation_accuracy < 0.4 < 0.5 < best.validation_accuracy
    assert trained.settings["loss"]["name"] == "CountMargin"


@pytest.mark.parametrize("run", [partial(fit, epochs=1), evaluate], ids=["fit", "evaluate"])
def test_a_function_is_refused_as_a_loss(run):
    def formula(reading, labels):
        return reading.count("4")[:, 0]

    assert_refused(
        lambda: run(small_net(), DATA.test, loss=formula),
        UsageError,
        "a callable object with the attributes population, tau, t_max, predict",
    )


PLUGIN = code_of(*SECTIONS)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A package with an entry point, as pip would have installed it: on sys.path, not imported."""
    site = packages.installed(
        tmp_path / "site-packages",
        "hinge_plugin",
        files={"hinge_plugin.py": PLUGIN},
        losses={
            "hinge-of-a-plugin": "hinge_plugin:Hinge",
            "broken": "hinge_plugin:Hingge",
            "no-loss": "hinge_plugin:dataclass",
        },
    )
    monkeypatch.syspath_prepend(site)
    yield
    _LOSSES.pop("hinge-of-a-plugin", None)


def test_the_command_trains_with_a_loss_of_an_entry_point(plugin, tmp_path, capsys):
    write(tmp_path / "net.nir", small_net())
    options = ["--data", "yinyang", "--epochs", "1", "--batch-size", "500", "-q"]
    argv = ["train", tmp_path / "net.nir", *options, "-o", tmp_path / "out.nir", "--loss"]
    for name, message in (
        ("hinge-of-a-plugn", "did you mean 'hinge-of-a-plugin'?"),
        ("broken", "the loss 'broken' cannot be loaded from hinge_plugin:Hingge"),
        ("no-loss", "loss 'no-loss' ("),
    ):
        assert message in refused(capsys, *argv, name)[1]
    assert not (tmp_path / "out.nir").exists()
    assert "hinge-of-a-plugin" not in LOSSES
    code, out, err = call(capsys, *argv, "hinge-of-a-plugin", "--json")
    assert code == 0, err
    assert 0 <= json.loads(out)["test_accuracy"] <= 1
    settings = json.loads((tmp_path / "out.history.json").read_text())["settings"]
    assert (settings["loss"]["name"], settings["loss"]["margin"]) == ("hinge-of-a-plugin", 0.5)


class Nameless(Hinge):
    name = ""


class Blind(Hinge):
    name, reads = "blind", "minds"


class Dumb:
    name, reads = "dumb", "spikes"

    def __call__(self, reading, labels):
        return labels


class Other(Hinge):
    pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([Nameless], 'loss Nameless has no name: add a field name = "its-name"'),
        (
            [Blind],
            r"loss 'blind' \(Blind\) has reads = 'minds': use one of 'first spikes', 'spikes'",
        ),
        ([Dumb], r"loss 'dumb' \(Dumb\) has no method predict"),
        (
            [Other],
            r"the name of loss 'hinge' is already registered for .*\.Hinge: choose another name",
        ),
        ([Hinge, "ttfs"], r"the name of loss 'ttfs' is already registered for .*\.FirstSpike:"),
    ],
)
def test_what_is_not_a_loss_is_refused(arguments, message, hinge):
    assert_refused(lambda: register_loss(*arguments), UsageError, message)
    assert register_loss(Hinge) is Hinge is LOSSES["hinge"]


def test_an_encoder_a_constraint_and_a_regulariser_of_ones_own_are_passed_as_they_are():
    graph = small_net()
    first = np.clip(graph.nodes["1"].weight, -1.9, 1.9)
    graph = graph.with_nodes([graph.nodes["1"].replace(weight=first)])
    options = TrainOptions(
        encoder=Backwards(duration=0.02),
        trainable={"1.weight": Rounded(rate=0.5), "3.weight": {"kind": "free"}},
        regularisers=(FewSpikes(population="2"),),
        epochs=4,
        progress=None,
    )
    trained = fit(graph, DATA, options=options, learning_rate=0.05)
    settings, rounded = trained.settings, {"most": 2.0, "shared": False, "rate": 0.5}
    assert settings["encoder"] == {"name": "Backwards", "duration": 0.02}
    assert settings["trainable"]["1.weight"] == {"name": "Rounded", **rounded}
    assert settings["regularisers"] == [{"name": "FewSpikes", "population": "2"}]
    assert trained.history[-1].train_loss < trained.history[0].train_loss
    weight = trained.graph.nodes["1"].weight
    assert np.abs(weight).max() <= 2.0
    assert not np.array_equal(weight, first)


def test_a_task_may_bring_a_function_as_its_encoder():
    from dataclasses import replace

    def encode(values):
        return Backwards(duration=0.02)(values)

    data = replace(DATA, encoder=lambda tau: encode)
    assert fit(small_net(), data, epochs=1, progress=None).settings["encoder"] == {"name": "encode"}


class Decay:
    """A regulariser that compares as equal to itself, whatever its factor has become."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, network, solution):
        return self.factor * jnp.sum(network.parameters["1"]["weight"] ** 2)


def test_an_object_that_has_changed_is_not_taken_for_what_it_was():
    def trained(decay):
        options = {**QUICK, "epochs": 1, "regularisers": (decay,)}
        return fit(small_net(), DATA, **options).graph.nodes["1"].value("weight")

    changing = Decay(0.0)
    before = trained(changing)
    changing.factor = 100.0
    after = trained(changing)
    assert not np.array_equal(after, before)
    np.testing.assert_array_equal(after, trained(Decay(100.0)))


def test_what_is_compared_by_value_shares_what_is_compiled():
    assert of_one_run(Hinge(population="4", tau=0.01, t_max=0.065), (), None) is None
    assert of_one_run((Decay(0.0),)) is not None
    factor = 2.0
    assert by_value(code_of)
    assert not by_value(lambda key, sample: factor)
