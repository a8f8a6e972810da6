"""C++ source of the kernels of a neuron model whose equations are not linear, for integrated.h.

JAX traces the methods of the model and their products with Jacobians. `model_program` translates
the operations of numbers, and `model_series` their Taylor coefficients along a trajectory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from jaxsnn.event.dynamics.integrated_neuron import IntegratedNeuron
from jaxsnn.event.event_arrays import NeuronConstants
from jaxsnn.event.native.model_program import (
    NEURONS,
    Operand,
    ScalarProgram,
    UnsupportedOperationError,
    expression,
    name_of,
)
from jaxsnn.event.native.model_series import SERIES_FUNCTIONS, SeriesPart, series_class
from jaxsnn.event.native.native_build import model_library
from jaxsnn.wording import Text


def integration_obstacles(
    neuron: IntegratedNeuron, constants: NeuronConstants, dtype: str
) -> Iterator[str]:
    """Yield the reasons why the kernels cannot integrate a model; nothing if they can.

    Args:
        constants: constants of the model, (neurons,) each, which may be traced.
        dtype: floating-point type of the network.
    """
    kind = type(neuron).__name__
    leaves, structure = jax.tree.flatten(constants)
    if any(leaf.ndim != 1 for leaf in leaves):
        yield "its constants differ between positions or samples"
        return
    try:
        source = model_source(neuron, structure, dtype)
    except UnsupportedOperationError as error:
        yield Text(
            "the kernels cannot integrate its neuron model {type}: {reason}",
            type=kind,
            reason=str(error),
        )
        return
    if _moves_excess(neuron, structure, dtype):
        yield Text("arrivals of its neuron model {type} move V or its threshold at once", type=kind)
        return
    if _acts_without_weight(neuron, structure, dtype):
        yield Text(
            "arrivals of weight 0, which stand for missing connections, change the state of its "
            "neuron model {type}",
            type=kind,
        )
        return
    library = model_library(source, dtype)
    if not library.there:
        yield f"{library.reason}: {library.fix}"


@cache
def model_source(neuron: IntegratedNeuron, structure: Any, dtype: str) -> str:
    """Return the C++ source of a model's kernels.

    Args:
        structure: tree structure of the model's constants, each of which is an array (neurons,).
        dtype: floating-point type of the network.

    Raises:
        UnsupportedOperationError: an operation of the model has no translation.
    """
    leaf, constants, state = _shapes(neuron, structure, dtype)
    count, size = structure.num_leaves, len(state)
    columns = [f"c[{n}]" for n in range(count)], [f"x[{n}]" for n in range(size)]

    def arrive(weight: Any, x: Any) -> Any:
        return neuron.arrive(x, weight)

    functions = [
        _functions("rate", neuron.rate, columns, constants, state),
        _functions("excess", neuron.excess, columns, constants, state),
        _functions("reset", neuron.reset, columns, constants, state),
        _functions("arrive", arrive, (["c[0]"], columns[1]), leaf, state),
    ]
    lines = [
        '#include "series.h"',
        "#include <limits>",
        "",
        "namespace {",
        *(f"using native::{name};" for name in SERIES_FUNCTIONS),
        "struct Model {",
        f"  static constexpr int kVariables = {size}, kConstants = {count};",
        *functions,
        _forward_series(neuron, constants, state),
        _backward_series(neuron, constants, state),
        "};",
        "}  // namespace",
        "",
        '#include "integrated_calls.h"',
        "",
    ]
    return "\n".join(lines)


def _shapes(neuron: IntegratedNeuron, structure: Any, dtype: str) -> tuple[Any, Any, Any]:
    """Return the shapes of an array of the neurons, of the constants and of the state."""
    leaf = jax.ShapeDtypeStruct((NEURONS,), np.dtype(dtype))
    constants = jax.tree.unflatten(structure, [leaf] * structure.num_leaves)
    return leaf, constants, (leaf,) * len(jax.eval_shape(neuron.begin, constants))


def _acts_without_weight(neuron: IntegratedNeuron, structure: Any, dtype: str) -> bool:
    """Return whether an arrival of weight 0 changes one of a few states."""
    size = len(_shapes(neuron, structure, dtype)[2])
    with jax.ensure_compile_time_eval():
        state = tuple(jnp.asarray([0.3, -1.7, 42.0], dtype) * (n + 1) for n in range(size))
        after = neuron.arrive(state, jnp.zeros(3, dtype))
        changes = [jnp.abs(x - y) > 1e-5 * jnp.abs(x) for x, y in zip(state, after, strict=True)]
        return bool(jnp.any(jnp.stack(changes)))


def _moves_excess(neuron: IntegratedNeuron, structure: Any, dtype: str) -> bool:
    """Return whether the excess after an arrival depends on the weight, by its operations."""
    leaf, constants, state = _shapes(neuron, structure, dtype)

    def excess(weight: Any, constants: NeuronConstants, state: Any) -> Any:
        return neuron.excess(constants, neuron.arrive(state, weight))

    jaxpr = jax.make_jaxpr(excess)(leaf, constants, state).jaxpr
    return dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1][0]


def _of_neurons(function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """Return a function of (constants, state) that returns a tuple of arrays of the neurons."""

    def run(constants: Any, state: Any) -> tuple[Any, ...]:
        result = function(constants, state)
        parts = result if isinstance(result, tuple) else (result,)
        return tuple(jnp.broadcast_to(part, state[0].shape) for part in parts)

    return run


def _functions(
    name: str,
    method: Callable[..., Any],
    columns: tuple[list[str], list[str]],
    first: Any,
    state: tuple[Any, ...],
) -> str:
    """Return two C++ functions: a method of (c, x), and the products of a vector with its Jacobians.

    Args:
        columns: C++ expressions of the leaves of c and x.
        first: shapes of c.
    """
    function, program = _of_neurons(method), ScalarProgram()
    inputs = [program.add("input", column) for column in (*columns[0], *columns[1])]
    results = program.trace(name, function, inputs, first, state)
    outputs = [(f"y[{n}] =", result) for n, result in enumerate(results)]

    def back(c: Any, x: Any, p: Any) -> Any:
        return jax.vjp(function, c, x)[1](p)

    vector = [program.add("input", f"p[{n}]") for n in range(len(results))]
    shapes = first, state, (state[0],) * len(results)
    products = program.trace(name, back, [*inputs, *vector], *shapes)
    targets = [f"if (by_c) by_c[{n}] +=" for n in range(len(columns[0]))]
    targets += [f"by_x[{n}] +=" for n in range(len(state))]
    arguments = "const double* c, const double* x"
    back_arguments = f"{arguments}, const double* p, double* by_c, double* by_x"
    return "\n".join(
        [
            _function(f"{name}({arguments}, double* y)", program, outputs),
            _function(
                f"{name}_back({back_arguments})",
                program,
                list(zip(targets, products, strict=True)),
            ),
        ]
    )


def _function(
    signature: str, program: ScalarProgram, results: Sequence[tuple[str, Operand]]
) -> str:
    """Return a C++ function that assigns results of a program to expressions."""
    needed = sorted(program.needed(value for _, value in results))
    lines = [f"    const auto t{n} = {expression(program.steps[n])};" for n in needed]
    lines += [f"    {target} {name_of(value)};" for target, value in results]
    return "\n".join([f"  static void {signature} {{", *lines, "  }"])


def _forward_series(
    neuron: IntegratedNeuron, constants: NeuronConstants, state: tuple[Any, ...]
) -> str:
    """Return the C++ class that computes the series of the state and of the excess."""
    count, size, program = len(jax.tree.leaves(constants)), len(state), ScalarProgram(analytic=True)
    c = [program.add("input", f"c[{n}]") for n in range(count)]
    x = [program.add("input", f"x[{n}]") for n in range(size)]
    rates = program.trace("rate", _of_neurons(neuron.rate), [*c, *x], constants, state)
    excess = program.trace("excess", _of_neurons(neuron.excess), [*c, *x], constants, state)
    following = [
        (f"x[{n}][k + 1] = unit * (1.0 / (k + 1)) *", rate) for n, rate in enumerate(rates)
    ]
    parts = [
        SeriesPart(signature="void next(int k, Lanes unit)", results=following),
        SeriesPart(
            signature="void measure(int k)",
            results=[("excess[k] =", excess[0])],
            source="excess",
        ),
    ]
    members = f"Lanes x[{size}][kSeriesTerms + 1];", "Lanes excess[kSeriesTerms];"
    return series_class("Series", program, x, parts, members)


def _backward_series(
    neuron: IntegratedNeuron, constants: NeuronConstants, state: tuple[Any, ...]
) -> str:
    """Return the C++ class that computes the series of the state and the costate back in time, and
    those of the integrands of the gradients with respect to the constants.
    """
    count, size, program = len(jax.tree.leaves(constants)), len(state), ScalarProgram(analytic=True)
    c = [program.add("input", f"c[{n}]") for n in range(count)]
    x = [program.add("input", f"x[{n}]") for n in range(size)]
    p = [program.add("input", f"p[{n}]") for n in range(size)]

    def rate_and_products(c: Any, x: Any, p: Any) -> Any:
        rate, pull_back = jax.vjp(_of_neurons(neuron.rate), c, x)
        return rate, pull_back(p)

    results = program.trace("rate", rate_and_products, [*c, *x, *p], constants, state, state)
    rates, by_c, by_x = results[:size], results[size : size + count], results[size + count :]
    following = [
        (f"x[{n}][k + 1] = -unit * (1.0 / (k + 1)) *", rate) for n, rate in enumerate(rates)
    ]
    following += [
        (f"p[{n}][k + 1] = unit * (1.0 / (k + 1)) *", rate) for n, rate in enumerate(by_x)
    ]
    signature = "template <bool kWithConstants> void next(int k, Lanes unit)"
    parts = [
        SeriesPart(signature=signature, results=following),
        SeriesPart(
            signature=signature,
            results=[(f"by_constant[{n}][k] =", rate) for n, rate in enumerate(by_c)],
            condition="kWithConstants",
        ),
    ]
    members = (
        f"Lanes x[{size}][kSeriesTerms + 1], p[{size}][kSeriesTerms + 1];",
        f"Lanes by_constant[{count}][kSeriesTerms];",
    )
    return series_class("BackSeries", program, [*x, *p], parts, members)
