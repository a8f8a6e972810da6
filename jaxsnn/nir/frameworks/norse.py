"""Norse: LIFBoxCell, LIFCell, IAFCell, LIBoxCell, LICell; 1.1, and the main branch after it.

Main's importer and exporter are `norse/torch/utils/import_nir.py` and `export_nir.py` at its commit
065a3b4. It runs graphs through nirtorch.nir_to_torch, which sums what arrives in one step; 1.1 runs
nodes depth first. Its exporter writes true seconds, and v_reset.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, DialectError, listing
from jaxsnn.nir.frameworks.framework import Doing, Framework, Importer
from jaxsnn.nir.frameworks.neuron_writing import (
    NO_LEAK,
    Setting,
    Written,
    filled,
    has_few_digits,
    moved_threshold,
    needs_start,
    needs_value_reset,
    negligible,
)
from jaxsnn.nir.frameworks.shared_rules import COMMON_NODES, TORCH_RUN
from jaxsnn.nir.frameworks.source_rule import NeuronRule, bad_parameter
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.frameworks.torch_layers import (
    Call,
    Exported,
    LayerNumbers,
    layer_class,
    numbers_of,
)
from jaxsnn.nir.model.changes import Change
from jaxsnn.nir.model.decays import EULER_MEMBRANE, EULER_SYNAPSE, NO_DECAY
from jaxsnn.nir.model.dialect import Conventions, Dialect, FrameworkOption, Rule, rules
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.options import ENGINE, RESET
from jaxsnn.wording import Text

# Files that the framework writes


def _seconds(dt_export: float) -> float:
    """Return the unit of time of a file, whose time constants are the true ones times dt_export."""
    return 1 / dt_export


_DT_EXPORT = FrameworkOption(
    name="dt_export",
    kind="time",
    help="Norse: the dt that was passed to its exporter",
    missing="the dt that was passed to Norse's exporter",
    fix="pass {option} (default of Norse: 1ms)",
    missing_reason="The dt of its exporter (1 ms by default) is not in the file: pass {option}.",
    seconds=_seconds,
)
_BOX = Rule(kernel="box", membrane_decay=EULER_MEMBRANE, membrane="euler", ones=("r",))
_CURRENT = Rule(
    arrival="jump",
    membrane_decay=EULER_MEMBRANE,
    synapse_decay=EULER_SYNAPSE,
    membrane="euler",
    synapse="decay last",
    ones=("r", "w_in"),
)
_IAF = Rule(arrival="jump", membrane_decay=NO_DECAY, membrane="leak", ones=("r",))
_WRITES = Conventions(
    name="norse",
    version="1.1",
    rules=rules(
        LIF=_BOX,
        LI=_BOX,
        CubaLIF=_CURRENT,
        CubaLI=_CURRENT,
        IF=_IAF,
        LIFRefrac=dataclasses.replace(_CURRENT, ones=()),
    ),
    time_unit="s",
    reset="zero",
    reset_delay=False,
    initial="v_leak",
    runs_loops="depth first",
    options=(_DT_EXPORT,),
)
_WRITES_MAIN = dataclasses.replace(
    _WRITES,
    version="main",
    after="1.1",
    runs_loops="in turn",
    options=(
        dataclasses.replace(
            _DT_EXPORT,
            fallback=(
                1.0,
                Text(
                    "Norse's main branch writes time constants in seconds. If its exporter was called "
                    "with a time_scaling_factor, pass {option}.",
                    option=_DT_EXPORT.keyword,
                ),
            ),
        ),
    ),
)


def _ignored(graph: Graph) -> Iterator[tuple[Node, Change]]:
    """Yield nodes with the values that Norse's importer uses in place of the file's: a reset to 0,
    r = 1 of LIF.

    Raises:
        DialectError: The reset of LIF or IF is specified as subtract, but reset_method does not apply
            to them.
    """
    for node in graph.nodes.values():
        if node.type in ("LIF", "IF") and graph.dialect.at(node.name).reset == "subtract":
            raise DialectError(
                Text(
                    "node '{node}' ({type}) resets to zero in Norse's importer for every reset_method, "
                    "but its reset is specified as 'subtract'",
                    node=node.name,
                    type=node.type,
                ),
                fix=Text("pass {reset} for it", reset=RESET.set_to("zero", node=node.name)),
                node=node.name,
            )
        importer_values = {
            "IF": {"v_reset": 0},
            "LIF": {"v_reset": 0, "r": 1},
            "CubaLIF": {"v_reset": 0},
        }
        meant, change_texts = {}, []
        for name, value in importer_values.get(node.type, {}).items():
            written = np.asarray(node.value(name))
            if np.any(differing := written != value):
                meant[name] = np.full_like(written, value)
                change_texts.append(f"{name} = {written[differing].flat[0]:g} is read as {value}")
        if change_texts:
            why = "Norse's importer ignores it"
            yield node.read_as(**meant), Change(node=node.name, what=listing(change_texts), why=why)


_RESET_SIZE = FrameworkOption(
    name="reset_size",
    kind="choice",
    help="Norse's importer: amount that a subtracting reset subtracts, by its reset_method",
    choices=("v_threshold", "1", "floor", "rounded-floor"),
)


def _refined(rule: NeuronRule, dialect: Dialect) -> NeuronRule:
    """Return the rule with the size of its reset, and with problems for features that only time
    steps can express.
    """
    node = rule.node
    size = dialect.option(_RESET_SIZE.name, node.name) or "v_threshold"
    reason = ""
    if rule.synapse == "filter" and (leak := node.numbers("v_leak").ravel()).any():
        reason = Text(
            "its synaptic current starts and rests at v_leak = {v_leak:g}",
            v_leak=leak[leak != 0][0],
        )
    if size != "v_threshold" and rule.reset == "subtract":
        reason = Text("its reset subtracts {reset_size} instead of v_threshold", reset_size=size)
    problems = dict(rule.problems)
    if reason and "spike_area" not in problems:
        text = reason + ", which the equations cannot express"
        fix = Text("simulate with {engine}", engine=ENGINE.set_to("grid"))
        problems["spike_area"] = bad_parameter(node, text, fix)
    return dataclasses.replace(rule, reset_size=size, problems=problems)


#: Files for Norse's importer, which computes the current like the membrane: i += dt/tau_syn (v_leak
#: - i + w_in x), and then V with r i as its input.
_WRITTEN_FOR = dataclasses.replace(
    _WRITES,
    version="importer",
    importer="1.1",
    rules=rules(
        LIF=dataclasses.replace(_BOX, ones=()),
        IF=dataclasses.replace(_IAF, ones=()),
        CubaLIF=dataclasses.replace(_CURRENT, arrival="fixed", synapse="filter", ones=()),
    ),
    meanings=(_ignored,),
    refine=_refined,
    options=(_RESET_SIZE,),
)


# Files that the framework reads

#: Factor by which the current is increased where a small r cancels Norse's leak of the current.
_LARGE_CURRENT = 2.0**30
#: Relative distance from v_threshold within which a membrane potential counts as equal to it, if
#: sums of weights may be exactly equal to it: eight times the spacing of float32.
_SLACK = 2.0**-20
#: The same for a source that fires at V = v_threshold. With a constant input, V may approach
#: v_threshold from below without ever reaching it; in float32 it then stops about tau/dt spacings
#: below, where the neuron must not fire.
_SLACK_AT = 2.0**-23
#: Arguments of `from_nir` by kind of reset. "unit": membranes are scaled so that a spike subtracts
#: 1. "floor": v_threshold is scaled to 1, and a spike subtracts the largest integer that the
#: membrane reaches. "rounded-floor": the same, if sums of weights may meet a threshold.
_RESET_METHODS: Mapping[str, str] = MappingProxyType(
    {
        "value": "",
        "subtract": ", reset_method=norse.torch.functional.reset.reset_subtract",
        "unit": ", reset_method=lambda z, v, reset, th: v - z",
        "floor": ", reset_method=lambda z, v, reset, th: v - v.floor().clamp(min=0)",
        "rounded-floor": f", reset_method=lambda z, v, reset, th: v - (v * {1 + _SLACK!r}).floor().clamp(min=0)",
    }
)
#: The same resets as fields of a dialect.
_RESETS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "value": {"reset": "zero"},
        "subtract": {"reset": "subtract"},
        "unit": {"reset": "subtract", "reset_size": "1"},
        "floor": {"reset": "subtract", "reset_size": "floor"},
        "rounded-floor": {"reset": "subtract", "reset_size": "rounded-floor"},
    }
)


def _reset_method(steps: Sequence[Step]) -> str:
    """Return the key of `_RESET_METHODS` for a graph: `Setting.importer_setting`.

    Raises:
        ConversionError: Nodes need different methods.
    """
    resets = [step.reset for step in steps]
    several = any(step.several for step in steps)
    # If the membrane does not decay, an immediate subtraction is equivalent to a later one.
    later = any(step.reset == "subtract later" and np.any(step.decay != 1) for step in steps)
    if several and later:
        raise ConversionError(
            "Norse supports one reset_method for all nodes, but some nodes fire several spikes "
            "per time step and others reset one time step later",
            fix="use the same reset for all of them",
        )
    if several:
        return "floor"
    if later:
        return "unit"
    return "value" if all(reset in ("value", "skip") for reset in resets) else "subtract"


def _method(setting: Setting) -> str:
    """Return the key of `_RESET_METHODS` for a conversion; it also depends on `Setting.ties`."""
    return (
        "rounded-floor"
        if setting.importer_setting == "floor" and setting.ties
        else setting.importer_setting
    )


def _write(step: Step, setting: Setting) -> Written:
    """Write one neuron. LIF and IF reset to 0 and ignore r; CubaLIF uses r, w_in and the reset
    method passed to `from_nir`.
    """
    if step.several and step.reset == "value":
        raise ConversionError(
            Text(
                "node '{node}' resets to a value after several spikes in one time step, and Norse "
                "fires one spike per time step",
                node=step.name,
            ),
            fix=Text("use {reset}", reset=RESET.set_to("subtract")),
            node=step.name,
        )
    if step.reset == "skip":
        needs_value_reset(step, setting, "Norse")
        step = dataclasses.replace(step, reset="value")
    if step.reset == "subtract unless above":
        setting.give_up(
            step.name,
            "a membrane potential that stays above v_threshold after a reset is compared "
            "differently (reset_delay false)",
            "it is written as a neuron that subtracts v_threshold in the time step of a spike",
        )
        step = dataclasses.replace(step, reset="subtract")
    if step.reset != "value" or step.current_based:
        return _written_current(step, setting)
    return _written_box(step, setting)


def _written_box(step: Step, setting: Setting) -> Written:
    """Write a neuron without a synaptic current as IF or LIF."""
    if np.all(step.decay == 1):
        needs_start(step, step.v_reset, setting)
        factor = _power_of_two(step.gain)
        scale = _ratio(factor, step.gain)
        threshold, rounding = _threshold(step, setting, scale, [factor])
        entry = {
            "type": "IF",
            "r": filled(step, 1),
            "v_threshold": threshold,
            "v_reset": filled(step, 0),
        }
        return Written(
            entry=entry,
            factor=factor,
            offset=scale * step.drive,
            why="Norse's importer ignores r of IF and resets to 0",
            means={"reset": "zero"},
            rounding=rounding,
        )
    tau, rest = _time_constants(np.maximum(1 - step.decay, NO_LEAK), setting.dt)
    # A spike of weight w adds `factor * rest * w`: the membrane is scaled rather than the weights.
    factor = _power_of_two(step.gain / rest)
    scale = _ratio(factor * rest, step.gain)
    start = scale * (step.v_start - step.v_reset)
    drive = scale * (step.drive - (1 - step.decay) * step.v_reset)
    threshold, rounding = _threshold(step, setting, scale, [factor, rest])
    entry = {
        "type": "LIF",
        "tau": tau,
        "r": filled(step, 1),
        "v_leak": start,
        "v_threshold": threshold,
        "v_reset": filled(step, 0),
    }
    offset = negligible(drive / rest - start, threshold)
    why = (
        "Norse's importer ignores r of LIF, so that a spike of weight w adds w dt/tau; "
        "membrane potentials start at v_leak"
    )
    return Written(
        entry=entry,
        factor=factor,
        offset=offset,
        why=why,
        means={"reset": "zero"},
        rounding=rounding,
    )


def _power_of_two(value: np.ndarray) -> np.ndarray:
    """Return the power of two that is nearest to a value, with its sign; 0 for 0."""
    exponent = np.log2(np.abs(value), out=np.zeros_like(value), where=value != 0)
    return np.sign(value) * 2.0 ** np.round(exponent)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return a quotient; 1 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.ones_like(numerator), where=denominator != 0)


def _time_constants(rate: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Return time constants for which Norse's `dt * (1 / tau)` is a rate in float32, or as close to it as
    float32 allows, and the rates that result.
    """
    unity, step = np.float32(1), np.float32(dt)
    rounded_rate = rate.astype(np.float32)
    nearest = (float(step) / rounded_rate.astype(float)).astype(np.float32)
    candidates = [nearest]
    for direction in (0.0, np.inf):
        tau = nearest
        for _ in range(3):
            tau = np.nextafter(tau, np.float32(direction))
            candidates.append(tau)
    taus = np.stack(candidates)
    rates = step * (unity / taus)
    best = np.argmin(np.abs(rates - rounded_rate), axis=0)[None]
    chosen, actual = (np.take_along_axis(array, best, axis=0)[0] for array in (taus, rates))
    return chosen.astype(float), actual.astype(float)


def _threshold(
    step: Step, setting: Setting, scale: np.ndarray, factors: Sequence[np.ndarray]
) -> tuple[np.ndarray, str]:
    """Return v_threshold in Norse's numbers, and a description of sums that it rounds differently.

    An input that takes a membrane from rest exactly to the source's threshold takes Norse's exactly
    to that of the file, because both are computed alike: in float32, factor by factor.

    Args:
        step: Time step of the source framework.
        setting: Settings of the conversion.
        scale: Ratio of the membrane potentials in Norse and in the source framework.
        factors: Factors by which Norse multiplies the input of a time step, in order.
    """
    gain = step.gain * step.synapse_gain
    height = scale * (step.v_threshold - (step.v_reset if step.reset == "value" else 0.0))
    at_rest = (step.v_start == 0) & (step.v_reset == 0) & (step.drive == 0) & (gain != 0)
    reached = _ratio(step.v_threshold, gain).astype(np.float32)
    for factor in factors:
        reached = factor.astype(np.float32) * reached
    height = np.where(at_rest, reached.astype(float), height)
    # Norse repeats its own computation with the same rounding, and powers of two do not round.
    same = (scale == 1) & (step.gain == 1 - step.decay) & (not step.at_equality)
    few = np.stack([has_few_digits(value) for value in (*factors, height)])
    exact = (same & (not step.current_based)) | np.all(few, axis=0)
    # All neurons share one reset_method, so the slack in its rounding applies to all thresholds.
    floors = _method(setting) == "rounded-floor" and step.reset != "value"
    slack = _SLACK if floors or not step.at_equality else _SLACK_AT
    if np.all(exact) or step.name not in setting.ties:
        return moved_threshold(step, height, False, slack if floors else 0.0), ""
    place = int(np.argmin(exact))
    rounding = Text(
        "with a decay of {decay:g} per time step, Norse's float32 arithmetic rounds "
        "differently from the source framework; a membrane potential within a relative "
        "distance of {slack:.2g} from v_threshold = {v_threshold:g} counts as equal to it",
        decay=step.decay.flat[place],
        slack=slack,
        v_threshold=step.v_threshold.flat[place],
    )
    unmoved = exact & (not floors)
    return moved_threshold(step, height, False, np.where(unmoved, 0.0, slack)), rounding


def _written_current(step: Step, setting: Setting) -> Written:
    """Write CubaLIF: I += a (v_leak - I + w_in x), V += b (r I + v_leak - V), a = dt/tau_syn and b
    = dt/tau_mem.

    Without a current in the source, a = 1. Norse starts I and V at v_leak; I is written as large i
    + shift, where `large` makes that start fit, or makes it vanish.
    """
    level, scale = _level_and_scale(step, setting)
    tau_mem, rest = _time_constants(np.maximum(1 - step.decay, NO_LEAK), setting.dt)
    share = 1 - step.synapse_decay if step.current_based else filled(step, 1)
    if np.any(share <= 0):
        raise ConversionError(
            Text(
                "node '{node}' has a synaptic current that never decays, which Norse does not support",
                node=step.name,
            ),
            fix="use a finite tau_syn",
            node=step.name,
        )
    tau_syn, share = _time_constants(share, setting.dt)
    large = _large(step, scale * (step.v_start - level), rest, share)
    w_in = step.synapse_gain * large / share
    # The current and, where the reset method allows it, the membrane are scaled so that w_in and r are
    # powers of two.
    scalable = not np.any(step.i_start)
    if scalable:
        exact = _power_of_two(w_in)
        large, w_in = large * _ratio(exact, w_in), exact
    r = scale * step.gain / (rest * large)
    if scalable and setting.importer_setting in ("value", "subtract"):
        exact = _power_of_two(r)
        scale, r = scale * _ratio(exact, r), exact
    threshold, rounding = _threshold(step, setting, scale, [w_in, share, r, rest])
    start = scale * (step.v_start - level)
    drive = scale * (step.drive - (1 - step.decay) * level)
    moves = drive / rest - start
    if np.any((r == 0) & (moves != 0)):
        raise ConversionError(
            Text(
                "node '{node}' has a gain of 0 (infinite tau_mem, or r = 0), and its membrane "
                "potential changes without input, which Norse does not support",
                node=step.name,
            ),
            fix="use a finite tau_mem and an r that is not 0",
            node=step.name,
        )
    shift = np.divide(moves, r, out=np.zeros_like(moves * r), where=r != 0)
    if np.any(
        np.abs(r * (large * step.i_start + shift - start) * (share != 1)) > 1e-7 * np.abs(threshold)
    ):
        setting.give_up(
            step.name,
            "Norse starts its synaptic current at v_leak, not at rest",
            "its first spikes may differ",
        )
    entry = {
        "type": "CubaLIF",
        "tau_syn": tau_syn,
        "tau_mem": tau_mem,
        "r": r,
        "v_leak": start,
        "v_threshold": threshold,
        "v_reset": filled(step, 0),
        "w_in": w_in,
    }
    offset = negligible((shift - start) / w_in, threshold)
    why = (
        "Norse's importer needs w_in = tau_syn/dt and r = tau_mem/dt so that spikes change "
        "the current and the membrane potential in one time step"
    )
    if not step.current_based:
        why = (
            "in Norse's importer only CubaLIF supports resets other than to 0; with tau_syn = dt "
            "it is equivalent to a LIF"
        )
    means = _RESETS[_method(setting)]
    return Written(
        entry=entry, factor=filled(step, 1), offset=offset, why=why, means=means, rounding=rounding
    )


def _level_and_scale(step: Step, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Return level and scale of the written membrane, scale (v - level), for which the reset method
    is right.
    """
    subtracts, method = step.reset != "value", setting.importer_setting
    level = np.zeros_like(step.v_reset) if subtracts else step.v_reset
    scale = np.ones_like(level)
    if subtracts and method == "unit":
        scale = (step.decay if step.reset == "subtract later" else 1.0) / step.v_threshold
    if subtracts and method == "floor":
        scale = step.level / step.v_threshold
    if not subtracts and method != "value":
        raise ConversionError(
            Text(
                "node '{node}' resets to a value, but other nodes subtract v_threshold, and Norse "
                "supports only one reset_method for all CubaLIF nodes",
                node=step.name,
            ),
            fix="use the same reset for all of them",
            node=step.name,
        )
    if np.any(scale <= 0):
        raise ConversionError(
            Text(
                "node '{node}' decays to 0 in one time step, so that a later reset cannot subtract "
                "v_threshold",
                node=step.name,
            ),
            fix="use a different reset",
            node=step.name,
        )
    return level, scale


def _large(step: Step, start: np.ndarray, rest: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return the factors by which the written current is larger than the source's."""
    large = np.where((start != 0) & (share != 1), _LARGE_CURRENT, 1.0)
    if not np.any(step.i_start):
        return large
    gap = step.i_start - step.v_start * rest / step.gain
    large = np.where(step.i_start == 0, large, start / np.where(gap == 0, np.nan, gap))
    if not np.all(np.isfinite(large) & (large != 0)):
        raise ConversionError(
            Text(
                "node '{node}' starts with a synaptic current that Norse's v_leak cannot produce",
                node=step.name,
            ),
            fix="remove the biases that act before its first input arrives",
            node=step.name,
        )
    return large


def _does(step: Step) -> Iterable[Doing]:
    """Return the extended support for a step: two resets can be written as several nodes."""
    composed = step.reset in ("subtract unless above", "skip")
    return ("no current", "several nodes") if composed else ()


def _load(path: str, setting: Setting) -> str:
    read, method = f"nir.read({path!r})", _RESET_METHODS[_method(setting)]
    return f"import nir, norse.torch; net = norse.torch.from_nir({read}, dt={setting.dt!r}{method})"


_IMPORTER = Importer(
    version="1.1",
    nodes=(*COMMON_NODES, "SumPool2d"),
    setting=_reset_method,
    write=_write,
    load=_load,
    run=TORCH_RUN,
    dt=1e-3,
    lacks=("pool padding",),
    order="depth first",
    subtracts=("at once", "later", "several"),
    does=_does,
    reads=MappingProxyType(
        {"version": "importer", "reset": "zero", "reset_delay": False, "initial": "v_leak"}
    ),
)
_IMPORTER_MAIN = dataclasses.replace(
    _IMPORTER,
    version="main",
    after="1.1",
    ran=False,
    order="",
    reads=MappingProxyType(
        {
            **{"version": "main", "dt_export": 1.0},
            **{"reset": "zero", "reset_delay": False, "initial": "v_leak"},
        }
    ),
    # Norse's exporter writes CubaLIF for LIFCell, whose current jumps by w.
    misread=("CubaLIF",),
)


# Layers

#: NIR types of cells and modules without weights, by class name.
_KINDS: Mapping[str, str] = MappingProxyType(
    {
        **{"LIFBoxCell": "LIF", "LIFCell": "CubaLIF", "IAFCell": "IF"},
        **{"LIBoxCell": "LI", "LICell": "CubaLI"},
        **{"LIF": "CubaLIF", "IAF": "IF", "LI": "CubaLI"},
    }
)
#: NIR types of cells and modules with weights, by class name.
_WEIGHTED: Mapping[str, str] = MappingProxyType(
    {"LILinearCell": "CubaLI", "LIFRecurrentCell": "CubaLIF", "LIFRecurrent": "CubaLIF"}
)
_IN_TIME = ("IAF", "LI", "LIF", "LIFRecurrent", "Lift")


def _export_cell(call: Call) -> Exported:
    """Export a cell without weights; time constants in true seconds."""
    if call.reset_each_call:
        return _export_reset_cell(call)
    kind = _KINDS[layer_class(call.module).__name__]
    entry, options = _neuron_of(call, kind)
    return Exported(
        nodes={"": {"type": kind, **entry}},
        framework="norse",
        options=options,
        dt=float(call.module.dt),
    )


def _export_reset_cell(call: Call) -> Exported:
    """Export a cell that starts from its initial state in each call: V is dt/tau_mem times its input, like that
    of a LIF with a decay of 0 behind a Scale.
    """
    cell, shape = call.module, call.outward
    dt = float(cell.dt)
    if np.any(v_leak := numbers_of(cell.p.v_leak, shape)):
        raise ConversionError(
            Text(
                "'{layer}' ({type}) starts from its initial state in each call, and its v_leak is {v_leak:g}",
                layer=call.name,
                type=type(cell).__name__,
                v_leak=v_leak[v_leak != 0][0],
            ),
            fix="pass to each call the state that the previous call returned, or use v_leak = 0",
            node=call.name,
        )
    ones, zeros = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    neuron = {"type": "LIF", "tau": np.full(shape, dt), "r": ones, "v_leak": zeros}
    neuron |= {"v_threshold": numbers_of(cell.p.v_th, shape), "v_reset": zeros}
    scale = np.float32(dt) * numbers_of(cell.p.tau_mem_inv, shape)
    return Exported(
        nodes={"gain": {"type": "Scale", "scale": scale}, "": neuron},
        edges=(("gain", ""),),
        last="",
        framework="norse",
        options={"reset": "zero"},
        dt=dt,
    )


def _neuron_of(call: Call, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of a cell's neurons, and the options of its node."""
    cell, shape = call.module, call.outward
    p = cell.p
    entry: dict[str, Any] = {"r": np.ones(shape, np.float32)}
    current = kind in ("CubaLIF", "CubaLI")
    if kind != "IF":
        entry["tau_mem" if current else "tau"] = 1 / numbers_of(p.tau_mem_inv, shape)
        entry["v_leak"] = numbers_of(p.v_leak, shape)
    if current:
        entry["tau_syn"] = 1 / numbers_of(p.tau_syn_inv, shape)
        entry["w_in"] = np.ones(shape, np.float32)
    options: dict[str, Any] = {}
    if kind not in ("LI", "CubaLI"):
        entry |= {"v_threshold": numbers_of(p.v_th, shape), "v_reset": numbers_of(p.v_reset, shape)}
        options["reset"] = _reset_of(call.name, getattr(p, "reset_method", None))
    if kind == "IF":
        options["initial"] = "v_reset"
    return entry, options


def _export_refractory(call: Call) -> Exported:
    """Export LIFRefracCell as the extension LIFRefrac; time constants in true seconds."""
    cell, shape = call.module, call.outward
    p = cell.p.lif
    entry = {
        "type": "LIFRefrac",
        "tau_syn": 1 / numbers_of(p.tau_syn_inv, shape),
        "tau_mem": 1 / numbers_of(p.tau_mem_inv, shape),
        "v_leak": numbers_of(p.v_leak, shape),
        "v_threshold": numbers_of(p.v_th, shape),
        "v_reset": numbers_of(p.v_reset, shape),
        "refractory_steps": numbers_of(cell.p.rho_reset, shape),
    }
    return Exported(
        nodes={"": entry}, framework="norse", options={"reset": "zero"}, dt=float(cell.dt)
    )


def _export_weighted(call: Call) -> Exported:
    """Export LILinearCell, LIFRecurrentCell and LIFRecurrent: input weights, neurons and recurrent
    weights; Norse adds all input to the current in one step.
    """
    cell = call.module
    kind = _WEIGHTED[layer_class(cell).__name__]
    entry, options = _neuron_of(call, kind)
    nodes = {
        "w_in": {"type": "Linear", "weight": numbers_of(cell.input_weights)},
        "": {"type": kind, **entry},
    }
    edges = [("w_in", "")]
    if kind == "CubaLIF":
        nodes["w_rec"] = {"type": "Linear", "weight": numbers_of(cell.recurrent_weights)}
        edges += [("", "w_rec"), ("w_rec", "")]
    return Exported(
        nodes=nodes,
        edges=tuple(edges),
        last="",
        framework="norse",
        options=options,
        dt=float(cell.dt),
    )


def _set_cell(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """Return the parameters `p` of a cell, and the weights if the cell has its own."""
    cell = call.module
    step, dt = steps[""], float(cell.dt)
    rest = 1 - step.decay
    values: dict[str, np.ndarray] = {}
    if call.reset_each_call:
        values["tau_mem_inv"] = np.asarray(nodes["gain"].value("scale")) / dt
    elif "tau_mem_inv" in cell.p._fields:
        # Without a leak (rest = 0) V approaches no level; dividing by 1 avoids 0/0.
        leak = step.drive / np.where(rest == 0, 1.0, rest)
        values |= {"tau_mem_inv": rest / dt, "v_leak": leak}
    if "tau_syn_inv" in cell.p._fields and not call.reset_each_call:
        values["tau_syn_inv"] = (1 - step.synapse_decay) / dt
    if np.all(np.isfinite(step.v_threshold)) and "v_th" in cell.p._fields:
        values["v_th"] = step.v_threshold
        if step.reset == "value" and not call.reset_each_call:
            values["v_reset"] = step.v_reset
    cell_values = [(f"p.{name}", step.name, value) for name, value in values.items()]
    for suffix, name in (("w_in", "input_weights"), ("w_rec", "recurrent_weights")):
        if suffix in nodes:
            cell_values.append(
                (name, nodes[suffix].name, np.asarray(nodes[suffix].value("weight")))
            )
    return [
        LayerNumbers(layer=call.name, node=node, owner=cell, name=name, value=value)
        for name, node, value in cell_values
    ]


def _in_time(module: Any) -> bool:
    return layer_class(module).__name__ in _IN_TIME


def _reset_of(name: str, method: Any) -> str:
    resets = {"reset_value": "zero", "reset_subtract": "subtract"}
    if method is None:
        return "zero"
    called = getattr(method, "__name__", repr(method))
    if called not in resets:
        raise ConversionError(
            Text(
                "layer '{node}' uses the reset {reset}, which is not supported",
                node=name,
                reset=called,
            ),
            fix=f"use {listing(resets)}",
            node=name,
        )
    return resets[called]


_LEAVES: Mapping[str, Callable[[Call], Exported] | str] = MappingProxyType(
    {
        **dict.fromkeys(_KINDS, _export_cell),
        **dict.fromkeys(_WEIGHTED, _export_weighted),
        "LIFRefracCell": _export_refractory,
        "Lift": "lifted_module",
    }
)

FRAMEWORK = Framework(
    name="norse",
    title="Norse",
    dialects=(_WRITES, _WRITES_MAIN, _WRITTEN_FOR),
    importers=(_IMPORTER, _IMPORTER_MAIN),
    distribution="norse",
    extra="interop",
    package="norse",
    leaves=_LEAVES,
    setters=MappingProxyType(dict.fromkeys((*_KINDS, *_WEIGHTED), _set_cell)),
    in_time=_in_time,
    membranes=("v", "lif.v"),
    resettable=("LIFCell", "LIFBoxCell"),
    leaf_options=MappingProxyType({"dt_export": 1.0}),
    surrogate="FastSigmoid(slope=1) for every alpha",
    note="Membrane potentials start at v_leak; the importer interprets CubaLIF differently "
    "from the exporter.",
)
