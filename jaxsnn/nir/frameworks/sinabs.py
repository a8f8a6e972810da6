"""Sinabs: LIF, IAF and ExpLeak, with several spikes in a step.

Its importer is `sinabs/nir.py` of 3.1.3: it makes LIFSqueeze with norm_input false and no lower
bound, IAFSqueeze bounded by -v_threshold, ExpLeakSqueeze with norm_input false. It tests v_leak of
LIF and LI in a way that fails where they have more axes than one, and Conv1d fails.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import MappingProxyType

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.framework import Doing, Framework, Importer
from jaxsnn.nir.frameworks.neuron_writing import (
    Setting,
    Written,
    attribute_lines,
    filled,
    moved_threshold,
    needs_start,
    negligible,
)
from jaxsnn.nir.frameworks.source_rule import NeuronRule
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.changes import Edge
from jaxsnn.nir.model.decays import NO_DECAY
from jaxsnn.nir.model.dialect import Conventions, Dialect, FrameworkOption, Rule, rules
from jaxsnn.nir.model.draft import Draft
from jaxsnn.options import MIN_V_MEM
from jaxsnn.wording import Text

_NORM_INPUT = FrameworkOption(
    name="norm_input",
    kind="bool",
    help="Sinabs: norm_input of its layers, true or false",
    missing_reason="norm_input is not in the file: pass {option}.",
    tries=(True, False),
)
_MIN_V_MEM = FrameworkOption(
    name=MIN_V_MEM.name,
    help=MIN_V_MEM.help,
    kind="number",
    missing_reason=(
        "min_v_mem, the lower bound of the membrane potential, is not in the file, and no "
        "bound is assumed: pass {option} (default of from_model: -1; of the NIR importer: "
        "-v_threshold for IF)."
    ),
    tries=("none", -1.0),
)
_SPIKE_FN = FrameworkOption(
    name="spike_fn",
    kind="choice",
    help="Sinabs: multi (default: several spikes per time step if the membrane potential "
    "reaches several times v_threshold) or single",
    choices=("multi", "single"),
    tries=("multi", "single"),
    fallback=("multi", "spike_fn is not in the file; its default is MultiSpike."),
)
#: Rule of neurons that leak. norm_input multiplies inputs by 1 - exp(-1/tau); by default it is true
#: for LIF and false for ExpLeak (LI).
_LEAKY = Rule(
    kernel="box",
    membrane="average",
    ones=("r",),
    option="norm_input",
    without=Rule(arrival="jump", kernel="box", membrane="leak", ones=("r",)),
)


def _refined(rule: NeuronRule, dialect: Dialect) -> NeuronRule:
    """Return a neuron's rule, completed with the options `spike_fn` and `min_v_mem`."""
    name = rule.node.name
    spike_fn, bound = (dialect.option(option.name, name) for option in (_SPIKE_FN, _MIN_V_MEM))
    assumed = Text(
        "{name} is not in the file, so no lower bound of the membrane potential is assumed: "
        "pass {option}",
        name=_MIN_V_MEM.name,
        option=_MIN_V_MEM.keyword,
    )
    return dataclasses.replace(
        rule,
        spikes_per_step="one" if spike_fn == "single" else "several",
        floor=None if bound in (None, "none") else float(bound),
        assumed=(assumed,) if bound is None else (),
    )


# Files that the framework reads

#: Decay of a current of one step: the smallest that float32 distinguishes from 0.
_NO_CURRENT = 2.0**-100


def _tau(decay: np.ndarray) -> np.ndarray:
    """Return the time constant in steps whose decay is exp(-1/tau)."""
    with np.errstate(divide="ignore"):
        return -1 / np.log(np.maximum(decay, _NO_CURRENT))


def _single(value: np.ndarray) -> np.ndarray:
    """Convert parameters to float32: with float64, layers of Sinabs return float64, which the
    following layers refuse.
    """
    return np.asarray(value, np.float32)


def _write(step: Step, setting: Setting) -> Written:
    """Write LIF, or LI for readouts; IF if there is no leak and the lower bound is IF's. A current
    becomes a separate LI, see `_currents_apart`.
    """
    if step.reset in ("subtract later", "skip", "subtract unless above"):
        setting.give_up(
            step.name,
            Text(
                "Sinabs does not support its reset ({reset}); in the time step of a spike it "
                "subtracts v_threshold or sets the membrane potential to 0",
                reset=step.reset,
            ),
            "it is written as a neuron that subtracts v_threshold in the time step of a spike",
        )
        step = dataclasses.replace(step, reset="subtract")
    needs_start(step, step.v_reset, setting)
    if np.any(step.v_reset):
        drive = step.drive - (1 - step.decay) * step.v_reset
        height, none = step.v_threshold - step.v_reset, np.zeros(step.shape)
        step = dataclasses.replace(
            step, drive=drive, v_threshold=height, v_reset=none, v_start=none
        )
    if step.floor is None or step.reset == "none":
        return _written_leaky(step, setting)
    threshold = moved_threshold(step, step.v_threshold, True)
    entry = {
        "type": "IF",
        "r": _single(filled(step, 1)),
        "v_threshold": _single(threshold),
        "v_reset": _single(filled(step, 0)),
    }
    why = "Sinabs's importer ignores r of IF, so that a spike of weight w adds w"
    return Written(
        entry=entry,
        factor=step.gain,
        offset=negligible(step.drive, threshold),
        why=why,
        says=_says(step),
        means={"min_v_mem": step.floor},
    )


def _says(step: Step) -> dict[str, str]:
    """Return the settings that the line which loads the file applies."""
    reset = "subtract" if step.reset == "subtract" else "zero"
    return {"reset": reset, "spike_fn": "multi" if step.several else "single"}


def _written_leaky(step: Step, setting: Setting) -> Written:
    spikes = step.reset != "none"
    if len(step.shape) != 1:
        raise ConversionError(
            Text(
                "node '{node}' ({type}) has the shape {shape}, and Sinabs's importer supports leaky "
                "neurons and neurons without a lower bound only with one axis",
                node=step.name,
                type=step.type,
                shape=step.shape,
            ),
            fix="add a Flatten before it",
            node=step.name,
        )
    threshold = moved_threshold(step, step.v_threshold, True)
    scale = threshold if spikes else np.ones(step.shape)
    with np.errstate(divide="ignore"):
        tau = np.where(step.decay == 1, np.float32(2.0**40), _tau(step.decay))
    entry = {
        "type": "LIF" if spikes else "LI",
        "tau": _single(tau),
        "r": _single(filled(step, 1)),
        "v_leak": _single(filled(step, 0)),
    }
    if spikes:
        entry |= {"v_threshold": _single(threshold), "v_reset": _single(filled(step, 0))}
    why = (
        "Sinabs's importer counts time in steps, ignores r and uses norm_input false, so "
        "that a spike of weight w adds w"
    )
    says = _says(step) if spikes else {}
    if not step.current_based:
        offset = negligible(step.drive, scale)
        return Written(entry=entry, factor=step.gain, offset=offset, why=why, says=says)
    _refuse_current(step, setting, scale)
    entry |= {"type": f"Cuba{entry['type']}", "tau_syn": _single(_tau(step.synapse_decay))}
    none = np.zeros(step.shape)
    factor = step.gain * step.synapse_gain
    return Written(entry=entry, factor=factor, offset=none, why=why, says=says)


def _refuse_current(step: Step, setting: Setting, scale: np.ndarray) -> None:
    """Reject currents that the LI before a neuron cannot express, unless approximations are
    allowed.
    """
    if np.any(step.i_start):
        setting.give_up(step.name, "its synaptic current does not start at 0", "it starts at 0")
    if np.any(negligible(step.drive, scale)):
        setting.give_up(
            step.name,
            Text(
                "it has a constant input of {value:g} per time step from v_leak; a bias cannot "
                "replace it, because it would pass through the synaptic current",
                value=np.abs(step.drive).max(),
            ),
            "v_leak is written as 0",
        )


def _currents_apart(draft: Draft, recurrent: list[Edge], late: bool, dt: float) -> None:
    """Replace CubaLIF and CubaLI, which the importer does not map, by LI and LIF (LI): i = a i + x,
    then v = k v + i.
    """
    for name in draft.of_type("CubaLIF", "CubaLI"):
        entry = draft.nodes[name]
        current = {
            "type": "LI",
            "tau": entry.pop("tau_syn"),
            "r": entry["r"],
            "v_leak": entry["v_leak"],
        }
        entry["type"] = entry["type"].removeprefix("Cuba")
        (source,) = draft.sources(name)
        current_name = draft.insert((source, name), f"{name}_current", current)
        draft.changed(
            current_name,
            Text("the synaptic current of '{node}', written as an LI", node=name),
            "Sinabs's importer supports no neurons with a synaptic current",
        )


def _does(step: Step) -> Iterator[Doing]:
    """Yield the extended support for a step: any height for resets that subtract or set V to 0; and
    the lower bound -v_threshold of IAF, the only bound that the importer sets.
    """
    if step.reset == "subtract" or (step.reset == "value" and not np.any(step.v_reset)):
        yield "any height"
    is_bounded = step.floor is not None and np.all(step.v_threshold == -step.floor)
    if is_bounded and np.all(step.decay == 1) and not step.current_based:
        yield "floor"


def _load(path: str, setting: Setting) -> str:
    module = "import nir, sinabs.nir, sinabs.activation"
    settings = (
        ({"spike_fn": "single"}, ("spike_fn", "sinabs.activation.SingleSpike")),
        ({"reset": "zero"}, ("reset_fn", "sinabs.activation.MembraneReset()")),
    )
    read = f"nir.read({path!r})"
    # ExpLeak has no spike_fn.
    others = "".join(
        attribute_lines(
            setting,
            "getattr(m, 'spike_fn', None)",
            {",".join(setting.neurons_with(**reset_options)): (attribute,)},
        )
        for reset_options, attribute in settings
    )
    return f"{module}; net = sinabs.nir.from_nir({read}, batch_size=len(x)){others}"


_IMPORTER = Importer(
    version="3.1",
    nodes=("Input", "Output", "Affine", "Conv2d", "Flatten", "SumPool2d", "IF", "LIF", "LI"),
    lacks=("pool padding", "scalars"),
    write=_write,
    load=_load,
    run="""\
y, _ = net(x.flatten(0, 1))  # x: a float tensor (batch, time, *shape)
spikes = y.unflatten(0, x.shape[:2])""",
    wire=_currents_apart,
    dt=1e-3,
    wiring=("forks",),
    subtracts=("at once", "several"),
    does=_does,
    reads=MappingProxyType(
        {
            **{"time_unit": "step", "reset": "subtract", "reset_delay": False, "initial": "zero"},
            **{"norm_input": False, "min_v_mem": "none", "spike_fn": "multi"},
        }
    ),
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
            refine=_refined,
            options=(_NORM_INPUT, _MIN_V_MEM, _SPIKE_FN),
        ),
    ),
    importers=(_IMPORTER,),
    distribution="sinabs",
    surrogate="single exponential",
    note=(
        "Its files do not contain min_v_mem, spike_fn and reset_fn: specify them (reset_fn "
        "as reset). The importer uses norm_input false and bounds IF by -v_threshold; the "
        "line that loads a converted file sets the other two."
    ),
)
