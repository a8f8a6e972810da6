"""One emulated chip: the deviations of its analogue parts from their calibration, sampled once from
a seed.

Published numbers of BrainScaleS-2 are few. Those of `Spread` say where they come from; an
assumption is called one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, Chip
from jaxsnn.errors import UsageError, as_number, as_whole, refuse_seed, shown
from jaxsnn.units import parse_time
from jaxsnn.wording import Text

#: Draws further out than so many standard deviations are put there: a calibration would have thrown
#: such a part out.
FURTHEST = 3.0


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Deviations of a calibrated chip from its targets, as standard deviations of normal
    distributions.

    By default as unkind as the chip of DelGrad's recordings (Göltz et al., Nature Communications
    16, 2025; 20-30-3 without delays): with these the times of its output spikes, and how many are
    missing, lie near the median of emulated chips (benchmarks/bss2_recordings.py). `CALIBRATED` is
    milder.

    Attributes:
        threshold: fixed pattern of each circuit, as a fraction of the threshold's distance from the
            leak.
        threshold_trial: the same, drawn anew for each neuron and batch.
        threshold_offset: of all circuits, no deviation but a mean, as the same fraction: what
            calibration leaves. DelGrad's configuration has 5 % (0.13 of 2.6), its recordings are
            met with 3 %.
        membrane_noise: of each spike's threshold, as the same fraction: it moves the spike by that
            over the slope of the membrane, by half of tau_syn at most.
        jitter: of each spike's time, as a fraction of the neuron's tau_syn.
        latency: of each spike, seconds of the chip. The vendor's own simulation of the chip (jaxsnn
            before 0.3) takes 100 ns.
        tau_mem, tau_syn: fixed pattern of each circuit, as fractions. 5 %: an assumption; calix's
            own tests bound only what calibration leaves of the uncalibrated spread, to 0.45 and
            0.20 of it.
        input_gain: fixed pattern of each circuit's excitatory and of its inhibitory synaptic input,
            as a fraction. 5 %: an assumption; calix brings all circuits' amplitudes to their
            median, to an accuracy that is not published.
        driver_gain: fixed pattern of each synapse driver, as a fraction. 5 %: an assumption.
        joined_capacitance: what a neuron's every circuit beyond the first adds to its membrane, as
            a fraction of one circuit's capacitance: tau_mem is longer by it, weights are weaker.
            2 %, the same for all: an assumption; the circuits' own capacitors are switched off, the
            wires that join them are not.
        v_leak, v_reset: fixed pattern of each circuit, CADC LSB. 1 LSB: an assumption; calix's
            tests ask for at most 5 % of all neurons further than 8 LSB from the median threshold.
    """

    threshold: float = 0.05
    threshold_trial: float = 0.0
    threshold_offset: float = 0.03
    membrane_noise: float = 0.04
    jitter: float = 0.05
    latency: float = parse_time("150ns")
    tau_mem: float = 0.05
    tau_syn: float = 0.05
    input_gain: float = 0.05
    driver_gain: float = 0.05
    joined_capacitance: float = 0.02
    v_leak: float = 1.0
    v_reset: float = 1.0


#: As DelGrad's hardware model has it (its repository's configuration `yin_yang_hwAware`): 0.08, 0.04
#: of a threshold of 2.6, jitter 0.01 tau; no offset, no noise of the membrane. Its recordings are
#: less kind.
CALIBRATED = Spread(
    threshold=0.03,
    threshold_trial=0.015,
    threshold_offset=0.0,
    membrane_noise=0.0,
    jitter=0.01,
    latency=0.0,
)
#: By the name that `jaxsnn emulate` takes.
SPREADS = MappingProxyType({"recorded": Spread(), "calibrated": CALIBRATED})


@dataclass(frozen=True, kw_only=True)
class EmulatedChip:
    """Chip to emulate.

    Attributes:
        seed: which one: it draws the fixed patterns of all circuits and drivers, and the noise of
            each trial.
        ideal: nothing deviates, no time is rounded, nothing waits or is lost: the quantised network
            itself, with its refractory time.
        spread: of its analog parts.
        queue: events that wait at one event output of the neurons, or one link to the host, before
            others are lost. An assumption: the drop counters of the hardware are public, the depth
            of its buffers is not. Each output and link moves one event in a cycle of the event
            clock (8 ns), the stream from the host too, and that one loses nothing.
        recorded_events: that one run can record. None: as many as the chip's trace memory holds (32
            MiB, 8 byte each).
        several: each run has a chip of its own, all in one pass: their seeds are `seed`, `seed` + 1
            and so on, and hosts pass on what a chip fires to those behind it.
        between_chips: seconds from a spike on one chip to its arrival at the next. An assumption: a
            microsecond.
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
    """Refuse parameters that no chip has.

    Raises:
        UsageError: a negative spread, a fraction of a third or more, an invalid seed, or no
            room at all.
    """
    if not isinstance(chip.spread, Spread):
        raise UsageError(
            Text("the chip's spread is {value!r}", value=chip.spread), fix="give a Spread"
        )
    for name, value in vars(chip.spread).items():
        limit = math.inf if name.startswith("v_") or name == "latency" else 1 / FURTHEST
        if not 0 <= as_number(value) < limit:
            most = "" if limit == math.inf else f", and less than {limit:.2g}"
            raise UsageError(
                Text("the spread of {parameter} is {value}", parameter=name, value=shown(value)),
                fix=f"give at least 0{most}",
            )
    refuse_seed(chip.seed, "the chip's seed")
    if not 0 <= as_number(chip.between_chips) < math.inf:
        raise UsageError(
            Text("the time between chips is {value} s", value=shown(chip.between_chips)),
            fix="give at least 0",
        )
    for name in ("queue", "recorded_events"):
        value = getattr(chip, name)
        if value is not None and (as_whole(value) or 0) < 1:
            raise UsageError(
                Text("the chip's {parameter} is {value}", parameter=name, value=shown(value)),
                fix="give at least 1, a whole number",
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Pattern:
    """Fixed pattern of a chip: factors, and offsets of voltages.

    Attributes:
        tau_mem, tau_syn, threshold: (hemispheres, columns), factors.
        v_leak, v_reset: (hemispheres, columns), CADC LSB.
        input_gain: (2, hemispheres, columns): factors of excitatory, then of inhibitory weights.
        driver_gain: (hemispheres, drivers), factors.
        joined_capacitance: of each circuit beyond a neuron's first, over that of one circuit.
    """

    tau_mem: np.ndarray
    tau_syn: np.ndarray
    threshold: np.ndarray
    v_leak: np.ndarray
    v_reset: np.ndarray
    input_gain: np.ndarray
    driver_gain: np.ndarray
    joined_capacitance: float


def pattern_of(layout: Chip, chip: EmulatedChip) -> Pattern:
    """Return the fixed pattern of an emulated chip; of an ideal one factors of 1 and offsets of 0.

    It belongs to the circuits and drivers, not to the network: another mapping on the same chip
    meets other parts.

    >>> from jaxsnn.bss2.chip import HICANN_X
    >>> first, same, other = (pattern_of(HICANN_X, EmulatedChip(seed=seed)) for seed in (1, 1, 2))
    >>> bool((first.threshold == same.threshold).all())
    True
    >>> bool((first.threshold == other.threshold).any())
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
        threshold=drawn(
            spread.threshold, circuits, 1.0 if chip.ideal else 1.0 + spread.threshold_offset
        ),
        v_leak=drawn(spread.v_leak, circuits, 0.0),
        v_reset=drawn(spread.v_reset, circuits, 0.0),
        input_gain=drawn(spread.input_gain, (2, *circuits)),
        driver_gain=drawn(spread.driver_gain, (HEMISPHERES, layout.drivers)),
        joined_capacitance=0.0 if chip.ideal else spread.joined_capacitance,
    )
