"""One forward pass of a PyTorch module, watched: which layer takes what another one gives.

Layers are watched by hooks; what is computed between them by torch's own functions (sums, flattens,
pools) becomes a layer too where NIR has one, and is refused where it has none.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, Literal

import numpy as np

from jaxsnn.errors import ConversionError, JaxsnnError, first_line, listing
from jaxsnn.nir.modules.fixed_numbers import FixedNumbers, copies_of, refuse_learning
from jaxsnn.nir.modules.module_order import MOVE, RESHAPE, Order, first_order, orders
from jaxsnn.nir.modules.module_pass import (
    failed,
    fed_back,
    leading_axes,
    leaves_of,
    numbers_held,
    raised_in,
    refuse_no_time,
    rewind,
    taken_sample,
    tensors_of,
    unchanged,
    uncompiled,
)
from jaxsnn.nir.modules.torch_functions import (
    ADD,
    CONVOLVE,
    COPY,
    FIXED,
    JOIN,
    JOIN_NEXT,
    MATRIX,
    NEGATE,
    NEW_AXIS,
    OVER,
    PART,
    RECTIFY,
    SAME,
    SPLIT,
    SUBTRACT,
    SUBTRACTED,
    TIMES,
    axis_of,
    convolution_of,
    factor_of,
    flatten_of,
    function_name,
    linear_of,
    padding_of,
    parts_of,
    pool_of,
    refuse_dropping,
    shift_of,
    spans_taken,
    spoken_name,
    weights_of,
)
from jaxsnn.nir.torch_leaves import (
    WAYS_OUT,
    Before,
    Call,
    Factor,
    Moved,
    exported,
    in_time,
    may_be_ordered,
    may_be_shared,
    membranes_of,
    of_library,
    takes_columns,
    unsupported,
    without_state,
)

#: What to do with a module that loops over time by itself.
_ONE_STEP = (
    "let forward do one step of time; a module that holds your layers and does that is enough: pass"
    " it to from_torch and to load_into, which sets the numbers of the layers that it holds"
)
#: What to do with a function of torch that is not taken.
_TAKEN = (
    "use layers for it: between layers sums, differences, flattens, pools, pads, torch.cat,"
    " torch.split, and sums and products with a number, or a parameter or buffer that forward leaves as"
    " it is, are taken too"
)
_WITH_TIME = (
    "where that is the axis of time, pass the part of the module that takes (time, batch, *shape), and"
    " such a sample"
)
#: What to do with what forward makes itself, or keeps from the step before.
_KEPT = (
    "let layers take what layers give, in this step or, of neurons, in the step before: by a neuron"
    " that feeds itself, such as RLeaky or LIFRecurrentCell, or by spikes that forward keeps"
)

#: Code of a refusal of what may be of the step before.
_OF_BEFORE = "step-before"

Member = Literal["output", "membrane"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """Where a tensor comes from.

    Attributes:
        sources: Leaves whose outputs it is the sum of; "" is the input of the module.
        member: What of the leaf it is.
        leading: Axes before those of its shape: 1 (batch, or time and batch as one), or 2.
        version: torch's count of its changes in place, when it was made.
        order: Where its numbers lie otherwise than in the layer; only a Linear takes such a tensor.
    """

    sources: tuple[str, ...]
    leading: int
    member: Member = "output"
    version: int = 0
    order: Order | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heard:
    """A tensor that the module returns, and that is an output of the graph.

    Attributes:
        sources, member: As of `Made`.
        place: Its place among the tensors that the module returns, nested ones counted through.
        shape: Without the axes of batch and time.
    """

    sources: tuple[str, ...]
    member: Member
    place: int
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ModuleTrace:
    """What a forward pass showed.

    Attributes:
        calls: Of the leaves, in order.
        outputs: What is returned.
        leading: Axes before those of the shape: 1 (batch), or 2 (time, batch).
        left_out: What is returned and is neither an output nor a state, in words.
        absent: Calls that act from the second step on.
        counters: Numbers of the module that were others in the step before.
    """

    calls: tuple[Call, ...]
    outputs: tuple[Heard, ...]
    leading: int
    left_out: tuple[str, ...] = ()
    absent: frozenset[str] = frozenset()
    counters: tuple[str, ...] = ()

    def goes_on(self, leaf: str) -> bool:
        """Whether a layer takes what a leaf gives, in this step or in the next one."""
        return any(leaf in (*call.sources, _leaf_before(call)) for call in self.calls)

    def spikes_taken(self, neurons: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
        """Neuron, neuron or "" for an output that takes what it gives, and whether it takes what it
        gave in the step before.
        """
        neurons = frozenset(neurons)
        carried: dict[str, set[tuple[str, bool]]] = {"": set()}
        for call in self.calls:
            given = set[tuple[str, bool]]().union(*(carried[source] for source in call.sources))
            if (leaf := _leaf_before(call)) is not None:
                given = {(leaf, True)}
            if call.name in neurons:
                yield from ((source, call.name, before) for source, before in sorted(given))
                given = {(call.name, False)}
            carried[call.name] = given
        for heard in self.outputs:
            for source in heard.sources:
                yield from ((leaf, "", before) for leaf, before in sorted(carried[source]))

    @property
    def uses(self) -> dict[str, int]:
        """How often what a leaf gives is taken, by leaves or as an output."""
        found: dict[str, int] = {}
        for taken in (*self.calls, *self.outputs):
            for source in taken.sources:
                found[source] = found.get(source, 0) + 1
        return found


def _leaf_before(call: Call) -> str | None:
    return call.module.leaf if isinstance(call.module, Before) else None


def trace(module: Any, sample: Any) -> ModuleTrace:
    """Watch one forward pass, that of a second step where layers take one step each: in it what
    forward keeps is there. The states of the module are as before after it.

    Args:
        module: A torch.nn.Module.
        sample: A tensor (batch, *shape), or (time, batch, *shape) where layers run through time
            themselves.

    Raises:
        ConversionError: A layer that takes what is computed outside of layers, or that is called
            more than once, or that adds a bias from the second step on, or `forward` asks for more
            than the sample, or does not take it.
    """
    asked = [
        name
        for name, each in inspect.signature(module.forward).parameters.items()
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if len(asked) > 1:
        raise ConversionError(
            f"forward of {type(module).__name__} needs {listing(asked)}, and is given a sample alone",
            fix=f"give {listing(asked[1:])} a default, such as None, from which states begin",
        )
    first: ModuleTrace | ConversionError
    try:
        first = _watched(module, sample)
    except ConversionError as refusal:
        if refusal.problem.code != _OF_BEFORE:
            raise
        first = refusal
    if leading_axes(module) == 1:
        try:
            later = _watched(module, sample, after_a_step=True)
        except ConversionError as refusal:
            # What fails fails when the module is run, which knows the step.
            if isinstance(first, ModuleTrace) and refusal.__cause__ is None:
                raise
        else:
            _refuse_late_biases(first, later)
            return later
    if isinstance(first, ModuleTrace):
        return first
    raise first


def _refuse_late_biases(first: ModuleTrace | ConversionError, later: ModuleTrace) -> None:
    """Refuse layers that forward leaves out in the first step, and that add something to nothing.

    Raises:
        ConversionError: There is such a layer.
    """
    late = set(later.absent)
    if isinstance(first, ModuleTrace):  # else it fed back zeros, and its leaves alone are known
        late |= {call.name for call in later.calls} - {call.name for call in first.calls}
    for call in (call for call in later.calls if call.name in late):
        if any(np.any(entry.get("bias", 0)) for entry in exported(call).nodes.values()):
            raise ConversionError(
                f"forward leaves out '{call.name}' in the first step, and a graph adds its bias there,"
                " too",
                fix="begin with zeros that it takes, or give it no bias",
                node=call.name,
            )


def _watched(module: Any, sample: Any, after_a_step: bool = False) -> ModuleTrace:
    """As `trace`; after a step, what neurons gave in it is known in the next one."""
    import torch

    leaves = leaves_of(module)
    leading = leading_axes(module)
    refuse_no_time(leaves, leading, sample)
    watch = _Watch(module, leading, tuple(sample.shape[:leading]), [name for name, _ in leaves])
    with torch.inference_mode(False):  # in which torch counts no changes in place
        sample = sample.clone()  # which forward may change in place
    watch.keep(sample, Made(sources=("",), leading=leading))
    hooks: list[Any] = []
    state: tuple[Any, ...] = ()
    try:
        with torch.inference_mode(False), torch.no_grad(), unchanged(module), uncompiled(module):
            rewind(leaf for _, leaf in leaves)  # states may be of another size of batch
            if after_a_step:
                state = watch.step_before(module, sample, leaves)
            hooks += watch.all_hooks(module, leaves)
            numbers, before = numbers_held(module), copies_of(module.named_parameters())
            with watch.functions():
                result = module(sample, *state)
            later = numbers_held(module, watch.made)  # what is kept of layers is fed back
            if after_a_step:  # in a first one parameters of lazy layers begin to be
                refuse_learning(before, module)
    except JaxsnnError:
        raise
    except RuntimeError as error:  # of layers that do not take its shape or its type
        raise ConversionError(
            f"{type(module).__name__} does not take a sample of shape {tuple(sample.shape)} of "
            f"{sample.dtype}: {first_line(error)}{raised_in(module, error)}",
            fix=taken_sample(module, sample),
        ) from error
    except Exception as error:
        raise failed(module, error, f"for a sample of shape {tuple(sample.shape)}") from error
    finally:
        for hook in hooks:
            hook.remove()
    outputs = watch.heard(result)
    calls = watch.taken_calls(outputs)
    absent = {id(leaf) for _, leaf in leaves} - watch.begun if after_a_step else set()
    late = {call.name for call in calls if id(call.module) in absent}
    return ModuleTrace(
        calls=calls,
        outputs=outputs,
        leading=leading,
        left_out=tuple(watch.left_out(result)),
        absent=frozenset(late | watch.earlier),
        counters=tuple(
            name
            for name, value in later.items()
            if name in numbers and not np.array_equal(value, numbers[name], equal_nan=True)
        ),
    )


class _Watch:
    """What is known while a forward pass runs."""

    def __init__(
        self, module: Any, leading: int, axes: tuple[int, ...], leaves: Iterable[str]
    ) -> None:
        self.leading = leading
        self.leaves = frozenset(leaves)
        #: Lengths of those axes.
        self.axes = axes
        self.calls: dict[str, Call] = {}
        self.made: dict[int, Made] = {}
        # Tensors that live keep their ids.
        self.alive: list[Any] = []
        self.inside = 0
        #: Modules with `outer_hooks`, as they are entered: name, module, and whether what it takes is of
        #: a layer.
        self.entered: list[tuple[str, Any, bool]] = []
        #: What such a module gave that is of no layer -> its name and itself.
        self.lost: dict[int, tuple[str, Any]] = {}
        #: What comes of a layer and is of no layer -> the first function of torch that made it so.
        self.functions_of: dict[int, str] = {}
        #: What `.data` of such a tensor gave, which changes it unseen -> torch's count of its changes.
        self.unseen: list[tuple[Any, int]] = []
        #: What is the same in each step.
        self.fixed = FixedNumbers(module)
        #: That of what a leaf takes, when it was called.
        self.version = 0
        #: Calls that were made in the step before.
        self.earlier: set[str] = set()
        #: What layers keep from step to step.
        self.states: set[int] = set()
        #: Whether a part of the input was taken, such as one step.
        self.looks_like_a_loop = False
        #: While the step before runs: of what is computed in it, copies of spikes are known.
        self.in_step_before = False
        #: Leaves that it calls.
        self.begun: set[int] = set()

    def keep(self, tensor: Any, made: Made) -> None:
        self.alive.append(tensor)
        self.made[id(tensor)] = dataclasses.replace(made, version=tensor._version)

    def is_fixed(self, value: Any) -> bool:
        """Whether a tensor is the same in each step, and of no layer."""
        return id(value) not in self.made and self.fixed.has(value)

    def note_fixed(self, name: str, args: Any, result: Any) -> None:
        """Note what a function gives of fixed tensors alone."""
        tensors = tensors_of(args) if name in FIXED else []
        if tensors and all(map(self.is_fixed, tensors)):
            self.fixed.add(tensors_of([result]))

    def step_before(
        self, module: Any, sample: Any, leaves: list[tuple[str, Any]]
    ) -> tuple[Any, ...]:
        """Run a step and note what the leaves gave in it; what is to be given to the next step."""
        hooks = [hook for name, leaf in leaves for hook in self.hooks(name, leaf)]
        self.in_step_before = True
        other = sample.clone()  # so that an input that forward keeps is none of this step
        try:
            with self.fixed.through_a_step(), self.functions():
                result = module(other)
        finally:
            self.in_step_before = False
            for hook in hooks:
                hook.remove()
        self.earlier = set(self.calls)
        return fed_back(module, result)

    def called_before(self, name: str, leaf: Any, given: Any, result: Any) -> None:
        """Note what a leaf gave in the step before: of a weight or a shape what it makes of spikes that
        a neuron gave, else itself.
        """
        self.begun.add(id(leaf))
        out = result[0] if isinstance(result, tuple) else result
        # Identity, for one, gives what another leaf gave.
        if not hasattr(out, "_version") or self._unchanged(out) is not None:
            return
        source = self.made.get(id(given))
        if source is not None and source.version == self.version:
            order, plain = source.order, may_be_shared(leaf) or without_state(leaf)
            if order is not None and may_be_ordered(leaf, order.places):
                self.add_ordered(self.free(name), leaf, source, given, out)
                return
            if order is None and plain:
                self.add(self.free(name), leaf, source, given, out)
                return
        made = Made(sources=(), leading=self.leading)
        (place,) = self.placed("spikes", Before(leaf=name), made, out.shape, out.shape).sources
        self.keep(out, dataclasses.replace(made, sources=(place,)))

    def all_hooks(self, module: Any, leaves: list[tuple[str, Any]]) -> list[Any]:
        """Hooks of the leaves, of libraries' modules with layers within, and of the user's without any."""
        hooks = [hook for name, leaf in leaves for hook in self.hooks(name, leaf)]
        inside = [leaf for _, leaf in leaves]
        for name, outer in module.named_modules():
            own = any(outer is leaf for leaf in inside)
            if not own and of_library(outer) == bool(list(outer.children())):
                hooks += self.outer_hooks(name or "module", outer)
        return hooks

    def hooks(self, name: str, leaf: Any) -> list[Any]:
        """Hooks before and after each call of a leaf."""

        def before(part: Any, arguments: tuple[Any, ...], named: Any) -> None:
            self.inside += 1
            self.version = getattr(_taken_of(arguments, named), "_version", 0)

        def after(part: Any, arguments: tuple[Any, ...], named: Any, result: Any) -> None:
            self.inside -= 1
            called = self.called_before if self.in_step_before else self.called
            called(name, part, _taken_of(arguments, named), result)

        return [
            leaf.register_forward_pre_hook(before, with_kwargs=True),
            leaf.register_forward_hook(after, with_kwargs=True),
        ]

    def outer_hooks(self, name: str, outer: Any) -> list[Any]:
        """Hooks of a module that computes by itself: what is of no layer is to be refused in its name."""

        def before(part: Any, arguments: tuple[Any, ...]) -> None:
            given = tensors_of(arguments)
            known = bool(given) and all(self._unchanged(tensor) for tensor in given)
            self.entered.append((name, part, known))

        def after(part: Any, arguments: tuple[Any, ...], result: Any) -> None:
            _, _, known = self.entered.pop()
            for tensor in tensors_of(result)[:1] if known else ():
                if id(tensor) not in self.made:
                    self.alive.append(tensor)
                    self.lost.setdefault(id(tensor), (name, part))

        return [outer.register_forward_pre_hook(before), outer.register_forward_hook(after)]

    def refuse_lost(self, tensor: Any) -> None:
        """Refuse a tensor of no layer in the name of the library's module that computes it.

        Raises:
            ConversionError: There is such a module.
        """
        inner = [(name, part) for name, part, known in self.entered if known]
        found = self.lost.get(id(tensor)) or next(reversed(inner), None)
        if found is not None:
            raise unsupported(*found)

    def called(self, name: str, leaf: Any, given: Any, result: Any) -> None:
        """Note a call of a leaf.

        Raises:
            ConversionError: It was called before, or what it takes is of no layer.
        """
        name = self.name_of(name, leaf)
        source = self.taken(given, name, leaf)
        if source.order is not None:
            self.add_ordered(name, leaf, source, given, result)
            return
        if in_time(leaf) and source.leading != self.leading:
            raise ConversionError(
                f"'{name}' ({type(leaf).__name__}) runs through time, and takes time and batch as one "
                "axis",
                fix="give it (time, batch, *shape)",
                node=name,
            )
        parts = list(result) if isinstance(result, tuple) else [result]
        if not hasattr(parts[0], "_version"):  # a list of steps, for one
            raise unsupported(name, leaf)
        self.add(name, leaf, source, given, parts[0])
        last = parts[-1:] if len(parts) > 1 and hasattr(parts[-1], "_version") else []
        membranes = membranes_of(leaf, parts[-1])
        self.note_states([*tensors_of(parts[1:]), *membranes])
        for tensor in (*last, *membranes):
            if tensor.shape == parts[0].shape and tensor is not parts[0]:
                self.keep(tensor, Made(sources=(name,), leading=source.leading, member="membrane"))

    def note_states(self, tensors: Iterable[Any]) -> None:
        for tensor in tensors:
            self.alive.append(tensor)
            self.states.add(id(tensor))

    def add(self, name: str, leaf: Any, source: Made, given: Any, out: Any) -> None:
        self.calls[name] = _call(name, leaf, source, given.shape, out.shape)
        self.keep(out, Made(sources=(name,), leading=source.leading))

    def add_ordered(self, name: str, leaf: Any, source: Made, given: Any, out: Any) -> None:
        """Note a call of a layer that takes numbers in another order: the columns of a Linear follow
        it, and what computes nothing hands it on.
        """
        assert source.order is not None
        if not takes_columns(leaf):
            self.reorder(leaf.forward, source, (given,), {}, out, "flatten")
            return
        axes, shape, places = given.shape[: source.leading], source.order.shape, source.order.places
        flat = (math.prod(shape),)
        if len(shape) > 1:
            import torch

            layer = torch.nn.Flatten(source.leading, -1)
            source = self.placed("flatten", layer, source, (*axes, *shape), (*axes, *flat))
        call = _call(name, leaf, source, (*axes, *flat), out.shape)
        self.calls[name] = dataclasses.replace(call, columns=places)
        self.keep(out, Made(sources=(name,), leading=source.leading))

    def reorder(
        self, func: Any, made: Made, args: Any, kwargs: Mapping[str, Any], result: Any, name: str
    ) -> None:
        """Note what a function gives that moves the numbers of a tensor, and computes nothing."""
        axes = tuple(args[0].shape[: made.leading])
        shape = tuple(args[0].shape[made.leading :])
        before = made.order or Order(places=first_order(shape), shape=shape)
        found = orders(func, name, before, axes, args[1:], kwargs)
        for part, order in zip(parts_of(result), found, strict=False):
            if order is not None:
                plain = order.unchanged
                self.keep(part, dataclasses.replace(made, order=None if plain else order))

    def name_of(self, name: str, leaf: Any) -> str:
        """The name of a call: that of the leaf; another one if it is called again and may be."""
        if name not in self.calls:
            return name
        if not without_state(leaf) and not may_be_shared(leaf):
            raise ConversionError(
                f"'{name}' ({type(leaf).__name__}) is called twice in one forward pass "
                "(a loop over time, or one layer in two places), and a graph has each layer once",
                fix=f"{_ONE_STEP}; give each place a layer of its own",
                node=name,
            )
        return self.free(name)

    def free(self, name: str) -> str:
        """A name that no call and no leaf has: the name, or with a number behind it."""
        name = f"{name}_before" if self.in_step_before else name
        taken = self.leaves | self.calls.keys()
        number, free = 2, name
        while free in taken:
            number, free = number + 1, f"{name}_{number}"
        return free

    def taken(self, tensor: Any, name: str, leaf: Any) -> Made:
        """What a layer takes.

        Raises:
            ConversionError: It is of no layer, it is a membrane, or it has changed since.
        """
        made, kind = self.made.get(id(tensor)), type(leaf).__name__
        if (
            made is not None
            and made.order is not None
            and not may_be_ordered(leaf, made.order.places)
        ):
            made = None
        if made is None:
            self.refuse_lost(tensor)
        if made is None and self.looks_like_a_loop:
            raise ConversionError(
                f"'{name}' ({kind}) takes a part of the input, such as x[t] in a loop over time",
                fix=_ONE_STEP,
                node=name,
            )
        if made is None:
            by = self._by(tensor) or ", of nothing that a layer gives in this step"
            what = f"the input of '{name}' ({kind}) is computed outside of layers{by}"
        elif made.member == "membrane":
            what = f"'{name}' ({kind}) takes the membrane of '{made.sources[0]}'"
        elif self.version != made.version:
            before = made.sources[0] or "the input"
            what = f"what '{name}' ({kind}) takes of '{before}' is changed in place before"
        else:
            return made
        by = "an operation" if made else self.functions_of.get(id(tensor), "")
        fix = WAYS_OUT.get(by, _TAKEN) if by else _KEPT
        if self.leading == 2 and by in NEW_AXIS:
            fix = f"{_WITH_TIME}; {fix}"
        code = _OF_BEFORE if made is None else ""
        raise ConversionError(what, fix=fix, node=name, code=code)

    def _by(self, tensor: Any) -> str:
        """Which function of torch computed a tensor of no layer, or ""."""
        name = self.functions_of.get(id(tensor))
        return "" if name is None else f", by torch's {name}, which is not taken there"

    def functions(self) -> Any:
        """A context in which functions of torch outside of leaves are seen."""
        import torch
        from torch.overrides import TorchFunctionMode

        watch = self

        class Mode(TorchFunctionMode):
            def __torch_function__(
                self, func: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                if torch.is_inference_mode_enabled():
                    raise ConversionError(
                        "forward runs in torch.inference_mode, where torch counts no changes in place",
                        fix="let forward use torch.no_grad() instead",
                    )
                name, kwargs = function_name(func), kwargs or {}
                before = None if watch.inside else watch.before(name, args, kwargs)
                watch.inside += 1
                try:
                    result = func(*args, **kwargs)
                finally:
                    watch.inside -= 1
                if before:
                    watch.computed(func, before, args, kwargs, result)
                if not watch.inside:
                    watch.note_fixed(name, (args, kwargs), result)
                    watch.note(func, (*args, *kwargs.values()), result)
                return result

        return Mode()

    def note(self, func: Any, args: tuple[Any, ...], result: Any) -> None:
        """Note by which function what a layer gave became a tensor of no layer."""
        given = [id(part) for each in args for part in parts_of(each)]
        earlier = [self.functions_of[each] for each in given if each in self.functions_of]
        own = function_name(func)
        name = earlier[0] if earlier else spoken_name(own, args)
        if own in SAME and self.states.intersection(given):
            self.note_states([result])
        if not name or not (earlier or any(each in self.made for each in given)):
            return
        for tensor in parts_of(result):
            made = self.made.get(id(tensor))
            if hasattr(tensor, "_version") and (made is None or made.order is not None):
                self.alive.append(tensor)
                self.functions_of[id(tensor)] = name
                if own == "data":
                    self.unseen.append((tensor, tensor._version))

    def before(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Made]:
        """Where the arguments of a function come from; empty where one of the tensors is of no
        layer, is a membrane, is in another order, or was changed, and the function is none that takes
        such a tensor, or where one that is given by name is not fixed.
        """
        if not all(map(self.is_fixed, tensors_of(list(kwargs.values())))):
            return []
        found = []
        for argument in (part for each in args[name in COPY :] for part in parts_of(each)):
            if not hasattr(argument, "is_inference") or self.is_fixed(argument):
                continue
            made = self.made.get(id(argument))
            fixed = id(argument) not in self.functions_of
            if made is None and found and name in MOVE and fixed:  # places, such as x[:, order]
                continue
            if made is None or made.version != argument._version:
                return []
            if made.member == "membrane" and name not in SAME:
                return []
            if made.order is not None and name not in (*RESHAPE, *MOVE, *SAME, "dropout"):
                return []
            found.append(made)
        return found

    def computed(
        self, func: Any, sources: list[Made], args: Any, kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Note what a function gives, where NIR can hold it."""
        import torch

        name = function_name(func)
        given = args[0]
        zero = any(type(each) in (int, float) and each == 0 for each in args[1:])
        if name in ADD + SUBTRACT and zero:
            self.keep(result, sources[0])  # as Python's sum begins, with 0
        elif name in COPY:
            if args[1].shape == given.shape:
                self.keep(result, sources[0])
        elif name in MATRIX:
            self.matrix(name, sources, args, kwargs, result)
        elif name in CONVOLVE and id(given) in self.made and len(sources) == 1:
            self.layer(
                "conv", convolution_of(args, kwargs, self.fixed.parameters), sources, given, result
            )
        elif name in ADD + SUBTRACT + SUBTRACTED + TIMES + OVER and len(sources) == 1:
            self.with_numbers(name, sources[0], args, kwargs, result)
        elif self.is_fixed(given):
            return
        elif name in ADD + SUBTRACT:
            # A number, a factor (alpha) and another shape make it something else than a sum.
            plain = len(sources) == 2 and not kwargs and args[1].shape == given.shape
            if plain and sources[0].leading == sources[1].leading:
                first, second = sources
                if name in SUBTRACT:
                    second = self.placed(
                        "neg", Factor(value=-1.0), second, given.shape, given.shape
                    )
                self.sum(result, (first, second))
        elif name in JOIN:
            self.join(sources, args, kwargs, result)
        elif name in JOIN_NEXT:
            self.join(sources, args, {"dim": 1}, result)
        elif name in SPLIT:
            self.split(sources[0], args, kwargs, result)
        elif name in SAME or (name in RESHAPE and result.shape == given.shape):
            self.keep(result, sources[0])
        elif name in RESHAPE + MOVE + PART:
            self.moved(func, sources[0], args, kwargs, result)
        elif name == "dropout":
            refuse_dropping(args, kwargs)
            self.keep(result, sources[0])
        elif name == "mean":
            self.mean(sources[0], args, kwargs, result)
        elif name in NEGATE:
            self.layer("neg", Factor(value=-1.0), sources, given, result)
        elif name in RECTIFY:
            self.layer("relu", torch.nn.ReLU(), sources, given, result)
        elif name == "pad":
            axes = given.ndim - sources[0].leading
            self.layer(name, padding_of(axes, *args[1:], **kwargs), sources, given, result)
        else:
            self.layer(name, pool_of(name, args[1:], kwargs), sources, given, result)

    def with_numbers(
        self, name: str, made: Made, args: Any, kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Note the sum, difference, product or quotient of a tensor and a number, or fixed ones."""
        if len(args) != 2 or kwargs:
            return
        given, number = args
        if self.is_fixed(given) and name in ADD + TIMES + SUBTRACT:
            given, number = number, given
            name = "rsub" if name in SUBTRACT else name
        if id(given) not in self.made:
            return
        if name in TIMES + OVER:
            factor = factor_of(name, given, number, made.leading)
            self.layer("scale", factor, [made], given, result)
        elif name not in ADD or not self.add_bias(made, number, result):
            shift = shift_of(name, given, number, made.leading)
            self.layer("shift", shift, [made], given, result)

    def add_bias(self, made: Made, bias: Any, result: Any) -> bool:
        """Note the sum of what a function of `MATRIX` gives and a bias as one layer; whether it is."""
        call = self.calls.get(made.sources[0])
        if call is None or call.name in self.leaves or not takes_columns(call.module):
            return False
        shape = tuple(bias.shape) if self.is_fixed(bias) else ()
        if len(made.sources) > 1 or call.module.bias is not None or shape != call.outward:
            return False
        name = self.free("linear")
        layer = linear_of(call.module.weight, bias, self.fixed.parameters)
        self.calls[name] = dataclasses.replace(call, name=name, module=layer)
        self.keep(result, dataclasses.replace(made, sources=(name,)))
        return True

    def matrix(
        self, name: str, sources: list[Made], args: Any, kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Note the product of a tensor and fixed weights."""
        given = args[1 if name == "addmm" else 0]
        found = weights_of(name, args, kwargs)
        if found is None or len(sources) != 1 or id(given) not in self.made:
            return
        if all(each is None or each.ndim for each in found):
            self.layer("linear", linear_of(*found, self.fixed.parameters), sources, given, result)

    def moved(
        self, func: Any, made: Made, args: Any, kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Note what a function gives that changes axes, moves numbers or takes some of them: by nodes
        of NIR where there are some, else by its order.
        """
        name, given = function_name(func), args[0]
        spans = spans_taken(name, args, kwargs, made.leading)
        if made.order is None and name in RESHAPE:
            if leading := self._joined(given, result, made):
                self.keep(result, dataclasses.replace(made, leading=leading))
                return
            layer = flatten_of(given, result, made.leading)
            self.layer("flatten", layer, [made], given, result)
        elif made.order is None and spans is not None:
            self.cut(made, spans, given, result)
        known = all(id(part) in self.made for part in parts_of(result))
        if not known and name in RESHAPE + MOVE:
            self.reorder(func, made, args, kwargs, result, name)
        if name in PART and spoken_name(name, args) != "unsqueeze" and made.sources == ("",):
            self.looks_like_a_loop |= not all(id(part) in self.made for part in parts_of(result))

    def sum(self, result: Any, parts: Iterable[Made]) -> None:
        """Note the sum of what layers give; what it has twice goes through a layer of its own."""
        sources: tuple[str, ...] = ()
        for made in parts:
            once, shape = made, result.shape
            if set(sources).intersection(made.sources):
                once = self.placed("scale", Factor(value=1.0), made, shape, shape)
            sources += once.sources
        self.keep(result, Made(sources=sources, leading=made.leading))

    def join(self, sources: list[Made], args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
        """Note what torch.cat joins along an axis of the shape: each tensor at its place, among
        zeros, and their sum.
        """
        axis = axis_of(args[1:], kwargs, result) - sources[0].leading
        if axis < 0 or len({made.leading for made in sources}) > 1 or len(args[0]) != len(sources):
            return
        parts, offset = [], 0
        for made, tensor in zip(sources, args[0], strict=True):
            layer = Moved(axis=axis, offset=offset)
            parts.append(self.placed("cat", layer, made, tensor.shape, result.shape))
            offset += tensor.shape[axis + made.leading]
        self.sum(result, parts)

    def mean(self, made: Made, args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
        """Note a mean over all axes behind that of channels: as a pool."""
        import torch

        given = args[0]
        axes = given.ndim - made.leading - 1
        dims = kwargs.get("dim", args[1] if len(args) > 1 else ())
        wanted = list(range(given.ndim - axes, given.ndim))
        pool = {1: torch.nn.AdaptiveAvgPool1d, 2: torch.nn.AdaptiveAvgPool2d}.get(axes)
        if pool is None or sorted(int(dim) % given.ndim for dim in parts_of(dims)) != wanted:
            return
        shape = (*given.shape[:-axes], *(1,) * axes)
        made = self.placed("mean", pool(1), made, given.shape, shape)
        if result.ndim < given.ndim:
            layer = torch.nn.Flatten(made.leading, -1)
            made = self.placed("flatten", layer, made, shape, result.shape)
        self.keep(result, made)

    def split(self, made: Made, args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
        """Note the parts of torch.split along an axis of the shape."""
        axis = axis_of(args[2:], kwargs, args[0]) - made.leading
        offset = 0
        for part in result if axis >= 0 else ():
            layer = Moved(axis=axis, offset=-offset)
            self.keep(part, self.placed("split", layer, made, args[0].shape, part.shape))
            offset += part.shape[axis + made.leading]

    def cut(self, made: Made, spans: Mapping[int, range], given: Any, result: Any) -> None:
        """Note what x[:, 2:5] takes: axis -> places along it."""
        shape = list(given.shape)
        for axis, span in spans.items():
            before = tuple(shape)
            shape[axis] = len(span)
            layer = Moved(axis=axis - made.leading, offset=-span.start, step=span.step)
            made = self.placed("split", layer, made, before, shape)
        self.keep(result, made)

    def placed(self, kind: str, layer: Any, made: Made, given: Any, shape: Any) -> Made:
        """Note a layer that gives a part of a result of a shape, for which there is no tensor."""
        name = self.free(kind)
        self.calls[name] = _call(name, layer, made, given, shape)
        return Made(sources=(name,), leading=made.leading)

    def _joined(self, given: Any, result: Any, made: Made) -> int:
        """The leading axes of a result in which time and batch have become one axis, or two again,
        and nothing else has changed; 0 if that is not so.
        """
        if self.leading != 2:
            return 0
        one, two = (self.axes[0] * self.axes[1],), self.axes
        lengths = {1: one, 2: two}
        for before, after in ((2, 1), (1, 2)):
            shapes = [
                (*lengths[before], *given.shape[before:]),
                (*lengths[after], *given.shape[before:]),
            ]
            if made.leading == before and [tuple(given.shape), tuple(result.shape)] == shapes:
                return after
        return 0

    def layer(self, kind: str, layer: Any, sources: list[Made], given: Any, result: Any) -> None:
        """Note a function as the layer that does the same; None: there is none."""
        if layer is not None:
            self.add(self.free(kind), layer, sources[0], given, result)

    def heard(self, result: Any) -> tuple[Heard, ...]:
        """The outputs: the first tensor, others that no leaf takes up, and those of layers without a
        state. What is returned beside them are states of neurons.

        Raises:
            ConversionError: The first tensor is computed outside of layers, or `.data` was changed.
        """
        if any(tensor._version != version for tensor, version in self.unseen):
            raise ConversionError(
                "forward changes what a layer gives through .data, where it cannot be watched",
                fix="compute a tensor of its own instead, such as x = 2 * x",
            )
        tensors = tensors_of(result)
        made = [self._unchanged(tensor) for tensor in tensors]
        if tensors and made[0] is None:
            self.refuse_lost(tensors[0])
        if not tensors or made[0] is None:
            by = self._by(tensors[0]) if tensors else ""
            raise ConversionError(
                f"the output of the module is computed outside of layers{by}",
                fix="return what a layer gives in one step, unchanged",
            )
        taken = {source for call in self.calls.values() for source in call.sources}
        taken |= {_leaf_before(self.calls[name]) or name for name in taken - {""}}
        found: dict[tuple[str, ...], Heard] = {}
        for place, (tensor, one) in enumerate(zip(tensors, made, strict=True)):
            if one is None or (place and self._goes_on(one, taken)):
                continue
            heard = Heard(
                sources=one.sources,
                member=one.member,
                place=place,
                shape=tuple(tensor.shape[one.leading :]),
            )
            # Beside its spikes, a neuron that never resets gives its membrane.
            if one.sources not in found or (one.member == "membrane" and self._silent(one)):
                found[one.sources] = heard
        return tuple(found.values())

    def taken_calls(self, outputs: tuple[Heard, ...]) -> tuple[Call, ...]:
        """The calls, without what is computed outside of leaves, or for the next step, and that nobody
        takes.
        """
        found = self._needed(outputs, frozenset())
        elsewhere = {id(call.module) for call in found if call.name in self.earlier}
        return tuple(self._needed(outputs, elsewhere))

    def _needed(self, outputs: tuple[Heard, ...], elsewhere: Set[int]) -> list[Call]:
        """The calls that are taken, and those of leaves, but for modules that are needed elsewhere."""
        found: list[Call] = []
        for call in reversed(self.calls.values()):
            taken = {source for each in (*found, *outputs) for source in each.sources}
            own = call.name in self.leaves and id(call.module) not in elsewhere
            if call.name in taken or own:
                found.append(call)
        return found[::-1]

    def left_out(self, result: Any) -> Iterator[str]:
        """What the module returns beside its output that is of no layer, and no state of one."""
        for place, tensor in enumerate(tensors_of(result)):
            made = self._unchanged(tensor)
            if (
                not place
                or id(tensor) in self.states
                or (made is not None and made.sources != ("",))
            ):
                continue
            name = self.functions_of.get(id(tensor))
            by = "" if name is None else f" by torch's {name}"
            what = f"computed outside of layers{by}" if made is None else "its input"
            yield f"tensor {place + 1}, of shape {tuple(tensor.shape)}, {what}"

    def _goes_on(self, made: Made, taken: Iterable[str]) -> bool:
        """Whether what one neuron gives, or the input, is taken by a layer too."""
        return (
            len(made.sources) == 1 and made.sources[0] in taken and self._is_state(made.sources[0])
        )

    def _is_state(self, source: str) -> bool:
        """Whether a leaf, which another one takes up, is a neuron, or the input."""
        return not source or exported(self.calls[source]).framework is not None

    def _silent(self, made: Made) -> bool:
        leaf = self.calls[made.sources[0]].module
        threshold = getattr(leaf, "v_threshold", 0.0)
        unreached = isinstance(threshold, float) and threshold == float("inf")
        return unreached or getattr(leaf, "reset_mechanism", "") == "none"

    def _unchanged(self, tensor: Any) -> Made | None:
        made = self.made.get(id(tensor))
        if made is None or made.order is not None or made.version != tensor._version:
            return None
        return made


def _taken_of(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """What a leaf takes."""
    given = (*arguments, *named.values())[0]
    # Norse's lifted layers take what is left of (output, state) of the layer before.
    return given[0] if isinstance(given, tuple) else given


def _call(name: str, layer: Any, made: Made, given: Any, result: Any) -> Call:
    """A call of a layer that makes a tensor of one shape of one of another."""
    return Call(
        name=name,
        module=layer,
        sources=made.sources,
        inward=tuple(given[made.leading :]),
        outward=tuple(result[made.leading :]),
        leading=made.leading,
    )
