"""Coefficients of neuron models with linear equations, for kernels that know no model.

Such a model is, in variables x of which the first is V plus a constant,

    x' = A x between events,  x += w e at an arrival of weight w,
    a spike where c . x rises to the threshold:  x = R x + r.

The coefficients are values and derivatives of the methods of the model, which JAX computes. They are
transformed to variables z: z_0 = c . x, so that a neuron fires where z_0 reaches the threshold, and
z_n = x_n / s_n with scales s that balance the entries of A.

That the methods are linear is a property of their operations, not of numbers: `nonlinearity` follows
the variables through the program that JAX traces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.interpreters.partial_eval import dce_jaxpr

from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import NeuronConstants, State
from jaxsnn.network.array_types import Array, Float
from jaxsnn.wording import Text

#: Numbers of variables for which kernels are compiled.
VARIABLES = (2, 3, 4)
#: Maximum number of constants that A depends on (`kMaxFlowParameters` in linear.h).
MAX_FLOW_CONSTANTS = 8
_BALANCING_STEPS = 8
#: Smallest entry of A beside its diagonal that balancing counts, relative to the largest rate.
_MIN_COUPLING = 2.0**-10


class LinearForm(NamedTuple):
    """Coefficients of a model in the variables z, for each neuron."""

    flow: Float[Array, "variables variables neurons"]  # A
    reset: Float[Array, "variables variables neurons"]  # R
    offset: Float[Array, "variables neurons"]  # r
    start: Float[Array, "variables neurons"]
    threshold: Float[Array, "neurons"]
    arrival: Float[Array, "variables"]  # e


# ---- which models are linear


def linear_obstacles(neuron: Neuron, constants: NeuronConstants) -> Iterator[str]:
    """Yield the reasons why a model is not linear, or has features that `LinearForm` lacks; nothing
    if it is.

    Args:
        constants: constants of the model, (neurons,) each, which may be traced.
    """
    kind = type(neuron)
    if kind.above is not Neuron.above or kind.lifted is not Neuron.lifted:
        yield Text("its neuron model {type} defines when it fires at once", type=kind.__name__)
    if neuron.keeps_overshoot:
        yield Text("spikes of its neuron model {type} keep the overshoot", type=kind.__name__)
    if neuron.level is not None or neuron.width:
        yield Text("its neuron model {type} has rectangular pulses", type=kind.__name__)
    leaves = jax.tree.leaves(constants)
    if any(leaf.ndim != 1 for leaf in leaves):
        yield "its constants differ between positions or samples"
        return
    constants = jax.tree.map(_shape_of, constants)
    state: Any = jax.eval_shape(neuron.begin, constants)
    if len(state) not in VARIABLES:
        yield Text(
            "its neuron model {type} has {count} variables, the kernels support {least} to {most}",
            type=kind.__name__,
            count=len(state),
            least=VARIABLES[0],
            most=VARIABLES[-1],
        )
        return
    state = tuple(jax.ShapeDtypeStruct(leaves[0].shape, part.dtype) for part in state)
    functions = {
        "rate": neuron.rate,
        "excess": neuron.excess,
        "reset": neuron.reset,
        "arrive": lambda _, state: neuron.arrive(state[:-1], state[-1]),
    }
    for name, function in functions.items():
        variables = (*state, state[0]) if name == "arrive" else state
        if reason := nonlinearity(function, constants, variables):
            yield Text(
                "{name} of its neuron model {type} is not a linear function of the state "
                "({reason})",
                name=name,
                type=kind.__name__,
                reason=reason,
            )
            return
    unit, is_increment = _increment(neuron, len(state), state[0].dtype)
    if not is_increment:
        yield Text(
            "an arrival of its neuron model {type} does more than add its weight",
            type=kind.__name__,
        )
    for number in np.flatnonzero(unit):
        if neuron.jumps or _moves(neuron, constants, state, int(number)):
            yield Text(
                "arrivals of its neuron model {type} move V or its threshold", type=kind.__name__
            )
            return
    if len(flow_leaves(neuron, constants)) > MAX_FLOW_CONSTANTS:
        yield Text(
            "the flow of its neuron model {type} depends on more than {count} constants",
            type=kind.__name__,
            count=MAX_FLOW_CONSTANTS,
        )


def _shape_of(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


#: Operations of JAX that are linear in all operands.
_SUMS = {"add", "add_any", "sub", "neg", "copy", "copy_p", "broadcast_in_dim"}
#: Operations that contain the program of a function.
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}


def nonlinearity(
    function: Callable[..., Any], constants: NeuronConstants, variables: Sequence[Any]
) -> str:
    """Return an operation by which a function of constants and variables may be nonlinear in the
    variables (or mix the neurons), or "" if it is linear plus a constant.
    """
    closed = jax.make_jaxpr(function)(constants, tuple(variables))
    depends = [False] * (len(closed.jaxpr.invars) - len(variables)) + [True] * len(variables)
    return _nonlinearity(closed.jaxpr, depends)[1]


def _nonlinearity(jaxpr: Jaxpr, depends: Sequence[bool]) -> tuple[list[bool], str]:
    """Return which results of a program depend on its variables, and an operation that may be
    nonlinear in them, or "".

    Args:
        depends: whether each argument depends on the variables.
    """
    variables = {var for var, does in zip(jaxpr.invars, depends, strict=True) if does}

    def varies(atom: Any) -> bool:
        return not isinstance(atom, Literal) and atom in variables

    for equation in jaxpr.eqns:
        name, operands = equation.primitive.name, [varies(atom) for atom in equation.invars]
        if not any(operands):
            continue
        results = [True] * len(equation.outvars)
        if name in _CALLS:
            inner = equation.params[_CALLS[name]]
            inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
            results, reason = _nonlinearity(inner, operands)
            if reason:
                return results, reason
        else:
            linear = (
                name in _SUMS
                or (name == "mul" and sum(operands) == 1)
                or (name == "div" and not operands[1])
                or (name == "select_n" and not operands[0])
                or (
                    name == "convert_element_type"
                    and jnp.issubdtype(equation.params["new_dtype"], jnp.floating)
                )
            )
            if not linear:
                return results, name
        variables |= {var for var, does in zip(equation.outvars, results, strict=True) if does}
    return [varies(atom) for atom in jaxpr.outvars], ""


def _increment(neuron: Neuron, variables: int, dtype: Any) -> tuple[np.ndarray, bool]:
    """Return the change of the state by an arrival of weight 1, and whether an arrival changes it by
    its weight times this vector, whatever the state.
    """
    with jax.ensure_compile_time_eval():

        def arrived(state: np.ndarray, weight: float) -> np.ndarray:
            parts = tuple(jnp.asarray(part, dtype) for part in state)
            return np.array(
                [float(part) for part in neuron.arrive(parts, jnp.asarray(weight, dtype))]
            )

        zero = np.zeros(variables)
        unit = arrived(zero, 1.0)
        is_increment = not arrived(zero, 0.0).any() and all(
            np.array_equal(arrived(state, 0.0), state) for state in np.eye(variables)
        )
    return unit, is_increment


def _moves(neuron: Neuron, constants: NeuronConstants, state: State, number: int) -> bool:
    """Return whether the excess over the threshold depends on a variable, by its operations."""
    jaxpr = jax.make_jaxpr(neuron.excess)(constants, state).jaxpr
    depends = [False] * len(jaxpr.invars)
    depends[len(jaxpr.invars) - len(state) + number] = True
    return _nonlinearity(jaxpr, depends)[0][0]


def flow_leaves(neuron: Neuron, constants: NeuronConstants) -> list[int]:
    """Return which leaves of the constants A depends on, by its operations."""

    def flow(constants: NeuronConstants) -> Any:
        return _flow(neuron, constants, None)

    jaxpr = jax.make_jaxpr(flow)(constants).jaxpr
    used = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1]
    return [number for number, is_used in enumerate(used) if is_used]


# ---- coefficients


class _Variables:
    """The variables z of some neurons."""

    def __init__(
        self, neuron: Neuron, constants: NeuronConstants, scale: Float[Array, "variables"] | None
    ) -> None:
        begin = neuron.begin(constants)
        shape = jax.tree.leaves(constants)[0].shape
        self.zero = tuple(jnp.zeros(shape, part.dtype) for part in begin)
        self.count = len(begin)
        self.scale = jnp.ones(self.count, begin[0].dtype) if scale is None else scale
        excess = partial(neuron.excess, constants)
        #: c
        self.along = [jax.jvp(excess, (self.zero,), (self.unit(n),))[1] for n in range(self.count)]

    def unit(self, number: int) -> State:
        """Return the state whose entry of a number is 1, with all others 0."""
        return tuple(
            jnp.ones_like(part) if n == number else part for n, part in enumerate(self.zero)
        )

    def of(self, state: State) -> Float[Array, "variables neurons"]:
        """Return the variables z of a state x."""
        first = sum(c * part for c, part in zip(self.along, state, strict=True))
        others = (part / s for part, s in zip(state[1:], self.scale[1:], strict=True))
        return jnp.stack([first, *others])

    def state(self, z: Sequence[Any]) -> State:
        """Return the state x of variables z."""
        others = tuple(part * s for part, s in zip(z[1:], self.scale[1:], strict=True))
        first = z[0] - sum(c * part for c, part in zip(self.along[1:], others, strict=True))
        return first / self.along[0], *others

    def matrix(
        self, function: Callable[[State], State]
    ) -> Float[Array, "variables variables neurons"]:
        """Return the matrix of a function of the state that is linear plus a constant."""
        columns = [
            self.of(jax.jvp(function, (self.zero,), (self.state(self.unit(n)),))[1])
            for n in range(self.count)
        ]
        return jnp.stack(columns, axis=1)


def _flow(
    neuron: Neuron, constants: NeuronConstants, scale: Float[Array, "variables"] | None
) -> Float[Array, "variables variables neurons"]:
    """Return A in variables of some scale; None: 1."""
    return _Variables(neuron, constants, scale).matrix(partial(neuron.rate, constants))


def flow_scale(neuron: Neuron, constants: NeuronConstants) -> Float[Array, "variables"]:
    """Return the scales of the variables: powers of 2 for which the off-diagonal entries of A in a
    row are about as large as those in the column. The first is 1, as z_0 is a voltage.

    The kernels' effort depends on the norm of A, and so on the units of the variables.
    """
    size = jnp.max(jnp.abs(lax.stop_gradient(_flow(neuron, constants, None))), axis=2)
    count = len(size)
    tiny = jnp.finfo(size.dtype).tiny
    # Where variables do not act on each other, their scales are limited by small entries.
    size = (
        jnp.maximum(size, _MIN_COUPLING * jnp.max(jnp.diagonal(size)))
        * (1 - jnp.eye(count, dtype=size.dtype))
        + tiny
    )

    log_scale = jnp.zeros(count, size.dtype)
    for _ in range(_BALANCING_STEPS):
        entries = size * jnp.exp2(log_scale[None] - log_scale[:, None])
        log_scale += jnp.log2(jnp.sum(entries, 1) / jnp.sum(entries, 0)) / 4
    return jnp.exp2(jnp.round(log_scale - log_scale[0]))


def flow_matrix(
    neuron: Neuron, constants: NeuronConstants, scale: Float[Array, "variables"]
) -> Float[Array, "variables variables neurons"]:
    """Return A."""
    return _flow(neuron, constants, scale)


def levels(
    neuron: Neuron, constants: NeuronConstants, scale: Float[Array, "variables"]
) -> tuple[Array, Array, Array, Array]:
    """Return R, r, the initial state and the threshold; see `LinearForm`."""
    variables = _Variables(neuron, constants, scale)
    reset, excess = partial(neuron.reset, constants), partial(neuron.excess, constants)
    shape = variables.zero[0].shape
    offset = tuple(jnp.broadcast_to(part, shape) for part in reset(variables.zero))
    start = tuple(jnp.broadcast_to(part, shape) for part in neuron.begin(constants))
    threshold = -jnp.broadcast_to(excess(variables.zero), shape)
    return variables.matrix(reset), variables.of(offset), variables.of(start), threshold


def linear_form(
    neuron: Neuron, constants: NeuronConstants, scale: Float[Array, "variables"]
) -> LinearForm:
    """Return the coefficients of a model without `linear_obstacles`. A is NaN where the model's
    `rate` is not the derivative of its `flow`.
    """
    flow = flow_matrix(neuron, constants, scale)
    agrees = _agrees(neuron, constants, scale, lax.stop_gradient(flow))
    arrival, _ = _increment(neuron, len(flow), flow.dtype)
    return LinearForm(
        jnp.where(agrees, flow, jnp.nan),
        *levels(neuron, constants, scale),
        jnp.asarray(arrival, flow.dtype) / scale,
    )


def _agrees(
    neuron: Neuron,
    constants: NeuronConstants,
    scale: Float[Array, "variables"],
    a: Float[Array, "variables variables neurons"],
) -> Array:
    """Return for each neuron whether the flow of its model is exp(A t) at a time t with |A| t = 1/2,
    and the rate of the state 0 is 0.

    The comparison finds models whose methods contradict each other, not rounding: entries of
    exp(A t) - 1 may differ by a hundredth of the sum of the absolute values of their series.
    """
    constants = lax.stop_gradient(constants)
    variables = _Variables(neuron, constants, scale)
    norm = jnp.max(jnp.sum(jnp.abs(a), 1), 0)
    t = jnp.where(norm > 0, 0.5 / norm, 0)
    decay = neuron.general().decay(constants, t)
    flow = variables.matrix(partial(neuron.flow, decay))
    one = jnp.eye(len(a), dtype=a.dtype)[:, :, None]
    term = size = jnp.broadcast_to(one, a.shape)
    expected = total_size = jnp.zeros_like(a)
    for n in range(1, 9):
        term = jnp.sum(a[:, :, None] * term[None], 1) * (t / n)
        size = jnp.sum(jnp.abs(a)[:, :, None] * size[None], 1) * (t / n)
        expected, total_size = expected + term, total_size + size
    error = jnp.abs(flow - one - expected)
    tolerance = 0.01 * total_size + 64 * jnp.finfo(a.dtype).eps
    rest = neuron.rate(constants, variables.zero)
    rests = jnp.all(jnp.stack([jnp.broadcast_to(part == 0, t.shape) for part in rest]), 0)
    return jnp.all(error <= tolerance, (0, 1)) & rests
