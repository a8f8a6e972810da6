"""grenade's networks of OS 12: NetworkBuilder, RoutingResult, and the hardware graph that is built
from both, with the checks that it makes; written from their public behaviour (grenade d1d8ee10).
"""

import collections
import enum
import types

from tests.bss2.stack.configuration import RowMode
from tests.bss2.stack.coordinates import CompartmentOnLogicalNeuron, Value, refuse_if

ROWS, LABELS, LARGEST = 256, 64, 63


class InvalidNetworkGraphError(RuntimeError):
    """The built graph does not do what the network says."""


class ReceptorType(enum.Enum):
    """Sign of a synaptic input."""

    excitatory = 1
    inhibitory = 2


class Receptor:
    """A synaptic input."""

    Type = ReceptorType
    ID = type("ID", (Value,), {})

    def __init__(self, identifier, kind):
        assert isinstance(identifier, self.ID)
        assert isinstance(kind, ReceptorType)
        self.id, self.type = identifier, kind

    def __eq__(self, other):
        return (self.id, self.type) == (other.id, other.type)

    def __hash__(self):
        return hash((self.id, self.type))


class Weight(Value):
    """Weight of a connection, without a sign."""

    def __init__(self, value=0):
        super().__init__(value)
        refuse_if(self.number < 0, TypeError, "weights of connections are sizes")


class PopulationOnNetwork(Value):
    """Number of a population; also what it is called in its execution instance."""


class ProjectionOnNetwork(Value):
    """Number of a projection."""


Connection = collections.namedtuple("Connection", "index_pre index_post weight")


class Projection:
    """Connections of one receptor."""

    Connection = Connection

    def __init__(self, receptor, connections, population_pre, population_post, chip):
        assert isinstance(receptor, Receptor)
        assert isinstance(population_pre, PopulationOnNetwork)
        assert isinstance(population_post, PopulationOnNetwork)
        self.receptor, self.connections = receptor, list(connections)
        self.population_pre, self.population_post = population_pre, population_post


def weight_to_connection(weight):
    """Dense connections of an integer matrix (outputs, inputs), zeros included."""
    refuse_if(
        weight.ndim != 2 or weight.dtype.kind != "i",
        TypeError,
        "weights are a matrix of whole numbers",
    )
    first = CompartmentOnLogicalNeuron()
    return [
        Connection((source, first), (target, first), Weight(abs(int(weight[target, source]))))
        for target in range(weight.shape[0])
        for source in range(weight.shape[1])
    ]


class Population:
    """Neurons on the chip."""

    class Neuron:
        """A neuron at its place."""

        class Compartment:
            """Receptors by circuit, and which circuit sends spikes."""

            class SpikeMaster:
                """The circuit that sends, and whether the host records it."""

                def __init__(self, neuron_on_compartment, enable_record_spikes):
                    self.neuron_on_compartment = neuron_on_compartment
                    self.enable_record_spikes = bool(enable_record_spikes)

            def __init__(self, spike_master, receptors):
                self.spike_master, self.receptors = spike_master, receptors

        def __init__(self, coordinate, compartments):
            self.coordinate, self.compartments = coordinate, compartments
            for key, compartment in compartments.items():
                refuse_if(
                    len(compartment.receptors) != len(coordinate.get_placed_compartments()[key]),
                    RuntimeError,
                    "Population is not valid.",
                )

    def __init__(self, neurons, chip=None):
        self.neurons = neurons

    def circuits(self):
        return [
            circuit for neuron in self.neurons for circuit in neuron.coordinate.get_atomic_neurons()
        ]


class ExternalSourcePopulation:
    """Neurons whose spikes the host sends."""

    class Neuron:
        """One of them."""

        def __init__(self, enable_record_spikes):
            self.enable_record_spikes = enable_record_spikes

    def __init__(self, neurons, chip=None):
        self.neurons = neurons


class NetworkBuilder:
    """Populations and projections of one execution instance."""

    def __init__(self):
        self.populations, self.projections, self.identifier = {}, {}, None

    def add(self, part, identifier):
        refuse_if(
            self.identifier not in (None, identifier),
            NotImplementedError,
            "this stack has one execution instance",
        )
        self.identifier = identifier
        if isinstance(part, Projection):
            return self._projection(part)
        if isinstance(part, Population):
            occupied = [
                place
                for population in self.populations.values()
                if isinstance(population, Population)
                for place in population.circuits()
            ]
            refuse_if(
                len(set(occupied + part.circuits())) < len(occupied) + len(part.circuits()),
                RuntimeError,
                "Neuron location already present in other population.",
            )
        key = PopulationOnNetwork(len(self.populations))
        self.populations[key] = part
        return key

    def _projection(self, projection):
        pre, post = (
            self.populations[key] for key in (projection.population_pre, projection.population_post)
        )
        refuse_if(
            not isinstance(post, Population),
            RuntimeError,
            "Only projections with on-chip neuron population are supported.",
        )
        pairs = set()
        for connection in projection.connections:
            source, target = connection.index_pre, connection.index_post
            refuse_if(
                source[0] >= len(pre.neurons) or target[0] >= len(post.neurons),
                RuntimeError,
                "Connection index out of range of population(s).",
            )
            receptors = post.neurons[target[0]].compartments[target[1]].receptors
            refuse_if(
                not any(projection.receptor in kinds for kinds in receptors),
                RuntimeError,
                "Neuron does not feature receptor requested by projection.",
            )
            pairs.add((source, target))
        refuse_if(
            len(pairs) < len(projection.connections),
            RuntimeError,
            "Projection features same single connection multiple times.",
        )
        key = ProjectionOnNetwork(len(self.projections))
        self.projections[key] = projection
        return key

    def done(self):
        instance = types.SimpleNamespace(populations=self.populations, projections=self.projections)
        return types.SimpleNamespace(execution_instances={self.identifier: instance})


class PlacedConnection:
    """A synapse of a connection; weights and labels have 6 bit."""

    def __setattr__(self, name, value):
        limit = {"weight": LARGEST, "label": LABELS - 1}.get(name)
        refuse_if(
            limit is not None and not 0 <= int(value) <= limit,
            OverflowError,
            f"{name} {value} of a synapse is not in 0 to {limit}",
        )
        object.__setattr__(self, name, value)


class RoutedInstance:
    """What a router says of one execution instance."""

    PlacedConnection = PlacedConnection

    def __init__(self):
        self.connections, self.connection_routing_result = {}, {}
        self.external_spike_labels, self.internal_neuron_labels = {}, {}
        self.synapse_driver_compare_masks, self.synapse_row_modes = {}, {}
        self.crossbar_nodes = {}


class RoutingResult:
    """What a router says."""

    ExecutionInstance = RoutedInstance

    def __init__(self):
        self.execution_instances = {}


Synapse = collections.namedtuple("Synapse", "driver row column label weight projection connection")


class NetworkGraph:
    """The hardware graph of a routed network.

    Attributes:
        sources: (population, place) -> event numbers, of what the host sends.
        reached: (population, place) -> [(circuit, signed weight)], what its events do on the chip.
    """

    def __init__(self, network, result):
        ((self.identifier, self.instance),) = network.execution_instances.items()
        self.routed = result.execution_instances[self.identifier]
        self.labels = self._labels()
        self.nodes, self.drivers, self.synapses = {}, {}, []
        self.reached = collections.defaultdict(list)
        for key, projection in self.instance.projections.items():
            self._place(key, projection)
        self._record()
        self._unique_labels()
        self._weights()
        self._connectum()

    # -- labels
    def _labels(self):
        """(population, place) -> its events as numbers of 16 bit; none where it sends none."""
        events = {}
        for key, population in self.instance.populations.items():
            external = isinstance(population, ExternalSourcePopulation)
            listed = (
                self.routed.external_spike_labels
                if external
                else self.routed.internal_neuron_labels
            )
            refuse_if(
                key not in listed,
                RuntimeError,
                f"Connection builder result does not contain labels for {key}.",
            )
            refuse_if(
                len(listed[key]) != len(population.neurons),
                InvalidNetworkGraphError,
                f"Not the correct number of spike-labels for {key}.",
            )
            for place, labels in enumerate(listed[key]):
                if external:
                    events[key, place] = [label.value() for label in labels]
                    continue
                ((compartment, circuits),) = (
                    population.neurons[place].coordinate.get_placed_compartments().items()
                )
                refuse_if(
                    len(labels[compartment]) != len(circuits),
                    RuntimeError,
                    "Connection builder result lacks a neuron label.",
                )
                events[key, place] = [
                    internal_label(circuit.number, label)
                    for circuit, label in zip(circuits, labels[compartment], strict=True)
                    if label is not None
                ]
        return events

    def _unique_labels(self):
        seen = set()
        for key, population in self.instance.populations.items():
            if isinstance(population, Population):
                for place, neuron in enumerate(population.neurons):
                    (master,) = [
                        compartment.spike_master for compartment in neuron.compartments.values()
                    ]
                    for label in self.labels[key, place] if master.enable_record_spikes else ():
                        refuse_if(
                            label in seen,
                            InvalidNetworkGraphError,
                            "Label of to be recorded neuron is not unique.",
                        )
                        seen.add(label)

    # -- synapses
    def _place(self, key, projection):
        """Drivers, nodes and synapses of a projection."""
        external = isinstance(
            self.instance.populations[projection.population_pre], ExternalSourcePopulation
        )
        refuse_if(
            key not in self.routed.connections and (projection.connections or not external),
            RuntimeError,
            f"Connection builder result does not contain connections for {key}.",
        )
        placed = self.routed.connections.get(key, [])
        refuse_if(
            len(placed) != len(projection.connections),
            RuntimeError,
            "Connection builder result connection number is not as expected.",
        )
        if not placed:
            return
        # Neurons expect a view of the projection's synapses, which is missing if none was placed.
        refuse_if(not any(placed), IndexError, f"map::at: no synapse was placed for {key}")
        buses, links = set(), set()
        for place, (connection, synapses) in enumerate(
            zip(projection.connections, placed, strict=True)
        ):
            for synapse in synapses:
                side, row = divmod(synapse.synapse_row.value(), ROWS)
                driver = side, row // 2
                self._driver(driver)
                buses.add((side, driver[1] % 4))
                self.synapses.append(
                    Synapse(
                        driver,
                        row,
                        synapse.synapse_on_row.value(),
                        synapse.label,
                        synapse.weight,
                        key,
                        place,
                    )
                )
            if external and synapses:
                source = projection.population_pre, connection.index_pre[0]
                links |= {label >> 14 for label in self.labels[source]}
        outputs = (
            {8 + link for link in links}
            if external
            else {
                circuit.number % 256 // 32
                for circuit in self.instance.populations[projection.population_pre].circuits()
            }
        )
        for side, bus in buses:
            for entry in outputs:
                if external or entry % 4 == bus:
                    self._node(4 * side + bus, entry)

    def _driver(self, driver):
        if driver in self.drivers:
            return
        side, number = driver
        rows = {row.value(): mode for row, mode in self.routed.synapse_row_modes.items()}
        masks = {
            coordinate.value(): mask
            for coordinate, mask in self.routed.synapse_driver_compare_masks.items()
        }
        modes = []
        for row in (2 * number, 2 * number + 1):
            refuse_if(
                ROWS * side + row not in rows,
                RuntimeError,
                "Connection builder result does not contain the mode of a row.",
            )
            modes.append(rows[ROWS * side + row])
        refuse_if(
            RowMode.excitatory_and_inhibitory in modes,
            InvalidNetworkGraphError,
            "SynapseDriver features excitatory_and_inhibitory rows.",
        )
        self.drivers[driver] = (masks[128 * side + number], modes)

    def _node(self, output, entry):
        """A node that is used; what the router does not mention drops everything."""
        nodes = {
            (coordinate.output, coordinate.entry): node
            for coordinate, node in self.routed.crossbar_nodes.items()
        }
        node = nodes.get((output, entry))
        self.nodes[output, entry] = (
            (0, 1) if node is None else (node.mask.value(), node.target.value())
        )

    def _record(self):
        """Nodes from neurons to the host."""
        for population in self.instance.populations.values():
            if isinstance(population, Population) and any(
                compartment.spike_master.enable_record_spikes
                for neuron in population.neurons
                for compartment in neuron.compartments.values()
            ):
                for circuit in population.circuits():
                    entry = circuit.number % 256 // 32
                    self._node(8 + entry % 4, entry)

    # -- validity
    def _weights(self):
        sums = collections.Counter()
        for synapse in self.synapses:
            projection = self.instance.projections[synapse.projection]
            mode = self.drivers[synapse.driver][1][synapse.row % 2]
            refuse_if(
                mode == RowMode.disabled or mode.value != projection.receptor.type.value,
                InvalidNetworkGraphError,
                "receptor type does not match the row's",
            )
            target = projection.connections[synapse.connection].index_post
            neuron = self.instance.populations[projection.population_post].neurons[target[0]]
            circuits = neuron.coordinate.get_placed_compartments()[target[1]]
            refuse_if(
                256 * synapse.driver[0] + synapse.column
                not in [place.number for place in circuits],
                InvalidNetworkGraphError,
                "compartment doesn't contain target atomic neuron",
            )
            sums[synapse.projection, synapse.connection] += synapse.weight
        for key, projection in self.instance.projections.items():
            for place, connection in enumerate(projection.connections):
                refuse_if(
                    sums[key, place] != connection.weight.value(),
                    InvalidNetworkGraphError,
                    "synaptic weight does not match",
                )

    def _connectum(self):
        """What events reach is what the network says, synapse by synapse."""
        listeners = collections.defaultdict(list)
        for synapse in self.synapses:
            listeners[synapse.driver, synapse.label].append(synapse)
        places = [(synapse.driver, synapse.row, synapse.column) for synapse in self.synapses]
        refuse_if(
            len(set(places)) < len(places),
            InvalidNetworkGraphError,
            "Synapse vertices overlap on hardware.",
        )
        expected, actual = collections.Counter(), collections.Counter()
        for synapse in self.synapses:
            projection = self.instance.projections[synapse.projection]
            source = (
                projection.population_pre,
                projection.connections[synapse.connection].index_pre[0],
            )
            expected[source, synapse] += 1
        for source, labels in self.labels.items():
            for label in labels:
                for synapse in self._heard(source, label, listeners):
                    actual[source, synapse] += 1
                    mode = self.drivers[synapse.driver][1][synapse.row % 2]
                    sign = 1 if mode == RowMode.excitatory else -1
                    circuit = 256 * synapse.driver[0] + synapse.column
                    self.reached[source].append((circuit, sign * synapse.weight))
        refuse_if(
            expected != actual,
            InvalidNetworkGraphError,
            f"connectum differs: {len(expected - actual)} missing, {len(actual - expected)} too many",
        )

    def _heard(self, source, label, listeners):
        """The synapses that respond to an event."""
        external = isinstance(self.instance.populations[source[0]], ExternalSourcePopulation)
        entry = 8 + (label >> 14) if external else (label >> 8) & 7
        address = label & ((1 << 14) - 1)
        for (output, node_entry), (mask, target) in self.nodes.items():
            if node_entry != entry or output >= 8 or address & mask != target:
                continue
            side, bus = divmod(output, 4)
            for index in range(32):
                driver = side, 4 * index + bus
                if driver in self.drivers:
                    compared = self.drivers[driver][0]
                    if index & compared == (address >> 6 & 31) & compared:
                        yield from listeners.get((driver, address & 63), ())


def internal_label(circuit, address):
    """The event of a neuron: its own 8 bit, the number of its output, and the link to the host."""
    refuse_if(not 0 <= address < 256, OverflowError, f"address {address} of a neuron has not 8 bit")
    output = circuit % 256 // 32
    return (output % 4) << 14 | output << 8 | address


class InputGenerator:
    """Takes times in milliseconds, by sample and source; gives cycles of the event clock."""

    def __init__(self, graph, batch_size):
        self.graph, self.samples = graph, [[] for _ in range(batch_size)]

    def add(self, times, population):
        used = {
            (projection.population_pre, connection.index_pre[0])
            for projection in self.graph.instance.projections.values()
            for connection in projection.connections
        }
        assert len(times) == len(self.samples)
        for trains, sample in zip(times, self.samples, strict=True):
            expected = sum(key == population for key, _ in self.graph.labels)
            refuse_if(
                len(trains) != expected,
                RuntimeError,
                "Times number of neurons does not match expected number.",
            )
            for place, train in enumerate(trains):
                if (population, place) in used:
                    sample += [(round(time * 125000), (population, place)) for time in train]

    def done(self):
        return self.samples


def module():
    """The module."""
    return types.SimpleNamespace(
        ConnectionToHardwareRoutes=types.SimpleNamespace,
        ExternalSourcePopulation=ExternalSourcePopulation,
        InputGenerator=InputGenerator,
        NetworkBuilder=NetworkBuilder,
        Population=Population,
        Projection=Projection,
        Receptor=Receptor,
        RoutingResult=RoutingResult,
        build_network_graph=NetworkGraph,
    )
