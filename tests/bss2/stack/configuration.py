"""Configurations of the chip: crossbar nodes, row modes, morphologies, and what a calibration leaves
on it; as haldls and lola have them.
"""

import enum
import types

from tests.bss2.stack.coordinates import (
    HALF,
    CompartmentOnLogicalNeuron,
    LogicalNeuronCompartments,
    refuse_if,
)


class RowMode(enum.Enum):
    """What a synapse row does."""

    disabled = 0
    excitatory = 1
    inhibitory = 2
    excitatory_and_inhibitory = 3


class CrossbarNode:
    """Passes events whose address under a mask is a target; masks and targets are neuron labels."""

    def __init__(self, label):
        object.__setattr__(self, "label", label)
        self.mask = self.target = label(0)

    def __setattr__(self, name, value):
        refuse_if(
            name not in ("mask", "target") or not isinstance(value, self.label),
            TypeError,
            f"{name} of a crossbar node is not a {type(value).__name__}",
        )
        object.__setattr__(self, name, value)


def hal(halco):
    """The module."""
    return types.SimpleNamespace(
        SynapseDriverConfig=types.SimpleNamespace(RowMode=RowMode),
        CrossbarNode=lambda: CrossbarNode(halco.NeuronLabel),
    )


def neighbours(place):
    """Circuits that a switch can connect to one, on the grid of a logical neuron."""
    row, column = divmod(place, HALF)
    yield HALF * (1 - row) + column
    yield from (place + step for step in (-1, 1) if 0 <= column + step < HALF)


class Morphology:
    """Compartments of circuits that lie side by side."""

    def __init__(self):
        self.compartments = {}

    def create_compartment(self, circuits):
        places = {circuit.number for circuit in circuits}
        refuse_if(not places, RuntimeError, "At least one neuron must be in a compartment.")
        start = next(iter(sorted(places)))
        reached, waiting = {start}, [start]
        while waiting:
            for neighbour in neighbours(waiting.pop()):
                if neighbour in places and neighbour not in reached:
                    reached.add(neighbour)
                    waiting.append(neighbour)
        refuse_if(
            reached != places,
            RuntimeError,
            "Compartment is not made up of a contiguous block of neurons.",
        )
        self.compartments[CompartmentOnLogicalNeuron(len(self.compartments))] = tuple(circuits)

    def done(self):
        return LogicalNeuronCompartments(self.compartments), types.SimpleNamespace()


class Circuit:
    """One neuron circuit: what it is calibrated to, and what a morphology makes of it."""

    def __init__(self, values):
        self.values = values
        self.leaks = self.fires = self.sends = False


class ChipConfiguration:
    """All circuits of a chip, by number."""

    def __init__(self, target):
        fields = ("leak", "reset", "threshold", "tau_mem", "refractory_time")
        self.circuits = {
            place: Circuit(
                {name: float(getattr(target, name)[place]) for name in fields}
                | {"tau_syn": tuple(float(tau) for tau in target.tau_syn[:, place])}
            )
            for place in range(512)
        }


def lola():
    """The module."""
    return types.SimpleNamespace(Morphology=Morphology)
