"""Numbers that overflow a floating-point type, or are rounded to the same value. Nothing here loads JAX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxsnn.errors import Problem
from jaxsnn.network.structure import Population


def beyond_type(
    name: str, key: str, value: Any, dtype: Any, *, may_be_infinite: str = "v_threshold"
) -> Problem | None:
    """Return the problem of a parameter whose finite numbers overflow a floating-point type, or None.

    Args:
        may_be_infinite: the parameter that may overflow; "": none. In time steps, an infinite
            threshold is a threshold that is never reached.
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
        message=f"node '{name}': values of {key} that overflow {np.dtype(dtype)} (maximum "
        f"{largest:.2g}): {int(beyond.sum())} of {numbers.size}, the first is {numbers[beyond][0]:g}",
        facts={"parameter": key, "value": float(numbers[beyond][0]), "largest": float(largest)},
        fix="use smaller values, or simulate in float64",
    )


def with_reset_obstacle(
    population: Population, parameters: Mapping[str, Any], dtype: Any
) -> Population:
    """Return the population; if a v_reset is not below its v_threshold, or a floating-point type rounds
    it onto its v_threshold, that is added to its obstacles.

    Args:
        parameters: NIR's names -> numbers.
    """
    has_both = {"v_reset", "v_threshold"} <= set(parameters)
    if not has_both or population.reset != "zero" or "v_reset" in dict(population.obstacles):
        return population
    with np.errstate(over="ignore"):  # a threshold may become inf
        pair = [np.asarray(parameters[key], dtype) for key in ("v_reset", "v_threshold")]
    v_reset, v_threshold = np.broadcast_arrays(*pair)
    if not (bad := v_reset >= v_threshold).any():
        return population
    neuron = int(bad.argmax())
    exact = np.broadcast_arrays(*(parameters[key] for key in ("v_reset", "v_threshold")))
    is_rounded = bool(exact[0].flat[neuron] < exact[1].flat[neuron])
    rounded = f"rounded to {np.dtype(dtype)}, " if is_rounded else ""
    problem = Problem(
        node=population.name,
        code="bad-parameter",
        message=f"node '{population.name}' ({population.kind}): {rounded}"
        f"v_reset of neuron {neuron} is {v_reset.flat[neuron]:.9g}, which is not below "
        f"v_threshold, {v_threshold.flat[neuron]:.9g}",
        fix="decrease v_reset, increase v_threshold, or simulate in float64"
        if is_rounded
        else "decrease v_reset or increase v_threshold",
    )
    return replace(population, obstacles=(*population.obstacles, ("v_reset", problem)))
