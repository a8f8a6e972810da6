"""The chip's software as far as the scripts use it: names and arguments as published, recorded, and
no chip behind.

hxtorch.spiking: Experiment, InputNeuron, LIF, LI, Synapse, LIFObservables, run. The fake experiment
builds the network as hxtorch does (an exciting and an inhibiting projection for each Synapse, zeros
included) and has it routed.
"""

import types
from collections import namedtuple

import numpy as np

Receptor = namedtuple("Receptor", "type")
Connection = namedtuple("Connection", "index_pre index_post weight")
Projection = namedtuple("Projection", "population_pre population_post receptor connections")
Population = namedtuple("Population", "neurons")
Neuron = namedtuple("Neuron", "coordinate")
Instance = namedtuple("Instance", "populations projections")
Network = namedtuple("Network", "execution_instances")


class Coordinate:
    """A coordinate of halco: made of a number or of coordinates, compared by value."""

    def __init__(self, *parts):
        self.parts = tuple(
            part.parts[0] if isinstance(part, Coordinate) and len(part.parts) == 1 else part
            for part in parts
        )

    def __eq__(self, other):
        return type(self) is type(other) and self.parts == other.parts

    def __hash__(self):
        return hash((type(self).__name__, self.parts))

    def __repr__(self):
        return f"{type(self).__name__}{self.parts}"

    def toEnum(self):
        return self

    def value(self):
        return self.parts[0]


def coordinates(*names, **sizes):
    return {name: type(name, (Coordinate,), {"size": sizes.get(name)}) for name in (*names, *sizes)}


class LogicalNeuronOnDLS(Coordinate):
    def __init__(self, compartments, anchor):
        super().__init__(tuple(compartments), anchor.value())
        row, column = divmod(anchor.value(), 256)
        places = [divmod(one.value(), 128) for one in compartments]
        self.atomic = [
            256 * (row + y - min(p[0] for p in places)) + column + x - min(p[1] for p in places)
            for y, x in places
        ]

    def get_atomic_neurons(self):
        return [Coordinate(one) for one in self.atomic]


def halco():
    made = coordinates(
        *(
            "SynapseRowOnDLS",
            "SynapseDriverOnDLS",
            "NeuronLabel",
            "CrossbarNodeOnDLS",
            "CrossbarOutputOnDLS",
        ),
        *(
            "CrossbarInputOnDLS",
            "SpikeLabel",
            "SynapseOnSynapseRow",
            "AtomicNeuronOnDLS",
            "AtomicNeuronOnLogicalNeuron",
        ),
        "CompartmentOnLogicalNeuron",
        SynapseRowOnSynram=256,
        NeuronColumnOnLogicalNeuron=128,
    )
    enumeration = type("Enum", (Coordinate,), {})
    return types.SimpleNamespace(
        common=types.SimpleNamespace(Enum=enumeration),
        LogicalNeuronOnDLS=LogicalNeuronOnDLS,
        **made,
    )


class Morphology:
    def create_compartment(self, circuits):
        self.circuits = list(circuits)

    def done(self):
        return self.circuits, object()


def grenade():
    class ExternalSourcePopulation:
        def __init__(self, size):
            self.neurons = [None] * size

    class ExecutionInstance:
        PlacedConnection = type("PlacedConnection", (), {})

    routing_result = type("RoutingResult", (), {"ExecutionInstance": ExecutionInstance})
    receptor = types.SimpleNamespace(
        Type=types.SimpleNamespace(excitatory="excitatory", inhibitory="inhibitory")
    )
    return types.SimpleNamespace(
        RoutingResult=routing_result,
        ConnectionToHardwareRoutes=type("ConnectionToHardwareRoutes", (), {}),
        ExternalSourcePopulation=ExternalSourcePopulation,
        Receptor=receptor,
    )


class Tensor(np.ndarray):
    def detach(self):
        return self

    def numpy(self):
        return np.asarray(self)


def tensor(values):
    return np.array(values).view(Tensor)


class Stack:
    """The modules by name, and what was done with them."""

    def __init__(self):
        self.experiments, self.calls, self.grenade, self.halco = [], [], grenade(), halco()
        row_mode = types.SimpleNamespace(
            disabled=0, excitatory=1, inhibitory=2, excitatory_and_inhibitory=3
        )
        hal = types.SimpleNamespace(
            SynapseDriverConfig=types.SimpleNamespace(RowMode=row_mode),
            CrossbarNode=type("CrossbarNode", (), {}),
        )
        lola = types.SimpleNamespace(Morphology=Morphology)
        spiking = self.spiking()
        torch = module("torch", tensor=tensor)
        self.modules = {
            "torch": torch,
            "hxtorch": module(
                "hxtorch",
                spiking=spiking,
                init_hardware=lambda: self.calls.append("init"),
                release_hardware=lambda: self.calls.append("release"),
            ),
            "hxtorch.spiking": spiking,
            "hxtorch.spiking.morphology": module(
                "morphology", SingleCompartmentNeuron=SingleCompartmentNeuron
            ),
            "dlens_vx_v3": module("dlens_vx_v3", hal=hal, halco=self.halco, lola=lola),
            "pygrenade_vx": module("pygrenade_vx", network=self.grenade),
            "pygrenade_vx.network": self.grenade,
        }

    def spiking(self):
        stack = self

        class Experiment:
            def __init__(self, mock=False, dt=1e-6, hw_routing_func=None):
                assert not mock
                self.dt, self.hw_routing_func, self.modules = dt, hw_routing_func, []
                self.default_execution_instance = types.SimpleNamespace(load_calib=self.load_calib)
                stack.experiments.append(self)

            def load_calib(self, calib_path):
                self.calib_path = calib_path

        class Module:
            def __init__(self, experiment):
                self.inputs = ()
                experiment.modules.append(self)

            def __call__(self, *inputs):
                self.inputs = inputs
                self.output = types.SimpleNamespace(module=self)
                return self.output

        class InputNeuron(Module):
            def __init__(self, size, experiment):
                super().__init__(experiment)
                self.size = size

        class Neurons(Module):
            def __init__(
                self, size, experiment, *, placement_constraint, neuron_structure, **parameters
            ):
                super().__init__(experiment)
                assert len(placement_constraint) == size
                self.size, self.placement, self.structure = (
                    size,
                    placement_constraint,
                    neuron_structure,
                )
                self.parameters = parameters

        class LIF(Neurons):
            taken = ("leak", "reset", "threshold", "tau_mem", "tau_syn", "refractory_time")

        class LI(Neurons):
            taken = ("leak", "tau_mem", "tau_syn")

        class Synapse(Module):
            def __init__(self, in_features, out_features, experiment, transform):
                super().__init__(experiment)
                self.shape, self.transform = (out_features, in_features), transform
                self.weight = types.SimpleNamespace(data=None)

        def run(experiment, runtime):
            assert isinstance(runtime, int)
            stack.execute(experiment, runtime)

        return module(
            "hxtorch.spiking",
            Experiment=Experiment,
            InputNeuron=InputNeuron,
            LIF=LIF,
            LI=LI,
            Synapse=Synapse,
            LIFObservables=lambda spikes: types.SimpleNamespace(spikes=spikes),
            run=run,
        )

    def execute(self, experiment, runtime):
        """Build and route the network; every neuron then spikes once, at a step of its number in
        the population.
        """
        spiking = self.modules["hxtorch.spiking"]
        populations, projections, keys = {}, {}, {}
        for one in experiment.modules:
            if isinstance(one, spiking.InputNeuron):
                keys[one] = len(populations)
                populations[keys[one]] = self.grenade.ExternalSourcePopulation(one.size)
            elif not isinstance(one, spiking.Synapse):
                keys[one] = len(populations)
                populations[keys[one]] = Population([Neuron(place) for place in one.placement])
        targets = {
            handle.module: one for one in keys for handle in one.inputs if hasattr(handle, "module")
        }
        for one in experiment.modules:
            if isinstance(one, spiking.Synapse):
                self.project(one, keys[one.inputs[0].module], keys[targets[one]], projections)
        experiment.network = Network({"id": Instance(populations, projections)})
        experiment.result = experiment.hw_routing_func(experiment.network)
        for one in keys:
            (samples,) = {
                x.spikes.shape[1]
                for x in next(k for k in keys if isinstance(k, spiking.InputNeuron)).inputs
            }
            spikes = np.zeros((runtime, samples, one.size), np.float32)
            spikes[np.arange(one.size) % runtime, :, np.arange(one.size)] = 1
            one.output.spikes = tensor(spikes)
            one.output.membrane_cadc = tensor(np.full((runtime, samples, one.size), 80.0))

    def project(self, synapse, pre, post, projections):
        weights = np.asarray(synapse.transform(synapse.weight.data))
        assert weights.shape == synapse.shape
        for receptor, part in (
            ("excitatory", np.maximum(weights, 0)),
            ("inhibitory", np.maximum(-weights, 0)),
        ):
            connections = [
                Connection((source, 0), (target, 0), Coordinate(int(part[target, source] + 0.5)))
                for target in range(part.shape[0])
                for source in range(part.shape[1])
            ]
            projections[len(projections)] = Projection(pre, post, Receptor(receptor), connections)


class SingleCompartmentNeuron:
    def __init__(self, size):
        assert size == 1

    @property
    def compartments(self):
        return self._compartments


def module(name, **members):
    made = types.ModuleType(name)
    vars(made).update(members)
    return made
