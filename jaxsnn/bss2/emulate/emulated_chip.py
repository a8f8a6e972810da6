"""An emulated chip: the deviations of its analogue parts from their calibration, sampled once from
a seed.

Few measurements of BrainScaleS-2 are published. `Spread` states the source of each number, or that
it is an assumption.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, Chip
from jaxsnn.errors import UsageError, as_integer, as_number, refuse_seed, shown
from jaxsnn.keywords import suggests_keywords
from jaxsnn.units import parse_time
from jaxsnn.wording import Text

#: Samples are clipped to this number of standard deviations: a calibration would exclude parts that
#: deviate more.
FURTHEST = 3.0


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Spread:
    """Deviations of a calibrated chip from its targets, as standard deviations of normal
    distributions.

    The defaults are fitted to recordings of DelGrad (Göltz et al., Nature Communications 16, 2025;
    20-30-3 without delays, training inputs): on its test inputs, the median of chips emulated with
    them has similar spike times, noise and numbers of missing spikes
    (benchmarks/bss2_recordings.py).
    `CALIBRATED` has smaller deviations.

    Attributes:
        v_threshold: Fixed pattern of each circuit's threshold, CADC LSB. The tests of calix require
            that at most 5 % of all neurons are more than 8 LSB from the median threshold: 4.1 LSB.
        v_threshold_trial: Deviation of the threshold that is sampled anew for each neuron and
            batch, CADC LSB.
        v_threshold_offset: Mean deviation of all thresholds that remains after calibration, CADC
            LSB; may be negative.
        v_noise: Noise of the membrane potential at each spike, CADC LSB. It shifts the spike by
            noise / (slope of the membrane potential), by at most half of tau_syn. Fitted.
        jitter: Jitter of each spike time, as a fraction of the neuron's tau_syn.
        latency: Latency of each spike, seconds of the chip; fitted. It contains the latency of the
            input events. The vendor's simulation of the chip (jaxsnn before 0.3) uses 100 ns.
        tau_mem, tau_syn: Fixed pattern of each circuit, as fractions. 5 % is an assumption; the
            tests of calix only require that calibration reduces the spread to 0.45 and 0.20 of the
            uncalibrated one.
        input_gain: Fixed pattern of the excitatory and of the inhibitory synaptic input of each
            circuit, as a fraction; fitted. calix calibrates the amplitudes of all circuits to their
            median, with an accuracy that is not published.
        driver_gain: Fixed pattern of each synapse driver, as a fraction; fitted with the assumption
            that it equals `input_gain`.
        joined_capacitance: Capacitance that each circuit of a neuron beyond the first adds, as a
            fraction of the capacitance of one circuit; it lengthens tau_mem and weakens weights.
            2 %, equal for all neurons, is an assumption: the capacitors of these circuits are
            switched off, but the wires that connect them are not.
        v_leak, v_reset: Fixed pattern of each circuit, CADC LSB. 1 LSB is an assumption.
    """

    v_threshold: float = 3.5
    v_threshold_trial: float = 0.0
    v_threshold_offset: float = 0.0
    v_noise: float = 1.75
    jitter: float = 0.0
    latency: float = parse_time("415ns")
    tau_mem: float = 0.05
    tau_syn: float = 0.05
    input_gain: float = 0.045
    driver_gain: float = 0.045
    joined_capacitance: float = 0.02
    v_leak: float = 1.0
    v_reset: float = 1.0


#: Deviations of DelGrad's hardware model (configuration `yin_yang_hwAware` of its repository): 0.08
#: and 0.04 of a threshold of 2.6, which is 70 LSB from its leak; jitter of 0.01 tau, no offset and
#: no membrane noise.
CALIBRATED = Spread(
    v_threshold=2.2,
    v_threshold_trial=1.1,
    v_threshold_offset=0.0,
    v_noise=0.0,
    jitter=0.01,
    latency=0.0,
)
#: Deviations by the names that `jaxsnn emulate` accepts.
SPREADS = MappingProxyType({"recorded": Spread(), "calibrated": CALIBRATED})


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class EmulatedChip:
    """Chip to emulate.

    Attributes:
        seed: Random seed of the fixed patterns of all circuits and drivers, and of the noise of
            each trial.
        ideal: Emulate the quantised network without deviations, rounding of times, queues and
            losses; its neurons still have a refractory period.
        spread: Deviations of the analogue parts.
        queue: Maximum number of events that wait at an event output of the neurons, or at a link to
            the host; further events are lost. The number is an assumption: the drop counters of the
            hardware are public, the depth of its buffers is not. Each output and link moves one
            event per cycle of the event clock (8 ns). The stream from the host does so, too, but
            loses no events.
        recorded_events: Maximum number of events that one run can record; None for the capacity of
            the chip's trace memory (32 MiB, 8 bytes per event).
        several: Whether each run has its own chip, all in one pass. The seeds of the chips are
            `seed`, `seed` + 1 and so on; hosts pass the spikes of a chip on to the next ones.
        between_chips: Delay between a spike on one chip and its arrival at the next, seconds. One
            microsecond is an assumption.
    """

    seed: int = 0
    ideal: bool = False
    spread: Spread = Spread()
    queue: int = 64
    recorded_events: int | None = None
    several: bool = False
    between_chips: float = parse_time("1us")

    def of_run(self, number: int) -> EmulatedChip:
        """Return the chip that executes a run."""
        return replace(self, seed=self.seed + number) if self.several else self


def refuse_bad(chip: EmulatedChip) -> None:
    """Refuse invalid parameters of an emulated chip.

    Raises:
        UsageError: A spread is negative, a relative spread is too large, the seed is invalid, or the
            capacity of a queue or of the memory for events is less than 1.
    """
    if not isinstance(chip.spread, Spread):
        raise UsageError(
            Text("the chip's spread is {value!r}, not a Spread", value=chip.spread),
            fix="pass a Spread",
        )
    for name, value in vars(chip.spread).items():
        limit = math.inf if name.startswith("v_") or name == "latency" else 1 / FURTHEST
        lowest = -math.inf if name == "v_threshold_offset" else 0.0
        number = as_number(value)
        if not (math.isfinite(number) and lowest <= number < limit):
            most = "" if limit == math.inf else f", and less than {limit:.2g}"
            raise UsageError(
                Text("the spread of {parameter} is {value}", parameter=name, value=shown(value)),
                fix="pass a finite value"
                if lowest < 0
                else f"pass a finite value of at least 0{most}",
            )
    refuse_seed(chip.seed, "the chip's seed")
    if not 0 <= as_number(chip.between_chips) < math.inf:
        raise UsageError(
            Text("the time between chips is {value} s", value=shown(chip.between_chips)),
            fix="pass a value of at least 0",
        )
    for name in ("queue", "recorded_events"):
        value = getattr(chip, name)
        if value is not None and (as_integer(value) or 0) < 1:
            raise UsageError(
                Text("the chip's {parameter} is {value}", parameter=name, value=shown(value)),
                fix="pass an integer of at least 1",
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Pattern:
    """Fixed pattern of a chip: factors, and offsets of voltages.

    Attributes:
        tau_mem, tau_syn: Factors, (hemispheres, columns).
        v_leak, v_threshold, v_reset: Offsets, (hemispheres, columns) CADC LSB.
        input_gain: Factors of excitatory, then of inhibitory weights, (2, hemispheres, columns).
        driver_gain: Factors, (hemispheres, drivers).
        joined_capacitance: Capacitance of each circuit of a neuron beyond the first, relative to
            that of one circuit.
    """

    tau_mem: np.ndarray
    tau_syn: np.ndarray
    v_threshold: np.ndarray
    v_leak: np.ndarray
    v_reset: np.ndarray
    input_gain: np.ndarray
    driver_gain: np.ndarray
    joined_capacitance: float


def pattern_of(layout: Chip, chip: EmulatedChip) -> Pattern:
    """Return the fixed pattern of an emulated chip; factors are 1 and offsets 0 for an ideal chip.

    The pattern belongs to the circuits and drivers of the chip, not to the network: another mapping
    of the same network uses other circuits.

    >>> from jaxsnn.bss2.chip import HICANN_X
    >>> first, same, other = (pattern_of(HICANN_X, EmulatedChip(seed=seed)) for seed in (1, 1, 2))
    >>> bool((first.v_threshold == same.v_threshold).all())
    True
    >>> bool((first.v_threshold == other.v_threshold).any())
    False
    """
    refuse_bad(chip)
    generator = np.random.default_rng(chip.seed)
    circuits, spread = (HEMISPHERES, layout.columns), chip.spread

    def drawn(deviation: float, shape: tuple[int, ...], around: float = 1.0) -> np.ndarray:
        values = np.clip(generator.standard_normal(shape), -FURTHEST, FURTHEST)
        return np.full(shape, around) if chip.ideal else around + deviation * values

    return Pattern(
        tau_mem=drawn(spread.tau_mem, circuits),
        tau_syn=drawn(spread.tau_syn, circuits),
        v_threshold=drawn(
            spread.v_threshold, circuits, 0.0 if chip.ideal else spread.v_threshold_offset
        ),
        v_leak=drawn(spread.v_leak, circuits, 0.0),
        v_reset=drawn(spread.v_reset, circuits, 0.0),
        input_gain=drawn(spread.input_gain, (2, *circuits)),
        driver_gain=drawn(spread.driver_gain, (HEMISPHERES, layout.drivers)),
        joined_capacitance=0.0 if chip.ideal else spread.joined_capacitance,
    )
