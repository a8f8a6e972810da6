"""Dynamics of populations, the speedup of the chip, and the approximations of a mapped network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import PARAMETERS
from jaxsnn.errors import LoweringError, MappingError
from jaxsnn.linear_map import LinearMap
from jaxsnn.network.lowering.lower_nodes import Part
from jaxsnn.network.structure import Population
from jaxsnn.nir.model.changes import Change
from jaxsnn.options import REFRACTORY_TIME, SPEEDUP
from jaxsnn.units import format_time, parse_time
from jaxsnn.wording import Text

#: Default speed of the chip relative to the file, unless the time constants require another factor.
DEFAULT_SPEEDUP: float = 1000
#: The chip's synaptic time constant that replaces the missing one of LIF and LI: the shortest
#: without a warning.
SHORT_TAU_SYN = parse_time("0.3us")
#: Time between the end of a reset of all neurons and the start of a sample, seconds of the chip, in
#: grenade since d9fe5833 (13 March 2026; execution_instance_executor.cpp).
RESET_LEAD = parse_time("4us")
_CURRENT_BASED = ("CubaLIF", "CubaLI")
#: Relative difference of potentials that counts as rounding, that of float32 files.
_ROUNDING = 2**-20


@dataclass(frozen=True, kw_only=True, eq=False)
class Dynamics:
    """Parameters of a population's neurons, in the file's voltages and the file's time.

    Attributes:
        population: Static description of the population.
        tau_mem, tau_syn: Time constants, (neurons,) seconds; tau_syn is NaN if the file has none.
        slope: Change of dV/dt by a spike of weight 1, (neurons,) volts per second; for a population
            without tau_syn the change of V, volts.
        v_leak, v_threshold, v_reset: Potentials, (neurons,) volts; thresholds and resets are NaN in
            a readout.
        drive: Shift of the resting potential by a bias, (neurons,) volts.
    """

    population: Population
    tau_mem: np.ndarray
    tau_syn: np.ndarray
    slope: np.ndarray
    v_leak: np.ndarray
    v_threshold: np.ndarray
    v_reset: np.ndarray
    drive: np.ndarray


def dynamics(part: Part, constant: np.ndarray | None) -> Dynamics:
    """Return the dynamics of a population.

    Args:
        part: Lowered neuron.
        constant: Sum of the biases at its input, (neurons,), or None.

    Raises:
        LoweringError: The file does not specify something that the chip needs.
    """
    population, values = part.population, part.parameters
    if population is None:
        raise LoweringError(
            f"node '{part.wire.name}' ({part.wire.kind}) is not a neuron; only neurons are placed on circuits",
            node=part.wire.name,
        )
    needed = [
        "seconds",
        "spike_area",
        "tau",
        "tau_mem",
        "tau_syn",
        *(["reset", "v_reset"] if population.fires else []),
    ]
    steps = constant is not None and bool(np.any(constant)) and population.bias == "step"
    population.require(*needed, *(["dt"] if steps or population.resistance == "tau/dt" else []))
    nothing = np.full(population.size, np.nan)
    current_based = population.kind in _CURRENT_BASED
    tau_mem = values["tau_mem" if current_based else "tau"]
    tau_syn = values["tau_syn"] if current_based else nothing
    r = values["r"] if population.resistance == "file" else tau_mem / population.dt
    jump = np.broadcast_to(population.jump(values | {"r": r}), population.size)
    slope = r * jump / tau_mem if current_based else jump
    return Dynamics(
        population=population,
        tau_mem=tau_mem,
        tau_syn=tau_syn,
        slope=slope,
        v_leak=values["v_leak"],
        v_threshold=values["v_threshold"] if population.fires else nothing,
        v_reset=values["v_reset"] if population.fires else nothing,
        drive=np.zeros(population.size)
        if constant is None
        else constant * _lift(part, population, r, slope),
    )


def _lift(part: Part, population: Population, r: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return the shift of the resting voltage under a constant input of 1: a current, or a spike in
    every step.
    """
    values = part.parameters
    w_in = values.get("w_in", np.ones_like(r))
    if population.bias == "current":
        return r * w_in
    if population.kind in _CURRENT_BASED:
        return slope * values["tau_mem"] * values["tau_syn"] / population.dt
    return slope * values["tau"] / population.dt


def choose_speedup(
    populations: Sequence[Dynamics], speedup: float | None
) -> tuple[float, tuple[Change, ...]]:
    """Return the factor between the file's time and the chip's, and notes on it.

    Args:
        populations: All populations of the network.
        speedup: Requested factor; None for 1000, or the nearest value for which all time constants
            can be calibrated.

    Raises:
        MappingError: The time constants cannot be calibrated with any factor, or not with the
            requested one.
    """
    least, most, slow, fast = 0.0, math.inf, "", ""
    tau_of_node = "{parameter} {tau} of '{node}'"
    for name, key, taus in _times(populations):
        reach = PARAMETERS[key]
        if (need := float(taus.max()) / (reach.most or math.inf)) > least:
            least, slow = (
                need,
                Text(tau_of_node, parameter=key, tau=format_time(taus.max()), node=name),
            )
        if (need := float(taus.min()) / (reach.least or 0.0)) < most:
            most, fast = (
                need,
                Text(tau_of_node, parameter=key, tau=format_time(taus.min()), node=name),
            )
    if least > most:
        raise MappingError(
            Text(
                "no speedup brings both {slow} and {fast} into the range of the chip's calibration",
                slow=slow,
                fast=fast,
            ),
            fix="use time constants that are closer together",
            facts={"minimum": least, "maximum": most},
        )
    if speedup is None:
        chosen = min(max(DEFAULT_SPEEDUP, least), most)
    elif not least <= speedup <= most:
        limit = (
            Text("{slow} needs at least {minimum:g}", slow=slow, minimum=least)
            if speedup < least
            else Text("{fast} allows at most {maximum:g}", fast=fast, maximum=most)
        )
        raise MappingError(
            Text(
                "{option} is {speedup:g}; {limit}",
                option=SPEEDUP,
                speedup=speedup,
                limit=limit,
            ),
            fix=f"pass a value from {least:g} to {most:g}",
        )
    else:
        chosen = speedup
    why = Text(
        "with factors from {minimum:g} to {maximum:g}, the time constants can be calibrated",
        minimum=least,
        maximum=most,
    )
    notes = [
        Change(
            node="",
            what=Text("the chip runs {speedup:g} times as fast as the file", speedup=chosen),
            why=why,
        )
    ]
    return chosen, (*notes, *_warned(populations, chosen))


def _times(populations: Sequence[Dynamics]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield name, parameter and values of the time constants in the file."""
    for dynamics in populations:
        yield dynamics.population.name, "tau_mem", dynamics.tau_mem
        if not np.isnan(dynamics.tau_syn).any():
            yield dynamics.population.name, "tau_syn", dynamics.tau_syn


def _warned(populations: Sequence[Dynamics], speedup: float) -> Iterator[Change]:
    """Yield a note for each time constant that the calibration reaches with a warning."""
    for name, key, taus in _times(populations):
        reach = PARAMETERS[key]
        for value, limit, side in (
            (taus.min(), reach.low, "below"),
            (taus.max(), reach.high, "above"),
        ):
            chip_value = value / speedup
            if chip_value < limit if side == "below" else chip_value > limit:
                description = Text(
                    "{parameter} is {value} on the chip, {side} {limit}",
                    parameter=key,
                    value=format_time(chip_value),
                    side=side,
                    limit=format_time(limit),
                )
                yield Change(
                    node=name, what=description, why="the calibration warns outside its range"
                )


def _reaching_alone(dynamics: Dynamics, arriving: Iterable[LinearMap]) -> tuple[int, int]:
    """Return the number of weights that bring a neuron without tau_syn from its leak to its
    threshold, and the number of all weights.
    """
    height, strong, weights = dynamics.v_threshold - dynamics.v_leak, 0, 0
    for links in arriving:
        strong += int(np.sum(links.value * dynamics.slope[links.target] >= height[links.target]))
        weights += links.value.size
    return strong, weights


def approximations(
    dynamics: Dynamics,
    arriving: Iterable[LinearMap],
    refractory_time: float,
    speedup: float,
    shifts_leak: bool = False,
) -> Iterator[Change]:
    """Yield the differences between the chip and the file.

    Args:
        arriving: weights in the file's units, one `LinearMap` for each source.
        refractory_time: Refractory period, seconds of the chip.
        shifts_leak: Whether biases shift the leak potentials.
    """
    population = dynamics.population
    name = population.name

    def change(what: str, why: str) -> Change:
        return Change(node=name, what=what, why=why)

    if np.isnan(dynamics.tau_syn).any():
        short = SHORT_TAU_SYN * speedup
        share = short / float(dynamics.tau_mem.min())
        yield change(
            Text(
                "a synaptic current of the same charge replaces the instantaneous input of {type}; "
                "its tau_syn is {tau_syn} in the file's time, {fraction:.1%} of the shortest tau",
                type=population.kind,
                tau_syn=format_time(short),
                fraction=share,
            ),
            "the chip's synaptic current always decays",
        )
        if population.fires and population.spike_kernel == "delta":
            strong, weights = _reaching_alone(dynamics, arriving)
            yield change(
                Text(
                    "{type} in the file discards input beyond the threshold at a spike; on the chip the "
                    "rest of this input can cause a second spike. Weights of which one spike alone "
                    "reaches the threshold: {count} of {weights}",
                    type=population.kind,
                    count=strong,
                    weights=weights,
                ),
                "the synaptic current continues after the spike",
            )
    if population.spike_kernel == "box":
        yield change(
            "spikes are not rectangular pulses of one time step",
            "the chip's synaptic current jumps and decays",
        )
    if population.fires:
        held = refractory_time * speedup
        yield change(
            Text(
                "after a spike it is refractory for {refractory_time} ({held} in the file's time), so "
                "that a neuron fires at most {rate:.4g} times per second of the file's time",
                refractory_time=format_time(refractory_time),
                held=format_time(held),
                rate=1 / held,
            ),
            Text("set by {option}", option=REFRACTORY_TIME),
        )
        if refractory_time < (low := PARAMETERS["refractory_time"].low):
            yield change(
                Text(
                    "its refractory period of {refractory_time} is below {limit}",
                    refractory_time=format_time(refractory_time),
                    limit=format_time(low),
                ),
                "the calibration warns: it is fewer than 30 periods of the chip's refractory counter",
            )
    yield from _initial_state(dynamics, shifts_leak)
    yield from _reset_before_sample(dynamics, speedup, shifts_leak)
    for remark in (*population.remarks, *population.assumed):
        yield change(remark, "specified by the dialect")


def _initial_state(dynamics: Dynamics, shifts_leak: bool) -> Iterator[Change]:
    """Yield the difference between the state of rest in which a sample starts on the chip, and the
    state in which it starts in the file, without synaptic current.

    grenade can reset single neurons before a sample, and disables it for spiking networks
    (`enable_reset` is false in network_graph_builder.cpp of BrainScaleS OS 12). Later versions reset
    all neurons at once, see `_reset_before_sample`.
    """
    population = dynamics.population
    starts = {"zero": 0.0, "v_leak": dynamics.v_leak, "v_reset": np.nan_to_num(dynamics.v_reset)}
    start = starts[population.initial]
    if not (shifts_leak and dynamics.drive.any()):
        if np.any(start != dynamics.v_leak):
            yield Change(
                node=population.name,
                what="its membrane starts at v_leak",
                why=Text(
                    "the file specifies {expected}; on the chip, the membrane rests before each sample",
                    expected=population.initial,
                ),
            )
        return
    distance = np.abs(dynamics.v_leak + dynamics.drive - start)
    is_rest = distance <= _ROUNDING * np.maximum(np.abs(dynamics.v_leak), np.abs(dynamics.drive))
    has_current = population.kind in _CURRENT_BASED
    if is_rest.all() and not has_current:
        return
    yield Change(
        node=population.name,
        what=Text(
            "its membrane starts at the resting potential, which its biases shift, up to "
            "{distance:.3g} V from where it starts in the file{current}",
            distance=float(np.where(is_rest, 0.0, distance).max()),
            current=", and its synaptic current at that of the bias" if has_current else "",
        ),
        why=Text(
            "the file specifies {expected}{current}; on the chip, the neuron rests before each sample",
            expected=population.initial,
            current=" and no synaptic current" if has_current else "",
        ),
    )


def _reset_before_sample(dynamics: Dynamics, speedup: float, shifts_leak: bool) -> Iterator[Change]:
    """Yield the distance from rest at which a membrane starts if all neurons were reset before.

    grenade since d9fe5833 (13 March 2026) holds all neurons at their reset potential for 1 us, and
    releases them `RESET_LEAD` before the sample. BrainScaleS OS 12 (February 2026) is older.
    """
    if not dynamics.population.fires:
        return
    drive = dynamics.drive if shifts_leak else np.zeros_like(dynamics.drive)
    distance = np.abs(dynamics.v_reset - dynamics.v_leak - drive)
    largest = np.max(np.abs([dynamics.v_reset, dynamics.v_leak, drive]), axis=0)
    if np.all(distance <= _ROUNDING * largest):
        return
    remaining = distance * np.exp(-RESET_LEAD * speedup / dynamics.tau_mem)
    yield Change(
        node=dynamics.population.name,
        what=Text(
            "with grenade of 13 March 2026 or later, its membrane starts up to {distance:.3g} V from "
            "where it rests, towards v_reset",
            distance=float(remaining.max()),
        ),
        why=Text(
            "this software holds all neurons at v_reset until {lead} before each sample; BrainScaleS "
            "OS 12 and the emulated chip do not",
            lead=format_time(RESET_LEAD),
        ),
    )
