"""Coordinates and addresses of the chip with their ranges, as halco has them (hicann-dls/vx/v3)."""

import types

COLUMNS, HALF = 256, 128


def refuse_if(condition: object, error: type[Exception], message: str) -> None:
    """Raise an error as the chip's software does, if a condition of it holds."""
    if condition:
        raise error(message)


class Value:
    """A number in a range; made of a number, of an Enum or of itself, compared by class and value."""

    size = None

    def __init__(self, value=0):
        value = value.number if isinstance(value, Value) else value
        refuse_if(
            not isinstance(value, int),
            TypeError,
            f"{type(self).__name__} is not made of a {type(value).__name__}",
        )
        refuse_if(
            self.size is not None and not 0 <= value < self.size,
            OverflowError,
            f"{type(self).__name__}: {value} is not below {self.size}",
        )
        self.number = value

    def __eq__(self, other):
        return type(self) is type(other) and self.number == other.number

    def __hash__(self):
        return hash((type(self).__name__, self.number))

    def __repr__(self):
        return f"{type(self).__name__}({self.number})"

    def __lt__(self, other):
        return self.number < other.number

    def __int__(self):
        return self.number

    def toEnum(self):
        return Enum(self.number)

    def value(self):
        return self.number


class Enum(Value):
    """A number of anything."""


def sized(name, size):
    """A coordinate whose numbers are below a size."""
    return type(name, (Value,), {"size": size})


def existing_nodes():
    """(output, input) of the crossbar nodes that there are."""
    neurons = {
        (out, entry) for entry in range(8) for out in (entry % 4, 4 + entry % 4, 8 + entry % 4)
    }
    links = {(out, 8 + entry) for entry in range(4) for out in (*range(8), 8 + entry)}
    background = {(out, 12 + entry) for entry in range(8) for out in (entry, 8 + entry % 4)}
    return neurons | links | background


CrossbarOutputOnDLS = sized("CrossbarOutputOnDLS", 12)
CrossbarInputOnDLS = sized("CrossbarInputOnDLS", 20)
AtomicNeuronOnDLS = sized("AtomicNeuronOnDLS", 2 * COLUMNS)
SynapticInputOnNeuron = sized("SynapticInputOnNeuron", 2)
AtomicNeuronOnLogicalNeuron = sized("AtomicNeuronOnLogicalNeuron", 2 * HALF)


class CompartmentOnLogicalNeuron(Value):
    """Number of a compartment."""


class CrossbarNodeOnDLS(Value):
    """A node: an output, then an input."""

    def __init__(self, output, entry):
        refuse_if(
            not isinstance(output, CrossbarOutputOnDLS)
            or not isinstance(entry, CrossbarInputOnDLS),
            TypeError,
            "a crossbar node is made of an output and an input",
        )
        refuse_if(
            (output.number, entry.number) not in existing_nodes(),
            OverflowError,
            f"there is no crossbar node from {entry} to {output}",
        )
        super().__init__(12 * entry.number + output.number)
        self.output, self.entry = output.number, entry.number


class LogicalNeuronCompartments:
    """Compartments of a neuron that has no place yet."""

    def __init__(self, compartments):
        every = [circuit for circuits in compartments.values() for circuit in circuits]
        refuse_if(
            len(set(every)) != len(every),
            RuntimeError,
            "Multiple compartments contain the same neuron(s).",
        )
        self.compartments = compartments

    def get_compartments(self):
        return dict(self.compartments)


class LogicalNeuronOnDLS:
    """A neuron at a place: its circuits keep the order in which the compartment was made."""

    def __init__(self, compartments, anchor):
        refuse_if(
            not isinstance(anchor, AtomicNeuronOnDLS),
            TypeError,
            "the anchor is an AtomicNeuronOnDLS",
        )
        every = [
            divmod(circuit.number, HALF)
            for circuits in compartments.compartments.values()
            for circuit in circuits
        ]
        top, left = min(row for row, _ in every), min(column for _, column in every)
        height = max(row for row, _ in every) - top
        width = max(column for _, column in every) - left
        row, column = divmod(anchor.number, COLUMNS)
        refuse_if(
            row + height > 1 or column % HALF + width >= HALF,
            RuntimeError,
            "LogicalNeuron anchor results in placement of compartments outside of neuron grid.",
        )
        self.placed = {
            key: tuple(
                AtomicNeuronOnDLS(COLUMNS * (row + y - top) + column + x - left)
                for y, x in (divmod(circuit.number, HALF) for circuit in circuits)
            )
            for key, circuits in compartments.compartments.items()
        }

    def get_placed_compartments(self):
        return dict(self.placed)

    def get_atomic_neurons(self):
        return [circuit for circuits in self.placed.values() for circuit in circuits]


def halco():
    """The module."""
    return types.SimpleNamespace(
        common=types.SimpleNamespace(Enum=Enum),
        AtomicNeuronOnDLS=AtomicNeuronOnDLS,
        AtomicNeuronOnLogicalNeuron=AtomicNeuronOnLogicalNeuron,
        CompartmentOnLogicalNeuron=CompartmentOnLogicalNeuron,
        CrossbarInputOnDLS=CrossbarInputOnDLS,
        CrossbarNodeOnDLS=CrossbarNodeOnDLS,
        CrossbarOutputOnDLS=CrossbarOutputOnDLS,
        LogicalNeuronCompartments=LogicalNeuronCompartments,
        LogicalNeuronOnDLS=LogicalNeuronOnDLS,
        NeuronColumnOnLogicalNeuron=sized("NeuronColumnOnLogicalNeuron", HALF),
        NeuronLabel=sized("NeuronLabel", 1 << 14),
        SpikeLabel=sized("SpikeLabel", 1 << 16),
        SynapseDriverOnDLS=sized("SynapseDriverOnDLS", 256),
        SynapseOnSynapseRow=sized("SynapseOnSynapseRow", COLUMNS),
        SynapseRowOnDLS=sized("SynapseRowOnDLS", 512),
        SynapseRowOnSynram=sized("SynapseRowOnSynram", 256),
        SynapticInputOnNeuron=SynapticInputOnNeuron,
    )
