"""Populations that the native backend does not support, with reasons; XLA runs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import jax

from jaxsnn.errors import UsageError, warn_of_environment
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFBox, IFDelta
from jaxsnn.event.dynamics.integrated_neuron import IntegratedNeuron
from jaxsnn.event.dynamics.lif import LIFBox, LIFDelta
from jaxsnn.event.dynamics.linear_form import linear_obstacles
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.event_arrays import NeuronConstants, Times
from jaxsnn.event.event_options import EventOptions
from jaxsnn.event.forward.group import GroupSpec
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.native.kernel_compiler import NUMBERS
from jaxsnn.event.native.model_source import integration_obstacles
from jaxsnn.event.native.native_build import native_library
from jaxsnn.network.linear_nodes import LARGEST
from jaxsnn.wording import Text

#: Models whose equations the kernels implement; other models, subclasses too, may have different
#: equations.
_COVERED = (CubaLIFDelta, LIFDelta, IFDelta, LIFBox, IFBox)


def is_built_in(neuron: Neuron) -> bool:
    """Return whether the equations of a model are part of the kernels, so that they do not need its
    coefficients (`native_linear`).
    """
    return type(neuron) in _COVERED


def native_obstacles(
    layer: LayerSpec,
    options: EventOptions,
    dtype: str,
    samples: Any = 1,
    constants: NeuronConstants | None = None,
) -> Iterator[str]:
    """Yield the reasons why the native backend cannot run a population; nothing if it can.

    Args:
        layer: the population's scan.
        options: options of the engine.
        dtype: floating-point type.
        samples: batch size, which may be unknown (`jax.export`).
        constants: constants of a population for which the kernels support all linear models; None:
            they support the built-in ones only.
    """
    # Cheap checks come first: the library is not built for unsupported populations.
    if not is_built_in(layer.neuron):
        if constants is None:
            yield Text(
                "the kernels do not support its neuron model, {type}",
                type=type(layer.neuron).__name__,
            )
        elif isinstance(layer.neuron, IntegratedNeuron):
            yield from integration_obstacles(layer.neuron, constants, dtype)
        else:
            yield from linear_obstacles(layer.neuron, constants)
        if layer.refractory:
            yield Text(
                "the kernels do not support refractory periods of its neuron model, {type}",
                type=type(layer.neuron).__name__,
            )
    if layer.asks_for_rise:
        yield "the kernels do not support jump_width"
    if options.forward_mode:
        yield "the kernels do not support forward_mode"
    yield from _obstacles_of_all(dtype, samples, options)


def recorded_obstacles(
    layer: LayerSpec, options: EventOptions, dtype: str, samples: Any = 1
) -> Iterator[str]:
    """Yield the reasons why the native backend cannot replay a population's recorded spikes;
    nothing if it can.

    Args:
        layer, options, dtype, samples: see `native_obstacles`.
    """
    yield from native_obstacles(layer, options, dtype, samples)
    if layer.assigns:
        yield "its spikes set V to v_reset instead of subtracting a constant"
    if layer.neuron.level is not None:
        yield "its spikes are rectangular pulses"


def _obstacles_of_all(dtype: str, samples: Any, options: EventOptions) -> Iterator[str]:
    """Yield the reasons why no kernel can be called."""
    if not isinstance(samples, int):
        yield (
            "the batch size is unknown, as in jax.export, and exported programs run without the "
            "kernels"
        )
    if (device := jax.default_backend()) != "cpu":
        yield Text(
            "the default device is {device}, and the kernels run on CPUs only", device=device
        )
    library = native_library(dtype)
    if not library.there:
        if dtype in NUMBERS and options.backend != "native":
            _warn_of_slower_backend(library.reason, library.fix)
        yield library.reason


@cache
def _warn_of_slower_backend(reason: str, fix: str) -> None:
    """Report once in a process that XLA replaces the kernels."""
    warn_of_environment(
        "the event engine runs in XLA, which is slower than the native kernels, because they are "
        f"not available: {reason}: {fix}"
    )


@cache
def _warn_of_large_table(obstacle: str) -> None:
    """Report once in a process that XLA replaces the kernels for a large group."""
    warn_of_environment(
        "a recurrent group runs in XLA, which is slower than the native kernels, because "
        f"{obstacle}: build its weights from a SciPy sparse matrix"
    )


def reads_out_native(neuron: Neuron, time: Times, options: EventOptions) -> bool:
    """Return whether the native backend computes V of neurons that do not fire. Unsupported neurons
    are computed by XLA, whatever the backend.

    Args:
        time: arrival times.
    """
    if options.forward_mode or not is_built_in(neuron):
        return False
    return calls_kernels(time.dtype.name, time.shape[0], options)


def calls_kernels(dtype: str, samples: Any, options: EventOptions) -> bool:
    """Return whether kernels are enabled and can be called.

    Args:
        dtype, samples: see `native_obstacles`.
    """
    return (
        kernels_enabled(options) and next(_obstacles_of_all(dtype, samples, options), None) is None
    )


def kernels_enabled(options: EventOptions) -> bool:
    """Return whether native kernels are enabled."""
    backend = options.backend
    if backend == "auto":
        # Tests and comparisons set the meaning of "auto" for the whole process.
        backend = os.environ.get("JAXSNN_BACKEND", "auto")
    return backend != "xla"


def group_obstacles(
    spec: GroupSpec, neurons: int, options: EventOptions, dtype: str, samples: Any = 1
) -> Iterator[str]:
    """Yield the reasons why the native backend cannot run a recurrent group; nothing if it can.

    Args:
        spec: see `recurrent_adjoint.group_spikes`.
        neurons: number of neurons of all populations.
        options, dtype, samples: see `native_obstacles`.
    """
    layers: tuple[LayerSpec, ...] = spec.layers
    if len({layer.once for layer in layers}) > 1:
        yield "only some populations of its cycle stop after their first spike"
    if len({layer.neuron.keeps_overshoot for layer in layers}) > 1:
        yield "populations of its cycle have different reset rules"
    if len({layer.min_slope for layer in layers}) > 1:
        yield "populations of its cycle have different values of min_slope"
    if any(layer.neuron.jumps for layer in layers):
        yield "recurrent spikes act directly on the membrane potential"
    if len({layer.neuron.level is not None for layer in layers}) > 1:
        yield "some populations of its cycle use rectangular pulses and others delta spikes"
    # The kernels have a row of weights to all neurons of the group for each line of a fan-out.
    weights = sum(len(fan_out.by_line) for _, fan_out in spec.fan_outs) * neurons
    if weights > LARGEST:
        obstacle = Text(
            "separate delays of its synapses need {count} weights, the limit is {limit}",
            count=weights,
            limit=LARGEST,
        )
        if options.backend != "native":
            _warn_of_large_table(str(obstacle))
        yield obstacle
    for layer in layers:
        yield from native_obstacles(layer, options, dtype, samples)


def runs_native(
    name: str, options: EventOptions, obstacles: Iterator[str], *, required: bool = False
) -> bool:
    """Return whether the native backend runs a population.

    Args:
        name: name of the population.
        options: options of the engine.
        obstacles: reasons against it, evaluated only if native kernels are enabled.
        required: no other backend can run the population.

    Raises:
        UsageError: the native backend is required and does not support the population.
    """
    if not kernels_enabled(options):
        if required:
            raise UsageError(
                Text(
                    "only the native backend integrates the equations of population '{population}'",
                    population=name,
                ),
                fix='pass EventDriven(backend="native")',
            )
        return False
    obstacle = next(obstacles, None)
    if obstacle is not None and required:
        raise UsageError(
            Text(
                "population '{population}' cannot be simulated: {obstacle}. Only the native "
                "backend integrates its equations",
                population=name,
                obstacle=obstacle,
            ),
            fix="change the network as the reason says, or use a neuron model with a flow in "
            "closed form",
        )
    if obstacle is not None and options.backend == "native":
        raise UsageError(
            Text(
                "the native backend does not support population '{population}': {obstacle}",
                population=name,
                obstacle=obstacle,
            ),
            fix='pass EventDriven(backend="auto")',
        )
    return obstacle is None
