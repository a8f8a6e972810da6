"""Graph -> netlist: weights as whole numbers of the chip, with a scale for each population, and
what that loses.

A weight of the file times r and w_in changes dV/dt by so many volts per second; on the chip, one
LSB of a weight changes it by the same amount in every circuit, because the calibration makes
synaptic inputs equally strong. A population's scale says how many LSB a weight of 1 becomes;
thresholds then follow, so that all populations share one strength of an LSB.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.bss2.chip import HICANN_X, PARAMETERS
from jaxsnn.bss2.examine import LEFT_TO_THE_MAPPER, Examined, examine
from jaxsnn.bss2.netlist import LARGEST, Netlist, NetPopulation, netlist
from jaxsnn.bss2.search.chip_dynamics import SHORT_TAU_SYN, Dynamics, approximations, choose_speedup
from jaxsnn.bss2.search.measured_slopes import MeasuredSlope, Slopes, chosen_slope
from jaxsnn.bss2.search.rounding import (
    SCALES,
    SPREAD,
    CadcLevels,
    NodeReport,
    Scaled,
    largest,
    levels,
    whole_weights,
)
from jaxsnn.errors import (
    MappingError,
    UsageError,
    as_number,
    as_whole,
    listing,
    shown,
    suggestion,
)
from jaxsnn.linear_map import LinearMap
from jaxsnn.nir.dialects.dialect_options import with_options
from jaxsnn.nir.dialects.gains import require
from jaxsnn.nir.dialects.resolve import subtracting_neurons
from jaxsnn.nir.model.changes import Change
from jaxsnn.nir.model.graph import Graph, refuse_no_graph
from jaxsnn.options import (
    BIAS,
    BIAS_PERIOD,
    MIN_V_MEM,
    PERCENTILE,
    READOUT,
    RESET,
    SPEEDUP,
    SYNAPSES_PER_WEIGHT,
)
from jaxsnn.units import format_time, parse_time
from jaxsnn.wording import Text

#: Synapses of one weight, whose sum the arrays of a net hold (int16).
MOST_SYNAPSES = np.iinfo(np.int16).max // LARGEST
#: Of tau_syn: events that lie further apart are single kicks of a neuron.
_SMOOTH = 0.3
#: Of tau_mem + tau_syn: so long after an event less than 1/20,000 of what it did is left.
_FADED = 10.0
#: Of the weights of a population: where more of them round to zero, it is said.
_MUCH_LOST = 0.1
#: A number in advice is larger by so much, so that it is enough when rounded to three digits, too.
_ROUNDED_UP = 1.01
#: Options that are whole numbers.
_WHOLE = ("synapses_per_weight", "v_leak", "v_threshold")


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """Options for the quantization of a network to the chip.

    Attributes:
        scale: how a population's scale is chosen, a key of `SCALES`: "max" lets no weight saturate;
            "percentile" lets the largest saturate; "least-error" makes the sum of squared errors
            least; where a population has one threshold it is then changed, until that lies whole
            LSB from the leak: made smaller, or larger where no weight saturates. Or the scales
            themselves, by name of the population: LSB of a weight of 1, as in `NodeReport.scale`;
            weights beyond the largest saturate.
        percentile: of the magnitudes of weights, for that choice.
        synapses_per_weight: how many synapses may add up to one weight; with 2, weights reach 126.
        speedup: of the chip over the file; None for 1000, or the nearest that the calibration
            reaches.
        bias: "refuse", or "source": an input channel that fires regularly replaces all biases.
        bias_period: between the spikes of that channel, seconds of the chip.
        v_leak: of all neurons, CADC LSB.
        v_threshold: of the neuron whose threshold is highest above its leak, CADC LSB.
        refractory_time: of all neurons, seconds of the chip.
        slope: by how many CADC LSB per microsecond one LSB of a weight changes dV/dt on the chip,
            as measured, or a table of it: thresholds follow from it, and scales where weights that
            fill their bits would need a threshold above `v_threshold`. None: whatever slope puts
            the highest threshold there, to which the chip is then to be calibrated.
        approximate: map neurons that subtract v_threshold at a reset to circuits, which reset to
            v_reset. `jaxsnn.compare_resets` counts the spikes that this changes.
    """

    scale: str | Mapping[str, float] = "max"
    percentile: float = 99.0
    synapses_per_weight: int = 1
    speedup: float | None = None
    bias: str = "refuse"
    bias_period: float = parse_time("1us")
    v_leak: int = int(PARAMETERS["v_leak"].default)
    v_threshold: int = int(PARAMETERS["v_threshold"].default)
    refractory_time: float = PARAMETERS["refractory_time"].low
    slope: Slopes | None = None
    approximate: bool = False


_FIELDS = tuple(field.name for field in dataclass_fields(QuantizeOptions))


@dataclass(frozen=True, kw_only=True, eq=False)
class ChipPopulation:
    """Parameters of a population on the chip.

    Attributes:
        name: the NIR node's name.
        size: number of neurons.
        fires: whether it has a threshold.
        tau_mem, tau_syn: (neurons,) seconds of the chip.
        v_leak, v_threshold, v_reset: (neurons,) CADC LSB, integers; thresholds and resets are
            0 in a readout.
        lsb_per_volt: CADC LSB for one volt of the file; None where nothing fixes it.
        refractory_time: seconds of the chip.
    """

    name: str
    size: int
    fires: bool
    tau_mem: np.ndarray
    tau_syn: np.ndarray
    v_leak: np.ndarray
    v_threshold: np.ndarray
    v_reset: np.ndarray
    lsb_per_volt: float | None
    refractory_time: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """Network quantized for the chip.

    Attributes:
        netlist: what is placed and routed.
        populations: parameters of its neurons by NIR name.
        nodes: what became of the weights, by NIR name of the population behind them.
        speedup: of the chip over the file.
        slope: by how many CADC LSB per microsecond one LSB of a weight must change dV/dt, so that
            thresholds mean what the file says: calibrate synaptic inputs to that. None without
            thresholds.
        bias_source: name of the channel that replaces biases, None if there is none.
        bias_period: between its spikes, seconds of the chip.
        notes: what is approximated, rounded or chosen.
        measured: the measured slope of the chip, and its settings; None without one.
        approximated_resets: neurons that subtract v_threshold in the source, and reset to v_reset on
            the chip.
    """

    netlist: Netlist
    populations: Mapping[str, ChipPopulation]
    nodes: Mapping[str, NodeReport]
    speedup: float
    slope: float | None
    bias_source: str | None
    bias_period: float
    notes: tuple[Change, ...]
    measured: MeasuredSlope | None = None
    approximated_resets: tuple[str, ...] = ()


def quantize(
    graph: Graph,
    options: QuantizeOptions | None = None,
    *,
    reset: Any = None,
    readout: Any = None,
    min_v_mem: Any = None,
    **fields: Any,
) -> Quantized:
    """Return the netlist of a graph.

    Weights are rounded half away from zero, as the vendor's library does; those that become zero
    take nothing. With the chosen scales, those of `Quantized.nodes`, it returns the same
    netlist again, also of a graph that has the rounded weights; a choice by name may then select
    another scale, as rounding changed the largest weight.

    Args:
        graph: with its dialect.
        options: a record of options.
        reset, readout, min_v_mem: of `jaxsnn.read`, for nodes that shall be mapped otherwise than the
            graph has them: `reset="zero"`, or `reset={"NODE": "zero"}`, `readout=["NODE"]`.
        fields: single options by name, `bias="source"`; they go before those of `options`.

    Raises:
        MappingError: a node that the chip cannot run, with its name, or options that contradict the
            network.
        DialectError, LoweringError: the file does not say something that the chip needs.
        UsageError: an option that is invalid.

    >>> from jaxsnn.nir import build
    >>> weight = np.array([[1.0, -0.5, 0.001]])
    >>> neurons = build.cubalif(tau_mem=10e-3, tau_syn=5e-3)
    >>> done = quantize(build.sequential(build.input(3), build.linear(weight=weight), neurons))
    >>> done.netlist.weight, done.nodes["2"].scale, done.nodes["2"].zeroed
    (array([ 63, -32], dtype=int16), 63.0, 1)
    """
    refuse_no_graph(graph)
    for name in fields:
        if name not in _FIELDS:
            raise UsageError(
                Text("there is no option '{option}'", option=name),
                fix=suggestion(name, (*_FIELDS, RESET.name, READOUT.name, MIN_V_MEM.name)),
            )
    options = replace(options or QuantizeOptions(), **fields)
    _refuse_options(options)
    graph = with_options(graph, reset=reset, readout=readout, min_v_mem=min_v_mem)
    integers = {name: int(getattr(options, name)) for name in _WHOLE}
    options = replace(options, **integers)
    require(graph.dialect, ["name"], "mapping")
    subtracting = subtracting_neurons(graph) if options.approximate else []
    if subtracting:
        graph = with_options(graph, reset=dict.fromkeys(subtracting, "zero"))
    examined = examine(graph)
    for problem in examined.problems:
        allowed = problem.code in LEFT_TO_THE_MAPPER or (
            problem.code == "bias" and options.bias == "source"
        )
        if problem.severity == "error" and not allowed:
            raise MappingError.of(problem)
    quantized = _assembled(examined, options)
    approximated = [
        Change(
            node=name,
            what="resets to v_reset, and the source subtracts v_threshold",
            why="a circuit of the chip always resets to v_reset, and how many spikes that changes depends"
            " on the data",
        )
        for name in subtracting
    ]
    return replace(
        quantized,
        notes=(*approximated, *quantized.notes),
        approximated_resets=tuple(subtracting),
    )


def _refuse_options(options: QuantizeOptions) -> None:
    is_named = isinstance(options.scale, str) and options.scale in SCALES
    if not isinstance(options.scale, Mapping) and not is_named:
        text = shown(options.scale).strip("'")
        raise UsageError(
            Text("there is no scale '{scale}'", scale=text), fix=suggestion(text, SCALES)
        )
    if options.bias not in ("refuse", "source"):
        raise UsageError(
            Text("{option} is '{bias}'", option=BIAS, bias=options.bias),
            fix="use 'refuse' or 'source'",
        )
    if not 0 < as_number(options.percentile) <= 100:
        raise UsageError(
            Text("{option} is {value}", option=PERCENTILE, value=shown(options.percentile)),
            fix="choose one above 0, up to 100",
        )
    if (as_whole(options.synapses_per_weight) or 0) < 1:
        raise UsageError(
            Text(
                "{option} is {value}",
                option=SYNAPSES_PER_WEIGHT,
                value=shown(options.synapses_per_weight),
            ),
            fix="allow at least 1, a whole number",
        )
    if options.synapses_per_weight > MOST_SYNAPSES:
        raise UsageError(
            Text(
                "{option} is {value}, the largest number is {maximum}",
                option=SYNAPSES_PER_WEIGHT,
                value=options.synapses_per_weight,
                maximum=MOST_SYNAPSES,
            ),
            fix=f"allow at most {MOST_SYNAPSES}",
        )
    for name in ("v_leak", "v_threshold", "refractory_time"):
        reach, option_value = PARAMETERS[name], getattr(options, name)
        value, is_voltage = as_number(option_value), name.startswith("v_")
        if not reach.low <= value <= reach.high or (is_voltage and not value.is_integer()):
            raise UsageError(
                Text(
                    "{parameter} is {value}, the calibration reaches {minimum:g} to {maximum:g}",
                    parameter=name,
                    value=shown(option_value),
                    minimum=reach.low,
                    maximum=reach.high,
                ),
                fix=f"choose a {'whole number' if is_voltage else 'value'} in this range",
            )
    if options.speedup is not None and not 0 < as_number(options.speedup) < np.inf:
        raise UsageError(
            Text("{option} is {value}", option=SPEEDUP, value=shown(options.speedup)),
            fix="give a positive, finite number",
        )
    least = HICANN_X.clock_period
    if not least <= as_number(options.bias_period) < np.inf:
        raise UsageError(
            Text(
                "{option} is {value} s, the host sends one event in {minimum}",
                option=BIAS_PERIOD,
                value=shown(options.bias_period),
                minimum=format_time(least),
            ),
            fix="give at least that, in seconds of the chip",
        )
    if options.v_threshold <= options.v_leak:
        raise UsageError(
            Text(
                "v_threshold {v_threshold} is not above v_leak {v_leak}",
                v_threshold=options.v_threshold,
                v_leak=options.v_leak,
            ),
            fix="choose a higher threshold",
        )


def _assembled(examined: Examined, options: QuantizeOptions) -> Quantized:
    parts, neurons = examined.parts, examined.neurons
    speedup, notes = choose_speedup(tuple(neurons.values()), options.speedup)
    notes = list(notes)
    strengths = {name: strength(neuron, speedup) for name, neuron in neurons.items()}
    scales = _scales(options.scale, neurons)
    arriving = {name: dict(examined.arriving[name].links) for name in neurons}
    bias, bias_source = _bias_weights(neurons, strengths, speedup, options), None
    if bias:
        bias_source = "bias"
        while bias_source in parts:
            bias_source += "_"
        for name, links in bias.items():
            arriving[name][bias_source] = links
    wires = [part.wire for part in parts.values()]
    shown_populations = {
        source for wire in wires if wire.kind == "output" for source in wire.sources
    }
    populations = [
        NetPopulation(name=wire.name, size=wire.size, external=True)
        for wire in wires
        if wire.kind == "input"
    ]
    if bias_source is not None:
        populations.append(NetPopulation(name=bias_source, size=1, external=True))
    populations += [
        NetPopulation(
            name=name, size=neuron.population.size, external=False, output=name in shown_populations
        )
        for name, neuron in neurons.items()
    ]
    scaled, voltages, measured = _scale(
        neurons, strengths, arriving, scales, speedup, options, notes
    )
    notes += _silenced(scaled, arriving)
    for name, links in bias.items():  # the weights of its channel come last
        lost = int(np.sum(scaled[name].integers[-links.value.size :] == 0))
        if lost:
            message = Text(
                "{count} of its {biases} biases round to 0", count=lost, biases=links.value.size
            )
            why = "a longer bias_period, or a smaller range of weights, makes them larger"
            notes.append(Change(node=name, what=message, why=why))
    for name, neuron in neurons.items():
        links = examined.arriving[name].links.values()
        notes += approximations(neuron, links, options.refractory_time, speedup)
    notes += voltages.notes
    notes += _bias_notes(bias_source, neurons, speedup, options)
    begins = np.cumsum([0, *(population.size for population in populations)])
    begin = {population.name: first for population, first in zip(populations, begins, strict=False)}
    pre, post = [], []
    for name, sources in arriving.items():
        for source, links in sources.items():
            pre.append(begin[source] + links.source)
            post.append(begin[name] + links.target)
    weight = [scaled[name].integers for name in neurons]
    return Quantized(
        netlist=netlist(
            populations,
            np.concatenate(pre or [[]]),
            np.concatenate(post or [[]]),
            np.concatenate(weight),
        ),
        populations=MappingProxyType(
            {
                name: ChipPopulation(
                    name=name,
                    size=neuron.population.size,
                    fires=neuron.population.fires,
                    tau_mem=neuron.tau_mem / speedup,
                    tau_syn=np.where(
                        np.isnan(neuron.tau_syn), SHORT_TAU_SYN, neuron.tau_syn / speedup
                    ),
                    v_leak=voltages.v_leak[name],
                    v_threshold=voltages.v_threshold[name],
                    v_reset=voltages.v_reset[name],
                    lsb_per_volt=voltages.lsb_per_volt[name],
                    refractory_time=options.refractory_time,
                )
                for name, neuron in neurons.items()
            }
        ),
        nodes=MappingProxyType(
            {name: scaled[name].report(voltages.error[name]) for name in neurons}
        ),
        speedup=speedup,
        slope=None if voltages.slope is None else float(voltages.slope * speedup * 1e-6),
        bias_source=bias_source,
        bias_period=options.bias_period,
        notes=tuple(notes),
        measured=measured,
    )


def _silenced(
    scaled: Mapping[str, Scaled], arriving: Mapping[str, Mapping[str, LinearMap]]
) -> Iterator[Change]:
    """Yield a note for each population of which rounding sets all or many weights to 0."""
    for name, weights in scaled.items():
        lost = weights.integers == 0
        if not lost.any():
            continue
        post = np.concatenate([links.target for links in arriving[name].values()])
        deaf = np.setdiff1d(post, post[~lost])
        zeroed = Text(
            "{zeroed} of its {weights} weights round to 0",
            zeroed=int(lost.sum()),
            weights=lost.size,
        )
        if lost.all():
            message = Text(
                "all its {weights} weights round to 0: no spike reaches it", weights=lost.size
            )
        elif deaf.size:
            message = Text(
                "{zeroed}: no spike reaches {count} of its neurons ({neurons})",
                zeroed=zeroed,
                count=deaf.size,
                neurons=listing(deaf.tolist(), limit=4),
            )
        elif lost.mean() > _MUCH_LOST:
            message = zeroed
        else:
            continue
        yield Change(node=name, what=message, why="they are too small for the scale")


def _scale(
    neurons: Mapping[str, Dynamics],
    strengths: Mapping[str, np.ndarray],
    arriving: Mapping[str, Mapping[str, LinearMap]],
    scales: dict[str, str | float],
    speedup: float,
    options: QuantizeOptions,
    notes: list[Change],
) -> tuple[dict[str, Scaled], CadcLevels, MeasuredSlope | None]:
    """Return weights and voltages under the chip's slope, or under the best one, and that slope;
    add to `notes` the weights that had to be reduced.

    A threshold is its distance in volts times the slope, times the scale, over the strength of a
    weight of 1. Where that is beyond `v_threshold`, or would be rounded, the scale is made smaller.

    Raises:
        MappingError: under the chip's slope a threshold is too close to its leak.
    """

    def slopes(weights: Mapping[str, Scaled]) -> dict[str, float]:
        """Return the change of dV/dt, volts per second, for one LSB of a weight."""
        return {
            name: strengths[name].max() / (weight.scale or np.nan)
            for name, weight in weights.items()
        }

    def scaled_by(chosen: Mapping[str, str | float]) -> dict[str, Scaled]:
        return {
            name: whole_weights(
                links,
                strengths[name] / strengths[name].max(),
                chosen[name],
                options.synapses_per_weight,
                options.percentile,
            )
            for name, links in arriving.items()
        }

    scaled, measured = scaled_by(scales), None
    _refuse_beyond_numbers(neurons, slopes(scaled))
    voltages = levels(neurons, slopes(scaled), options.v_leak, options.v_threshold)
    if (slope := voltages.slope) is None:
        return scaled, voltages, None
    limited = dict(scales)
    if options.slope is not None:
        microseconds = speedup * parse_time("1us")
        measured = chosen_slope(options.slope, slope * microseconds)
        slope = measured.slope / microseconds
        for name, neuron in neurons.items():
            scale = scaled[name].scale
            if not neuron.population.fires or scale is None:
                continue
            room = largest(neuron, options.v_leak, options.v_threshold)
            limit = float(room * strengths[name].max() / slope)
            if scale > limit:
                limited[name] = limit
                message = Text("weights fill {fraction:.0%} of their range", fraction=limit / scale)
                why = Text(
                    "at {slope:.3g} CADC LSB per microsecond larger ones need a threshold above "
                    "{v_threshold} LSB",
                    slope=measured.slope,
                    v_threshold=options.v_threshold,
                )
                notes.append(Change(node=name, what=message, why=why))
        scaled = scaled_by(limited)
    thresholds = _whole_thresholds(neurons, scaled, scales, slopes(scaled), slope, options)
    scaled = scaled_by(limited | thresholds)
    if measured is not None:
        _refuse_weak(neurons, slopes(scaled), measured, slope, speedup, options)
    voltages = levels(neurons, slopes(scaled), options.v_leak, options.v_threshold, slope)
    return scaled, voltages, measured


def _refuse_beyond_numbers(neurons: Mapping[str, Dynamics], slope_of: Mapping[str, float]) -> None:
    """Refuse weights for which the strength of an LSB is outside the range of floats."""
    float_info = np.finfo(float)
    least, most = float_info.tiny / float_info.eps, float_info.max * float_info.eps
    for name, slope in slope_of.items():
        if not (np.isnan(slope) or least < slope < most):
            raise MappingError(
                Text(
                    "node '{node}' ({type}): one LSB of its weights changes dV/dt by {slope:.3g} "
                    "V/s, outside the range of floating-point numbers",
                    node=name,
                    type=neurons[name].population.kind,
                    slope=slope,
                ),
                fix="give its weights, r and w_in usual sizes, or choose another scale",
                node=name,
            )


def _whole_thresholds(
    neurons: Mapping[str, Dynamics],
    scaled: Mapping[str, Scaled],
    chosen: Mapping[str, str | float],
    slope_of: Mapping[str, float],
    slope: float,
    options: QuantizeOptions,
) -> dict[str, float]:
    """Return the scales under which thresholds lie an integer number of LSB from their leak, of
    those populations whose scale is not specified, and that have one threshold, at least `SPREAD`
    away: the next larger one where no weight saturates and voltages fit, else the next smaller one.

    Args:
        chosen: how a scale is chosen, or what it is.
        slope_of, slope: as of `levels`.
    """
    scales = {}
    for name, dynamics in neurons.items():
        scaled_weights, distance = scaled[name], np.abs(dynamics.v_threshold - dynamics.v_leak)
        if (
            scaled_weights.scale is None
            or not dynamics.population.fires
            or not isinstance(chosen[name], str)
        ):
            continue
        factor = slope / slope_of[name]
        exact = float(distance.max()) * factor
        below, above = np.floor(exact * (1 + 2**-40)), np.ceil(exact)
        if np.ptp(distance) > 0 or below < SPREAD or below >= exact * (1 - 2**-40):
            continue
        room = largest(dynamics, options.v_leak, options.v_threshold) / factor
        most = np.abs(scaled_weights.exact).max(initial=0.0)
        is_room = (
            above <= exact * room * (1 + 2**-40)
            and above / exact * most < scaled_weights.limit + 0.5
        )
        scales[name] = float(scaled_weights.scale * (above if is_room else below) / exact)
    return scales


def _refuse_weak(
    neurons: Mapping[str, Dynamics],
    slope_of: Mapping[str, float],
    measured: MeasuredSlope,
    slope: float,
    speedup: float,
    options: QuantizeOptions,
) -> None:
    """Refuse thresholds too close to their leak under the measured slope (`slope`: per second of
    the file).

    The distance of a threshold grows with the slope and with the largest weight, and as the speedup
    falls, but where the chip's shortest current stands in for a delta.
    """
    distance = {
        name: float(np.min(np.abs(dynamics.v_threshold - dynamics.v_leak))) * slope / slope_of[name]
        for name, dynamics in neurons.items()
        if dynamics.population.fires and not np.isnan(slope_of[name])
    }
    # a threshold that was moved to whole LSB may lie a rounding below them
    least = SPREAD * (1 - 2**-40)
    weak = {name: nearest for name, nearest in distance.items() if nearest < least}
    if not weak:
        return
    name = min(weak, key=weak.__getitem__)
    factor = SPREAD / max(weak[name], np.finfo(float).tiny) * _ROUNDED_UP
    ways, slower = [], f"{speedup / factor:.3g}"
    if isinstance(options.scale, str) and options.synapses_per_weight * factor <= MOST_SYNAPSES:
        needed = math.ceil(options.synapses_per_weight * factor)
        ways.append(Text("{option}", option=SYNAPSES_PER_WEIGHT.set_to(needed)))
    if not any(np.isnan(neurons[name].tau_syn).any() for name in weak):
        with contextlib.suppress(MappingError):  # the calibration does not reach it
            choose_speedup(tuple(neurons.values()), float(slower))
            ways.append(Text("{option}", option=SPEEDUP.set_to(float(slower))))
    raise MappingError(
        Text(
            "node '{node}' ({type}): its threshold is {distance:.2g} LSB from its leak at "
            "{slope:.3g} CADC LSB per microsecond and LSB of a weight; calibrated "
            "thresholds spread by up to {limit} LSB, so it needs a slope of {minimum:.3g}",
            node=name,
            type=neurons[name].population.kind,
            distance=weak[name],
            slope=measured.slope,
            limit=SPREAD,
            minimum=measured.slope * factor,
        ),
        fix="raise i_synin_gm or synapse_dac_bias and measure again"
        + (", or allow " + Text.joined(" or ", ways) if ways else ""),
        node=name,
    )


def _scales(
    chosen: str | Mapping[str, float], neurons: Mapping[str, Dynamics]
) -> dict[str, str | float]:
    """Return for each population the method that chooses its scale, or the scale itself."""
    if isinstance(chosen, str):
        return dict.fromkeys(neurons, chosen)
    for name in (*chosen, *neurons):
        if name not in neurons:
            raise UsageError(
                Text(
                    "a scale is specified for '{population}', which is not a population",
                    population=name,
                ),
                fix=suggestion(name, neurons),
            )
        if not 0 < as_number(chosen.get(name)) < np.inf:
            value_text = shown(chosen[name]) if name in chosen else "not specified"
            raise UsageError(
                Text("the scale of population '{node}' is {value}", node=name, value=value_text),
                fix="give a positive number",
                node=name,
            )
    return {name: float(value) for name, value in chosen.items()}


def strength(dynamics: Dynamics, speedup: float) -> np.ndarray:
    """Return the change of dV/dt under a spike of weight 1, (neurons,) volts per second of the
    file.
    """
    return np.where(
        np.isnan(dynamics.tau_syn), dynamics.slope / (SHORT_TAU_SYN * speedup), dynamics.slope
    )


def _bias_weights(
    neurons: Mapping[str, Dynamics],
    strengths: Mapping[str, np.ndarray],
    speedup: float,
    options: QuantizeOptions,
) -> dict[str, LinearMap]:
    """Return weights, in the file's units, with which a regularly firing channel shifts resting
    voltages like biases.

    Raises:
        MappingError: its spikes lie so far apart that they replace no constant current.
    """
    links = {}
    for name, dynamics in neurons.items():
        biased = np.flatnonzero(dynamics.drive)
        if not biased.size:
            continue
        tau_syn = np.where(np.isnan(dynamics.tau_syn), SHORT_TAU_SYN * speedup, dynamics.tau_syn)
        faded = float(_FADED * (dynamics.tau_mem + tau_syn)[biased].min()) / speedup
        if options.bias_period > faded:
            raise MappingError(
                Text(
                    "{option} is {value} of the chip, and an event has decayed at node '{node}' "
                    "({type}) after {maximum}",
                    option=BIAS_PERIOD,
                    value=format_time(options.bias_period),
                    node=name,
                    type=dynamics.population.kind,
                    maximum=format_time(faded),
                ),
                fix="use a shorter one, or add its unit: without one it is in seconds",
                node=name,
            )
        lift = strengths[name] * dynamics.tau_mem * tau_syn / (options.bias_period * speedup)
        links[name] = LinearMap(
            source=np.zeros(biased.size, np.int64),
            target=biased,
            value=(dynamics.drive / lift)[biased],
        )
    return links


def _bias_notes(
    source: str | None, neurons: Mapping[str, Dynamics], speedup: float, options: QuantizeOptions
) -> tuple[Change, ...]:
    if source is None and options.bias == "source":
        return (
            Change(
                node="graph",
                what=Text("{bias} has no effect", bias=BIAS.set_to("source")),
                why="nothing has a bias",
            ),
        )
    if source is None:
        return ()
    period = format_time(options.bias_period)
    taus = [
        np.where(np.isnan(dynamics.tau_syn), SHORT_TAU_SYN, dynamics.tau_syn / speedup)[
            dynamics.drive != 0
        ]
        for dynamics in neurons.values()
    ]
    share = options.bias_period / np.concatenate(taus).min()
    description = Text(
        "biases are events of the input channel '{source}' every {period} of the chip, "
        "{fraction:.0%} of the shortest tau_syn of a neuron that has one",
        source=source,
        period=period,
        fraction=share,
    )
    if share > _SMOOTH:
        description += ": single kicks rather than a constant current"
    why = (
        "the chip has no constant current; emulate and run_hxtorch.py send that channel themselves"
    )
    return (Change(node=source, what=description, why=why),)
