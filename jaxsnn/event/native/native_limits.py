"""What the native backend does not cover, and why: XLA runs that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import jax

from jaxsnn.errors import UsageError
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.driven_lif import LIFUnderLI
from jaxsnn.event.event_arrays import Times
from jaxsnn.event.event_options import EventOptions
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.native.native_build import native_library

#: Models whose equations the kernels have; others, subclasses too, may have equations of their own.
_COVERED = (CubaLIFDelta, LIFUnderLI)


def native_obstacles(
    spec: LayerSpec, options: EventOptions, dtype: str, samples: Any = 1
) -> Iterator[str]:
    """Why the native backend does not run a population; nothing where it does.

    Args:
        spec: the population's scan.
        options: of the engine.
        dtype: of the numbers.
        samples: how many there are, which may not be known yet (`jax.export`).
    """
    if not isinstance(samples, int):
        yield "the size of the batch is not known: what is exported has to run without the kernels"
    if type(spec.neuron) not in _COVERED:
        yield f"its neurons are {type(spec.neuron).__name__}, and not current-based under deltas"
    if options.forward_mode:
        yield "forward_mode differentiates forwards, which the kernels do not"
    if (device := jax.default_backend()) != "cpu":
        yield f"the default device is a {device}, and the kernels run on a CPU"
    library = native_library(dtype)
    if not library.there:
        yield library.reason


def runs_native(spec: LayerSpec, options: EventOptions, name: str, time: Times) -> bool:
    """Whether a population is run by the native backend.

    Args:
        spec, options: as of `native_obstacles`.
        name: of the population.
        time: of what arrives there.

    Raises:
        UsageError: it is wanted and does not cover the population.
    """
    backend = options.backend
    if backend == "auto":
        # for tests and comparisons: what "auto" means in this process
        backend = os.environ.get("JAXSNN_BACKEND", "auto")
    if backend == "xla":
        return False
    # What is cheap to know comes first: nothing is built for what is not covered.
    obstacle = next(native_obstacles(spec, options, time.dtype.name, time.shape[0]), None)
    if obstacle is not None and options.backend == "native":
        raise UsageError(
            f"population '{name}' is not covered by the native backend: {obstacle}",
            fix='simulate with EventDriven(backend="auto")',
        )
    return obstacle is None
