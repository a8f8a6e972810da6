"""hxtorch.spiking of OS 12 as far as networks on the chip need it: modules, their graph, placement,
calibration, execution; written from its public behaviour (hxtorch cd3bfdf).
"""

import dataclasses
import pickle
import types

import networkx as nx
import numpy as np

from tests.bss2.stack import network as grenade
from tests.bss2.stack.coordinates import (
    AtomicNeuronOnLogicalNeuron,
    CompartmentOnLogicalNeuron,
    LogicalNeuronCompartments,
    refuse_if,
)
from tests.bss2.stack.dynamics import Circuits

CYCLES = 125_000_000


class Tensor(np.ndarray):
    """As much of a tensor as is used."""

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return np.asarray(self)


def tensor(values):
    return np.array(values).view(Tensor)


@dataclasses.dataclass(eq=False)
class Observables:
    """A handle: what a module gives, once it is there."""

    spikes: object = None
    membrane_cadc: object = None
    graded_spikes: object = None

    def clone(self, observables):
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(observables, field.name))


class ModuleManager:
    """The graph of modules; its edges hold handles."""

    def __init__(self):
        self.graph, self.nodes, self.wrappers = nx.DiGraph(), {}, []
        self.open_sources, self.open_targets = set(), set()

    def edges_of(self, handle):
        return [ends for *ends, held in self.graph.edges(data="handle") if held is handle]

    def add(self, module, sources, target):
        number = self.nodes.setdefault(module, len(self.nodes))
        for place, handle in enumerate(sources):
            edges = self.edges_of(handle)
            start = f"s_{number}_{place}"
            for start, end in edges:  # noqa: B007
                if end in self.open_targets:
                    self.open_targets.remove(end)
                    self.graph.remove_node(end)
                    break
            if not edges:
                self.open_sources.add(start)
            self.graph.add_edge(start, number, handle=handle)
        edges = self.edges_of(target)
        if edges:
            start, end = edges[0]  # only one: a second target is lost
            if start in self.open_sources and start != number:
                self.open_sources.remove(start)
                self.graph.remove_node(start)
        else:
            end = f"t_{number}"
            self.open_targets.add(end)
        self.graph.add_edge(number, end, handle=target)

    def module(self, number):
        return next(module for module, index in self.nodes.items() if index == number)

    def populations(self, module, step):
        """Populations before or after a projection."""
        waiting, reached = list(step(self.nodes[module])), []
        while waiting:
            number = waiting.pop()
            module = self.module(number)  # StopIteration for an open end
            if isinstance(module, Population):
                reached.append(module)
            else:
                waiting += list(step(number))
        return reached

    def insert_inputs(self):
        for start in sorted(self.open_sources):
            (number,) = self.graph.successors(start)
            refuse_if(
                isinstance(self.module(number), Synapse),
                NotImplementedError,
                "a synapse has no source: hxtorch would make it an input",
            )

    def order(self):
        """The modules in order; wrappers in the place of what they wrap."""
        for count, wrapper in enumerate(self.wrappers):
            name = f"w_{count}"
            inside = [self.nodes[module] for module in wrapper.modules.values()]
            sources, targets = [], []
            for number in inside:
                for start, _, handle in list(self.graph.in_edges(number, data="handle")):
                    if start not in inside:
                        sources.append(handle)
                        self.graph.add_edge(start, name, handle=handle)
                for _, end, handle in list(self.graph.out_edges(number, data="handle")):
                    if end not in inside:
                        self.graph.add_edge(name, end, handle=handle)
                    if all(handle is not target for target in targets):
                        targets.append(handle)
            self.graph.remove_nodes_from(inside)
            self.graph.nodes[name].update(wrapper=wrapper, sources=sources, targets=targets)
        refuse_if(
            nx.cycle_basis(self.graph.to_undirected(as_view=True)),
            ValueError,
            "Encountered cyclic dependencies in the network.",
        )
        for number in nx.topological_sort(self.graph):
            if number in self.open_sources or number in self.open_targets:
                continue
            node = self.graph.nodes[number]
            if "wrapper" in node:
                yield node["wrapper"], tuple(node["sources"]), tuple(node["targets"])
                continue
            handles = [handle for *_, handle in self.graph.out_edges(number, data="handle")]
            assert all(handle is handles[0] for handle in handles)
            sources = tuple(handle for *_, handle in self.graph.in_edges(number, data="handle"))
            yield self.module(number), sources, handles[0]


class NeuronPlacement:
    """Which circuits are taken."""

    def __init__(self):
        self.taken = set()

    def register(self, neurons):
        for neuron in neurons:
            circuits = set(neuron.get_atomic_neurons())
            refuse_if(
                circuits & self.taken,
                ValueError,
                "Cannot register LogicalNeuron: circuits are already allocated.",
            )
            self.taken |= circuits


class ExecutionInstance:
    """The chip of an experiment."""

    def __init__(self):
        self.chip = self.calib_path = None
        self.neuron_placement, self.ID, self.input_loopback = NeuronPlacement(), "0", False

    def load_calib(self, calib_path):
        assert str(calib_path).endswith(".pkl")
        with open(calib_path, "rb") as file:
            self.chip = pickle.load(file).to_chip()
        self.calib_path = calib_path


class HXModule:
    """What takes part in an experiment."""

    descriptor = None

    def __init__(self, experiment):
        self.experiment, self._output_handle = experiment, Observables()
        self.execution_instance = experiment.default_execution_instance
        self.chip_coordinate = ("chip", "connection")

    def __call__(self, *inputs):
        self.experiment.modules.add(self, inputs, self._output_handle)
        return self._output_handle

    def post_process(self, hw_data, runtime):
        return None

    def exec_forward(self, sources, target, data):
        target.clone(self.forward_func(*sources, hw_data=data.get(self.descriptor)))


class Population(HXModule):
    """Neurons of any kind."""


class InputNeuron(Population):
    """Neurons whose spikes the host sends, on a grid of `dt`."""

    def __init__(self, size, experiment):
        super().__init__(experiment)
        self.size = size

    def add_to_network_graph(self, builder):
        neuron = grenade.ExternalSourcePopulation.Neuron(self.execution_instance.input_loopback)
        population = grenade.ExternalSourcePopulation([neuron] * self.size, self.chip_coordinate)
        self.descriptor = builder.add(population, self.execution_instance.ID)

    def add_to_input_generator(self, handle, builder):
        dt = self.experiment.dt * 1000
        _, samples, neurons = handle.spikes.shape
        times = [
            [
                (dt * np.flatnonzero(handle.spikes[:, sample, neuron])).tolist()
                for neuron in range(neurons)
            ]
            for sample in range(samples)
        ]
        builder.add(times, self.descriptor)

    def forward_func(self, handle, hw_data=None):
        return Observables(spikes=handle.spikes)


class AELIF(Population):
    """Neurons on the chip."""

    fire = True

    def __init__(
        self,
        size,
        experiment,
        leak=80,
        reset=80,
        threshold=125,
        tau_mem=10e-6,
        tau_syn=10e-6,
        i_synin_gm=500,
        refractory_time=1e-6,
        synapse_dac_bias=600,
        enable_cadc_recording=True,
        placement_constraint=None,
        neuron_structure=None,
    ):
        super().__init__(experiment)
        refuse_if(
            placement_constraint is not None and len(placement_constraint) != size,
            ValueError,
            "`placement_constraint` does not equal the `size` of the module.",
        )
        refuse_if(
            len(neuron_structure.compartments.get_compartments()) > 1,
            ValueError,
            "Currently only neurons with a single compartment are supported.",
        )
        self.size, self.places, self.structure = size, placement_constraint, neuron_structure
        self.parameters = {
            "leak": leak,
            "reset": reset,
            "threshold": threshold,
            "tau_mem": tau_mem,
            "tau_syn": tau_syn,
            "refractory_time": refractory_time,
            "i_synin_gm": i_synin_gm,
        }
        self.enable_cadc_recording, self.interpolation_mode = enable_cadc_recording, "linear"
        self.read_params_from_calibration = True

    def register_hw_entity(self):
        self.execution_instance.neuron_placement.register(self.places)

    def add_to_network_graph(self, builder):
        receptors = {grenade.Receptor(grenade.Receptor.ID(), kind) for kind in grenade.ReceptorType}
        neuron = grenade.Population.Neuron
        neurons = [
            neuron(
                place,
                {
                    CompartmentOnLogicalNeuron(): neuron.Compartment(
                        neuron.Compartment.SpikeMaster(0, self.fire),
                        [receptors] * len(place.get_atomic_neurons()),
                    )
                },
            )
            for place in self.places
        ]
        population = grenade.Population(neurons, self.chip_coordinate)
        self.descriptor = builder.add(population, self.execution_instance.ID)

    def configure_hw_entity(self, chip):
        for place in self.places:
            self.structure.implement_morphology(place, chip)
            chip.circuits[place.get_atomic_neurons()[0].number].sends = self.fire


class LIF(AELIF):
    """Neurons that fire; hxtorch integrates them again, which takes one input."""

    def forward_func(self, *handles, hw_data=None):
        raise NotImplementedError("hxtorch integrates the neurons again")


class LI(AELIF):
    """Neurons that do not."""

    fire = False

    def __init__(
        self,
        size,
        experiment,
        leak=80,
        tau_mem=10e-6,
        tau_syn=10e-6,
        i_synin_gm=500,
        synapse_dac_bias=600,
        enable_cadc_recording=True,
        placement_constraint=None,
        neuron_structure=None,
    ):
        super().__init__(
            size,
            experiment,
            leak=leak,
            tau_mem=tau_mem,
            tau_syn=tau_syn,
            i_synin_gm=i_synin_gm,
            synapse_dac_bias=synapse_dac_bias,
            enable_cadc_recording=enable_cadc_recording,
            placement_constraint=placement_constraint,
            neuron_structure=neuron_structure,
        )


class Synapse(HXModule):
    """Weights; an exciting and an inhibiting projection, zeros included."""

    def __init__(self, in_features, out_features, experiment, transform):
        super().__init__(experiment)
        self.in_features, self.out_features = in_features, out_features
        self.weight_transform = transform
        self.weight = types.SimpleNamespace(data=tensor(np.zeros((out_features, in_features))))

    def add_to_network_graph(self, pre, post, builder):
        weight = np.asarray(self.weight_transform(self.weight.data))
        assert weight.shape == (self.out_features, self.in_features)
        descriptors = []
        for sign, kind in (
            (1, grenade.ReceptorType.excitatory),
            (-1, grenade.ReceptorType.inhibitory),
        ):
            part = (np.maximum(sign * weight, 0) + 0.5).astype(np.int32)
            receptor = grenade.Receptor(grenade.Receptor.ID(), kind)
            connections = grenade.weight_to_connection(part)
            projection = grenade.Projection(receptor, connections, pre, post, self.chip_coordinate)
            descriptors.append(builder.add(projection, self.execution_instance.ID))
        self.descriptor = tuple(descriptors)
        return self.descriptor

    def forward_func(self, handle, hw_data=None):
        return Observables()


class HXModuleWrapper:
    """Several modules with one function."""

    def __init__(self, experiment, **modules):
        self.experiment, self.modules = experiment, modules

    def __call__(self):
        self.experiment.modules.wrappers.append(self)

    def exec_forward(self, sources, targets, data):
        outputs = self.forward_func(
            *sources, hw_data=tuple(data.get(module.descriptor) for module in self.modules.values())
        )
        assert len(outputs) == len(self.modules)
        for output, target in zip(outputs, targets, strict=False):
            target.clone(output)


class SingleCompartmentNeuron:
    """A neuron of some circuits, of which the first one leaks and fires."""

    def __init__(self, size):
        circuits = [AtomicNeuronOnLogicalNeuron(number) for number in range(size)]
        self._compartments = LogicalNeuronCompartments({CompartmentOnLogicalNeuron(): circuits})
        self._logical_neuron = None

    @property
    def compartments(self):
        return self._compartments

    def implement_morphology(self, place, chip):
        assert len(place.get_placed_compartments()) == 1
        head, *others = place.get_atomic_neurons()
        chip.circuits[head.number].leaks = chip.circuits[head.number].fires = True
        for circuit in others:
            chip.circuits[circuit.number].leaks = chip.circuits[circuit.number].fires = False


class SpikeHandle:
    """Recorded spikes: (cycle, sample, neuron) each, in any order."""

    def __init__(self, data):
        self.data = data

    def get_data(self):
        return self.data


class CADCHandle:
    """Sampled membranes."""

    def __init__(self, values):
        self.values = values

    def to_dense(self, runtime, dt, mode="linear"):
        assert mode in ("linear", "nn")
        return tensor(self.values)


class Experiment:
    """A network for one run of the chip; `stack` says how strong its synaptic inputs are."""

    stack = None

    def __init__(self, mock=False, dt=1e-6, hw_routing_func=None):
        assert not mock
        self.dt, self.hw_routing_func, self.modules = dt, hw_routing_func, ModuleManager()
        self.default_execution_instance = ExecutionInstance()
        self.inter_batch_entry_wait = None
        self.stack.experiments.append(self)

    def get_hw_results(self, runtime):
        """Build, route, configure and execute; what each module post-processed."""
        assert self.stack.initialised, "init_hardware comes first"
        instance = self.default_execution_instance
        self.modules.insert_inputs()
        populations = [module for module in self.modules.nodes if isinstance(module, Population)]
        for module in populations:
            if isinstance(module, AELIF):
                module.register_hw_entity()
        assert instance.chip is not None, "each experiment would be calibrated by itself"
        builder = grenade.NetworkBuilder()
        for module in populations:
            module.add_to_network_graph(builder)
        for module in self.modules.nodes:
            if isinstance(module, Synapse):
                (pre,) = self.modules.populations(module, self.modules.graph.predecessors)
                (post,) = self.modules.populations(module, self.modules.graph.successors)
                module.descriptor = module.add_to_network_graph(
                    pre.descriptor, post.descriptor, builder
                )
        self.network = builder.done()
        self.result = self.hw_routing_func(self.network)
        self.graph = grenade.NetworkGraph(self.network, self.result)
        for module in populations:
            if isinstance(module, AELIF):
                module.configure_hw_entity(instance.chip)
        generator = grenade.InputGenerator(self.graph, self._batch(populations))
        for module in populations:
            handle = [held for *_, held in self._in_edges(module)].pop()
            if isinstance(module, InputNeuron):
                module.add_to_input_generator(handle, generator)
        assert isinstance(self.inter_batch_entry_wait, int | None)
        cycles = int(runtime * self.dt * 1e6 * 125)
        self._execute(populations, generator.done(), cycles)
        return {
            module.descriptor: module.post_process(module.observed, cycles / CYCLES)
            if isinstance(module, AELIF)
            else module.post_process(None, cycles / CYCLES)
            for module in self.modules.nodes
        }

    def _in_edges(self, module):
        return self.modules.graph.in_edges(self.modules.nodes[module], data="handle")

    def _batch(self, populations):
        (source,) = (module for module in populations if isinstance(module, InputNeuron))
        ((*_, handle),) = self._in_edges(source)
        return handle.spikes.shape[1]

    def _execute(self, populations, samples, cycles):
        """The circuits' answers, sample by sample."""
        chip, on_chip = self.default_execution_instance.chip, {}
        owner, heads = {}, {}
        for population in populations:
            if not isinstance(population, AELIF):
                continue
            for number, place in enumerate(population.places):
                circuits = [circuit.number for circuit in place.get_atomic_neurons()]
                head = chip.circuits[circuits[0]]
                assert head.leaks
                assert head.sends == population.fire
                owner |= dict.fromkeys(circuits, circuits[0])
                heads[circuits[0]] = head.values | {"fires": population.fire}
                on_chip[population.descriptor, number] = circuits[0]
        reached = {
            on_chip.get(sender, sender): [(owner[circuit], weight) for circuit, weight in targets]
            for sender, targets in self.graph.reached.items()
        }
        circuits = Circuits(heads, self.stack.slope)
        readout = [
            population
            for population in populations
            if isinstance(population, AELIF) and not population.fire
        ]
        sampled = np.arange(0, cycles / CYCLES, self.dt) if readout else ()
        place_of = {head: place for place, head in on_chip.items()}
        spikes, membranes = {}, []
        for sample, events in enumerate(samples):
            sent = sorted((cycle / CYCLES, sender) for cycle, sender in events)
            fired, voltages = circuits.run(sent, reached, cycles / CYCLES, sampled)
            membranes.append(voltages)
            for time, head in fired:
                descriptor, number = place_of[head]
                cycle = round(time * CYCLES)
                spikes.setdefault(descriptor, []).append((cycle, sample, number))
        for population in populations:
            if isinstance(population, AELIF) and population.fire:
                data = spikes.get(population.descriptor, [])[::-1]
                population.observed = types.SimpleNamespace(spikes=SpikeHandle(data))
            elif isinstance(population, AELIF):
                assert population.enable_cadc_recording
                places = [
                    circuits.place[on_chip[population.descriptor, n]]
                    for n in range(population.size)
                ]
                values = np.array(membranes)[:, :, places].transpose(1, 0, 2)
                if self.stack.int8:
                    values = np.clip(np.round(values) - 128, -128, 127).astype(np.int8)
                population.observed = types.SimpleNamespace(cadc=CADCHandle(values))


def run(experiment, runtime):
    """Execute an experiment for so many steps of `dt`."""
    refuse_if(not isinstance(runtime, int), ValueError, "Requested runtime invalid.")
    data = experiment.get_hw_results(runtime)
    for module, sources, target in list(experiment.modules.order()):
        module.exec_forward(sources, target, data)
