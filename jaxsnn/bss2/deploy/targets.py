"""What the chip is to be calibrated to, circuit by circuit, and how few calibrations all runs of a
mapping need.

A circuit that is part of different neurons in different runs may need other potentials in each;
then a calibration is refined, which takes its synaptic inputs and time constants over. It may need
other time constants; then the chip is calibrated again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping as Mapped
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.bss2.chip import HEMISPHERES, PARAMETERS, Circuit
from jaxsnn.bss2.mapping import Mapping, Run
from jaxsnn.bss2.search.measured_slopes import MeasuredSlope
from jaxsnn.bss2.search.quantize import ChipPopulation, Quantized
from jaxsnn.units import SECONDS

#: Kinds of synaptic inputs of a circuit: excitatory and inhibitory.
_INPUTS = 2
_POTENTIALS = ("leak", "reset", "threshold")
_TIMES = ("tau_mem", "tau_syn", "refractory_time")
#: Names of the vendor's calibration -> those of `PARAMETERS`.
_NAMES = {"leak": "v_leak", "reset": "v_reset", "threshold": "v_threshold"}

#: (name, circuit) -> what the calibration is to reach.
_Asked = dict[tuple[str, Circuit], float]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """One calibration.

    Attributes:
        runs: the runs that use it.
        refines: the number of the calibration whose synaptic inputs and time constants it takes
            over; None if it is made from the beginning.
        potentials: (name, circuit) -> CADC LSB; names are leak, reset and threshold.
        times: (name, circuit) -> seconds of the chip; names are tau_mem, tau_syn and
            refractory_time.
    """

    runs: tuple[int, ...]
    refines: int | None
    potentials: Mapped[tuple[str, Circuit], float]
    times: Mapped[tuple[str, Circuit], float]

    def file(self, number: int) -> str:
        """Name of its file of targets."""
        return f"calix_target.{number}.json"


class _Draft:
    """A calibration that grows."""

    def __init__(self, refines: int | None, potentials: _Asked, times: _Asked) -> None:
        self.runs: list[int] = []
        self.refines, self.potentials, self.times = refines, potentials, times


def calibrations_of(mapping: Mapping, quantized: Quantized) -> tuple[Calibration, ...]:
    """The calibrations of all runs: each run goes to the first one that asks for nothing else of
    any circuit.
    """
    drafts: list[_Draft] = []
    for number, run in enumerate(mapping.runs):
        potentials, times = _asked(run, mapping, quantized)
        found = _agreeing(drafts, potentials, times)
        found.runs.append(number)
    return tuple(
        Calibration(
            runs=tuple(one.runs),
            refines=one.refines,
            potentials=one.potentials,
            times=one.times,
        )
        for one in drafts
    )


def _agreeing(drafts: list[_Draft], potentials: _Asked, times: _Asked) -> _Draft:
    """The calibration for what a run asks, made if none agrees."""
    for draft in drafts:
        if _agree(draft.times, times) and _agree(draft.potentials, potentials):
            draft.times |= times
            draft.potentials |= potentials
            return draft
    for number, draft in enumerate(drafts):
        if draft.refines is None and _agree(draft.times, times):
            draft.times |= times
            drafts.append(_Draft(number, dict(potentials), draft.times))
            return drafts[-1]
    drafts.append(_Draft(None, dict(potentials), dict(times)))
    return drafts[-1]


def _agree(known: _Asked, asked: _Asked) -> bool:
    return all(known.get(key, value) == value for key, value in asked.items())


def _asked(run: Run, mapping: Mapping, quantized: Quantized) -> tuple[_Asked, _Asked]:
    """What the neurons of a run ask of their circuits; all circuits of a neuron are calibrated
    alike.
    """
    potentials, times = _Asked(), _Asked()
    for neuron in run.neurons:
        one = quantized.populations[mapping.populations[neuron.population].name]
        own = values_of(one, neuron.index)
        for circuit in neuron.circuits:
            potentials |= {(name, circuit): own[name] for name in _POTENTIALS if name in own}
            times |= {(name, circuit): own[name] for name in _TIMES if name in own}
    return potentials, times


def values_of(one: ChipPopulation, index: int) -> dict[str, float]:
    """What one neuron is calibrated to: CADC LSB, and seconds of the chip."""
    values = {
        "leak": float(one.v_leak[index]),
        "tau_mem": float(one.tau_mem[index]),
        "tau_syn": float(one.tau_syn[index]),
    }
    if one.fires:
        values |= {
            "reset": float(one.v_reset[index]),
            "threshold": float(one.v_threshold[index]),
            "refractory_time": float(one.refractory_time),
        }
    return values


def target_content(mapping: Mapping, quantized: Quantized, one: Calibration) -> dict[str, Any]:
    """A file of targets: lists of one value for each circuit, in the vendor's order; circuits that
    no run uses have the vendor's defaults.
    """
    shape = HEMISPHERES, mapping.chip.columns
    tables = {}
    for name in (*_POTENTIALS, *_TIMES):
        asked, unit = (one.potentials, 1.0) if name in _POTENTIALS else (one.times, SECONDS["us"])
        default = PARAMETERS[_NAMES.get(name, name)].default
        values = np.full(shape, default, float)
        for (other, circuit), value in asked.items():
            if other == name:
                values[circuit] = value
        tables[name] = np.round(values.ravel() / unit, 9).tolist()
    tables = {
        name: [round(value) for value in values] if name in _POTENTIALS else values
        for name, values in tables.items()
    }
    inputs = quantized.measured or MeasuredSlope(slope=1.0)
    capacitance = int(PARAMETERS["membrane_capacitance"].default)
    return {
        "units": {"leak, reset, threshold": "CADC LSB", "times": "us"},
        **tables,
        "tau_syn": [tables["tau_syn"]] * _INPUTS,
        "i_synin_gm": [inputs.i_synin_gm] * _INPUTS,
        "synapse_dac_bias": inputs.synapse_dac_bias,
        "membrane_capacitance": [capacitance] * mapping.chip.circuits,
    }


def target_text(mapping: Mapping, quantized: Quantized, one: Calibration) -> str:
    """A file of targets as it is written."""
    return json.dumps(target_content(mapping, quantized, one), allow_nan=False) + "\n"
