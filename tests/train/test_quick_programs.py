"""Short runs are compiled quickly where native kernels do the work."""

import pytest

from jaxsnn import EventDriven, fit
from jaxsnn.network.compiling import A_LITTLE, known_options, unset_flags
from jaxsnn.train.loop import passes
from jaxsnn.train.loop.epoch import run_epoch
from jaxsnn.train.loop.passes import Passes
from tests.helpers.small_task import DATA, QUICK, small_net

pytestmark = pytest.mark.usefixtures("native_kernels")


@pytest.fixture
def ways(monkeypatch):
    """Of each program that a run takes: whether it was compiled quickly."""
    decisions, compiled = [], Passes._compiled

    def watched(self, program, *arguments, **options):
        chosen = compiled(self, program, *arguments, **options)
        decisions.append(chosen is program.quick)
        return chosen

    monkeypatch.setattr(Passes, "_compiled", watched)
    return decisions


def trained(**options):
    return fit(small_net(), DATA, **{**QUICK, "epochs": 1, **options})


@pytest.mark.usefixtures("auto_is_native")
def test_a_short_run_is_compiled_quickly_and_comes_to_the_same(ways, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    quick = trained()
    assert len(ways) > 2
    assert all(ways)
    ways.clear()
    monkeypatch.setattr(passes, "_SHORT", 1)
    optimised = trained()
    assert not any(ways)
    for ours, theirs in zip(quick.history, optimised.history, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)


def test_loops_of_xla_are_optimised(ways):
    trained(engine=EventDriven(backend="xla", first_spike_only=("2",)))
    assert ways
    assert not any(ways)


def test_options_that_xla_does_not_have_are_left_out():
    there = {"xla_backend_optimization_level": 0}
    assert known_options(there | {"xla_no_such_option": False}) == there


def test_what_the_variable_says_of_an_option_holds(monkeypatch):
    level, emitters = known_options(A_LITTLE).items()  # XLA has read the variable by now
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2 --xla_dump_to=text")
    assert unset_flags(A_LITTLE) == dict([emitters])
    quick_before = run_epoch.quick
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_use_fusion_emitters")
    assert unset_flags(A_LITTLE) == dict([level])
    assert run_epoch.quick is not quick_before
    monkeypatch.delenv("XLA_FLAGS")
    assert unset_flags(A_LITTLE) == A_LITTLE
