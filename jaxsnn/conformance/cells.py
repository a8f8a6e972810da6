"""The table of the suite: each cell is one question about one framework, and a network that asks it.

A cell varies one thing of a plain network: the type of a node, a parameter, the topology, the reset or
the time constants. Networks are drawn from a seed, so that a cell can be asked again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxsnn.conformance.networks import NetworkLayer, NetworkSpec

Role = Literal["export", "import", "round trip"]
ROLES: tuple[Role, ...] = ("export", "import", "round trip")

#: Decays per step by regime of time constants.
REGIMES: Mapping[str, float] = {"tau = 10 dt": 0.9, "tau = 2 dt": 0.5, "tau = 100 dt": 0.99}
#: Neurons, inputs and channels of the networks.
SIZE, INPUTS, CHANNELS, SIDE = 5, 4, 2, 6


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One question.

    Attributes:
        role: what the framework does: export a module, import a file, or both in a row.
        node: type of the node in question.
        parameter: how its parameters are chosen.
        topology: how the network is connected.
        reset: reset of the module; "" if a file is imported, which contains none.
        regime: time constants in time steps.
        full: whether only complete runs (`--full`) ask it.
    """

    role: Role
    node: str
    parameter: str = "per neuron"
    topology: str = "one layer"
    reset: str = ""
    regime: str = "tau = 10 dt"
    full: bool = False

    @property
    def name(self) -> str:
        """Name in reports, such as "import/LIF/r = 1/one layer/tau = 10 dt"."""
        parts = (self.role, self.node, self.parameter, self.topology, self.reset, self.regime)
        return "/".join(part for part in parts if part)

    def network(self, seed: int, strength: float = 1.0) -> NetworkSpec:
        """Draw the network.

        Args:
            seed: seed of the numbers.
            strength: factor of the weights.
        """
        rng = np.random.default_rng([seed, *self.name.encode()])
        return _TOPOLOGIES[self.topology](_Draw(cell=self, rng=rng, strength=strength))


#: Types of neurons with spikes, and readouts.
SPIKING, READOUTS = ("LIF", "IF", "CubaLIF"), ("LI", "CubaLI")
#: Choices of parameters of modules: a single number for all neurons, equal numbers, different numbers.
_OF_MODULES = ("number", "uniform", "per neuron")
#: Choices of parameters of files. The first two are read alike by every reading of a file whose spikes
#: last one step.
_OF_FILES = (
    "uniform",
    "per neuron",
    "r = 1",
    "r = 0.7",
    "v_threshold per neuron",
    "v_leak",
    "v_reset",
)
_OF_CURRENTS = ("w_in = 1", "w_in = 1 and r = 1")
_STRUCTURES = ("two layers", "one neuron", "recurrent")
#: Connections that a chain of layers does not have, and files that are written differently.
_OF_GRAPHS = ("skip", "skip from the input", "subgraph", "recurrent subgraph", "other names")


def cells(resets: tuple[str, ...], *, full: bool = False) -> Iterator[Cell]:
    """Yield the cells of a run.

    Args:
        resets: resets of the framework's neurons.
        full: whether to yield the cells of complete runs, too.
    """
    all_cells = [*_export_cells(resets), *_import_cells()]
    all_cells += [
        dataclasses.replace(cell, role="round trip")
        for cell in all_cells
        if cell.role == "export" and cell.parameter != "number"
    ]
    yield from (cell for cell in all_cells if full or not cell.full)


def _export_cells(resets: tuple[str, ...]) -> Iterator[Cell]:
    for node in SPIKING:
        for reset in resets[:2]:
            for parameter in (*_OF_MODULES, "strong input"):
                yield Cell(role="export", node=node, parameter=parameter, reset=reset)
            plain = Cell(role="export", node=node, parameter="uniform", reset=reset)
            for topology in _STRUCTURES:
                yield dataclasses.replace(plain, topology=topology)
            yield Cell(role="export", node=node, topology="recurrent", reset=reset)
            for regime in list(REGIMES)[1:] if node != "IF" else ():
                yield dataclasses.replace(plain, regime=regime, full=reset != resets[0])
        for reset in resets[2:]:
            for topology in ("one layer", "recurrent"):
                yield Cell(role="export", node=node, topology=topology, reset=reset)
        yield Cell(
            role="export", node=node, parameter="number", topology="one neuron", reset=resets[0]
        )
        yield Cell(role="export", node=node, topology="skip", reset=resets[0])
    for node in READOUTS:
        yield Cell(role="export", node=node, reset=resets[0])
    for topology in _BEFORE_NEURONS:
        node = topology.partition(" and ")[0]
        yield Cell(
            role="export", node=node, parameter="uniform", topology=topology, reset=resets[0]
        )


def _import_cells() -> Iterator[Cell]:
    for node in (*SPIKING, *READOUTS):
        parameters = _OF_FILES + (_OF_CURRENTS if node.startswith("Cuba") else ())
        absent = {
            "IF": ("v_leak",),
            "LI": _OF_FILES[4:5] + _OF_FILES[6:],
            "CubaLI": _OF_FILES[4:5] + _OF_FILES[6:],
        }
        for parameter in parameters:
            if parameter not in absent.get(node, ()):
                yield Cell(role="import", node=node, parameter=parameter)
        for topology in (*_STRUCTURES, *_OF_GRAPHS) if node in SPIKING else ():
            yield Cell(role="import", node=node, parameter="uniform", topology=topology)
        if node in SPIKING:
            yield Cell(role="import", node=node, parameter="strong input")
            yield Cell(role="import", node=node, topology="recurrent")
        for regime in list(REGIMES)[1:] if node != "IF" else ():
            yield Cell(role="import", node=node, parameter="uniform", regime=regime)
    for topology in (*_BEFORE_NEURONS, "Threshold"):
        node = topology.partition(" and ")[0]
        yield Cell(role="import", node=node, parameter="uniform", topology=topology)


@dataclass(frozen=True, kw_only=True)
class _Draw:
    """Numbers for one network.

    Attributes:
        cell: the question.
        rng: generator of the numbers.
        strength: factor of the weights.
    """

    cell: Cell
    rng: np.random.Generator
    strength: float

    def numbers(self, middle: float, spread: float, shape: tuple[int, ...]) -> Any:
        """Return a number, equal numbers or different numbers, as the cell chooses.

        Equal numbers are random, too: with round ones, membrane potentials would meet the threshold.
        """
        size = shape if self.cell.parameter == "per neuron" else ()
        numbers = self.rng.uniform(middle - spread, middle + spread, size).astype(np.float32)
        return numbers if self.cell.parameter == "number" else np.broadcast_to(numbers, shape)

    def neuron(self, shape: tuple[int, ...], kind: str = "") -> NetworkLayer:
        """Return a population."""
        kind, choice = kind or self.cell.node, self.cell.parameter
        decay = REGIMES[self.cell.regime]
        values: dict[str, Any] = {"v_threshold": self.numbers(1.0, 0.2, shape)}
        values["decay"] = self.numbers(decay, (1 - decay) / 2, shape)
        rest = 1 - np.asarray(values["decay"], float)
        factor = {"r = 1": rest, "w_in = 1 and r = 1": rest, "r = 0.7": 0.7 * rest}
        values["gain"] = np.asarray(factor.get(choice, np.ones(())), np.float32)
        if kind == "IF":  # its r is a rate: the gain is r dt
            del values["decay"]
            values["gain"] = np.ones((), np.float32)
            values |= (
                {"r": {"r = 1": 1.0, "r = 0.7": 0.7}[choice]} if choice.startswith("r =") else {}
            )
        if kind.startswith("Cuba"):
            values["current_decay"] = self.numbers(0.6, 0.2, shape)
            rest = 1 - np.asarray(values["current_decay"], float)
            unscaled = choice in ("w_in = 1", "w_in = 1 and r = 1")
            values["current_gain"] = np.asarray(rest if unscaled else np.ones(()), np.float32)
        if choice == "v_threshold per neuron":
            values["v_threshold"] = self.rng.uniform(0.8, 1.2, shape).astype(np.float32)
        if choice == "v_leak":
            values["v_leak"] = np.full(shape, 0.25, np.float32)
        if choice == "v_reset":
            values["v_reset"] = np.full(shape, -0.25, np.float32)
        return NetworkLayer(
            type=kind, shape=shape, parameters=values, reset=self.cell.reset or "zero"
        )

    def affine(self, inputs: int, neuron: NetworkLayer) -> NetworkLayer:
        """Return weights and a bias that make a population fire, but not always."""
        outputs = neuron.shape[0]
        drive = self._drive(neuron)
        weight = self.rng.normal(0.15, 0.6, (outputs, inputs)) * (4 / inputs) ** 0.5 * drive
        bias = self.rng.uniform(-0.05, 0.05, outputs) * drive
        values = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
        return NetworkLayer(type="Affine", shape=(outputs,), parameters=values)

    def _drive(self, neuron: NetworkLayer) -> float:
        """Return the factor of weights that makes up for the gain of a population."""
        gain = float(np.mean(neuron.parameters["gain"]))
        if neuron.type.startswith("Cuba"):
            rest = 1 - float(np.mean(neuron.parameters["current_decay"]))
            gain *= float(np.mean(neuron.parameters["current_gain"])) / rest
        return self.strength / gain * (3 if self.cell.parameter == "strong input" else 1)

    @property
    def last_neuron(self) -> str:
        """Type of the neurons behind the node in question."""
        return self.cell.topology.rpartition(" and ")[2]

    def recurrent(self, neuron: NetworkLayer) -> NetworkLayer:
        """Return the population with weights to itself."""
        size = neuron.shape[0]
        weight = self.rng.normal(0, 0.3, (size, size)) * self._drive(neuron)
        return dataclasses.replace(neuron, recurrent=weight.astype(np.float32))


def _one_layer(draw: _Draw) -> NetworkSpec:
    neuron = draw.neuron((SIZE,))
    return NetworkSpec(shape=(INPUTS,), layers=(draw.affine(INPUTS, neuron), neuron))


def _one_neuron(draw: _Draw) -> NetworkSpec:
    neuron = draw.neuron((1,))
    return NetworkSpec(shape=(INPUTS,), layers=(draw.affine(INPUTS, neuron), neuron))


def _two_layers(draw: _Draw) -> NetworkSpec:
    first, second = draw.neuron((SIZE,)), draw.neuron((3,))
    layers = (draw.affine(INPUTS, first), first, draw.affine(SIZE, second), second)
    return NetworkSpec(shape=(INPUTS,), layers=layers)


def _recurrent(draw: _Draw) -> NetworkSpec:
    neuron = draw.recurrent(draw.neuron((SIZE,)))
    return NetworkSpec(shape=(INPUTS,), layers=(draw.affine(INPUTS, neuron), neuron))


def _skip(draw: _Draw) -> NetworkSpec:
    """Return two layers, the second of which also receives the weights of the first."""
    first, second = draw.neuron((SIZE,)), draw.neuron((SIZE,))
    layers = (draw.affine(INPUTS, first), first, draw.affine(SIZE, second), second)
    return NetworkSpec(shape=(INPUTS,), layers=layers, skips=((0, 3),))


def _skip_from_input(draw: _Draw) -> NetworkSpec:
    """Return two layers, the second of which also receives the input."""
    first, second = draw.neuron((SIZE,)), draw.neuron((SIZE,))
    layers = (draw.affine(SIZE, first), first, draw.affine(SIZE, second), second)
    return NetworkSpec(shape=(SIZE,), layers=layers, skips=((-1, 2),))


def _between(draw: _Draw) -> NetworkSpec:
    """Return weights and neurons with a Scale or a Delay between them, or without a bias."""
    neuron = draw.neuron((SIZE,), draw.last_neuron)
    affine = draw.affine(INPUTS, neuron)
    if draw.cell.node == "Linear":
        values = {"weight": affine.parameters["weight"]}
        linear = NetworkLayer(type="Linear", shape=affine.shape, parameters=values)
        return NetworkSpec(shape=(INPUTS,), layers=(linear, neuron))
    if draw.cell.node == "Scale":
        values = {"scale": draw.rng.uniform(0.5, 1.5, SIZE).astype(np.float32)}
    else:
        values = {"steps": np.arange(SIZE) % 4}
    layer = NetworkLayer(type=draw.cell.node, shape=(SIZE,), parameters=values)
    return NetworkSpec(shape=(INPUTS,), layers=(affine, layer, neuron))


def _threshold(draw: _Draw) -> NetworkSpec:
    """Return a readout whose membrane potentials become spikes."""
    readout = draw.neuron((SIZE,), "LI")
    values = {"threshold": np.asarray(readout.parameters["v_threshold"])}
    threshold = NetworkLayer(type="Threshold", shape=(SIZE,), parameters=values)
    layers = (draw.affine(INPUTS, readout), readout, threshold)
    return NetworkSpec(shape=(INPUTS,), layers=layers)


def _conv1d(draw: _Draw) -> NetworkSpec:
    weight = draw.rng.normal(0.2, 0.5, (3, CHANNELS, 3)) * draw.strength
    values = {
        "input_shape": np.array(2 * SIDE),
        "weight": weight.astype(np.float32),
        "bias": draw.rng.uniform(-0.05, 0.05, 3).astype(np.float32),
        "stride": np.array([2]),
        "padding": np.array([1]),
        "dilation": np.array([1]),
        "groups": np.array(1),
    }
    layer = NetworkLayer(type="Conv1d", shape=(3, SIDE), parameters=values)
    neuron = draw.neuron(layer.shape, draw.last_neuron)
    return NetworkSpec(shape=(CHANNELS, 2 * SIDE), layers=(layer, neuron))


def _convolved(draw: _Draw) -> NetworkSpec:
    """Return a convolution that keeps the size of the image, and a network of images behind it."""
    network = _spatial(draw)
    channels, side = network.shape[:2]
    weight = draw.rng.normal(0.1, 0.5, (channels, channels, 3, 3))
    values = {"weight": weight.astype(np.float32), "bias": np.zeros(channels, np.float32)}
    values |= {"input_shape": np.array([side, side])} | _as_arrays(_convolution(padding=1)[1])
    layer = NetworkLayer(type="Conv2d", shape=network.shape, parameters=values)
    return dataclasses.replace(network, layers=(layer, *network.layers))


def _spatial(draw: _Draw) -> NetworkSpec:
    """Return a convolution, a pool or a Flatten of images, with neurons behind."""
    kind, settings = _SPATIAL[draw.cell.node.partition(" behind ")[0]]
    # Behind a padded pool an odd side is rounded up, as XLA's SAME does.
    side = SIDE - 1 if kind.endswith("Pool2d") and settings["padding"] else SIDE
    shape = (CHANNELS, side, side)
    if kind == "Flatten":
        size = int(np.prod(shape))
        values = {"input_type": np.array(shape), "start_dim": np.array(0), "end_dim": np.array(-1)}
        flatten = NetworkLayer(type=kind, shape=(size,), parameters=values)
        neuron = draw.neuron((3,), draw.last_neuron)
        return NetworkSpec(shape=shape, layers=(flatten, draw.affine(size, neuron), neuron))
    if kind == "Conv2d":
        groups = settings["groups"]
        weight = draw.rng.normal(0.1, 0.5, (4, CHANNELS // groups, 3, 3)) * draw.strength
        bias = draw.rng.uniform(-0.05, 0.05, 4) * draw.strength
        values = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
        values |= {"input_shape": np.array(shape[1:])}
        channels, out = 4, _after(side, 3, settings)
    else:
        values = _as_arrays({"kernel_size": 2})
        channels, out = CHANNELS, _after(side, 2, settings)
    layer = NetworkLayer(
        type=kind, shape=(channels, out, out), parameters=values | _as_arrays(settings)
    )
    return NetworkSpec(shape=shape, layers=(layer, draw.neuron(layer.shape, draw.last_neuron)))


def _after(side: int, kernel: int, settings: Mapping[str, int]) -> int:
    """Return the side of an image behind a window."""
    reach = settings.get("dilation", 1) * (kernel - 1) + 1
    return (side + 2 * settings["padding"] - reach) // settings["stride"] + 1


def _as_arrays(settings: Mapping[str, int]) -> dict[str, np.ndarray]:
    return {
        name: np.array(value) if name == "groups" else np.array([value, value])
        for name, value in settings.items()
    }


def _convolution(**settings: int) -> tuple[str, dict[str, int]]:
    return "Conv2d", {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | settings


#: Names of cells with images -> type of the node in question and its settings.
_SPATIAL: Mapping[str, tuple[str, dict[str, int]]] = {
    "Conv2d": _convolution(),
    "Conv2d with stride": _convolution(stride=2),
    "Conv2d with padding": _convolution(padding=1),
    "Conv2d with dilation": _convolution(dilation=2),
    "Conv2d with groups": _convolution(groups=2),
    "AvgPool2d": ("AvgPool2d", {"stride": 2, "padding": 0}),
    "AvgPool2d with padding": ("AvgPool2d", {"stride": 2, "padding": 1}),
    "SumPool2d": ("SumPool2d", {"stride": 2, "padding": 0}),
    "SumPool2d with padding": ("SumPool2d", {"stride": 2, "padding": 1}),
    "Flatten": ("Flatten", {}),
}
#: Networks with another node before neurons -> function that draws them.
_BEFORE_NEURONS = {
    f"{node} and {neuron}": topology
    for node, topology in {
        "Linear": _between,
        "Scale": _between,
        "Delay": _between,
        "Conv1d": _conv1d,
        **dict.fromkeys(_SPATIAL, _spatial),
        "AvgPool2d behind Conv2d": _convolved,
        "Flatten behind Conv2d": _convolved,
    }.items()
    for neuron in ("LIF", "IF")
}
_TOPOLOGIES: Mapping[str, Callable[[_Draw], NetworkSpec]] = {
    "one layer": _one_layer,
    "one neuron": _one_neuron,
    "two layers": _two_layers,
    "recurrent": _recurrent,
    "skip": _skip,
    "skip from the input": _skip_from_input,
    "subgraph": lambda draw: dataclasses.replace(_one_layer(draw), is_nested=True),
    "recurrent subgraph": lambda draw: dataclasses.replace(_recurrent(draw), is_nested=True),
    "other names": lambda draw: dataclasses.replace(_two_layers(draw), is_renamed=True),
    "Threshold": _threshold,
    **_BEFORE_NEURONS,
}
