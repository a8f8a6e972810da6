"""Search for the number that made a run fail: the first invalid parameter, or the first input that
is NaN, by name and index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jax.core import Tracer

from jaxsnn.errors import Problem
from jaxsnn.network.array_types import Array, Bool
from jaxsnn.network.inputs import place_of
from jaxsnn.network.network import Network
from jaxsnn.wording import Text


def bad_number(network: Network, inputs: Any = None, *, finite: bool = True) -> Problem | None:
    """Return the first problem of the numbers of a network or of its inputs; None if there is none,
    or they are traced.

    Args:
        inputs: inputs as in `jaxsnn.simulate`; None: not checked.
        finite: whether all parameters must be finite; if not, time constants and thresholds may be
            infinite.
    """
    problems = [*_bad_parameters(network, finite=finite), *_bad_inputs(network, inputs)]
    return next(iter(problems), None)


def out_of_bounds(network: Network) -> list[Bool[Array, "..."]]:
    """Return masks of time constants that are too small to compute with and of delays below 0, an
    array for each parameter; they may be traced.
    """
    named = [
        pair for node_parameters in network.parameters.values() for pair in node_parameters.items()
    ]
    return [
        *[value < _least_tau(value) for key, value in named if key.startswith("tau")],
        *[value < 0 for key, value in named if key == "delay"],
    ]


def _least_tau(values: Any) -> float:
    """Return the smallest time constant whose squared rate, which gradients need, is finite in the
    values' precision (at least float32).
    """
    return float(np.finfo(np.result_type(values.dtype, np.float32)).max) ** -0.5


def _bad_parameters(network: Network, *, finite: bool) -> Iterator[Problem]:
    """Yield one problem for each parameter with invalid numbers, nodes in execution order."""
    ordered = [wire.name for wire in network.wires if wire.name in network.parameters]
    for node in dict.fromkeys([*ordered, *network.parameters]):
        for key, value in network.parameters[node].items():
            if isinstance(value, Tracer):
                continue
            numbers = np.asarray(value)
            for wrong, requirement in _wrong(key, numbers, finite=finite):
                if wrong.any():
                    yield _describe(node, key, numbers, wrong, requirement)
                    break


def _wrong(key: str, numbers: np.ndarray, *, finite: bool) -> Iterator[tuple[np.ndarray, str]]:
    """Yield masks of a parameter's invalid numbers, and the requirement that each violates."""
    # In time steps an infinite time constant means no leak, an infinite threshold no spikes.
    may_be_infinite = not finite and (key.startswith("tau") or key == "v_threshold")
    if may_be_infinite:
        yield np.isnan(numbers), "be a number"
    else:
        yield ~np.isfinite(numbers), "be finite"
    if key.startswith("tau"):
        yield numbers <= 0, "be above 0, in seconds"
        least = _least_tau(numbers)
        yield (
            numbers < least,
            Text(
                "be above {minimum:.1g} s: the square of its inverse overflows",
                minimum=least,
            ),
        )
    if key == "delay":
        yield numbers < 0, "be at least 0, in seconds"


def _describe(
    node: str, key: str, numbers: np.ndarray, wrong: np.ndarray, requirement: str
) -> Problem:
    place = tuple(int(axis) for axis in np.argwhere(wrong)[0])
    position = Text("[{index}]", index=", ".join(map(str, place))) if place else Text("")
    count = int(wrong.sum())
    others = (
        Text(" (invalid entries: {more} more of {size})", more=count - 1, size=numbers.size)
        if count > 1
        else Text("")
    )
    return Problem(
        node=node,
        code="not-finite",
        message=Text(
            "node '{node}': {parameter}{position} is {value:g} and must {requirement}{others}",
            node=node,
            parameter=key,
            position=position,
            value=numbers[place],
            requirement=requirement,
            others=others,
        ),
        fix=f"change {key} of node '{node}'",
    )


def _bad_inputs(network: Network, inputs: Any) -> Iterator[Problem]:
    """Yield the problem of the first invalid number of each input."""
    input_names = list(network.inputs)
    inputs_by_name = (
        inputs if isinstance(inputs, Mapping) else dict.fromkeys(input_names[:1], inputs)
    )
    for name, input_signal in inputs_by_name.items():
        times = getattr(input_signal, "time", None)
        numbers = input_signal if times is None else times
        if numbers is None or isinstance(numbers, Tracer):
            continue
        if (text := first_wrong(np.asarray(numbers), is_events=times is not None)) is not None:
            yield Problem(
                node=name,
                code="not-finite",
                message=Text("input '{input}': {problem}", input=name, problem=text),
                fix="pass finite values"
                if times is None
                else "pass times of at least 0 s (inf in unused slots)",
            )


def first_wrong(numbers: np.ndarray, *, is_events: bool) -> str | None:
    """Return a description of the first invalid number of an input, with its place; None if there
    is none.

    Args:
        numbers: times of events (events,) or (batch, events), or an array (time, batch, *shape).
    """
    # time inf marks an unused slot
    wrong = np.isnan(numbers) if is_events else ~np.isfinite(numbers)
    if not wrong.any():
        return None
    place = np.argwhere(wrong)[0]
    value = numbers[tuple(place)]
    if is_events:
        return Text(
            "the event time in {location} is {value:g}", location=place_of(place), value=value
        )
    channel = ", ".join(map(str, place[2:]))
    return Text(
        "the value in step {step}, sample {sample}, channel {channel} is {value:g}",
        step=place[0],
        sample=place[1],
        channel=channel,
        value=value,
    )
