"""A PyTorch module prepared for a forward pass: its sample, its leaves, its states, and its errors."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections import deque
from collections.abc import Container, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from jaxsnn.errors import ConversionError, first_line
from jaxsnn.nir.frameworks.registry import frameworks
from jaxsnn.nir.torch.leaves import exporter_of, in_time, of_library
from jaxsnn.nir.torch.recording import tensors_of
from jaxsnn.wording import Text


def state_names(module: Any, arguments: tuple[Any, ...] = ()) -> tuple[list[str], list[str]]:
    """Return the parameters of `forward` after the sample and further arguments: all, and those
    without a default.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [
        parameter
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind in kinds
    ][1 + len(arguments) :]
    required = [p.name for p in parameters if p.default is p.empty]
    return [p.name for p in parameters], required


def initial_states(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the states at the end of the arguments after the sample.

    States are None, tuples, lists and dicts, arguments that forward returns under the same name, and
    tensors if forward returns its output and a result for each of its further parameters.
    """
    parameter_names, _ = state_names(module)
    returned, count = _returned_names(type(module).forward), len(arguments)
    while count:
        argument = arguments[count - 1]
        by_name = count <= len(parameter_names) and parameter_names[count - 1] in returned
        all_states = "" not in returned and len(returned) == 1 + len(parameter_names)
        is_result = hasattr(argument, "is_inference") and all_states
        is_state = argument is None or isinstance(argument, tuple | list | dict)
        if not (by_name or is_result or is_state):
            break
        count -= 1
    return arguments[count:]


def fed_back(module: Any, result: Any, arguments: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    """Return the states that `forward` receives in the next step, taken from its previous result.

    These are the results with the names of its parameters, or the last results, one for each parameter
    after the constant arguments. Results before them are outputs.
    """
    states, _ = state_names(module, arguments)
    if not isinstance(result, tuple | list):
        return ()
    returned = _returned_names(type(module).forward)
    if states and len(returned) == len(result) and set(states) <= set(returned):
        return tuple(result[returned.index(name)] for name in states)
    if not states:
        parameters = inspect.signature(module.forward).parameters.values()
        several = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
        return tuple(result[1:]) if several else ()
    if len(result) <= len(states):
        return ()
    return tuple(result[-len(states) :])


@functools.lru_cache(maxsize=16)
def _returned_names(forward: Any) -> list[str]:
    """Return the names of the variables that the last statement of `forward` returns, and "" for other
    results; none if it does not return a tuple, or there is no source code.
    """
    try:
        (function,) = ast.parse(textwrap.dedent(inspect.getsource(forward))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return []
    last = function.body[-1] if isinstance(function, ast.FunctionDef) else None
    value = last.value if isinstance(last, ast.Return) else None
    entries = value.elts if isinstance(value, ast.Tuple | ast.List) else []
    return [entry.id if isinstance(entry, ast.Name) else "" for entry in entries]


def sample_of(module: Any, sample: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a sample as a tensor, and further arguments of `forward` if it is a tuple of a tensor
    and these; arrays and lists get the dtype and device of the module.

    Raises:
        ConversionError: The sample cannot be converted to a tensor.
    """
    import torch

    if isinstance(sample, tuple) and sample and torch.is_tensor(sample[0]):
        return sample[0], sample[1:]
    if torch.is_tensor(sample):
        return sample, ()
    if isinstance(sample, tuple) and any(map(torch.is_tensor, tensors_of(sample))):
        raise ConversionError(
            Text(
                "the sample is a tuple that begins with a {type}, and the first argument of forward must "
                "be a tensor",
                type=type(sample[0]).__name__,
            ),
            fix="let forward take its input first and its states after it, and pass (input, *states) as the "
            "sample",
        )
    like = next(module.parameters(), torch.zeros(()))
    try:
        return torch.as_tensor(sample, dtype=like.dtype, device=like.device), ()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConversionError(
            Text(
                "the sample, a {type}, cannot be converted to a tensor: {reason}",
                type=type(sample).__name__,
                reason=first_line(error),
            ),
            fix="pass a tensor (batch, *shape), such as torch.zeros(1, 784)",
        ) from error


def sample_refusal(module: Any, sample: Any, error: Exception) -> ConversionError:
    """Return the refusal of a sample whose shape or dtype raised an error in a layer."""
    like = next(module.parameters(), sample)
    fix = "pass a sample (batch, *shape) that forward accepts"
    if like.dtype != sample.dtype:
        fix = (
            f"pass a sample of {like.dtype}, the dtype of the weights, with sample.to({like.dtype})"
        )
    return ConversionError(
        Text(
            "{module} does not accept a sample of shape {shape} of {dtype}: {reason}{raised_in}",
            module=type(module).__name__,
            shape=tuple(sample.shape),
            dtype=sample.dtype,
            reason=first_line(error),
            raised_in=raised_in(module, error),
        ),
        fix=fix,
    )


def error_refusal(module: Any, error: Exception, when: str) -> ConversionError:
    """Return the refusal of a module whose forward raised an error, with its location."""
    kind, message = type(error).__name__, first_line(error)
    return ConversionError(
        Text(
            "forward of {module} fails {when} with {error}{detail}{raised_in}",
            module=type(module).__name__,
            when=when,
            error=kind,
            detail=Text("") if message == kind else Text(" ({reason})", reason=message),
            raised_in=raised_in(module, error),
        ),
        fix="make sure that the module runs with such a sample",
    )


def raised_in(module: Any, error: BaseException) -> str:
    """Return ", in layer NAME" for the innermost layer in which an error arose; "" for the module
    itself.
    """
    layer_of_id = {id(part): (name, part) for name, part in module.named_modules()}
    location, frame = Text(""), error.__traceback__
    while frame is not None:
        name, part = layer_of_id.get(id(frame.tb_frame.f_locals.get("self")), ("", None))
        if name:
            location = Text(", in layer '{layer}' ({type})", layer=name, type=type(part).__name__)
        frame = frame.tb_next
    return location


def plain(module: Any) -> Any:
    """Return the original of a compiled module, else the module itself."""
    return getattr(module, "_orig_mod", module)


def uncompiled(module: Any) -> AbstractContextManager[Any]:
    """Return a context in which compiled layers run eagerly: compiled code cannot be watched."""
    parts = list(module.modules())
    if all(plain(part) is part and part._compiled_call_impl is None for part in parts):
        return nullcontext()
    import torch

    return torch.compiler.set_stance("force_eager")


def leaves_of(module: Any, name: str = "") -> list[tuple[str, Any]]:
    """Return the modules that are exported as one node each: known types, and library modules
    without children. The user's own modules are watched instead.
    """
    if exporter_of(module) is not None or (of_library(module) and not list(module.children())):
        is_empty = name and type(module).__name__ in ("Sequential", "ModuleList", "ModuleDict")
        return [] if is_empty else [(name or "module", module)]
    leaves = []
    for child_name, child in module.named_children():
        leaves += leaves_of(plain(child), f"{name}.{child_name}" if name else child_name)
    return leaves


def loops_in_layers(module: Any) -> bool:
    """Return whether layers of a module receive (time, batch, *shape) and loop over time themselves."""
    return any(in_time(leaf) for _, leaf in leaves_of(module))


@contextmanager
def unchanged(module: Any) -> Iterator[None]:
    """Restore the module on leaving the context, including states in buffers and attributes. Layers
    without sizes, such as LazyLinear, keep the sizes they get.
    """
    import torch

    saved = []
    for part in module.modules():
        is_lazy = getattr(part, "has_uninitialized_params", None)
        if is_lazy is not None and is_lazy():  # a first pass gives it its sizes, which it keeps
            continue
        attributes = {key: _copied(value) for key, value in vars(part).items() if key != "_modules"}
        held = [*part._buffers.values(), *attributes.values()]
        tensors = [value for value in held if isinstance(value, torch.Tensor)]
        lists = [
            (value, list(value)) for value in attributes.values() if type(value) in (list, deque)
        ]
        saved.append(
            (part, attributes, lists, [(tensor, tensor.detach().clone()) for tensor in tensors])
        )
    try:
        yield
    finally:
        for part, attributes, lists, tensors in saved:
            # What began to be, such as a state that forward keeps in an attribute, goes again.
            for key in vars(part).keys() - attributes.keys() - {"_modules"}:
                del vars(part)[key]
            vars(part).update(attributes)
            for held, before in lists:
                held.clear()
                held.extend(before)
            with torch.no_grad():
                for tensor, before in tensors:
                    if not torch.equal(tensor, before):
                        tensor.copy_(before)


@contextmanager
def parameters_back(module: Any) -> Iterator[None]:
    """Restore the values of the parameters if the context raises an error."""
    import torch

    initialised = (
        parameter for parameter in module.parameters() if not torch.nn.parameter.is_lazy(parameter)
    )
    saved = [(parameter, parameter.detach().clone()) for parameter in initialised]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for parameter, before in saved:
                if not torch.equal(parameter, before):
                    parameter.data = before
        raise


def _copied(value: Any) -> Any:
    return dict(value) if type(value) is dict else value


def rewind(leaves: Iterable[Any]) -> None:
    """Reset the states of layers that keep their states themselves, and of their inner layers."""
    methods = {
        framework.package: framework.rewind
        for framework in frameworks().values()
        if framework.rewind
    }
    for part in (part for leaf in leaves for part in leaf.modules()):
        method = methods.get(type(part).__module__.partition(".")[0], "")
        if hasattr(part, method or " "):
            getattr(part, method)()


def numbers_held(module: Any, excluded_ids: Container[int] = ()) -> dict[str, float]:
    """Return plain numbers in attributes of the user's own modules, by name, except for tensors of
    known ids.
    """
    return {
        name: float(value)
        for name, value in _attributes(module)
        if isinstance(value, int | float)
        or (
            hasattr(value, "is_inference")
            and id(value) not in excluded_ids
            and value.numel() == 1
            and not value.is_complex()
        )
    }


def stale_state(module: Any, sample: Any) -> list[str]:
    """Return attributes of the user's own modules that may hold spikes or other state of an earlier
    run: a step changes them, or fails, and they are not 0.
    """
    import torch

    buffers = dict(module.named_buffers())

    before = {name: tensors_of(value) for name, value in _attributes(module)}
    marks = {name: _marks(tensors) for name, tensors in before.items()}
    with torch.inference_mode(False), torch.no_grad(), unchanged(module), uncompiled(module):
        rewind(leaf for _, leaf in leaves_of(module))
        try:
            module(sample.clone())
            after = {name: _marks(tensors_of(value)) for name, value in _attributes(module)}
        except Exception:  # what is held may be of another size of batch; buffers may be anything
            after = {name: marks[name] for name in buffers.keys() & marks.keys()}
    return [
        name
        for name, tensors in before.items()
        if marks[name] != after.get(name) and any(bool(tensor.any()) for tensor in tensors)
    ]


def _attributes(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and value of each attribute of the user's own modules, except parameters and
    modules.
    """
    for place, part in module.named_modules():
        if not of_library(part):
            for name, value in (*vars(part).items(), *part._buffers.items()):
                if not name.startswith("_") and name != "training":
                    yield f"{place}.{name}" if place else name, value


def _marks(tensors: Iterable[Any]) -> list[tuple[int, int]]:
    """Return the id and version counter of each tensor, which identify it and its in-place
    changes.
    """
    return [(id(tensor), getattr(tensor, "_version", 0)) for tensor in tensors]
