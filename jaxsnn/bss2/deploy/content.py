"""Content of network.json, which the scripts read: the mapping and its network, run by run,
numbered as in the chip's own software, and the calibration targets of each circuit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.bss2.check.propagate import events_of, listening, passed
from jaxsnn.bss2.chip import HEMISPHERES, INHIBITORY, PARAMETERS, Chip, Circuit
from jaxsnn.bss2.mapping import Mapping, PlacedNeuron, Run, digest
from jaxsnn.bss2.search.measured_slopes import MeasuredSlope
from jaxsnn.bss2.search.quantize import ChipPopulation, Quantized
from jaxsnn.errors import MappingError
from jaxsnn.units import SECONDS, parse_time
from jaxsnn.wording import Text

#: Interval of the CADC's samples of membranes, and time step of the runtime; seconds of the chip.
STEP = parse_time("1us")


def content_of(
    mapping: Mapping, quantized: Quantized, calibrations: tuple[Calibration, ...]
) -> dict[str, Any]:
    """Return the content of network.json, which the scripts read; see `run_content` for a run."""
    placed, inputs = [], quantized.measured or MeasuredSlope(slope=1.0)
    fires = [
        not population.external and quantized.populations[population.name].fires
        for population in quantized.netlist.populations
    ]
    for population in quantized.netlist.populations:
        entry: dict[str, Any] = {
            "name": population.name,
            "size": population.size,
            "external": population.external,
        }
        placed.append(
            entry
            if population.external
            else entry | _population(quantized.populations[population.name])
        )
    return {
        "schema": 1,
        "fingerprint": mapping.fingerprint,
        "mapping": digest(mapping),
        "signs": mapping.signs,
        "largest_weight": mapping.chip.weight_max,
        "speedup": quantized.speedup,
        "slope": None if quantized.slope is None else float(quantized.slope),
        "bias_source": quantized.bias_source,
        "bias_period": quantized.bias_period,
        "cycle": mapping.chip.clock_period,
        "step": STEP,
        "millisecond": SECONDS["ms"],
        "microsecond": SECONDS["us"],
        "i_synin_gm": inputs.i_synin_gm,
        "synapse_dac_bias": inputs.synapse_dac_bias,
        "populations": placed,
        "calibrations": [
            {"targets": population.file(number), "refines": population.refines}
            for number, population in enumerate(calibrations)
        ],
        "runs": [
            {
                "calibration": next(
                    k for k, population in enumerate(calibrations) if number in population.runs
                )
            }
            | run_content(mapping, run, fires)
            for number, run in enumerate(mapping.runs)
        ],
    }


def _population(population: ChipPopulation) -> dict[str, Any]:
    """Return parameters under their hxtorch names: one number where all neurons share the value."""
    values = {
        "leak": population.v_leak,
        "tau_mem": population.tau_mem,
        "tau_syn": population.tau_syn,
    }
    if population.fires:
        values |= {"reset": population.v_reset, "threshold": population.v_threshold}
    lists = {name: value.tolist() for name, value in values.items()}
    shortened = {name: value[0] if len(set(value)) == 1 else value for name, value in lists.items()}
    return {"fires": population.fires, **shortened, "refractory_time": population.refractory_time}


def run_content(mapping: Mapping, run: Run, fires: list[bool]) -> dict[str, Any]:
    """Return the entry of one run.

    `groups` are neurons of one population and one shape, each a module of hxtorch: `neurons` are
    their positions in the run, `shape` their circuits as (row, column) relative to the anchor, the
    circuit that fires. `links` are the weights between groups, or from the sources (None).
    `synapses` are those of the chip: the position of the source (the sources come first, then the
    neurons of the run), the position of the neuron, and the index of its circuit.

    Args:
        fires: Whether the neurons of each population send events, and thus have an address.
    """
    circuits = [head_first(neuron) for neuron in run.neurons]
    groups = _groups(mapping.chip, run, circuits, fires)
    synapses = _synapses(mapping, run, circuits)
    return {
        "sources": [
            {
                "population": source.population,
                "index": source.index,
                "from_run": source.from_run,
                "events": list(source.events),
            }
            for source in run.sources
        ],
        "groups": groups,
        "links": _links(run, groups, synapses),
        "synapses": {name: values.tolist() for name, values in synapses.items()},
        "compare_masks": run.compare_masks.tolist(),
        "row_modes": run.row_modes.tolist(),
        "crossbar": run.crossbar.tolist(),
    }


def head_first(neuron: PlacedNeuron) -> tuple[Circuit, ...]:
    """Return circuits in the order of the vendor's software, whose first one fires."""
    head = neuron.circuits[neuron.head]
    return (head, *sorted(circuit for circuit in neuron.circuits if circuit != head))


def _groups(
    chip: Chip, run: Run, circuits: list[tuple[Circuit, ...]], fires: list[bool]
) -> list[dict[str, Any]]:
    """Return the neurons of a run grouped by population and shape, in the order of the run."""
    members: dict[tuple[int, tuple[Circuit, ...]], list[int]] = {}
    for number, (neuron, neuron_circuits) in enumerate(zip(run.neurons, circuits, strict=True)):
        top, leftmost = _corner(neuron_circuits)
        shape = tuple((row - top, column - leftmost) for row, column in neuron_circuits)
        members.setdefault((neuron.population, shape), []).append(number)
    return [
        {
            "population": population,
            "shape": [list(circuit) for circuit in shape],
            "neurons": numbers,
            "indices": [run.neurons[number].index for number in numbers],
            "anchors": [circuit_number(chip, _corner(circuits[number])) for number in numbers],
            "heads": [circuit_number(chip, circuits[number][0]) for number in numbers],
            "addresses": [
                run.neurons[number].address if fires[population] else None for number in numbers
            ],
        }
        for (population, shape), numbers in sorted(
            members.items(), key=lambda item: (item[0][0], item[1][0])
        )
    ]


def _corner(circuits: tuple[Circuit, ...]) -> Circuit:
    """Return the top row and the leftmost column of a neuron."""
    return min(row for row, _ in circuits), min(column for _, column in circuits)


def circuit_number(chip: Chip, circuit: Circuit) -> int:
    """Return the number of a circuit in the vendor's software."""
    return chip.columns * circuit[0] + circuit[1]


def _synapses(
    mapping: Mapping, run: Run, circuits: list[tuple[Circuit, ...]]
) -> dict[str, np.ndarray]:
    """Return the synapses of a checked mapping, each with its only source and its neuron."""
    chip = mapping.chip
    count = len(run.sources)
    senders = np.arange(count + len(run.neurons))
    events = events_of(chip, run, senders[count:], senders[:count])
    arrivals = passed(events, run.crossbar)
    received, first, times = listening(chip, events, arrivals, run)
    if (several := times != 1).any():
        row, column = run.synapses[several][0, 1:3]
        raise MappingError(
            Text(
                "synapses that receive several events of one source: {count}, the first in row {row} "
                "and column {column}; the deployed scripts support one event per weight",
                count=int(several.sum()),
                row=row,
                column=column,
            ),
            fix="map the network again",
        )
    side, row, column, label, weight = run.synapses.T
    owner = {
        place: (number, part)
        for number, neuron_circuits in enumerate(circuits)
        for part, place in enumerate(neuron_circuits)
    }
    ends = [owner[place] for place in zip(side.tolist(), column.tolist(), strict=True)]
    post, circuit = np.array(ends, np.int64).reshape(-1, 2).T
    return {
        "pre": events.sender[received[first]],
        "post": post,
        "side": side,
        "row": row,
        "column": column,
        "label": label,
        "weight": weight,
        "circuit": circuit,
    }


def _links(
    run: Run, groups: list[dict[str, Any]], synapses: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Return the signed weights between groups, by pair of groups, those from the sources first."""
    count = len(run.sources)
    group = np.full(count + len(run.neurons), -1)
    place = np.arange(count + len(run.neurons))
    for number, neuron_group in enumerate(groups):
        neurons = count + np.array(neuron_group["neurons"])
        group[neurons], place[neurons] = number, np.arange(len(neurons))
    inhibits = run.row_modes[synapses["side"], synapses["row"]] == INHIBITORY
    sign = np.where(inhibits, -1, 1)
    pre, post = group[synapses["pre"]], group[count + synapses["post"]]
    links = []
    for source in range(-1, len(groups)):
        for target in range(len(groups)):
            here = (pre == source) & (post == target)
            if here.any():
                pairs = np.stack(
                    [place[synapses["pre"][here]], place[count + synapses["post"][here]]]
                )
                (sources, targets), which = np.unique(pairs, axis=1, return_inverse=True)
                weight = np.bincount(
                    which.reshape(-1), weights=(sign * synapses["weight"])[here]
                ).astype(int)
                links.append(
                    {
                        "pre": None if source < 0 else source,
                        "post": target,
                        "source": sources.tolist(),
                        "target": targets.tolist(),
                        "weight": weight.tolist(),
                    }
                )
    return links


# -- targets of the calibration

#: Number of synaptic inputs of a circuit: excitatory and inhibitory.
_INPUTS = 2
_POTENTIALS = ("leak", "reset", "threshold")
_TIMES = ("tau_mem", "tau_syn", "refractory_time")
#: Names of the vendor's calibration -> those of `PARAMETERS`.
_NAMES = {"leak": "v_leak", "reset": "v_reset", "threshold": "v_threshold"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Targets of one calibration, and the runs that use it.

    Attributes:
        runs: the runs that use it.
        refines: number of the calibration whose synaptic inputs and time constants are reused; None
            if nothing is reused.
        potentials: (name, circuit) -> CADC LSB; names are leak, reset and threshold.
        times: (name, circuit) -> seconds of the chip; names are tau_mem, tau_syn and
            refractory_time.
    """

    runs: list[int]
    refines: int | None
    potentials: dict[tuple[str, Circuit], float]
    times: dict[tuple[str, Circuit], float]

    def file(self, number: int) -> str:
        """Return the name of the file of targets."""
        return f"calix_target.{number}.json"


def calibrations_of(mapping: Mapping, quantized: Quantized) -> tuple[Calibration, ...]:
    """Return the calibrations of all runs: each run uses the first one that does not conflict with
    its targets on any circuit.

    A circuit that is part of different neurons in different runs may need different potentials in
    each; then an earlier calibration is refined, which reuses its synaptic inputs and time constants.
    If it needs different time constants, the chip is calibrated again.
    """

    def agree(fixed: dict[Any, float], requested: dict[Any, float]) -> bool:
        return all(fixed.get(key, value) == value for key, value in requested.items())

    calibrations: list[Calibration] = []
    for run_number, run in enumerate(mapping.runs):
        potentials, times = {}, {}
        for neuron in run.neurons:
            population = quantized.populations[mapping.populations[neuron.population].name]
            values = values_of(population, neuron.index)
            for circuit in neuron.circuits:  # all of a neuron are calibrated alike
                potentials |= {(key, circuit): values[key] for key in _POTENTIALS if key in values}
                times |= {(key, circuit): values[key] for key in _TIMES if key in values}
        for calibration in calibrations:
            if agree(calibration.times, times) and agree(calibration.potentials, potentials):
                calibration.times.update(times)
                calibration.potentials.update(potentials)
                calibration.runs.append(run_number)
                break
        else:
            refines = None
            for number, calibration in enumerate(calibrations):
                if calibration.refines is None and agree(calibration.times, times):
                    # both then have the times of both
                    calibration.times.update(times)
                    refines, times = number, calibration.times
                    break
            calibrations.append(
                Calibration(runs=[run_number], refines=refines, potentials=potentials, times=times)
            )
    return tuple(calibrations)


def values_of(population: ChipPopulation, index: int) -> dict[str, float]:
    """Return the calibration targets of one neuron: CADC LSB, and seconds of the chip."""
    values = {
        "leak": float(population.v_leak[index]),
        "tau_mem": float(population.tau_mem[index]),
        "tau_syn": float(population.tau_syn[index]),
    }
    if population.fires:
        values |= {
            "reset": float(population.v_reset[index]),
            "threshold": float(population.v_threshold[index]),
            "refractory_time": float(population.refractory_time),
        }
    return values


def target_content(
    mapping: Mapping, quantized: Quantized, calibration: Calibration
) -> dict[str, Any]:
    """Return a file of targets: lists of one value for each circuit, in the vendor's order; circuits that
    no run uses have the vendor's defaults.
    """
    shape = HEMISPHERES, mapping.chip.columns
    tables = {}
    for name in (*_POTENTIALS, *_TIMES):
        is_potential = name in _POTENTIALS
        targets = calibration.potentials if is_potential else calibration.times
        unit = 1.0 if is_potential else SECONDS["us"]
        default = PARAMETERS[_NAMES.get(name, name)].default
        values = np.full(shape, default, float)
        for (parameter, circuit), value in targets.items():
            if parameter == name:
                values[circuit] = value
        values = np.round(values.ravel() / unit, 9).tolist()
        tables[name] = [round(value) for value in values] if is_potential else values
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
