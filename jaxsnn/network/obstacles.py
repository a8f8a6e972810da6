"""What stands in the way of running a network: records of it. Nothing here loads JAX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxsnn.errors import Problem
from jaxsnn.network.neuron_models import neuron_kinds
from jaxsnn.network.structure import Population


def unknown_model(population: Population) -> Iterator[Problem]:
    """That no engine knows what the neurons of a population do."""
    if population.kind not in neuron_kinds():
        message = (
            f"node '{population.name}' is a {population.kind}, and there is no such neuron model"
        )
        yield Problem(
            node=population.name,
            code="unsupported-node",
            message=message,
            fix="register a model of that kind (jaxsnn.register_neuron), or replace the node",
        )


def beyond_type(
    name: str, key: str, value: Any, dtype: Any, *, may_be_infinite: str = "v_threshold"
) -> Problem | None:
    """That a parameter of a node has finite numbers that a type of numbers does not hold, if so.

    Args:
        may_be_infinite: the parameter that may become infinite: in time steps a threshold that is
            never reached need not be a number; "": none.
    """
    if key == may_be_infinite:
        return None
    numbers, largest = np.asarray(value), np.finfo(dtype).max
    beyond = np.isfinite(numbers) & (abs(numbers) > largest)
    if not beyond.any():
        return None
    return Problem(
        node=name,
        code="beyond-type",
        message=f"node '{name}' has {int(beyond.sum())} of {numbers.size} {key} beyond what"
        f" {np.dtype(dtype)} holds, {largest:.2g}, such as {numbers[beyond][0]:g}",
        facts={"parameter": key, "value": float(numbers[beyond][0]), "largest": float(largest)},
        fix="give smaller numbers, or simulate in float64",
    )


def with_rounded_resets(
    population: Population, parameters: Mapping[str, Any], dtype: Any
) -> Population:
    """The population with the obstacle that a type of numbers rounds a v_reset onto its v_threshold,
    if it does.

    Args:
        parameters: NIR's names -> numbers as the file has them.
    """
    has_both = {"v_reset", "v_threshold"} <= set(parameters)
    if not has_both or population.reset != "zero" or "v_reset" in dict(population.obstacles):
        return population
    with np.errstate(over="ignore"):  # of a threshold
        pair = [np.asarray(parameters[key], dtype) for key in ("v_reset", "v_threshold")]
    v_reset, v_threshold = np.broadcast_arrays(*pair)
    if not (bad := v_reset >= v_threshold).any():
        return population
    neuron = int(bad.argmax())
    problem = Problem(
        node=population.name,
        code="bad-parameter",
        message=f"node '{population.name}' ({population.kind}): as {np.dtype(dtype)} v_reset of neuron"
        f" {neuron} is {v_reset.flat[neuron]:.9g}, not below its v_threshold"
        f" {v_threshold.flat[neuron]:.9g}",
        fix="lower v_reset or raise v_threshold, or simulate in float64",
    )
    return replace(population, obstacles=(*population.obstacles, ("v_reset", problem)))


def obstacles(population: Population, fields: Iterable[str]) -> Iterator[Problem]:
    """What is not known of a population and what makes no sense, among some fields; one problem for
    each way out.
    """
    selected_fields = tuple(fields)
    remedies: list[str] = []
    for field, problem in population.obstacles:
        remedy = problem.fix or problem.message
        if field in selected_fields and remedy not in remedies:
            remedies.append(remedy)
            yield problem
