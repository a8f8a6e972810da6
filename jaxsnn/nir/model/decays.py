"""The factors by which membranes and currents decay in one step, as frameworks compute them.

Each accepts NumPy and JAX arrays, and uses the framework's order of floating-point operations. An
external framework may define another decay: see `Decay`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

Parameters = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decay:
    """A factor of one step, as a framework computes it.

    Attributes:
        text: Formula, for messages and `repr`.
        factor: (parameters by NIR's names, dt, array module) -> factor, of the parameters' shape.
            dt is in the unit of the time constants, the array module is NumPy or jax.numpy. A
            module-level function, so that equal rules compare equal.
        needs_dt: Whether the formula uses dt.
    """

    text: str
    factor: Callable[[Mapping[str, Any], Any, Any], Any] = dataclasses.field(repr=False)
    needs_dt: bool = True

    def __str__(self) -> str:
        return self.text


def _tau_mem(parameters: Parameters) -> Any:
    """Return the membrane time constants: tau for LIF and LI."""
    return parameters["tau_mem"] if "tau_mem" in parameters else parameters["tau"]


def _one(parameters: Parameters, dt: Any, xp: Any) -> Any:
    return xp.ones_like(parameters["r"])


def _r(parameters: Parameters, dt: Any, xp: Any) -> Any:
    return parameters["r"]


def _from_r(parameters: Parameters, dt: Any, xp: Any) -> Any:
    return 1 - 1 / parameters["r"]


def _from_w_in(parameters: Parameters, dt: Any, xp: Any) -> Any:
    return 1 - 1 / parameters["w_in"]


def _alpha(parameters: Parameters, dt: Any, xp: Any) -> Any:
    return parameters["alpha"]


def _euler_membrane(parameters: Parameters, dt: Any, xp: Any) -> Any:
    return 1 - dt / _tau_mem(parameters)


def _euler_synapse(parameters: Parameters, dt: Any, xp: Any) -> Any:
    return 1 - dt / parameters["tau_syn"]


def _exact_membrane(parameters: Parameters, dt: Any, xp: Any) -> Any:
    return xp.exp(-dt / _tau_mem(parameters))


def _exact_synapse(parameters: Parameters, dt: Any, xp: Any) -> Any:
    return xp.exp(-dt / parameters["tau_syn"])


#: Decay of a membrane without a leak.
NO_DECAY = Decay(text="1", factor=_one, needs_dt=False)
#: Decay that the file stores in r.
R = Decay(text="r", factor=_r, needs_dt=False)
#: Decay k from r = 1/(1-k), which determines it more precisely than tau does.
FROM_R = Decay(text="1-1/r", factor=_from_r, needs_dt=False)
FROM_W_IN = Decay(text="1-1/w_in", factor=_from_w_in, needs_dt=False)
#: Decay of snnTorch's Alpha, which has alpha and beta as parameters.
ALPHA_DECAY = Decay(text="alpha", factor=_alpha, needs_dt=False)
#: Decays of Euler's method.
EULER_MEMBRANE = Decay(text="1-dt/tau_mem", factor=_euler_membrane)
EULER_SYNAPSE = Decay(text="1-dt/tau_syn", factor=_euler_synapse)
#: Decays of the exact flow of the ODE.
EXACT_MEMBRANE = Decay(text="exp(-dt/tau_mem)", factor=_exact_membrane)
EXACT_SYNAPSE = Decay(text="exp(-dt/tau_syn)", factor=_exact_synapse)
