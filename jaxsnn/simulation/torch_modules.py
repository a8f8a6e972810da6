"""Convert PyTorch modules to graphs, and load parameters of graphs into modules.

Both directions run the module and the graph, and refuse the graph where their outputs differ.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, Note, UsageError, listing, warn_of
from jaxsnn.grid.stepped_solution import SteppedSolution
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.nir.graphs.parse import read
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.torch.graph_matching import matched
from jaxsnn.nir.torch.module_graph import TracedModule, traced_back, traced_module
from jaxsnn.nir.torch.module_loading import (
    Loaded,
    fitting_sample,
    loaded,
    possible_samples,
)
from jaxsnn.nir.torch.module_pass import parameters_back, plain, sample_of, stale_state
from jaxsnn.nir.torch.module_trace import decode, run_recorded
from jaxsnn.nir.torch.trace_outcome import ModuleTrace
from jaxsnn.nir.torch.trained_module import is_of_graph
from jaxsnn.simulation.simulate import simulate
from jaxsnn.summary import summarised
from jaxsnn.units import format_time
from jaxsnn.wording import Text

#: Time steps that both sides run, or more for a small batch.
STEPS = 24
#: Number of samples of a large batch that are run.
BATCH = 4
#: Number of outputs of layers per time step from which on a network is large, and runs no further
#: steps of a small batch.
LARGE = 100_000
#: Sizes of random inputs, step by step: small ones show sums, large ones make deep layers spike.
_SIZES = (1.0, 1.0, 4.0, 16.0)
#: Gains of random inputs, which are increased while a layer does not spike.
_GAINS = (1.0, 16.0, 256.0)
#: Relative change of v_threshold: if it moves a spike, rounding decides that spike.
_NEAR = 1e-5
#: Tolerance of membranes, as a fraction of the largest.
_CLOSE = 1e-4
#: Name, numbers of jaxsnn, numbers of the module, and a tolerance; see `_pairs`.
_Compared = tuple[str, np.ndarray, np.ndarray, float | np.ndarray]


@suggests_keywords
def from_torch(module: Any, sample: Any) -> Graph:
    """Convert a module of snnTorch, Norse, SpikingJelly, or another framework with known layers to
    a graph in that framework's dialect.

    Reset, reset delay, leaky readouts, dt and v_reset, which the exporters of the frameworks lose,
    are stored in the dialect and in the nodes. If no layer has a dt, one is assumed, with an
    `ApproximationWarning`. Parameters may be one number or one for each neuron. BatchNorm is merged
    into the weights before it; MaxPool2d of spikes becomes SumPool2d and Threshold. Before the
    graph is returned, the module and the graph run some steps of the sample and of random inputs,
    and must fire the same spikes.

    Args:
        module: A torch.nn.Module of torch's layers and the framework's neurons, in the mode in
            which it is to be exported (`module.eval()`). Its forward computes one time step, loops
            over time, or has layers that process all time steps. Forward is recorded. Supported
            between layers are sums, differences, concatenations, slices, flatten and pools, and
            sums and products with a number or a parameter; before a Linear also permute, flip
            and indexing. Spikes of the previous time step, weighted or not, may be fed back. Forward
            may keep states itself or take those that it returned. All time steps of a loop must
            have the same data flow; a note lists what forward computes before and after the
            loop, which is not part of the graph (see `split_module`). For a module from `jaxsnn.to_torch`, trained or
            not, the graph has the module's weights, biases, v_threshold and v_reset, and is
            otherwise unchanged. Such modules may be parts of a module whose `forward` passes their
            states on.
        sample: Input of forward: of one time step, (batch, *shape), or of at least three time
            steps, with the axes that forward expects. A tensor with the dtype of the module's
            weights, or an array; or a tuple of these and further arguments of forward, such as a
            number of time steps or initial states.

    Returns:
        The graph, with an Output for each layer whose output the module returns, except neurons
        whose output is the input of another layer. A layer that is used in several places is copied
        for each of them. `graph.warnings` lists these layers, returned values that are not in the graph,
        and the operations of forward before and after the graph.

    Raises:
        ConversionError: A layer that NIR or the dialect cannot represent, an input that is computed
            outside of layers, or a graph whose results differ from those of the module.
        GraphError: Weights that are not finite.
        UsageError: The argument is not a module.
    """
    traced = _verified(module, sample)
    warn_of(_assumptions(traced))
    return traced.graph


def _verified(module: Any, sample: Any) -> TracedModule:
    """Trace a module, and compare it with its graph, see `from_torch`."""
    _refuse_no_module(module)
    module = plain(module)
    sample, arguments = sample_of(module, sample)
    with parameters_back(module), _stale_state_named(module, sample):
        traced = (traced_back if is_of_graph(module) else traced_module)(module, sample, arguments)
        refuse_difference(module, traced, sample)
    return traced


def _assumptions(traced: TracedModule) -> list[Note]:
    """Return a note on the length of a time step if no layer specifies it."""
    if traced.assumed_dt is None:
        return []
    text = Text(
        "no layer of the module specifies the length of a time step: dt = {dt} is "
        "assumed, as in files of {dialect}. Arrays in time steps are used unchanged; events "
        "need this dt: jaxsnn.Events.of_steps(x, dt=graph.dialect.dt)",
        dt=format_time(traced.assumed_dt),
        dialect=traced.graph.dialect.name,
    )
    return [Note(text, kind="assumed", code="step-length")]


@summarised
@dataclass(frozen=True, kw_only=True, eq=False)
class ModuleParts:
    """A PyTorch module, split into the operations before its graph, the graph, and those after it.

    Attributes:
        graph: Graph of one time step, as `from_torch` returns it.
        before: Names of the functions and layers that compute the input of the graph.
        after: Names of the functions and layers that compute the results of forward from the outputs of the
            graph.
    """

    graph: Graph
    before: tuple[str, ...]
    after: tuple[str, ...]
    _module: Any
    _traced: TracedModule

    def encode(self, sample: Any) -> np.ndarray:
        """Compute the input of the graph for a sample.

        Args:
            sample: As in `from_torch`; for a module that computes one time step, all time steps, (time,
                batch, *shape).

        Returns:
            Input of the graph, (time, batch, *shape). A random encoder uses the present state of torch's
            random number generator, which is restored afterwards.

        Raises:
            ConversionError: Forward runs other operations for this sample.
        """
        tensor, arguments = sample_of(self._module, sample)
        x, _ = run_recorded(self._module, tensor, self._trace_with(arguments))
        return x

    def decode(self, outputs: Any, sample: Any) -> list[Any]:
        """Compute the results of forward from outputs of the graph, such as those of a simulation.

        Args:
            outputs: Outputs of the graph, (time, batch, *shape): a mapping from Outputs to arrays, such as
                `solution.y`, or an array if there is one Output.
            sample: Sample with which `encode` computed the input.

        Returns:
            The tensors that forward returns, in order, computed with the present weights of the layers after
            the graph. A tensor that also depends on neurons whose outputs are not in the graph is None.

        Raises:
            ConversionError: Forward runs other operations for this sample, or converts tensors that
                depend on the outputs to other Python values, such as `spikes.sum().item()`.
            UsageError: An output is missing, or has another shape.
        """
        places = self._traced.places
        if not isinstance(outputs, Mapping):
            outputs = dict.fromkeys(places, outputs) if len(places) == 1 else {}
        if missing := [name for name in places if name not in outputs]:
            raise UsageError(
                Text("outputs of the graph are missing: {outputs}", outputs=listing(missing)),
                fix="pass a mapping from all Outputs of the graph to their arrays",
            )
        arrays = [
            np.asarray(outputs[name]) for name in sorted(places, key=lambda name: places[name])
        ]
        tensor, arguments = sample_of(self._module, sample)
        return decode(self._module, tensor, self._trace_with(arguments), arrays)

    def _trace_with(self, arguments: tuple[Any, ...]) -> ModuleTrace:
        """Return the trace with other arguments of forward after the sample; its own if there are none."""
        trace = self._traced.trace
        if not arguments:
            return trace
        count = len(trace.arguments)
        state = arguments[count:] or trace.state
        return dataclasses.replace(trace, arguments=arguments[:count], state=state)


@suggests_keywords
def split_module(module: Any, sample: Any) -> ModuleParts:
    """Split a PyTorch module into an encoder, a graph and a decoder.

    The graph describes one time step, as in `from_torch`. `encode` and `decode` compute what forward does
    before and after the graph, with the functions and layers of the module.

    Args:
        module, sample: As in `from_torch`.

    Returns:
        A `ModuleParts`: the graph, the names of the operations before and after it, and the methods
        `encode(sample)` and `decode(outputs, sample)`.

    Raises:
        ConversionError, GraphError, UsageError: As in `from_torch`.
    """
    traced = _verified(module, sample)
    warn_of(_assumptions(traced))
    steps = traced.trace.passes
    return ModuleParts(
        graph=traced.graph,
        before=steps.before,
        after=steps.after,
        _module=plain(module),
        _traced=traced,
    )


@suggests_keywords
def load_into(
    module: Any, source: Graph | str | os.PathLike[str], *, sample: Any = None, **options: Any
) -> Loaded:
    """Set the weights, decays, thresholds and leaks of a user's module to those of a file.

    The module is one of snnTorch, Norse or SpikingJelly and must have the structure of the file.
    Layers and nodes are matched by name, or by their connections where names differ. A BatchNorm
    that was merged into the weights of the file no longer scales its input. If anything does not
    fit, the module remains unchanged.

    Args:
        module: A torch.nn.Module that `from_torch` accepts; its parameters stay the same objects. In
            a module from `jaxsnn.to_torch`, only weights and biases are set.
        source: A NIR file, or a graph with its dialect: trained, from `from_torch` or `read`.
        sample: As in `from_torch`. Default: zeros of a few time steps, with the time axis before or
            after the batch axis.
        options: Options of `jaxsnn.read` for properties that the file does not specify, such as
            `reset="subtract"`.

    Returns:
        The parameters that were set, and notes.

    Raises:
        ConversionError: The structure, a shape or a reset differs, or the module cannot hold a
            number; the message names the node and the two values.
        DialectError: The dialect of the file leaves open a convention that a time step needs.
        UsageError: The argument is not a module, or options are passed with a graph, whose dialect
            is decided.
    """
    _refuse_no_module(module)
    if isinstance(source, Graph) and options:
        raise UsageError(
            Text(
                "load_into received a graph, whose dialect is already decided: {options} "
                "would be ignored",
                options=listing(options),
            ),
            fix="pass a file, or pass the options to jaxsnn.read",
        )
    graph = source if isinstance(source, Graph) else read(source, **options)
    module = plain(module)
    samples = possible_samples(module, graph) if sample is None else [sample]
    with (
        parameters_back(module),
        _stale_state_named(module, sample_of(module, samples[0])[0]),
    ):
        sample, arguments = sample_of(module, fitting_sample(module, graph, samples))
        with loaded(module, graph, sample, arguments) as (outcome, traced):
            refuse_difference(module, _as_graph(traced, graph, outcome.nodes), sample)
    return outcome


def _as_graph(traced: TracedModule, graph: Graph, nodes: Mapping[str, str]) -> TracedModule:
    """Return a traced module with its graph replaced by another graph of the same structure.

    Args:
        nodes: Node of the module's graph -> node of the other graph.
    """
    return dataclasses.replace(
        traced,
        graph=graph,
        places={nodes[name]: place for name, place in traced.places.items()},
        firing={leaf: nodes[node] for leaf, node in traced.firing.items()},
    )


def run_to_compare(
    module: Any, graph: Graph, sample: Any
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Run a module, and return the input of its graph and, by the name of each spiking node and
    Output, the corresponding output of the module, (time, batch, *shape).

    Args:
        module: A torch.nn.Module that `from_torch` accepts.
        graph: A graph with the structure of the module.
        sample: Input of forward; for a module that computes one step, several steps: (time, batch,
            *shape).

    Raises:
        ConversionError: The structures differ.
        UsageError: The argument is not a module.
    """
    _refuse_no_module(module)
    module = plain(module)
    sample, arguments = sample_of(module, sample)
    traced, frames = _traced_like(module, graph, sample, arguments)
    if not frames:
        sample = sample[None]
    x, theirs = run_recorded(module, sample, traced.trace)
    expected = {
        node: theirs[leaf][0] / traced.graded.get(leaf, 1.0)
        for leaf, node in traced.firing.items()
        if leaf in theirs
    }
    return x, expected | {output: theirs[""][place] for output, place in traced.places.items()}


def _traced_like(
    module: Any, graph: Graph, sample: Any, arguments: tuple[Any, ...]
) -> tuple[TracedModule, bool]:
    """Trace a module that has the structure of a graph; return also whether the sample contains all time
    steps. A module that computes one time step accepts its first frame, or the sample itself. A module
    without layers of a fixed width accepts both; then the one is preferred for which the input of the
    traced graph has the shape of the graph's input.

    Raises:
        ConversionError: The structures differ.
    """
    shape = _input_shape(graph)
    if is_of_graph(module):
        frames = sample.ndim - 2 == len(shape)
        traced = traced_back(module, sample[0] if frames else sample)
        return _as_graph(traced, graph, matched(traced.graph, graph, traced.label)), frames
    refusal: ConversionError | None = None
    reading: tuple[TracedModule, bool] | None = None
    for frame in (sample, sample[0]) if sample.ndim > 1 else (sample,):
        try:
            traced = traced_module(module, frame, arguments)
            nodes = matched(traced.graph, graph, traced.label)
        except ConversionError as error:
            if refusal is None or sample.ndim - 2 == len(shape):
                refusal = error
            continue
        frames = frame is not sample or not traced.trace.passes.stepped
        if reading is None or _input_shape(traced.graph) == shape:
            reading = _as_graph(traced, graph, nodes), frames
        if _input_shape(traced.graph) == shape:
            break
    if reading is None:
        assert refusal is not None
        raise refusal
    return reading


def _input_shape(graph: Graph) -> tuple[int, ...]:
    return tuple(np.ravel(graph.nodes[graph.inputs[0]].value("shape")))


@contextmanager
def _stale_state_named(module: Any, sample: Any) -> Iterator[None]:
    """Add advice to a refusal if the module holds state that may be left from an earlier run.

    Raises:
        ConversionError: The refusal, with a different fix if the module holds such state.
    """
    try:
        yield
    except ConversionError as refusal:
        held = stale_state(module, sample)
        if not held:
            raise
        buffer_names = listing(f"'{name}'" for name in held)
        fix = (
            f"the module stores values in {buffer_names} that may come from an earlier run: first set "
            "them to their initial values; if the message remains, " + refusal.fix
        )
        raise ConversionError.of(dataclasses.replace(refusal.problem, fix=fix)) from refusal


def _refuse_no_module(module: Any) -> None:
    # checked by attributes, so that the message does not require torch
    if isinstance(module, type):
        raise UsageError(
            Text("{type} is a class, not an instance of torch.nn.Module", type=module.__name__),
            fix=f"pass a module, such as {module.__name__}(...)",
        )
    if type(module).__module__.startswith("torch.jit"):
        raise UsageError(
            Text(
                "a {type} of torch.jit is compiled and cannot be traced",
                type=type(module).__name__,
            ),
            fix="pass the module before compilation",
        )
    if not callable(getattr(module, "named_children", None)):
        raise UsageError(
            Text("an object of type {type} is not a torch.nn.Module", type=type(module).__name__),
            fix="pass the module; jaxsnn.to_torch converts a graph to a module",
        )


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Location of one number in the module and the graph: `layer` is a leaf or an Output."""

    layer: str
    step: int
    batch: int
    neuron: int
    ours: float
    theirs: float


def refuse_difference(module: Any, traced: TracedModule, sample: Any) -> None:
    """Run a module and its graph, and refuse the graph where they differ.

    Raises:
        ConversionError: They differ by more than rounding, or cannot be run.
    """
    network = lower(traced.graph, dtype=np.float32)
    _refuse_other_steps(traced, network)
    steps = traced.trace.passes
    of_sample = not (steps.stepped or steps.from_sample)
    for gain in (0.0, *_GAINS) if of_sample else _GAINS:
        try:
            x, theirs = _run(module, traced, sample, gain)
        except ConversionError as refusal:
            if not of_sample or not gain or refusal.__cause__ is None:
                raise
            return  # forward, such as an encoder, may reject other numbers
        _refuse_in_a_run(traced, network, x, theirs)
        if gain and all(np.any(theirs[leaf][0]) for leaf in _spiking(traced) if leaf in theirs):
            return


def _refuse_other_steps(traced: TracedModule, network: Network) -> None:
    """Refuse a graph in which spikes arrive earlier or later than in the module, which a run may not
    reveal.
    """
    cycles = [group for group in groups(network.wires) if isinstance(group, Cycle)]
    if any(cycle.in_turn for cycle in cycles):  # `Wire.late` specifies the edges that take a step
        return
    places = {
        name: (number, place)
        for number, cycle in enumerate(cycles)
        for place, name in enumerate(cycle.order)
    }
    for source, target, before in traced.trace.connections(_spiking(traced)):
        first, second = (places.get(traced.firing.get(leaf, "")) for leaf in (source, target))
        late = first and second and first[0] == second[0] and second <= first
        if before != bool(late):
            taker = f"'{target}'" if target else "the output"
            steps = ("the previous time step", "the same time step")
            here, there = steps if before else steps[::-1]
            raise ConversionError(
                Text(
                    "{target} receives the output of '{source}' of {module_step} in the "
                    "module and of {graph_step} in the graph",
                    target=taker,
                    source=source,
                    module_step=here,
                    graph_step=there,
                ),
                fix=(
                    "feed spikes of the previous time step back only to the same "
                    "population or to earlier ones, in cycles that receive their input "
                    "at a single population"
                ),
                node=target or source,
            )


def _spiking(traced: TracedModule) -> list[str]:
    """Return the leaves that spike, and readouts that reset: only a spike shows the effect of a
    reset.
    """
    read = [output.sources[0] for output in traced.trace.outputs if output.member == "membrane"]
    return [*traced.firing, *read]


def _refuse_in_a_run(
    traced: TracedModule, network: Network, x: np.ndarray, theirs: dict[str, list[np.ndarray]]
) -> None:
    """Refuse a graph that differs from its module for some inputs."""
    engine = TimeStepped(record=True)
    ours = simulate(network, x, engine=engine)
    differing = _first_difference(_pairs(traced, ours, theirs))
    membranes = differing is None
    if differing is None:
        differing = _first_difference(_membranes(traced, ours, theirs))
    if differing is None:
        return
    moved = (
        []
        if membranes
        else [
            simulate(_moved(network, factor), x, engine=engine) for factor in (1 - _NEAR, 1 + _NEAR)
        ]
    )
    if all(_is_near(traced, place, [ours, *moved]) for place in differing):
        return
    first = differing[0]
    raise ConversionError(
        Text(
            "the graph differs from the module: '{node}', step {step}, sample {sample}, "
            "neuron {neuron}: the {quantity} is {expected:g} in the module and {actual:g} in the graph",
            node=first.layer,
            step=first.step,
            sample=first.batch,
            neuron=first.neuron,
            quantity="membrane potential" if membranes else "output",
            expected=first.theirs,
            actual=first.ours,
        ),
        fix=(
            "let forward compute one time step with layers only, and let the layers keep "
            "their states from call to call"
        ),
        node=first.layer,
    )


def _run(
    module: Any, traced: TracedModule, sample: Any, gain: float
) -> tuple[np.ndarray, dict[str, list[np.ndarray]]]:
    """Run the module, and return the inputs of the graph and its outputs.

    The input is the sample; if `gain` is not 0, it is random spikes multiplied by `gain`. Only a few
    samples of a large batch are used.
    """
    if not traced.trace.passes.stepped:
        return run_recorded(module, _of_sample(sample, traced.trace, gain), traced.trace)
    size = sum(math.prod(call.outward) for call in traced.trace.calls)
    array = np.asarray(sample.detach().cpu().numpy(), np.float32)
    frames = _inputs(array, 1, gain, BATCH if size <= LARGE else 1)
    x = (sample if sample.is_floating_point() else sample.float()).new_tensor(frames)
    if (few := x[:, :BATCH]).shape != x.shape:
        try:
            return run_recorded(module, few, traced.trace)
        except Exception:  # a module may require its batch size; torch has various errors
            return run_recorded(module, x, traced.trace)
    return run_recorded(module, x, traced.trace)


def _of_sample(sample: Any, seen: ModuleTrace, gain: float) -> Any:
    """Return the sample, or with a gain random spikes of its shape. If layers that process all time
    steps receive the sample itself, random spikes follow some of its steps.
    """
    if not gain:
        return sample
    array = np.asarray(sample.detach().cpu().numpy(), np.float32)
    if seen.passes.from_sample:
        array = _inputs(array, 2, gain)
    else:
        rng = np.random.default_rng(0)
        array = np.float32(gain) * (rng.random(array.shape) < 0.5).astype(np.float32)
    return sample.new_tensor(array)


def _inputs(sample: np.ndarray, leading: int, gain: float, batch: int = BATCH) -> np.ndarray:
    """Return inputs (time, batch, *shape): some steps of the sample, then random spikes of different
    sizes. If there are fewer samples than `batch`, there are more steps.
    """
    first = sample[: STEPS // 3] if leading == 2 else sample[None]
    rng = np.random.default_rng(0)
    steps = STEPS * max(batch // max(first.shape[1], 1), 1)
    shape = (steps - len(first), *first.shape[1:])
    sizes = np.repeat(_SIZES, -(-shape[0] // len(_SIZES)))[: shape[0]]
    random = (rng.random(shape) < 0.5) * gain * sizes.reshape(-1, *(1,) * (len(shape) - 1))
    return np.concatenate([first, random.astype(np.float32)])


def _moved(network: Network, factor: float) -> Network:
    """Return the network with thresholds scaled by a factor."""
    parameters = {
        name: {
            key: value * np.float32(factor) if key == "v_threshold" else value
            for key, value in node_parameters.items()
        }
        for name, node_parameters in network.parameters.items()
    }
    return network.with_parameters(parameters)


def _first_difference(
    compared: Iterable[_Compared],
) -> list[_Place] | None:
    """Return the places of the first step and the first layer with a difference; None if there is
    none.
    """
    differences: dict[str, np.ndarray] = {}
    pairs = list(compared)
    for layer, graph_values, module_values, tolerance in pairs:
        if graph_values.shape != module_values.shape:
            raise ConversionError(
                Text(
                    "the graph differs from the module: the output of '{node}' over time "
                    "and batch has shape {expected} in the module and {actual} in the "
                    "graph",
                    node=layer,
                    expected=module_values.shape,
                    actual=graph_values.shape,
                ),
                fix="let forward receive and return (batch, *shape) in each time step",
                node=layer,
            )
        apart = ~(np.abs(graph_values - module_values) <= tolerance)
        if apart.any():
            differences[layer] = apart.reshape(*apart.shape[:2], -1)
    if not differences:
        return None
    step = min(int(np.argmax(apart.any(axis=(1, 2)))) for apart in differences.values())
    layer = next(name for name, apart in differences.items() if apart[step].any())
    graph_values, module_values = next(
        (graph_values, module_values)
        for name, graph_values, module_values, _ in pairs
        if name == layer
    )
    shape = differences[layer].shape
    graph_values, module_values = graph_values.reshape(shape), module_values.reshape(shape)
    return [
        _Place(
            layer=layer,
            step=step,
            batch=int(batch),
            neuron=int(neuron),
            ours=float(graph_values[step, batch, neuron]),
            theirs=float(module_values[step, batch, neuron]),
        )
        for batch, neuron in np.argwhere(differences[layer][step])
    ]


def _pairs(
    traced: TracedModule, ours: SteppedSolution, theirs: dict[str, list[np.ndarray]]
) -> Iterator[_Compared]:
    """Yield name, values of the graph and of the module, (time, batch, *shape), and a tolerance:
    layers that spike in order, then the returned outputs.
    """
    for leaf, node in traced.firing.items():
        if leaf in theirs and node in ours.spikes:
            sent = theirs[leaf][0] / traced.graded.get(leaf, 1.0)
            yield leaf, np.asarray(ours.spikes[node]), sent, 0.0
    for output, place in traced.places.items():
        graph_values, module_values = np.asarray(ours.y[output]), theirs[""][place]
        spikes = output in ours.spiking
        largest = 0.0 if spikes else float(np.abs(module_values).max(initial=0.0))
        yield output, graph_values, module_values, _CLOSE * largest


def _membranes(
    traced: TracedModule, ours: SteppedSolution, theirs: dict[str, list[np.ndarray]]
) -> Iterator[_Compared]:
    """Yield tuples like those of `_pairs` for the membranes of layers that spike, which show
    differences that change no spike here; the tolerance is relative to the threshold, or to the
    largest membrane so far.
    """
    # If forward resets a neuron before each call, a reset after a spike shows in its membrane only.
    reset = {call.name for call in traced.trace.calls if call.reset_each_call}
    for leaf, node in traced.firing.items():
        if len(theirs.get(leaf, ())) > 1 and leaf not in reset:
            graph_values, module_values = np.asarray(ours.voltages[node]), theirs[leaf][1]
            threshold = np.abs(traced.graph.nodes[node].value("v_threshold")).max()
            largest = (
                np.abs(module_values).reshape(len(module_values), -1).max(axis=1, initial=threshold)
            )
            largest = np.maximum.accumulate(largest).reshape(-1, *(1,) * (module_values.ndim - 1))
            yield leaf, graph_values, module_values, _CLOSE * largest


def _is_near(traced: TracedModule, place: _Place, runs: list[SteppedSolution]) -> bool:
    """Return whether a small change of the threshold adds or removes the spike at a place.

    Args:
        runs: Results with slightly different thresholds.
    """
    node = traced.firing.get(place.layer)
    if node is None:
        return False
    sent = [np.asarray(run.spikes[node]) for run in runs]
    spike_values = [
        spikes.reshape(*spikes.shape[:2], -1)[place.step, place.batch, place.neuron]
        for spikes in sent
    ]
    return len(set(map(float, spike_values))) > 1
