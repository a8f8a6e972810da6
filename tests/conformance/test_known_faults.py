"""Faults that users reported to frameworks: each is found in a release that has it, without its own rule.

The cells are general questions. `docs/conformance.md` lists the releases that were run; the tests here
ask those that are installed, and imitations of the faults.
"""

import dataclasses
import importlib.metadata

import numpy as np
import pytest

from jaxsnn.conformance import NetworkSpec, adapter_of, run
from jaxsnn.conformance.networks import graph_of
from jaxsnn.conformance.reference import run_reference
from tests.conformance.faulty import Simulator

#: Framework, release, report, cell, verdict, and the parameter or the factor of the time constants that
#: the diagnosis names.
FAULTS = [
    ("snntorch", "1.0.0", "snntorch 334", "export/CubaLIF/number/one neuron", "crash", None),
    ("snntorch", "1.0.0", "snntorch 416", "import/IF/r = 1/one layer", "wrong", None),
    ("snntorch", "1.0.0", "snntorch 435", "import/CubaLIF/uniform/recurrent/", "crash", None),
    ("norse", "1.1.0", "norse 411", "export/LIF/uniform/one layer/zero/tau = 10 dt", "wrong", 1000),
    (
        "norse",
        "1.1.0",
        "norse 411",
        "export/CubaLIF/uniform/one layer/zero/tau = 10 dt",
        "wrong",
        1000,
    ),
    ("spyx", "1.0.0", "spyx 40", "import/LIF/r = 0.7/one layer", "wrong", "r"),
    (
        "spyx",
        "1.0.0",
        "pool",
        "export/SumPool2d with padding/uniform/SumPool2d with padding and IF",
        "wrong",
        None,
    ),
]
#: Questions next to the faults, which the same release answers correctly.
CONTROLS = [
    ("snntorch", "1.0.0", "export/CubaLIF/uniform/one neuron/zero"),
    ("snntorch", "1.0.0", "import/CubaLIF/w_in = 1/one layer"),
    ("snntorch", "1.0.0", "import/CubaLIF/uniform/recurrent subgraph"),
    ("norse", "1.1.0", "import/CubaLIF/uniform/one layer/tau = 10 dt"),
    ("spyx", "1.0.0", "import/LIF/uniform/one layer/tau = 10 dt"),
    ("spyx", "1.0.0", "export/SumPool2d/uniform/SumPool2d and IF"),
]  # fmt: skip


def answer_of(framework, release, cell):
    """Answer of the only cell whose name begins as stated; skips if the release is not installed."""
    pytest.importorskip(framework)
    if importlib.metadata.version(framework) != release:
        pytest.skip(f"{framework} {release} is not installed")
    (outcome,) = run(adapter_of(framework), only=cell, reduce=False).outcomes
    return outcome.answer


@pytest.mark.parametrize(("framework", "release", "report", "cell", "verdict", "cause"), FAULTS)
def test_a_release_with_the_fault(framework, release, report, cell, verdict, cause):
    answer = answer_of(framework, release, cell)
    assert answer.verdict == verdict
    if isinstance(cause, str):
        assert answer.diagnosis.ignored == (cause,)
    elif cause is not None:
        assert answer.diagnosis.time_factor == pytest.approx(cause)


@pytest.mark.parametrize(("framework", "release", "cell"), CONTROLS)
def test_the_same_release_without_the_fault(framework, release, cell):
    assert answer_of(framework, release, cell).verdict == "pass"


@dataclasses.dataclass
class SamePool(Simulator):
    """A framework whose pool pads as XLA does: one row less before the image than behind it.

    The file says that both sides are padded alike.
    """

    def build(self, network):
        return network

    def export(self, module, network):
        return super().export(super().build(network), network)

    def run(self, module, x):
        if not isinstance(module, NetworkSpec):
            return super().run(module, x)
        pool, *layers = module.layers
        if pool.type != "SumPool2d":
            return super().run(super().build(module), x)
        side = pool.shape[1]
        missing = 2 * side - x.shape[-1]
        padded = np.pad(x, [(0, 0)] * 3 + [(missing // 2, missing - missing // 2)] * 2)
        pooled = padded.reshape(*padded.shape[:3], side, 2, side, 2).sum((4, 6))
        rest = graph_of(NetworkSpec(shape=pool.shape, layers=tuple(layers)), self.dt)
        return run_reference(rest, pooled, self.dt, self.convention).output


def test_a_pool_that_pads_one_side_only():
    report = run(SamePool(), only="export/SumPool2d", reduce=False)
    verdicts = {outcome.cell.name: outcome.answer.verdict for outcome in report.outcomes}
    padded = {verdict for name, verdict in verdicts.items() if "with padding" in name}
    plain = {verdict for name, verdict in verdicts.items() if "with padding" not in name}
    assert (padded, plain) == ({"wrong"}, {"pass"})


def test_delays_subgraphs_names_and_thresholds_are_asked():
    """Importers that ignore a delay, or replace the node, are found."""
    from tests.conformance.faulty import with_parameters

    cells = (
        ("Delay", "delay", np.zeros_like, "import/Delay/uniform/Delay and LIF"),
        ("Scale", "scale", np.ones_like, "import/Scale/uniform/Scale and IF"),
        ("Threshold", "threshold", lambda level: level + 1, "import/Threshold"),
        ("Linear", "weight", np.zeros_like, "import/LIF/uniform/recurrent subgraph"),
        ("Conv1d", "bias", lambda bias: bias + 1, "import/Conv1d/uniform/Conv1d and LIF"),
    )
    for kind, parameter, change, cell in cells:
        faulty = Simulator(
            read=lambda graph, kind=kind, parameter=parameter, change=change: with_parameters(
                graph, kind, **{parameter: change}
            )
        )
        for adapter, verdict in ((Simulator(), "pass"), (faulty, "wrong")):
            (outcome,) = run(adapter, only=cell, reduce=False).outcomes
            assert outcome.answer.verdict == verdict, cell
