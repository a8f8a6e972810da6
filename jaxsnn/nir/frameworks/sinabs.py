"""Sinabs: LIF, IAF and ExpLeak, with several spikes in a step."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from jaxsnn.errors import Problem
from jaxsnn.nir.dialects import Dialect
from jaxsnn.nir.frameworks.decays import NO_DECAY
from jaxsnn.nir.frameworks.framework import (
    Conventions,
    Framework,
    Importer,
    OwnOption,
    Rule,
    rules,
)
from jaxsnn.nir.nodes import IF, Node

_NORM_INPUT = OwnOption(
    name="norm_input",
    kind="bool",
    help="Sinabs: true or false",
    unsaid="norm_input is not in the file: say norm_input=.",
)
_MIN_V_MEM = OwnOption(
    name="min_v_mem",
    kind="number",
    help="Sinabs: V is raised to this at the end of each step, or none",
    unsaid=(
        "min_v_mem, a lower bound of V, is not in the file, and none is assumed: say min_v_mem= "
        "(from_model sets -1 by default, its NIR importer -v_threshold for IF)."
    ),
)
_SPIKE_FN = OwnOption(
    name="spike_fn",
    kind="choice",
    help="Sinabs: multi (default: as many spikes in a step as thresholds fit into V) or single",
    choices=("multi", "single"),
)
#: norm_input scales what arrives by 1 - exp(-1/tau). It is true by default for LIF, false for
#: ExpLeak (LI).
_LEAKY = Rule(
    kernel="box",
    membrane="average",
    ones=("r",),
    option="norm_input",
    without=Rule(arrival="jump", kernel="box", membrane="leak", ones=("r",)),
)


def _remarks(node: Node, dialect: Dialect) -> Iterator[Problem]:
    if isinstance(node, IF):
        yield Problem(
            node=node.name,
            code="bounded",
            severity="warning",
            message=(
                f"node '{node.name}' (IF): Sinabs's importer keeps the membrane above -v_threshold"
            ),
            fix="nothing in the file can tell it not to, set min_v_mem after loading",
        )


FRAMEWORK = Framework(
    name="sinabs",
    title="Sinabs",
    dialects=(
        Conventions(
            name="sinabs",
            rules=rules(
                LIF=_LEAKY,
                LI=_LEAKY,
                IF=Rule(membrane_decay=NO_DECAY, membrane="leak", ones=("r",)),
            ),
            time_unit="step",
            reset="subtract",
            reset_delay=False,
            threshold=">=",
            spikes_per_step="several",
            spikes_option="spike_fn",
            floor_option="min_v_mem",
            options=(_NORM_INPUT, _MIN_V_MEM, _SPIKE_FN),
            defaults=MappingProxyType(
                {"spike_fn": ("multi", "spike_fn is not in the file, MultiSpike is its default.")}
            ),
        ),
    ),
    importers=(
        Importer(
            version="3.1",
            unread=("Linear", "CubaLIF"),
            ignores=MappingProxyType({"LIF": ("r", 1.0), "IF": ("r", 1.0), "LI": ("r", 1.0)}),
            scalars=False,
            remarks=_remarks,
        ),
    ),
    distribution="sinabs",
    surrogate="single exponential",
    note="min_v_mem, spike_fn and reset_fn are in no file: say them, reset_fn as reset.",
)
