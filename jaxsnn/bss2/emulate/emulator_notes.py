"""What an emulated chip leaves out that a chip does, for the notes of a run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxsnn.bss2.emulate.emulated_chip import EmulatedChip
from jaxsnn.bss2.mapping import Mapping
from jaxsnn.bss2.search.quantize import Quantized
from jaxsnn.errors import listing


def emulator_notes(quantized: Quantized, mapping: Mapping, chip: EmulatedChip) -> Iterator[str]:
    """What is approximated where a mapping is emulated, a sentence each; nothing on an ideal chip,
    which deviates by rounding alone.

    Args:
        mapping: of the network, without violations.
    """
    if chip.ideal:
        return
    net = quantized.netlist
    joined = sum(len(one.circuits) > 1 for run in mapping.runs for one in run.neurons)
    if joined:
        yield (
            f"{joined} of the neurons have several circuits, and the emulated chip gives them the"
            " time constants and voltages of the one that fires"
        )
    if shared := _sharing(quantized, mapping):
        yield (
            f"populations {listing(shared)} share event outputs, and on the emulated chip spikes"
            " wait there for those of their own population only"
        )
    loops = np.unique([net.owner[one] for part in net.recurrent_components() for one in part])
    if looped := [net.populations[number].name for number in loops.astype(int)]:
        yield (
            f"spikes among neurons that feed each other ({listing(looped)}) neither wait nor"
            " jitter on the emulated chip before they meet"
        )
    readouts = [name for name, one in quantized.populations.items() if not one.fires]
    if readouts:
        yield f"voltages of {listing(readouts)} are sampled without noise on the emulated chip"


def _sharing(quantized: Quantized, mapping: Mapping) -> list[str]:
    """Populations that have event outputs in common with others, in one run."""
    found = set()
    for run in mapping.runs:
        behind: dict[int, set[str]] = {}
        for one in run.neurons:
            name = mapping.populations[one.population].name
            if quantized.populations[name].fires:
                output = mapping.chip.output_of(one.circuits[one.head][1])
                behind.setdefault(output, set()).add(name)
        found.update(*(names for names in behind.values() if len(names) > 1))
    return sorted(found)
