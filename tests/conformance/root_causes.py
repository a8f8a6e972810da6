"""Causes of the faults that the suite reports, each with a correction of the framework.

A correction replaces what one statement of the framework computes, and nothing else. With all
corrections of a framework, its failing cells pass; a cell that fails again without one of them has
this cause. `test_root_causes.py` asks the cells.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, kw_only=True)
class RootCause:
    """One statement of a framework that contradicts NIR or the framework itself.

    Attributes:
        location: module and function with the statement.
        line: line of the statement in the file of the module.
        statement: what it computes, and what is right.
        cell: a cell that fails because of it.
        correct: function that corrects it for the time of a monkey patch.
        evidence: function that returns what the framework does, and what NIR's equations say of it. It
            calls the framework alone.
    """

    location: str
    line: int
    statement: str
    cell: str
    correct: Callable[[Patch], None]
    evidence: Callable[[], tuple[Any, Any]]


def correct_all(framework: str, patch: Patch, *, but: str = "") -> None:
    """Correct all causes of the installed version of a framework, except the one that is left out."""
    causes = ROOT_CAUSES[framework, importlib.metadata.version(framework)]
    for name, cause in causes.items():
        if name != but:
            cause.correct(patch)


def _after(patch: Patch, module: Any, function: str, change: Callable[..., Any]) -> None:
    """Let a function return `change(result, *arguments)`."""
    original = getattr(module, function)

    def changed(*arguments: Any, **options: Any) -> Any:
        return change(original(*arguments, **options), *arguments)

    patch.setattr(module, function, changed)


# nirtorch, with which snnTorch, Norse and SpikingJelly run and write graphs.


def _pad_sums(patch: Patch) -> None:
    import nir
    from nirtorch import nir_interpreter

    patch.setitem(nir_interpreter.DEFAULT_MAP, nir.SumPool2d, _sum_pool)


def _build_subgraphs_once(patch: Patch) -> None:
    import torch
    from nirtorch import nir_interpreter

    original = nir_interpreter._construct_fx_graph

    def construct(owning_module: Any, nir_graph: Any) -> Any:
        if isinstance(owning_module, torch.fx.GraphModule):
            return owning_module
        return original(owning_module, nir_graph)

    patch.setattr(nir_interpreter, "_construct_fx_graph", construct)


def _execute_in_topological_order(patch: Patch) -> None:
    from nirtorch import graph_executor

    def order(node: Any, successors: Callable[[Any], Any]) -> list[Any]:
        visited, finished = set(), []

        def visit(node: Any) -> None:
            visited.add(node)
            for successor in successors(node):
                if successor not in visited:
                    visit(successor)
            finished.append(node)

        visit(node)
        return finished[::-1]

    patch.setattr(graph_executor, "trace_execution", order)


def _return_the_output_node(patch: Patch) -> None:
    from nirtorch.graph_executor import GraphExecutor

    original = GraphExecutor.get_execution_order

    def order(self: Any) -> list[Any]:
        return sorted(
            original(self), key=lambda node: getattr(node.elem, "node_type", "") == "output"
        )

    patch.setattr(GraphExecutor, "get_execution_order", order)


class _AnyName(str):
    """A name that contains every text."""

    def __contains__(self, text: object) -> bool:
        return True


def _execute_any_name(patch: Patch) -> None:
    from nirtorch.graph_executor import GraphExecutor

    original = GraphExecutor._apply_module

    def apply(self: Any, node: Any, *arguments: Any, **options: Any) -> Any:
        node.name = _AnyName(node.name)
        return original(self, node, *arguments, **options)

    patch.setattr(GraphExecutor, "_apply_module", apply)


# Modules for nodes that importers drop.


def _sum_pool(node: Any) -> Any:
    import torch

    class SumPool(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            size = tuple(int(side) for side in node.kernel_size)
            pooled = torch.nn.functional.avg_pool2d(
                x, size, tuple(map(int, node.stride)), tuple(map(int, node.padding))
            )
            return pooled * (size[0] * size[1])

    return SumPool()


def _average_pool(node: Any) -> Any:
    import torch

    sizes = (node.kernel_size, node.stride, node.padding)
    return torch.nn.AvgPool2d(*(tuple(map(int, size)) for size in sizes))


def _conv1d(node: Any) -> Any:
    import torch

    weight = torch.as_tensor(node.weight)
    module = torch.nn.Conv1d(
        weight.shape[1],
        weight.shape[0],
        weight.shape[2],
        **{
            name: int(np.ravel(getattr(node, name))[0])
            for name in ("stride", "padding", "dilation")
        },
        groups=int(node.groups),
    )
    module.weight.data, module.bias.data = weight, torch.as_tensor(node.bias)
    return module


def _flatten(node: Any) -> Any:
    import torch

    def behind_batch(axis: int) -> int:
        return int(axis) + (axis >= 0)

    return torch.nn.Flatten(behind_batch(node.start_dim), behind_batch(node.end_dim))


def _scale(node: Any) -> Any:
    return _function(lambda x: x * _tensor(node.scale))


def _threshold(node: Any) -> Any:
    return _function(lambda x: (x > _tensor(node.threshold)).float())


def _function(compute: Callable[[Any], Any]) -> Any:
    import torch

    class Function(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return compute(x)

    return Function()


def _tensor(value: Any) -> Any:
    import torch

    return torch.as_tensor(np.asarray(value), dtype=torch.float32)


def _delay(node: Any, dt: float) -> Any:
    import torch

    steps = torch.as_tensor(np.rint(np.asarray(node.delay) / dt), dtype=torch.long)

    class Delay(torch.nn.Module):
        def forward(self, x: Any, state: Any = None) -> Any:
            if state is None:
                state = torch.zeros(int(steps.max()) + 1, *x.shape)
            state = torch.cat([x[None], state[:-1]])
            return state.gather(0, steps.expand(1, *x.shape))[0], state

    return Delay()


def _integrator(node: Any, dt: float) -> Any:
    """Return NIR's LI or CubaLI, by Euler steps."""
    import torch

    is_current_based = hasattr(node, "tau_syn")
    share = dt / _tensor(node.tau_mem if is_current_based else node.tau)

    class Integrator(torch.nn.Module):
        def forward(self, x: Any, state: Any = None) -> Any:
            current, v = (0 * x, 0 * x) if state is None else state
            if is_current_based:
                current_share = dt / _tensor(node.tau_syn)
                current = current + current_share * (_tensor(node.w_in) * x - current)
                x = current
            v = v + share * (_tensor(node.v_leak) - v + _tensor(node.r) * x)
            return v, (current, v)

    return Integrator()


_MISSING_MODULES: Mapping[str, Callable[[Any, float], Any]] = {
    "AvgPool2d": lambda node, dt: _average_pool(node),
    "Conv1d": lambda node, dt: _conv1d(node),
    "Flatten": lambda node, dt: _flatten(node),
    "SumPool2d": lambda node, dt: _sum_pool(node),
    "Scale": lambda node, dt: _scale(node),
    "Threshold": lambda node, dt: _threshold(node),
    "Delay": _delay,
    "LI": _integrator,
    "CubaLI": _integrator,
}


#: Nodes that importers of Norse and snnTorch 0.9 map to no module.
_DROPPED = ("AvgPool2d", "Conv1d", "Scale", "Threshold", "Delay", "LI", "CubaLI")


def _map_nodes(patch: Patch, module: Any, function: str, types: tuple[str, ...], dt: float) -> None:
    """Let the function that maps nodes of a file return a module for these types of nodes."""
    original = getattr(module, function)

    def mapped(node: Any, *arguments: Any, **options: Any) -> Any:
        kind = type(node).__name__
        if kind in types:
            return _MISSING_MODULES[kind](node, dt)
        return original(node, *arguments, **options)

    patch.setattr(module, function, mapped)


# Norse.


def _norse_import(patch: Patch, change: Callable[..., Any]) -> None:
    from norse.torch.utils import import_nir

    _after(patch, import_nir, "_import_norse_module", lambda module, node, *_: change(module, node))


def _norse_missing(*types: str) -> Callable[[Patch], None]:
    def correct(patch: Patch) -> None:
        from norse.torch.utils import import_nir

        _map_nodes(patch, import_nir, "_import_norse_module", types, 1e-3)

    return correct


def _norse_read_r(patch: Patch) -> None:
    import torch

    class Scaled(torch.nn.Module):
        def __init__(self, gain: Any, neuron: Any) -> None:
            super().__init__()
            self.gain, self.neuron = gain, neuron

        def forward(self, x: Any, state: Any = None) -> Any:
            return self.neuron(self.gain * x, state)

    def change(module: Any, node: Any) -> Any:
        factor = {"LIF": 1.0, "IF": 1e-3}.get(type(node).__name__)
        return module if factor is None else Scaled(factor * _tensor(node.r), module)

    _norse_import(patch, change)


def _norse_read_reset(patch: Patch) -> None:
    def change(module: Any, node: Any) -> Any:
        for cell in [] if module is None else module.modules():
            if "v_reset" in getattr(getattr(cell, "p", None), "_fields", ()):
                cell.p = cell.p._replace(v_reset=_tensor(node.v_reset))
        return module

    _norse_import(patch, change)


def _norse_current_leak(patch: Patch) -> None:
    def change(module: Any, node: Any) -> Any:
        if type(node).__name__ == "CubaLIF":
            parameters = module.synapse.p
            module.synapse.p = parameters._replace(v_leak=0 * parameters.v_leak)
        return module

    _norse_import(patch, change)


def _norse_export(patch: Patch, change: Callable[..., Any]) -> None:
    from norse.torch.utils import export_nir

    _after(
        patch, export_nir, "_extract_norse_module", lambda node, module, *_: change(node, module)
    )


def _norse_write_time_constants(patch: Patch) -> None:
    def change(node: Any, module: Any) -> Any:
        for name in ("tau", "tau_mem", "tau_syn"):
            if hasattr(node, name):
                setattr(node, name, getattr(node, name) / 1e-3)
        return node

    _norse_export(patch, change)


def _norse_write_arrays(patch: Patch) -> None:
    from norse.torch.module.snn import SNNCell

    original = SNNCell.forward

    def forward(self: Any, x: Any, state: Any = None) -> Any:
        self.shape = x.shape
        return original(self, x, state)

    patch.setattr(SNNCell, "forward", forward)

    def change(node: Any, module: Any) -> Any:
        return _with_shape(node, module.shape) if isinstance(module, SNNCell) else node

    _norse_export(patch, change)


def _with_shape(node: Any, shape: Any) -> Any:
    """Return a neuron whose single numbers are arrays."""
    values = {
        name: np.full(tuple(shape), np.asarray(value))
        for name, value in vars(node).items()
        if name in ("tau", "tau_mem", "tau_syn", "r", "w_in", "v_leak", "v_threshold", "v_reset")
        and np.ndim(value) == 0
    }
    kept = {name: value for name, value in vars(node).items() if name in type(node).__match_args__}
    return type(node)(**kept | values)


def _exported_layer(module: Any) -> Any:
    """Return the node of a layer of PyTorch without a state; None for others."""
    import nir
    import torch

    if isinstance(module, torch.nn.Conv1d):
        weight, bias = (value.detach().numpy() for value in (module.weight, module.bias))
        sizes = (module.stride[0], module.padding[0], module.dilation[0], module.groups)
        return nir.Conv1d(None, weight, *sizes, bias)
    if isinstance(module, torch.nn.Conv2d):
        weight, bias = (value.detach().numpy() for value in (module.weight, module.bias))
        sizes = (module.stride, module.padding, module.dilation, module.groups)
        return nir.Conv2d(None, weight, *sizes, bias)
    if isinstance(module, torch.nn.AvgPool2d):
        sizes = (module.kernel_size, module.stride, module.padding)
        return nir.AvgPool2d(*(np.array(size) for size in sizes))
    if isinstance(module, torch.nn.Flatten):
        return nir.Flatten(None, module.start_dim - 1, module.end_dim)
    return None


def _norse_write_layers(patch: Patch) -> None:
    from norse.torch.utils import export_nir

    _norse_export(patch, lambda node, module: _exported_layer(module) if node is None else node)
    original = export_nir.extract_nir_graph

    def extract(module: Any, model_map: Any, sample_data: Any, **options: Any) -> Any:
        # torch.nn.Flatten needs the axis of a batch, and a file has none.
        ignored = [0] if any(type(layer).__name__ == "Flatten" for layer in module) else None
        return original(module, model_map, sample_data, ignore_dims=ignored, **options)

    patch.setattr(export_nir, "extract_nir_graph", extract)


def _infer_shapes(module: str, function: str) -> Callable[[Patch], None]:
    def correct(patch: Patch) -> None:
        def change(graph: Any, *_: Any) -> Any:
            if all(node is not None for node in graph.nodes.values()):
                graph.infer_types()
            return graph

        _after(patch, importlib.import_module(module), function, change)

    return correct


# snnTorch.


def _snntorch_import(patch: Patch, change: Callable[..., Any]) -> None:
    from snntorch import import_nir

    _after(
        patch, import_nir, "_nir_to_snntorch_module", lambda module, node, *_: change(module, node)
    )


def _snntorch_missing(*types: str) -> Callable[[Patch], None]:
    def correct(patch: Patch) -> None:
        from snntorch import import_nir

        _map_nodes(patch, import_nir, "_nir_to_snntorch_module", types, 1e-4)

    return correct


def _snntorch_keep_all(patch: Patch) -> None:
    def change(module: Any, node: Any) -> Any:
        if type(node).__name__ == "IF":
            module.beta.fill_(1.0)
        return module

    _snntorch_import(patch, change)


def _snntorch_read_reset(patch: Patch) -> None:
    def change(module: Any, node: Any) -> Any:
        v_reset = getattr(node, "v_reset", None)
        if v_reset is None or not np.any(v_reset):
            return module
        original = module.forward

        def forward(*arguments: Any) -> Any:
            result = original(*arguments)
            spikes = result[0] if isinstance(result, tuple) else result
            module.mem = module.mem * (1 - spikes) + _tensor(v_reset) * spikes
            return (*result[:-1], module.mem) if isinstance(result, tuple) else result

        module.forward = forward
        return module

    _snntorch_import(patch, change)


def _snntorch_input_to_neuron(patch: Patch) -> None:
    from snntorch import import_nir

    def change(graph: Any, _: Any, lif: str, weight: str) -> Any:
        name = lif.split(".")[0]
        inner = graph.nodes[name]
        inner.edges = [
            (source, lif) if (source, target) == (f"{name}.input", weight) else (source, target)
            for source, target in inner.edges
        ]
        return graph

    _after(patch, import_nir, "_create_rnn_subgraph", change)


def _snntorch_export(patch: Patch, change: Callable[..., Any]) -> None:
    from snntorch import export_nir

    _after(patch, export_nir, "_extract_snntorch_module", lambda node, module: change(node, module))


def _snntorch_write_arrays(patch: Patch) -> None:
    import snntorch

    def change(node: Any, module: Any) -> Any:
        if isinstance(module, snntorch.Leaky | snntorch.Synaptic):
            return _with_shape(node, module.mem.shape[1:])
        return node

    _snntorch_export(patch, change)


def _snntorch_write_padding(patch: Patch) -> None:
    def change(node: Any, module: Any) -> Any:
        return _exported_layer(module) if type(node).__name__ == "AvgPool2d" else node

    _snntorch_export(patch, change)


def _snntorch_write_layers(*types: str) -> Callable[[Patch], None]:
    def correct(patch: Patch) -> None:
        def change(node: Any, module: Any) -> Any:
            return _exported_layer(module) if type(module).__name__ in types else node

        _snntorch_export(patch, change)

    return correct


def _snntorch_write_layers_with_shapes(patch: Patch) -> None:
    _snntorch_write_layers("Conv1d", "Conv2d", "AvgPool2d", "Flatten")(patch)
    _infer_shapes("snntorch.export_nir", "export_to_nir")(patch)


def _snntorch_reset_at_once(kind: str) -> Callable[[Patch], None]:
    def correct(patch: Patch) -> None:
        import snntorch

        neuron = getattr(snntorch, kind)
        original = neuron.forward

        def forward(self: Any, *arguments: Any) -> Any:
            is_delayed, self.reset_delay = self.reset_delay, True
            try:
                result = original(self, *arguments)
            finally:
                self.reset_delay = is_delayed
            if is_delayed:
                return result
            spikes = result[0] if isinstance(result, tuple) else result
            due = spikes - self.reset
            if self.reset_mechanism_val == 0:
                self.mem = self.mem - due * self.threshold
            elif self.reset_mechanism_val == 1:
                self.mem = self.mem - due * self.mem
            return (*result[:-1], self.mem) if isinstance(result, tuple) else result

        patch.setattr(neuron, "forward", forward)

    return correct


def _snntorch_keep_current(patch: Patch) -> None:
    import snntorch

    original = snntorch.Synaptic.forward

    def forward(self: Any, x: Any, syn: Any = None, mem: Any = None) -> Any:
        if syn is None or mem is None:
            return original(self, x, syn, mem)
        self.syn, self.mem = syn, mem
        return original(self, x)

    patch.setattr(snntorch.Synaptic, "forward", forward)


# SpikingJelly.


def _spikingjelly_pool_shapes(patch: Patch) -> None:
    from spikingjelly.activation_based.nir_exchange import to_nir

    original = to_nir._ModuleMapper.map_avgpool2d

    def mapped(self: Any, module: Any) -> Any:
        node = original(self, module)
        node.input_type = {"input": np.array(self.module_io_shape[module][1:])}
        return node

    patch.setattr(to_nir._ModuleMapper, "map_avgpool2d", mapped)


def _output_of_inputs(patch: Patch) -> None:
    import nir

    original = nir.NIRGraph.infer_types

    def infer_types(self: Any) -> None:
        for node in self.inputs.values():
            node.output_type = {"output": node.input_type["input"]}
        original(self)

    patch.setattr(nir.NIRGraph, "infer_types", infer_types)


# Evidence: what the framework computes, and what NIR's equations say, both without jaxsnn.


def _error(call: Callable[[], Any]) -> str:
    """Return the type of the exception that a call raises, else "none"."""
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "none"


def _graph(*nodes: Any, shape: tuple[int, ...] = (1,), outputs: tuple[int, ...] = (1,)) -> Any:
    """Return a chain of nodes as a graph."""
    import nir

    names = ["input", *map(str, range(len(nodes))), "output"]
    ends = nir.Input(np.array(shape)), nir.Output(np.array(outputs))
    entries = dict(zip(names, [ends[0], *nodes, ends[1]], strict=True))
    return nir.NIRGraph(entries, list(itertools.pairwise(names)), type_check=False)


def _affine() -> Any:
    import nir

    return nir.Affine(np.ones((1, 1), np.float32), np.zeros(1, np.float32))


def _neuron(kind: str, **values: float) -> Any:
    import nir

    return getattr(nir, kind)(**{key: np.array([value]) for key, value in values.items()})


def _outputs(module: Any, x: Sequence[Any]) -> list[Any]:
    """Return what an imported module computes for inputs of a batch of one or more samples."""
    import torch

    state, outputs = None, []
    with torch.no_grad():
        for frame in x:
            result = module(torch.tensor(frame, dtype=torch.float32), state)
            y, state = result if isinstance(result, tuple) else (result, None)
            outputs.append((y[0] if isinstance(y, tuple) else y).tolist())
    return outputs


def _by_norse(*nodes: Any, x: Sequence[Any], **shapes: tuple[int, ...]) -> list[Any]:
    from norse.torch.utils.import_nir import from_nir

    return _outputs(from_nir(_graph(*nodes, **shapes)), x)


def _by_snntorch(*nodes: Any, x: Sequence[Any], **shapes: tuple[int, ...]) -> list[Any]:
    from snntorch.import_nir import import_from_nir

    with contextlib.redirect_stdout(io.StringIO()):
        return _outputs(import_from_nir(_graph(*nodes, **shapes)), x)


def _from_norse(module: Any, *shape: int) -> Any:
    import torch
    from norse.torch import SequentialState
    from norse.torch.utils.export_nir import to_nir

    return to_nir(SequentialState(*module), torch.zeros(shape))


def _from_snntorch(modules: Sequence[Any], *shape: int) -> Any:
    import torch
    from snntorch.export_nir import export_to_nir

    with contextlib.redirect_stdout(io.StringIO()):
        network = torch.nn.Sequential(*modules)
        return export_to_nir(network, torch.zeros(1, *shape), ignore_dims=[0])


# Each of these returns what the framework does, and what is right.


def _norse_time_constant() -> tuple[Any, Any]:
    """A Norse neuron with x = 1 has v = dt tau_mem_inv after a step; NIR says dt/tau."""
    import torch
    from norse.torch.functional.lif_box import LIFBoxParameters
    from norse.torch.module.lif_box import LIFBoxCell

    cell = LIFBoxCell(
        LIFBoxParameters(
            tau_mem_inv=torch.full((1,), 100.0), v_leak=torch.zeros(1), v_th=torch.full((1,), 2.0)
        ),
        dt=1e-3,
    )
    (_, state) = cell(torch.ones(1))
    written = _from_norse([torch.nn.Linear(1, 1), cell], 1).nodes["1"]
    return round(1e-3 / float(written.tau[0]), 4), round(float(state.v[0]), 4)


def _norse_number() -> tuple[Any, Any]:
    import torch
    from norse.torch.module.lif_box import LIFBoxCell

    written = _from_norse([torch.nn.Linear(1, 3), LIFBoxCell()], 1).nodes["1"]
    return np.shape(written.tau), (3,)


def _norse_pool() -> tuple[Any, Any]:
    import torch
    from norse.torch.module.iaf import IAFCell

    written = _from_norse([torch.nn.AvgPool2d(2), IAFCell()], 1, 2, 2).nodes["0"]
    return type(written).__name__, "AvgPool2d"


def _norse_convolution() -> tuple[Any, Any]:
    import torch
    from norse.torch.functional.iaf import IAFParameters
    from norse.torch.module.iaf import IAFCell

    cell = IAFCell(IAFParameters(v_th=torch.ones(1, 2, 2)))
    written = _from_norse([torch.nn.Conv2d(1, 1, 2), cell], 1, 3, 3).nodes["0"]
    size = written.input_shape
    return size if size is None else tuple(map(int, size)), (3, 3)


def _norse_gain() -> tuple[Any, Any]:
    """x = 1 charges V by dt/tau r = 0.1 * 10 = 1, and the threshold is 0.5."""
    lif = _neuron("LIF", tau=0.01, r=10.0, v_leak=0.0, v_threshold=0.5, v_reset=0.0)
    return _by_norse(_affine(), lif, x=[[1.0]]), [[1.0]]


def _norse_reset() -> tuple[Any, Any]:
    """V = 1.5 fires and becomes -0.5; then V = -0.5 + 1.2 = 0.7 does not. It starts at 0 or -0.5."""
    neuron = _neuron("IF", r=1000.0, v_threshold=1.0, v_reset=-0.5)
    return _by_norse(_affine(), neuron, x=[[1.6], [1.2]]), [[1.0], [0.0]]


def _norse_leak_of_current() -> tuple[Any, Any]:
    """Without input the current is 0, and V stays at or approaches v_leak = 0.5 < 0.6."""
    neuron = _neuron(
        "CubaLIF",
        tau_syn=2e-3,
        tau_mem=2e-3,
        r=1.0,
        v_leak=0.5,
        v_threshold=0.6,
        v_reset=0.0,
        w_in=1.0,
    )
    return _by_norse(_affine(), neuron, x=[[0.0], [0.0]]), [[0.0], [0.0]]


def _padded_sum_by(run: Callable[..., Any]) -> Callable[[], tuple[Any, Any]]:
    """Windows of 2 x 2 over an image of 2 x 2 ones, padded by 1: each contains one pixel."""

    def evidence() -> tuple[Any, Any]:
        import nir

        pool = nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([1, 1]))
        (y,) = run(pool, x=[[[[[1.0, 1.0], [1.0, 1.0]]]]], shape=(1, 2, 2), outputs=(1, 2, 2))
        return y, [[[[1.0, 1.0], [1.0, 1.0]]]]

    return evidence


def _flattened_by(run: Callable[..., Any]) -> Callable[[], tuple[Any, Any]]:
    """Two samples of 2 x 2 are two rows of 4."""

    def evidence() -> tuple[Any, Any]:
        import nir

        node = nir.Flatten({"input": np.array([1, 2, 2])}, 0, -1)
        (y,) = run(node, x=[np.ones((2, 1, 2, 2))], shape=(1, 2, 2), outputs=(4,))
        return np.shape(y), (2, 4)

    return evidence


def _scaled_by(run: Callable[..., Any]) -> Callable[[], tuple[Any, Any]]:
    """An LI with dt/tau = 1 and r = 2 doubles its input."""

    def evidence() -> tuple[Any, Any]:
        import nir

        dt = 1e-3 if run is _by_norse else 1e-4
        node = nir.LI(np.full(1, dt), np.full(1, 2.0), np.zeros(1))
        return run(_affine(), node, _affine(), x=[[[1.0]]]), [[[2.0]]]

    return evidence


def _execution_order() -> tuple[Any, Any]:
    """Node 2 receives what nodes 0 and 1 send."""
    from nirtorch import graph_executor

    successors = {0: [2, 1], 1: [2], 2: []}
    return graph_executor.trace_execution(0, successors.__getitem__), [0, 1, 2]


def _executed_output() -> tuple[Any, Any]:
    """A node that also drives another one is the output, whichever edge comes first."""
    import nir
    import nirtorch
    import torch
    from norse.torch.utils.import_nir import _import_norse_module

    outputs = set()
    for is_reversed in (False, True):
        graph = _graph(_affine(), _affine())
        graph.nodes["loop"] = nir.Linear(np.zeros((1, 1), np.float32))
        edges = [*graph.edges, ("1", "loop"), ("loop", "1")]
        graph.edges = sorted(edges, reverse=is_reversed)
        with torch.no_grad():
            outputs.add(float(nirtorch.load(graph, _import_norse_module)(torch.ones(1, 1))[0]))
    return outputs, {1.0}


def _snntorch_decay() -> tuple[Any, Any]:
    """V = 0.6, then 1.05 > 1. With a leak of 10 % it is 0.99."""
    neuron = _neuron("IF", r=1.0, v_threshold=1.0, v_reset=0.0)
    return _by_snntorch(_affine(), neuron, x=[[[0.6]], [[0.45]]]), [[[0.0]], [[1.0]]]


def _snntorch_reset() -> tuple[Any, Any]:
    """V = 1.5 fires and becomes -0.5; then V = 0.5 * -0.5 + 1.1 = 0.85 does not."""
    lif = _neuron("LIF", tau=2e-4, r=2.0, v_leak=0.0, v_threshold=1.0, v_reset=-0.5)
    return _by_snntorch(_affine(), lif, x=[[[1.5]], [[1.1]]]), [[[1.0]], [[0.0]]]


def _snntorch_recurrent_graph() -> Any:
    import nir

    lif = _neuron("LIF", tau=2e-4, r=2.0, v_leak=0.0, v_threshold=1.0, v_reset=0.0)
    graph = _graph(_affine(), lif)
    graph.nodes["1_recurrent"] = nir.Linear(np.zeros((1, 1), np.float32))
    graph.edges += [("1", "1_recurrent"), ("1_recurrent", "1")]
    return graph


def _snntorch_subgraph_edge() -> tuple[Any, Any]:
    from snntorch import import_nir

    graph = import_nir._create_rnn_subgraph(_snntorch_recurrent_graph(), "1", "1_recurrent")
    (target,) = (edge[1] for edge in graph.nodes["1"].edges if edge[0] == "1.input")
    return target, "1"


def _snntorch_subgraph() -> tuple[Any, Any]:
    from snntorch import import_nir

    graph = _snntorch_recurrent_graph()
    graph.nodes = dict(sorted(graph.nodes.items()))
    with contextlib.redirect_stdout(io.StringIO()):
        return _error(lambda: import_nir.import_from_nir(graph)), "none"


def _snntorch_number() -> tuple[Any, Any]:
    import snntorch
    import torch

    neuron = snntorch.Leaky(beta=0.9, init_hidden=True)
    neuron(torch.zeros(1, 3))
    return np.shape(_snntorch_node(neuron).tau), (3,)


def _snntorch_node(module: Any) -> Any:
    from snntorch import export_nir

    with contextlib.redirect_stdout(io.StringIO()):
        return export_nir._extract_snntorch_module(module)


def _snntorch_pool() -> tuple[Any, Any]:
    import torch

    node = _snntorch_node(torch.nn.AvgPool2d(2, padding=1))
    return tuple(map(int, np.broadcast_to(node.padding, 2))), (1, 1)


def _snntorch_convolution() -> tuple[Any, Any]:
    import torch

    return type(_snntorch_node(torch.nn.Conv1d(1, 1, 2))).__name__, "Conv1d"


def _snntorch_shape() -> tuple[Any, Any]:
    import snntorch
    import torch

    neuron = snntorch.Leaky(
        beta=torch.full((1, 2, 2), 0.9), threshold=torch.ones(1, 2, 2), init_hidden=True
    )
    size = _from_snntorch([torch.nn.Conv2d(1, 1, 2), neuron], 1, 3, 3).nodes["0"].input_shape
    return size if size is None else tuple(map(int, size)), (3, 3)


def _snntorch_immediate_reset(kind: str) -> Callable[[], tuple[Any, Any]]:
    """V = 1.5 fires, and is 0.5 after a subtraction at once."""

    def evidence() -> tuple[Any, Any]:
        import snntorch
        import torch

        options: dict[str, Any] = {"linear_features": 1} if kind.startswith("R") else {}
        neuron = getattr(snntorch, kind)(
            alpha=0.5, beta=0.5, init_hidden=True, reset_delay=False, **options
        )
        if options:
            torch.nn.init.zeros_(neuron.recurrent.weight)
            torch.nn.init.zeros_(neuron.recurrent.bias)
        try:
            neuron(torch.full((1, 1), 1.5))
        except TypeError as error:
            return type(error).__name__, 0.5
        return float(neuron.mem.detach()), 0.5

    return evidence


def _snntorch_name() -> tuple[Any, Any]:
    import nirtorch
    import snntorch
    import torch

    graph = _graph(_affine(), _affine())
    neuron = snntorch.RSynaptic(alpha=0.5, beta=0.5, linear_features=1)
    modules = {id(graph.nodes["0"]): torch.nn.Linear(1, 1), id(graph.nodes["1"]): neuron}
    module = nirtorch.load(graph, lambda node: modules.get(id(node)))
    return _error(lambda: module(torch.zeros(1, 1))), "none"


def _snntorch_current() -> tuple[Any, Any]:
    """The current 0.4 halves, and is 0.2 in the next step."""
    import snntorch
    import torch

    neuron = snntorch.Synaptic(alpha=0.5, beta=0.5)
    _, current, _ = neuron(torch.zeros(1, 1), torch.full((1, 1), 0.4), torch.zeros(1, 1))
    return round(float(current), 4), 0.2


def _spikingjelly_pool() -> tuple[Any, Any]:
    import torch
    from spikingjelly.activation_based.nir_exchange import to_nir

    network = torch.nn.Sequential(torch.nn.AvgPool2d(2))
    mapper = to_nir._ModuleMapper(network, torch.zeros(1, 1, 2, 2))
    shape = mapper.map_avgpool2d(network[0]).input_type["input"]
    return shape if shape is None else tuple(map(int, shape)), (1, 2, 2)


def _nirtorch_input() -> tuple[Any, Any]:
    import nir
    import nirtorch
    import torch

    node = _affine()
    network = torch.nn.Sequential(torch.nn.Linear(1, 1))
    graph = nirtorch.torch_to_nir(network, {torch.nn.Linear: lambda _: node}, type_check=False)
    with contextlib.suppress(Exception):
        graph.infer_types()
    (entry,) = (node for node in graph.nodes.values() if isinstance(node, nir.Input))
    return sorted(entry.output_type), ["output"]


def _by_spikingjelly(*nodes: Any, x: Sequence[Any], **shapes: tuple[int, ...]) -> list[Any]:
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return _outputs(import_from_nir(_graph(*nodes, **shapes)), x)


_NORSE_IMPORT = "norse.torch.utils.import_nir:_import_norse_module"
_NORSE_EXPORT = "norse.torch.utils.export_nir:_extract_norse_module"
_SNN_IMPORT = "snntorch.import_nir:_nir_to_snntorch_module"
_SNN_EXPORT = "snntorch.export_nir:_extract_snntorch_module"


def _execution_order_cause(node: str) -> RootCause:
    return RootCause(
        location="nirtorch.graph_utils:trace_execution",
        line=88,
        statement="orders nodes by a depth-first search; a node runs before one of its sources",
        cell=f"import/{node}/uniform/skip/tau = 10 dt",
        correct=_execute_in_topological_order,
        evidence=_execution_order,
    )


_NAMES = RootCause(
    location="nirtorch.graph_executor:GraphExecutor._apply_module",
    line=137,
    statement="runs an RSynaptic only if the name of its node contains 'lif'",
    cell="import/CubaLIF/uniform/recurrent/tau = 10 dt",
    correct=_execute_any_name,
    evidence=_snntorch_name,
)


def _padded_sums(run: Callable[..., Any], neuron: str) -> RootCause:
    return RootCause(
        location="nirtorch.nir_interpreter:_default_map_sumpool2d",
        line=81,
        statement="pools without the padding of the SumPool2d",
        cell=f"import/SumPool2d with padding/uniform/SumPool2d with padding and {neuron}/tau = 10 dt",
        correct=_pad_sums,
        evidence=_padded_sum_by(run),
    )


_NORSE = {
    "time constants": RootCause(
        location=_NORSE_EXPORT,
        line=37,
        statement="writes tau = dt/tau_mem_inv; the neuron decays by dt tau_mem_inv, so tau is 1/tau_mem_inv",
        cell="export/LIF/uniform/one layer/zero/tau = 10 dt",
        correct=_norse_write_time_constants,
        evidence=_norse_time_constant,
    ),
    "single numbers": RootCause(
        location=_NORSE_EXPORT,
        line=39,
        statement="writes a parameter that is one number without a shape, as the defaults of Norse are",
        cell="export/IF/number/one layer/zero/tau = 10 dt",
        correct=_norse_write_arrays,
        evidence=_norse_number,
    ),
    "layers": RootCause(
        location=_NORSE_EXPORT,
        line=61,
        statement="returns None for Conv1d, AvgPool2d and Flatten; the graph is returned with the None",
        cell="export/AvgPool2d/uniform/AvgPool2d and IF/zero/tau = 10 dt",
        correct=_norse_write_layers,
        evidence=_norse_pool,
    ),
    "shape of convolutions": RootCause(
        location=_NORSE_EXPORT,
        line=19,
        statement="writes input_shape = None, although the sample has the shape",
        cell="export/Conv2d/uniform/Conv2d and IF/zero/tau = 10 dt",
        correct=_infer_shapes("norse.torch.utils.export_nir", "to_nir"),
        evidence=_norse_convolution,
    ),
    "r": RootCause(
        location=_NORSE_IMPORT,
        line=123,
        statement="does not read r of LIF and IF (it warns)",
        cell="import/LIF/uniform/one layer/tau = 10 dt",
        correct=_norse_read_r,
        evidence=_norse_gain,
    ),
    "v_reset": RootCause(
        location=_NORSE_IMPORT,
        line=96,
        statement="does not read v_reset, and resets to 0",
        cell="import/IF/v_reset/one layer/tau = 10 dt",
        correct=_norse_read_reset,
        evidence=_norse_reset,
    ),
    "leak of the current": RootCause(
        location=_NORSE_IMPORT,
        line=102,
        statement="lets the synaptic current of CubaLIF leak to v_leak; in NIR it leaks to 0",
        cell="import/CubaLIF/v_leak/one layer/tau = 10 dt",
        correct=_norse_current_leak,
        evidence=_norse_leak_of_current,
    ),
    "padding of sums": RootCause(
        location=_NORSE_IMPORT,
        line=134,
        statement="pools without the padding of the SumPool2d (it warns)",
        cell="import/SumPool2d with padding/uniform/SumPool2d with padding and IF/tau = 10 dt",
        correct=_norse_missing("SumPool2d"),
        evidence=_padded_sum_by(_by_norse),
    ),
    "Flatten": RootCause(
        location=_NORSE_IMPORT,
        line=86,
        statement="passes start_dim on unchanged; NIR does not count the batch axis, PyTorch does",
        cell="import/Flatten/uniform/Flatten and IF/tau = 10 dt",
        correct=_norse_missing("Flatten"),
        evidence=_flattened_by(_by_norse),
    ),
    "dropped nodes": RootCause(
        location=_NORSE_IMPORT,
        line=57,
        statement="returns None for AvgPool2d, Conv1d, Scale, Threshold, Delay, LI, CubaLI; nirtorch.load skips them",
        cell="import/LI/uniform/one layer/tau = 10 dt",
        correct=_norse_missing(*_DROPPED),
        evidence=_scaled_by(_by_norse),
    ),
    "execution order": _execution_order_cause("IF"),
    "output": RootCause(
        location="nirtorch.graph_executor:GraphExecutor.forward",
        line=169,
        statement="returns what the last node of this order computes, not what enters the Output",
        cell="import/IF/uniform/recurrent/tau = 10 dt",
        correct=_return_the_output_node,
        evidence=_executed_output,
    ),
}

_SNNTORCH = {
    "IF leaks": RootCause(
        location=_SNN_IMPORT,
        line=235,
        statement="makes an IF a Leaky with beta = 0.9",
        cell="import/IF/r = 1/one layer/tau = 10 dt",
        correct=_snntorch_keep_all,
        evidence=_snntorch_decay,
    ),
    "v_reset": RootCause(
        location=_SNN_IMPORT,
        line=273,
        statement="does not read v_reset, and resets to 0",
        cell="import/LIF/v_reset/one layer/tau = 10 dt",
        correct=_snntorch_read_reset,
        evidence=_snntorch_reset,
    ),
    "Flatten": RootCause(
        location=_SNN_IMPORT,
        line=216,
        statement="passes start_dim on unchanged, although its exporter subtracts the batch axis",
        cell="import/Flatten/uniform/Flatten and LIF/tau = 10 dt",
        correct=_snntorch_missing("Flatten"),
        evidence=_flattened_by(_by_snntorch),
    ),
    "input of a subgraph": RootCause(
        location="snntorch.import_nir:_create_rnn_subgraph",
        line=41,
        statement="connects the input of a recurrent population to the recurrent weights, not to the neuron",
        cell="import/LIF/uniform/recurrent/tau = 10 dt",
        correct=_snntorch_input_to_neuron,
        evidence=_snntorch_subgraph_edge,
    ),
    "subgraph built twice": RootCause(
        location="nirtorch.nir_interpreter:_construct_fx_graph",
        line=465,
        statement="builds a subgraph before its sources exist, and builds the result again",
        cell="import/CubaLIF/uniform/recurrent/tau = 10 dt",
        correct=_build_subgraphs_once,
        evidence=_snntorch_subgraph,
    ),
    "single numbers": RootCause(
        location=_SNN_EXPORT,
        line=70,
        statement="writes a parameter that is one number without a shape, as in the examples of snnTorch",
        cell="export/LIF/number/one layer/zero/tau = 10 dt",
        correct=_snntorch_write_arrays,
        evidence=_snntorch_number,
    ),
    "padding of averages": RootCause(
        location=_SNN_EXPORT,
        line=64,
        statement="writes padding = 0 for every AvgPool2d",
        cell="export/AvgPool2d with padding/uniform/AvgPool2d with padding and LIF/zero/tau = 10 dt",
        correct=_snntorch_write_padding,
        evidence=_snntorch_pool,
    ),
    "layers": RootCause(
        location=_SNN_EXPORT,
        line=233,
        statement="prints a warning and returns None for Conv1d; the export goes on with the None",
        cell="export/Conv1d/uniform/Conv1d and LIF/zero/tau = 10 dt",
        correct=_snntorch_write_layers("Conv1d"),
        evidence=_snntorch_convolution,
    ),
    "reset of RSynaptic": RootCause(
        location="snntorch._neurons.rsynaptic:RSynaptic.forward",
        line=369,
        statement="reset_delay=False resets the arguments of the call, not the state of the neuron",
        cell="export/CubaLIF/per neuron/recurrent/zero at once/tau = 10 dt",
        correct=_snntorch_reset_at_once("RSynaptic"),
        evidence=_snntorch_immediate_reset("RSynaptic"),
    ),
    "padding of sums": _padded_sums(_by_snntorch, "LIF"),
}


def _older(line_of: Mapping[str, int]) -> dict[str, RootCause]:
    """Return causes of snnTorch 1.0.0 with their lines in an older version."""
    return {name: dataclasses.replace(_SNNTORCH[name], line=line) for name, line in line_of.items()}


_SNNTORCH_094 = (
    _older(
        {
            "IF leaks": 235,
            "v_reset": 273,
            "Flatten": 216,
            "single numbers": 70,
            "padding of averages": 64,
            "layers": 185,
            "reset of RSynaptic": 369,
        }
    )
    | {
        "dropped nodes": RootCause(
            location=_SNN_IMPORT,
            line=412,
            statement="prints a warning and returns None for nodes that it does not know; nirtorch.load skips them",
            cell="import/LI/uniform/one layer/tau = 10 dt",
            correct=_snntorch_missing(*_DROPPED, "SumPool2d"),
            evidence=_scaled_by(_by_snntorch),
        ),
        "shape of convolutions": RootCause(
            location=_SNN_EXPORT,
            line=45,
            statement="writes input_shape = None, although the sample has the shape",
            cell="export/Conv2d/uniform/Conv2d and LIF/zero/tau = 10 dt",
            correct=_infer_shapes("snntorch.export_nir", "export_to_nir"),
            evidence=_snntorch_shape,
        ),
    }
    | {"execution order": _execution_order_cause("LIF"), "names": _NAMES}
)

_SNNTORCH_091 = (
    _older({"IF leaks": 209, "v_reset": 239, "Flatten": 192, "single numbers": 28})
    | {
        "reset of RSynaptic": _SNNTORCH["reset of RSynaptic"],
        "reset of Synaptic": RootCause(
            location="snntorch._neurons.synaptic:Synaptic.forward",
            line=255,
            statement="reset_delay=False resets the arguments of the call, not the state of the neuron",
            cell="import/CubaLIF/uniform/one layer/tau = 10 dt",
            correct=_snntorch_reset_at_once("Synaptic"),
            evidence=_snntorch_immediate_reset("Synaptic"),
        ),
        "current of Synaptic": RootCause(
            location="snntorch._neurons.synaptic:Synaptic.forward",
            line=219,
            statement="replaces the synaptic current by the membrane potential of the last step",
            cell="import/CubaLIF/uniform/two layers/tau = 10 dt",
            correct=_snntorch_keep_current,
            evidence=_snntorch_current,
        ),
        "layers": dataclasses.replace(
            _SNNTORCH["layers"],
            line=124,
            statement="prints a warning and returns None for Conv1d, Conv2d, AvgPool2d and Flatten",
            correct=_snntorch_write_layers_with_shapes,
        ),
        "dropped nodes": dataclasses.replace(
            _SNNTORCH_094["dropped nodes"],
            line=346,
            correct=_snntorch_missing(*_DROPPED),
        ),
    }
    | {"execution order": _execution_order_cause("LIF"), "names": _NAMES}
)

#: Framework and version -> names of causes -> causes.
ROOT_CAUSES: Mapping[tuple[str, str], Mapping[str, RootCause]] = {
    ("norse", "1.1.0"): _NORSE,
    ("snntorch", "1.0.0"): _SNNTORCH,
    ("snntorch", "0.9.4"): _SNNTORCH_094,
    ("snntorch", "0.9.1"): _SNNTORCH_091,
    ("spikingjelly", "2.0.0"): {
        "shape of pools": RootCause(
            location="spikingjelly.activation_based.nir_exchange.to_nir:_ModuleMapper.map_avgpool2d",
            line=154,
            statement="writes an AvgPool2d without the shape of its input, which nir needs at the start of a network",
            cell="export/AvgPool2d/uniform/AvgPool2d and IF/zero/tau = 10 dt",
            correct=_spikingjelly_pool_shapes,
            evidence=_spikingjelly_pool,
        ),
        "type of inputs": RootCause(
            location="nirtorch.torch_tracer:torch_to_nir",
            line=295,
            statement="writes the output type of an Input under 'input'; nir looks for 'output' before a pool",
            cell="export/AvgPool2d/uniform/AvgPool2d and LIF/zero/tau = 10 dt",
            correct=_output_of_inputs,
            evidence=_nirtorch_input,
        ),
        "padding of sums": _padded_sums(_by_spikingjelly, "IF"),
    },
}
