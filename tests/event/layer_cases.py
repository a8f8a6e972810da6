"""Layers of one population for tests of the native backend, drawn at random; how they are run and
differentiated.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.event.adjoint.layer_adjoint import layer_spikes
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFBox, IFDelta
from jaxsnn.event.dynamics.lif import LIFBox, LIFDelta
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.native.native_layer import native_layer_spikes
from jaxsnn.network.structure import TauShape
from tests.event.agreement import finite_times

SHAPES = {2: TauShape.DOUBLE, 0.5: TauShape.HALF, 1: TauShape.EQUAL}
TAU = 1e-2
#: Width of a rectangular pulse, seconds.
WIDTH = 7e-3


def lanes_of(rng, shape, ratio, *, mixed, above=False, dtype):
    """Constants of a shape (..., neurons).

    Args:
        mixed: each neuron has its own time constants.
        above: some neurons start above their thresholds.
    """
    size = shape[-1]
    spread = rng.uniform(0.7, 1.4, (2, size)) if mixed else np.ones((2, size))
    starts = rng.uniform(-0.2, 0.3, size) + above * (rng.random(size) < 0.3)
    values = {
        "threshold": rng.uniform(0.5, 1.0, size),
        "v_reset": rng.uniform(-0.3, 0.2, size),
        "v_start": starts,
        "j_start": rng.uniform(-0.2, 0.3, size),
        "tau_mem": ratio * TAU * spread[0],
        "tau_syn": TAU * spread[1],
    }
    return Constants(
        **{name: jnp.asarray(np.broadcast_to(v, shape), dtype) for name, v in values.items()}
    )


def layer_case(
    ratio=2,
    mixed=False,
    refractory=0.0,
    subtract=False,
    once=False,
    above=False,
    neurons=21,
    positions=1,
    dtype=jnp.float64,
    kind=CubaLIFDelta,
    driven=False,
    equality=False,
    arrivals=40,
    strength=0.4,
    min_slope=2**-20,
):
    """A spec, its arguments (weight, lanes, time, row, t_end), and a weight for each spike: five samples
    with unused slots.

    Args:
        mixed: each neuron has its own time constants.
        above: some neurons start above their thresholds.
        strength: mean weight. With few strong arrivals many neurons fire in the same interval.
        driven: the neurons fire without arrivals, too: the threshold is below rest.
        min_slope: see `LayerSpec`.
    """
    rng = np.random.default_rng(neurons + positions)
    shape = (neurons,) if positions == 1 else (positions, neurons)
    batch, rows = 5 * positions, 12
    time = rng.uniform(0, 0.1, (batch, arrivals))
    time[rng.random(time.shape) < 0.1] = np.inf
    lanes = lanes_of(rng, shape, ratio, mixed=mixed, above=above, dtype=dtype)
    if kind is not CubaLIFDelta:
        # Many arrivals are simultaneous, and j is the constant drive of an IF.
        time = np.round(time, 3)
        drive = 30.0 if issubclass(kind, IFBox) and driven else 0.0
        lanes = replace(lanes, j_start=drive * jnp.ones_like(lanes.j_start))
        if driven and issubclass(kind, LIFBox):
            below = {"threshold": lanes.threshold - 1.2, "v_reset": lanes.v_reset - 1.2}
            lanes = replace(lanes, **below, v_start=lanes.v_start - 1.2)
    weight = rng.normal(strength, 0.6, (rows, neurons))
    row = rng.integers(0, rows, time.shape)
    if kind in (LIFBox, IFBox):  # a pulse starts with a weight and ends with its negative
        weight = weight * (1.0 if kind is LIFBox else 60.0)
        weight, row = np.concatenate([weight, -weight]), np.concatenate([row, row + rows], axis=1)
        time = np.concatenate([time, time + WIDTH], axis=1)
    model = kind(
        fires_at_equality=equality,
        tau_shape=TauShape.ANY if mixed else SHAPES.get(ratio, TauShape.ANY),
        uniform=not mixed,
        reset_kind="subtract" if subtract else "zero",
    )
    spec = LayerSpec(
        neuron=model,
        max_spikes=1 if once else 8,
        once=once,
        min_slope=min_slope,
        refractory=refractory,
    )
    arguments = (
        jnp.asarray(weight, dtype),
        lanes,
        jnp.asarray(time, dtype),
        jnp.asarray(row, jnp.int32),
        jnp.asarray(0.09, dtype),
    )
    return spec, arguments, jnp.asarray(rng.normal(size=(batch, neurons, spec.max_spikes)), dtype)


def by_xla(spec):
    return partial(layer_spikes, spec)


def by_kernels(spec, threads=2):
    return partial(native_layer_spikes, spec, threads)


def spikes_and_gradients(simulate, arguments, spike_weights):
    """Spikes, and gradients of their weighted times by weight, lanes and arrival times."""
    *variables, row, t_end = arguments

    def loss(weight, lanes, time):
        spikes = simulate(weight, lanes, time, row, t_end)
        slopes = jnp.clip(jax.lax.stop_gradient(spikes.slope), 0, 50)
        return jnp.sum(spike_weights * slopes * finite_times(spikes.time)), spikes

    both = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    (_, spikes), gradient = both(*variables)
    return spikes, gradient


CROWD = {"ratio": 2, "neurons": 70, "arrivals": 5, "strength": 2.0}
#: Name -> arguments of `layer_case`.
CASES = {
    "double": {"ratio": 2},
    "half": {"ratio": 0.5},
    "equal": {"ratio": 1, "neurons": 3},
    "nearly equal": {"ratio": 1.001},
    "any": {"ratio": 3.7, "neurons": 70},
    "mixed": {"ratio": 1.3, "mixed": True},
    "once": {"ratio": 2, "once": True},
    "refractory": {"ratio": 1.3, "mixed": True, "refractory": 5e-3},
    "subtract": {"ratio": 2, "subtract": True},
    "starts above": {"ratio": 2, "above": True},
    "subtract, above": {"ratio": 2, "above": True, "subtract": True},
    "held, above": {"ratio": 2, "above": True, "refractory": 3e-3},
    "positions": {"ratio": 2, "positions": 3, "neurons": 4},
    "crowd": {**CROWD},
    "crowd of few": {**CROWD, "neurons": 11},
    "crowd, once": {**CROWD, "once": True},
    "crowd, half": {**CROWD, "ratio": 0.5},
    "crowd, subtract, above": {**CROWD, "subtract": True, "above": True},
    "crowd, any": {**CROWD, "ratio": 3.7},
    "crowd, above": {**CROWD, "above": True, "neurons": 33},
    "crowd, refractory": {**CROWD, "refractory": 5e-3},
    "LIF": {"ratio": 2, "kind": LIFDelta},
    "LIF, mixed": {"ratio": 1.3, "mixed": True, "kind": LIFDelta, "neurons": 5},
    "LIF, driven": {"ratio": 2, "kind": LIFDelta, "driven": True, "mixed": True},
    "LIF, refractory": {"ratio": 2, "kind": LIFDelta, "refractory": 5e-3},
    "LIF, held, driven": {"ratio": 2, "kind": LIFDelta, "driven": True, "refractory": 3e-3},
    "LIF, subtract": {"ratio": 2, "kind": LIFDelta, "subtract": True},
    "LIF, starts above": {"ratio": 2, "kind": LIFDelta, "above": True, "equality": True},
    "LIF, subtract, above": {"ratio": 2, "kind": LIFDelta, "above": True, "subtract": True},
    "LIF, once": {"ratio": 2, "kind": LIFDelta, "once": True},
    "LIF, positions": {"ratio": 2, "kind": LIFDelta, "positions": 3, "neurons": 4},
    "IF": {"ratio": 1, "kind": IFDelta},
    "IF, driven": {"ratio": 1, "kind": IFDelta, "driven": True},
    "IF, driven, held": {"ratio": 1, "kind": IFDelta, "driven": True, "refractory": 3e-3},
    "IF, driven, subtract": {"ratio": 1, "kind": IFDelta, "driven": True, "subtract": True},
    "LIF, boxes, mixed": {"ratio": 1.3, "mixed": True, "kind": LIFBox, "neurons": 5},
    "LIF, boxes": {"ratio": 2, "kind": LIFBox, "neurons": 70},
    "LIF, boxes, subtract, above": {"ratio": 2, "kind": LIFBox, "above": True, "subtract": True},
    "LIF, boxes, driven": {"ratio": 2, "kind": LIFBox, "driven": True, "mixed": True},
    "LIF, boxes, held": {"ratio": 2, "kind": LIFBox, "driven": True, "refractory": 3e-3},
    "LIF, boxes, once": {"ratio": 2, "kind": LIFBox, "once": True},
    "IF, boxes": {"ratio": 1, "kind": IFBox},
    "IF, boxes, positions": {"ratio": 1, "kind": IFBox, "positions": 3, "neurons": 4},
    "IF, boxes, driven": {"ratio": 1, "kind": IFBox, "driven": True, "mixed": True},
    "IF, boxes, held": {"ratio": 1, "kind": IFBox, "driven": True, "refractory": 3e-3},
    "crowd, clipped": {**CROWD, "min_slope": 1.0},
}
