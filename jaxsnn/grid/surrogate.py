"""The spike function of time-stepped simulation: a step function in the forward pass, with the
derivative of a smooth function in the backward pass.

A surrogate is a frozen, hashable record with one method, the derivative. `u` is V - v_threshold
throughout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxsnn.errors import UsageError, as_number, shown, suggestion
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.structure import Population
from jaxsnn.options import SURROGATE
from jaxsnn.wording import Text


class Surrogate(Protocol):
    """Surrogate for the derivative of a spike with respect to the membrane potential."""

    def derivative(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Return the derivative at u = V - v_threshold, in spikes per unit of V; the shape of
        `u`.
        """
        ...


class _PositiveNumbers:
    """Base class of surrogates whose numbers are checked on construction.

    Raises:
        UsageError: a number is invalid; the message contains the surrogate, the field and the number.
    """

    def __post_init__(self) -> None:
        """Refuse numbers that are not positive and finite."""
        for name in ("slope", "alpha"):
            value = getattr(self, name, 1.0)
            if not (0 < as_number(value) < math.inf or isinstance(value, Tracer)):
                message = f"{type(self).__name__}: {name} is {shown(value)}"
                raise UsageError(message, fix="pass a positive number")


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class FastSigmoid(_PositiveNumbers):
    """Surrogate 1 / (1 + slope |u|)^2 (Zenke and Ganguli, SuperSpike, Neural Computation 2018).

    snnTorch calls it fast_sigmoid. Norse's "super" is the one of slope 1, whatever its alpha.

    >>> float(FastSigmoid(slope=25.0).derivative(jnp.asarray(0.04)))
    0.25
    """

    slope: float = 25.0

    def derivative(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Return the derivative: 1 at the threshold, 1/4 at a distance of 1/slope."""
        return 1 / (1 + self.slope * jnp.abs(u)) ** 2


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class ArcTan(_PositiveNumbers):
    """Surrogate alpha / 2 / (1 + (pi alpha u / 2)^2) (Fang et al., ICCV 2021).

    snnTorch's and SpikingJelly's "atan".
    """

    alpha: float = 2.0

    def derivative(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Return the derivative: alpha / 2 at the threshold."""
        return self.alpha / 2 / (1 + (math.pi / 2 * self.alpha * u) ** 2)


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Sigmoid(_PositiveNumbers):
    """Surrogate slope s (1 - s), s = 1 / (1 + exp(-slope u)) (Neftci, Mostafa and Zenke, IEEE SPM
    2019).
    """

    slope: float = 25.0

    def derivative(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Return the derivative: slope / 4 at the threshold."""
        s = jax.nn.sigmoid(self.slope * u)
        return self.slope * s * (1 - s)


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class StraightThrough:
    """Surrogate that is 1 everywhere (Bengio, Leonard and Courville, arXiv:1308.3432)."""

    def derivative(self, u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Return the derivative: 1 everywhere."""
        return jnp.ones_like(u)


#: Surrogates by the names in options.
SURROGATES: Mapping[str, type[Any]] = MappingProxyType(
    {
        "fast-sigmoid": FastSigmoid,
        "atan": ArcTan,
        "sigmoid": Sigmoid,
        "straight-through": StraightThrough,
    }
)
_CALL = re.compile(r"(\w+)\((\w+)=([\d.]+)\)")


def surrogate_of(population: Population) -> Surrogate:
    """Return the default surrogate of a population's framework; `FastSigmoid` if there is no
    framework, or its surrogate is not available here.
    """
    call = _CALL.match(population.surrogate)
    if call is None:
        return FastSigmoid()
    kinds = {kind.__name__: kind for kind in SURROGATES.values()}
    return kinds[call[1]](**{call[2]: float(call[3])})


def named_surrogate(name: str) -> Surrogate:
    """Return a surrogate by name, with an optional number after a colon: "atan",
    "fast-sigmoid:10".

    Raises:
        UsageError: there is no such surrogate, or it does not accept this number.

    >>> named_surrogate("atan:3")
    ArcTan(alpha=3.0)
    """
    kind, colon, number = name.partition(":")
    if kind not in SURROGATES:
        raise UsageError(
            Text("{surrogate} is '{name}'", surrogate=SURROGATE, name=name),
            fix=suggestion(kind, SURROGATES),
        )
    field_names = [field.name for field in fields(SURROGATES[kind])]
    if not colon:
        return SURROGATES[kind]()
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not field_names or not (math.isfinite(value) and value > 0):
        raise UsageError(
            Text("{surrogate} is '{name}'", surrogate=SURROGATE, name=name),
            fix=f"pass {kind}"
            + (f", or with a positive number, such as {kind}:2" if field_names else ""),
        )
    return SURROGATES[kind](**{field_names[0]: value})


def as_surrogate(surrogate: Surrogate | str | None) -> Surrogate | None:
    """Return the surrogate of a name (`named_surrogate`), or the surrogate itself.

    Raises:
        UsageError: neither a surrogate nor the name of a surrogate, or an object that is not hashable.
    """
    if surrogate is None or isinstance(surrogate, str):
        return None if surrogate is None else named_surrogate(surrogate)
    if isinstance(surrogate, type) or not hasattr(surrogate, "derivative"):
        raise UsageError(
            Text("{surrogate} is {value!r}", surrogate=SURROGATE, value=surrogate),
            fix=suggestion(str(surrogate), SURROGATES),
        )
    try:
        hash(surrogate)
    except TypeError as error:
        raise UsageError(
            f"surrogate {surrogate!r} is not hashable, which caching of compiled code requires",
            fix="make it a frozen dataclass of Python numbers",
        ) from error
    return surrogate


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def spike(
    u: Float[Array, "*shape"], surrogate: Surrogate, at_equality: bool
) -> Float[Array, "*shape"]:
    """Return 1 where u > 0 (with `at_equality` also where u = 0), else 0, in the dtype of `u`; the
    derivative is that of the surrogate.
    """
    return (u >= 0 if at_equality else u > 0).astype(u.dtype)


def _forward(
    u: Float[Array, "*shape"], surrogate: Surrogate, at_equality: bool
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    return spike(u, surrogate, at_equality), u


def _backward(
    surrogate: Surrogate,
    at_equality: bool,
    u: Float[Array, "*shape"],
    gradient: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"]]:
    return (gradient * surrogate.derivative(u),)


spike.defvjp(usual_promotion(_forward), usual_promotion(_backward))


def spike_count(
    v: Float[Array, "*lead *shape"],
    v_threshold: Float[Array, "*shape"],
    surrogate: Surrogate,
    at_equality: bool,
) -> Float[Array, "*lead *shape"]:
    """Return how often v_threshold fits into V, 0 where V is negative; `at_equality`: V =
    v_threshold counts.

    In the backward pass each multiple of the threshold is a separate step function: the surrogate
    is evaluated at the distance to the nearest multiple.
    """
    fits = jax.lax.stop_gradient(v / v_threshold)
    count = jnp.maximum(jnp.floor(fits) if at_equality else jnp.ceil(fits) - 1, 0)
    nearest = jnp.maximum(jnp.round(fits), 1) * v_threshold
    smooth: Any = spike(v - nearest, surrogate, at_equality)
    # The value is the count: the added term is 0, with the gradient of a spike.
    return count + (smooth - jax.lax.stop_gradient(smooth))
