"""Quantise a graph for the chip: integer weights, potentials in LSB of the CADC, times of the chip.

In the file, a spike of weight w changes dV/dt of a neuron by w times its `strength`, in volts per
second; r, w_in and tau_mem determine it. On the chip, a spike of integer weight k changes dV/dt by
k times the slope of one LSB. The calibration makes this slope equal in all circuits, so that there
is one slope for the network. The scale, LSB of a weight of 1, is chosen for each population, and
the potentials of the population follow from both:

    gain         = strength / max(strength)                                       (neurons,)
    integers     = round(scale * gain[target] * weight), within +-63 * synapses_per_weight
    slope_of     = max(strength) / scale           volts per second of the file, of one LSB
    lsb_per_volt = slope / slope_of                CADC LSB for one volt of the file
    v_threshold  = v_leak + round(lsb_per_volt * (v_threshold - v_leak of the file))

A large scale uses the range of the weights, but moves the threshold away from the leak, and its
potential is limited. `quantize` therefore works in this order:

1. `examine` lowers the graph and lists what the chip does not support.
2. `choose_speedup` brings all time constants into the range of the calibration.
3. `integer_weights` chooses a scale for each population and rounds its weights.
4. `levels` computes the largest slope for which all potentials fit. If the slope of the chip was
   measured, or the scale is "balanced", another one is used instead, and scales whose thresholds
   would be too high are reduced.
5. `_integer_threshold_scales` changes the scales that are not specified slightly, so that
   thresholds lie an integer number of LSB from the leak.
6. If biases shift the leaks, `with_leak_shifts` shifts them; thresholds keep their potentials.
7. The result is a `Netlist`, with notes on everything that was rounded or approximated.

Arrays, where connections of all sources of a population follow each other, in the order of
`arriving[population]`:

    strength, tau_mem, v_threshold ...      (neurons,)      for each population
    arriving[population][source]            a `LinearMap`: source, target and value, (links,) each
    Scaled.exact, Scaled.integers           (connections,)  LSB, before and after rounding
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from types import MappingProxyType
from typing import Any, Unpack

import numpy as np

from jaxsnn.bss2.chip import HICANN_X, PARAMETERS
from jaxsnn.bss2.examine import LEFT_TO_THE_MAPPER, Examined, examine
from jaxsnn.bss2.netlist import LARGEST, Netlist, NetPopulation, netlist
from jaxsnn.bss2.quantization import Quantization
from jaxsnn.bss2.search.chip_dynamics import SHORT_TAU_SYN, Dynamics, approximations, choose_speedup
from jaxsnn.bss2.search.leak_shifts import (
    is_reachable,
    refuse_unreachable_leaks,
    with_leak_shifts,
)
from jaxsnn.bss2.search.measured_slopes import MeasuredSlope, Slopes, chosen_slope
from jaxsnn.bss2.search.quantize_keywords import QuantizeKeywords
from jaxsnn.bss2.search.rounding import (
    BALANCED,
    DEVIATION,
    SCALES,
    SPREAD,
    CadcLevels,
    NodeReport,
    Scaled,
    integer_weights,
    largest,
    largest_slope,
    levels,
)
from jaxsnn.errors import (
    MappingError,
    UsageError,
    as_integer,
    as_number,
    listing,
    shown,
    suggestion,
)
from jaxsnn.keywords import suggests_keywords
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
    REFRACTORY_TIME,
    RESET,
    SPEEDUP,
    SYNAPSES_PER_WEIGHT,
    V_LEAK,
    V_THRESHOLD,
)
from jaxsnn.summary import summarised
from jaxsnn.units import format_time, parse_time
from jaxsnn.wording import Text

#: Maximum number of synapses of one weight: netlists store their sum as int16.
MOST_SYNAPSES = np.iinfo(np.int16).max // LARGEST
#: Fraction of tau_syn. If the events that replace a bias are further apart, their PSPs hardly
#: overlap.
_SMOOTH = 0.3
#: Multiple of tau_mem + tau_syn after which less than 1/20,000 of the effect of an event remains.
_FADED = 10.0
#: Fraction of the weights of a population; if more of them round to zero, a note reports it.
_MUCH_LOST = 0.1
#: Number of slopes that the scale "balanced" compares.
_SLOPES = 17
#: Factor by which recommended values are increased, so that they suffice when rounded to three
#: digits.
_ROUNDED_UP = 1.01
#: Options that are integers.
_WHOLE = ("synapses_per_weight", "v_leak", "v_threshold")


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """Options for the quantization of a network to the chip.

    Attributes:
        scale: Method that chooses the scale of each population, a key of `SCALES`: with "max" no
            weight saturates, with "percentile" the largest weights saturate, and "least-error"
            minimises the sum of squared errors. "balanced" starts from "max", and reduces scales of
            populations with high thresholds as long as other populations gain more from thresholds
            farther from the leak than the weights lose by rounding. If the neurons of a population
            have equal thresholds, the scale is then adjusted so that the threshold is an integer
            number of LSB from the leak: upwards if no weight saturates, else downwards. Or a mapping from each
            population to its scale, in LSB of a weight of 1, as in `NodeReport.scale`; weights
            above the largest saturate.
        percentile: Percentile of the magnitudes of weights, for the scale "percentile".
        synapses_per_weight: Maximum number of synapses whose sum represents one weight; with 2,
            weights reach 126.
        speedup: Speed of the chip relative to the file; None for 1000, or the nearest value for
            which all time constants can be calibrated.
        bias: "refuse", "leak" or "source". "leak": biases shift the leak potentials of their
            neurons, from 50 to 160 CADC LSB, rounded to integers. "source": an input channel that
            fires regularly replaces all biases.
        bias_period: Interval between the spikes of that channel, seconds of the chip.
        v_leak: Leak potential of neurons without biases, CADC LSB.
        v_threshold: Potential of the threshold that is highest above its leak, CADC LSB. The
            default is that of the vendor's library hxtorch for NIR files.
        refractory_time: Refractory period of all neurons, seconds of the chip; the default is that
            of the vendor's library hxtorch. The calibration warns below 240 ns.
        slope: Measured change of dV/dt on the chip for one LSB of a weight, in CADC LSB per
            microsecond, or a table of such measurements. Thresholds follow from it; scales are
            reduced if a threshold would exceed `v_threshold`. None: the slope for which the highest
            threshold is at `v_threshold`; the chip must be calibrated to it.
        approximate: Whether neurons whose reset subtracts v_threshold are mapped to circuits, which
            reset to v_reset. `jaxsnn.compare_resets` counts the spikes that this changes.
    """

    scale: str | Mapping[str, float] = "balanced"
    percentile: float = 99.0
    synapses_per_weight: int = 1
    speedup: float | None = None
    bias: str = "refuse"
    bias_period: float = parse_time("1us")
    v_leak: int = int(PARAMETERS["v_leak"].default)
    v_threshold: int = 150
    refractory_time: float = parse_time("1us")
    slope: Slopes | None = None
    approximate: bool = False


_FIELDS = tuple(field.name for field in dataclass_fields(QuantizeOptions))


@dataclass(frozen=True, kw_only=True, eq=False)
class ChipPopulation:
    """Parameters of a population on the chip.

    Attributes:
        name: Name of the NIR node.
        size: Number of neurons.
        fires: Whether the neurons have a threshold.
        tau_mem, tau_syn: Time constants, (neurons,) seconds of the chip.
        v_leak, v_threshold, v_reset: Potentials, (neurons,) CADC LSB, integers; thresholds and
            resets are 0 in a readout. Biases may shift the leaks, see `QuantizeOptions.bias`.
        lsb_per_volt: CADC LSB for one volt of the file; None if it is undetermined.
        refractory_time: Refractory period, seconds of the chip.
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


@summarised
@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """Network quantized for the chip.

    Attributes:
        netlist: Populations and integer weights, to be placed and routed.
        populations: Parameters of the neurons, by population.
        nodes: Statistics of the rounding of the incoming weights, by population.
        speedup: Speed of the chip relative to the file.
        slope: Required change of dV/dt for one LSB of a weight, CADC LSB per microsecond, to which
            the synaptic inputs must be calibrated; None without thresholds.
        bias_source: Name of the channel that replaces biases; None if there is none.
        bias_period: Interval between the spikes of that channel, seconds of the chip.
        notes: Approximations, rounding errors and choices.
        measured: Measured slope of the chip, with its settings; None if it was not specified.
        approximated_resets: Neurons whose reset subtracts v_threshold in the graph, and which reset
            to v_reset on the chip.
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

    @property
    def refractory(self) -> float:
        """Refractory period of all neurons, seconds of the file, as in `EventDriven(refractory=)`."""
        chip_times = [population.refractory_time for population in self.populations.values()]
        return self.speedup * max(chip_times, default=0.0)


def quantize(
    graph: Graph,
    options: QuantizeOptions | None = None,
    *,
    reset: Any = None,
    readout: Any = None,
    min_v_mem: Any = None,
    **fields: Unpack[QuantizeKeywords],
) -> Quantized:
    """Return the netlist of a graph.

    Weights are rounded half away from zero, as in the vendor's library; weights that become zero
    get no synapse. Quantising a graph with rounded weights again gives the same netlist if the
    scales of `Quantized.nodes` are passed; a method such as "max" may choose another scale, because
    rounding changed the largest weight.

    Args:
        graph: graph with its dialect.
        options: a record of options.
        reset, readout, min_v_mem: as in `jaxsnn.read`, for nodes that are mapped differently from the
            graph: `reset="zero"`, or `reset={"NODE": "zero"}`, `readout=["NODE"]`.
        fields: single options by name, such as `bias="source"`; they override those of `options`.

    Raises:
        MappingError: The chip cannot run a node, or the options contradict the network.
        DialectError, LoweringError: The file does not specify something that the chip needs.
        UsageError: An option is invalid.

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
            problem.code == "bias" and options.bias != "refuse"
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
    if options.bias not in ("refuse", "leak", "source"):
        raise UsageError(
            Text("{option} is '{bias}'", option=BIAS, bias=options.bias),
            fix="pass 'refuse', 'leak' or 'source'",
        )
    if not 0 < as_number(options.percentile) <= 100:
        raise UsageError(
            Text("{option} is {value}", option=PERCENTILE, value=shown(options.percentile)),
            fix="pass a number above 0 and up to 100",
        )
    if (as_integer(options.synapses_per_weight) or 0) < 1:
        raise UsageError(
            Text(
                "{option} is {value}",
                option=SYNAPSES_PER_WEIGHT,
                value=shown(options.synapses_per_weight),
            ),
            fix="pass an integer of at least 1",
        )
    if options.synapses_per_weight > MOST_SYNAPSES:
        raise UsageError(
            Text(
                "{option} is {value}; the maximum is {maximum}",
                option=SYNAPSES_PER_WEIGHT,
                value=options.synapses_per_weight,
                maximum=MOST_SYNAPSES,
            ),
            fix=f"pass at most {MOST_SYNAPSES}",
        )
    for option in (V_LEAK, V_THRESHOLD):
        reach, option_value = PARAMETERS[option.name], getattr(options, option.name)
        value = as_number(option_value)
        if not reach.low <= value <= reach.high or not value.is_integer():
            raise UsageError(
                Text(
                    "{option} is {value}; the calibration supports {minimum:g} to {maximum:g}",
                    option=option,
                    value=shown(option_value),
                    minimum=reach.low,
                    maximum=reach.high,
                ),
                fix="pass an integer in this range",
            )
    reach = PARAMETERS["refractory_time"]
    assert reach.least is not None
    if not reach.least <= as_number(options.refractory_time) <= reach.high:
        raise UsageError(
            Text(
                "{option} is {value} s; the chip supports {minimum} to {maximum}",
                option=REFRACTORY_TIME,
                value=shown(options.refractory_time),
                minimum=format_time(reach.least),
                maximum=format_time(reach.high),
            ),
            fix="pass a value in this range, in seconds of the chip",
        )
    if options.speedup is not None and not 0 < as_number(options.speedup) < np.inf:
        raise UsageError(
            Text("{option} is {value}", option=SPEEDUP, value=shown(options.speedup)),
            fix="pass a positive, finite number",
        )
    least = HICANN_X.clock_period
    if not least <= as_number(options.bias_period) < np.inf:
        raise UsageError(
            Text(
                "{option} is {value} s; the host sends at most one event every {minimum}",
                option=BIAS_PERIOD,
                value=shown(options.bias_period),
                minimum=format_time(least),
            ),
            fix="pass at least that time, in seconds of the chip",
        )
    if options.v_threshold <= options.v_leak:
        raise UsageError(
            Text(
                "{threshold_option} {v_threshold} is not above {leak_option} {v_leak}",
                threshold_option=V_THRESHOLD,
                v_threshold=options.v_threshold,
                leak_option=V_LEAK,
                v_leak=options.v_leak,
            ),
            fix=Text("pass a higher {v_threshold}", v_threshold=V_THRESHOLD),
        )


def _assembled(examined: Examined, options: QuantizeOptions) -> Quantized:
    parts, neurons = examined.parts, examined.neurons
    speedup, notes = choose_speedup(tuple(neurons.values()), options.speedup)
    notes = list(notes)
    strengths = {name: strength(neuron, speedup) for name, neuron in neurons.items()}
    scales = _scales(options.scale, neurons)
    arriving = {name: dict(examined.arriving[name].links) for name in neurons}
    bias, bias_source = {}, None
    if options.bias == "source":
        bias = _bias_weights(neurons, strengths, speedup, options)
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
    shifts_leak = options.bias == "leak"
    if shifts_leak:
        voltages = _shifted(
            neurons, strengths, arriving, scales, scaled, voltages, speedup, options
        )
    notes += _silenced(scaled, arriving)
    for name, links in bias.items():  # the weights of its channel come last
        lost = int(np.sum(scaled[name].integers[-links.value.size :] == 0))
        if lost:
            message = Text(
                "biases that round to 0: {count} of {biases}", count=lost, biases=links.value.size
            )
            why = "they increase with a longer bias_period, or with a smaller range of weights"
            notes.append(Change(node=name, what=message, why=why))
    for name, neuron in neurons.items():
        links = examined.arriving[name].links.values()
        notes += approximations(neuron, links, options.refractory_time, speedup, shifts_leak)
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
            _stored_options(options, speedup, measured),
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


def _stored_options(
    options: QuantizeOptions, speedup: float, measured: MeasuredSlope | None
) -> Quantization:
    """Return the options in the form that a mapping stores, with the values that were used."""
    scale = options.scale
    return Quantization(
        speedup=float(speedup),
        refractory_time=float(options.refractory_time),
        bias=options.bias,
        bias_period=float(options.bias_period) if options.bias == "source" else None,
        v_leak=options.v_leak,
        v_threshold=options.v_threshold,
        scale=scale
        if isinstance(scale, str)
        else MappingProxyType({name: float(value) for name, value in scale.items()}),
        percentile=float(options.percentile) if scale == "percentile" else None,
        synapses_per_weight=options.synapses_per_weight,
        slope=None if measured is None else float(measured.slope),
        i_synin_gm=None if measured is None else measured.i_synin_gm,
        synapse_dac_bias=None if measured is None else measured.synapse_dac_bias,
        approximate=bool(options.approximate),
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
            "weights that round to 0: {zeroed} of {weights}",
            zeroed=int(lost.sum()),
            weights=lost.size,
        )
        if lost.all():
            message = Text(
                "all {weights} weights round to 0, so that no spike reaches it", weights=lost.size
            )
        elif deaf.size:
            message = Text(
                "{zeroed}; neurons that no spike reaches: {count} ({neurons})",
                zeroed=zeroed,
                count=deaf.size,
                neurons=listing(deaf.tolist(), limit=4),
            )
        elif lost.mean() > _MUCH_LOST:
            message = zeroed
        else:
            continue
        yield Change(node=name, what=message, why="the weights are too small for the scale")


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

    On the chip, a threshold lies above its leak by the distance in volts times the slope times the
    scale, divided by the strength of a weight of 1. If that exceeds `v_threshold` or would be
    rounded, the scale is reduced.

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
            name: integer_weights(
                links,
                strengths[name] / strengths[name].max(),
                chosen[name],
                options.synapses_per_weight,
                options.percentile,
            )
            for name, links in arriving.items()
        }

    def balanced(least: float) -> tuple[float, dict[str, float]]:
        """Return the slope with the smallest error, `least` or above, and the scales that change.

        With a larger slope, thresholds are farther from their leak. Populations whose threshold is
        at `v_threshold` already need a smaller scale for it, and so do readouts, whose potentials
        stay as they are. The error is the sum, over the populations, of the squares of two
        fractions: the deviation of a calibrated threshold over its distance from the leak, and the
        rms rounding error of the weights over their rms.
        """
        slope_of = slopes(scaled)
        driven = {
            name: neuron
            for name, neuron in neurons.items()
            if neuron.population.fires and scaled[name].scale is not None
        }
        # the slope at which the last threshold reaches `v_threshold`
        most = max(
            largest(neuron, options.v_leak, options.v_threshold) * slope_of[name]
            for name, neuron in driven.items()
        )
        if most <= least * (1 + 2**-40):
            return least, {}
        errors, choices = [], []
        for slope in [least, *np.geomspace(least, most, _SLOPES)[1:].tolist()]:
            limits = _fitting_scales(neurons, scaled, slope_of, slope, options)
            if slope > least:
                limits |= {
                    name: weights.scale * least / slope
                    for name, weights in scaled.items()
                    if not neurons[name].population.fires and weights.scale is not None
                }
            rescaled = scaled_by(scales | limits)
            slope_of_lsb = slopes(rescaled)
            fractions = [
                DEVIATION
                * slope_of_lsb[name]
                / (slope * np.abs(neuron.v_threshold - neuron.v_leak).min())
                for name, neuron in driven.items()
            ]
            fractions += [weights.report(None).relative_error for weights in rescaled.values()]
            errors.append(float(np.sum(np.square(fractions))))
            choices.append((slope, limits))
        return choices[int(np.argmin(errors))]

    scaled, measured = scaled_by(scales), None
    _refuse_beyond_numbers(neurons, slopes(scaled))
    slope = largest_slope(neurons, slopes(scaled), options.v_leak, options.v_threshold)
    if slope is None:
        voltages = levels(neurons, slopes(scaled), options.v_leak, options.v_threshold)
        return scaled, voltages, None
    limits: dict[str, float] = {}
    if options.slope is not None:
        microseconds = speedup * parse_time("1us")
        measured = chosen_slope(options.slope, slope * microseconds)
        slope = measured.slope / microseconds
        limits = _fitting_scales(neurons, scaled, slopes(scaled), slope, options)
        reason = Text(
            "one LSB of a weight changes dV/dt by {slope:.3g} CADC LSB per microsecond, so that "
            "larger weights need a threshold above {v_threshold} LSB",
            slope=measured.slope,
            v_threshold=options.v_threshold,
        )
    elif options.scale == BALANCED:
        slope, limits = balanced(slope)
        reason = "the thresholds of other populations are then farther from their leak"
    for name, limit in limits.items():
        message = Text(
            "weights use {fraction:.0%} of the integer range",
            fraction=limit / (scaled[name].scale or np.nan),
        )
        notes.append(Change(node=name, what=message, why=reason))
    limited = scales | limits
    scaled = scaled_by(limited)
    thresholds = _integer_threshold_scales(neurons, scaled, scales, slopes(scaled), slope, options)
    scaled = scaled_by(limited | thresholds)
    if measured is not None:
        _refuse_weak(neurons, slopes(scaled), measured, slope, speedup, options)
    voltages = levels(neurons, slopes(scaled), options.v_leak, options.v_threshold, slope)
    return scaled, voltages, measured


def _shifted(
    neurons: Mapping[str, Dynamics],
    strengths: Mapping[str, np.ndarray],
    arriving: Mapping[str, Mapping[str, LinearMap]],
    scales: dict[str, str | float],
    scaled: Mapping[str, Scaled],
    voltages: CadcLevels,
    speedup: float,
    options: QuantizeOptions,
) -> CadcLevels:
    """Return potentials whose leaks are shifted by biases; see `_scale` for the arguments.

    Raises:
        MappingError: A leak is outside the range of the calibration.
    """
    used = {name: weights.scale for name, weights in scaled.items()}

    def fits(v_leak: int, v_threshold: int, smaller: Mapping[str, float]) -> bool:
        """Return whether all leaks are in the range with other potentials and scales."""
        other = replace(options, v_leak=v_leak, v_threshold=v_threshold)
        chosen = dict(scales)
        if smaller:
            chosen.update({name: scale or 1.0 for name, scale in used.items()} | dict(smaller))
            other = replace(other, scale=smaller)
        try:
            _, levels_there, _ = _scale(neurons, strengths, arriving, chosen, speedup, other, [])
        except MappingError:
            return False
        return is_reachable(with_leak_shifts(neurons, levels_there).v_leak)

    voltages = with_leak_shifts(neurons, voltages)
    refuse_unreachable_leaks(neurons, voltages, options.v_leak, options.v_threshold, used, fits)
    return voltages


def _fitting_scales(
    neurons: Mapping[str, Dynamics],
    scaled: Mapping[str, Scaled],
    slope_of: Mapping[str, float],
    slope: float,
    options: QuantizeOptions,
) -> dict[str, float]:
    """Return the scales with which all potentials fit under a slope, for the spiking populations
    whose scale is larger.

    Args:
        slope_of, slope: See `levels`.
    """
    scales = {}
    for name, neuron in neurons.items():
        scale = scaled[name].scale
        if scale is None or not neuron.population.fires:
            continue
        room = largest(neuron, options.v_leak, options.v_threshold)
        limit = float(room * scale * slope_of[name] / slope)
        if scale > limit * (1 + 2**-40):
            scales[name] = limit
    return scales


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
                fix="rescale its weights, r or w_in, or pass another scale",
                node=name,
            )


def _integer_threshold_scales(
    neurons: Mapping[str, Dynamics],
    scaled: Mapping[str, Scaled],
    chosen: Mapping[str, str | float],
    slope_of: Mapping[str, float],
    slope: float,
    options: QuantizeOptions,
) -> dict[str, float]:
    """Return the scales with which thresholds lie an integer number of LSB from their leak.

    A scale is returned for each population whose scale is not specified and whose neurons have the
    same threshold, at least `SPREAD` from the leak: the next larger scale if no weight saturates and
    the voltages fit, else the next smaller scale.

    Args:
        chosen: Method that chooses the scale of each population, or the scale itself.
        slope_of, slope: See `levels`.
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

    A threshold is farther from its leak if the slope or the largest weight is larger, or if the
    speedup is smaller. (The speedup has no effect if the chip's shortest current replaces a delta.)
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
            "node '{node}' ({type}): its threshold is {distance:.2g} CADC LSB from its leak, but "
            "calibrated thresholds deviate by up to {limit} LSB. The measured slope is {slope:.3g} "
            "CADC LSB per microsecond and LSB of a weight; at least {minimum:.3g} is needed",
            node=name,
            type=neurons[name].population.kind,
            distance=weak[name],
            slope=measured.slope,
            limit=SPREAD,
            minimum=measured.slope * factor,
        ),
        fix="raise i_synin_gm or synapse_dac_bias and measure again"
        + (", or pass " + Text.joined(" or ", ways) if ways else ""),
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
                fix="pass a positive number",
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
        MappingError: The spikes of the channel are too far apart to replace a constant current.
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
                    "{option} is {value} of chip time, but the effect of a spike on node '{node}' "
                    "({type}) decays within {maximum}",
                    option=BIAS_PERIOD,
                    value=format_time(options.bias_period),
                    node=name,
                    type=dynamics.population.kind,
                    maximum=format_time(faded),
                ),
                fix="pass a shorter period; a number without unit is in seconds",
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
    if options.bias != "refuse" and not any(dynamics.drive.any() for dynamics in neurons.values()):
        return (
            Change(
                node="graph",
                what=Text("{bias} has no effect", bias=BIAS.set_to(options.bias)),
                why="no node has a bias",
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
        "events of input channel '{source}' replace the biases, one every {period} of chip "
        "time, {fraction:.0%} of the shortest tau_syn of a biased neuron",
        source=source,
        period=period,
        fraction=share,
    )
    if share > _SMOOTH:
        description += "; neurons respond to single spikes rather than to a constant current"
    why = Text(
        "emulate and run_hxtorch.py generate these events; {bias} needs no channel",
        bias=BIAS.set_to("leak"),
    )
    return (Change(node=source, what=description, why=why),)
