"""Data parallel training: the samples of a batch are shared out over devices, here or in other
processes.

Every device holds all parameters and all data; it takes its part of each batch, and gradients are
added up. The result is that of one device, up to the order of the sums. On several hosts each
process calls `join_processes` before anything else touches JAX, and then `fit` with the same
arguments; only process 0 writes files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxsnn.errors import SimulationError, UsageError
from jaxsnn.train.options import TrainOptions

#: Name of the axis of the mesh.
SAMPLES = "samples"


def join_processes(coordinator: str, processes: int, process: int) -> None:
    """Make this process one of several that train together; on the CPU they talk through gloo.

    Args:
        coordinator: HOST:PORT of process 0, reachable from all.
        processes: how many there are.
        process: number of this one, from 0.

    Raises:
        UsageError: numbers that make no sense.
        SimulationError: the others were not found.
    """
    if not 0 <= process < processes:
        raise UsageError(
            f"process is {process} of {processes}", fix=f"number them from 0 to {processes - 1}"
        )
    try:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            coordinator, processes, process, initialization_timeout=_PATIENCE
        )
    except RuntimeError as error:
        raise SimulationError(
            f"process {process} of {processes} found no others at {coordinator}"
            f" ({str(error).splitlines()[0]})",
            fix="start all of them with the same address",
        ) from error


_PATIENCE = 60  # seconds


def join(options: TrainOptions) -> None:
    """Join the other processes where the options name some, unless that is done already.

    It must come before anything else touches JAX.
    """
    if options.processes > 1 and not jax.distributed.is_initialized():
        join_processes(str(options.coordinator), options.processes, options.process)


def make_mesh(devices: int | None) -> Mesh | None:
    """The first so many devices, of all processes, as a mesh of one axis; None for a single one.

    Args:
        devices: how many; None: all where there are several processes, else one.

    Raises:
        UsageError: there are not as many.
    """
    everywhere = jax.devices()
    several = jax.process_count() > 1
    count = (len(everywhere) if several else 1) if devices is None else devices
    if count < 1 or count > len(everywhere):
        raise UsageError(
            f"devices is {count}: JAX sees {len(everywhere)}",
            fix="take as many at most; a CPU shows more with"
            f" XLA_FLAGS=--xla_force_host_platform_device_count={max(count, 1)}",
        )
    if several and count != len(everywhere):
        raise UsageError(
            f"devices is {count}, and the {jax.process_count()} processes have {len(everywhere)}",
            fix="use all, or do not say how many",
        )
    return None if count == 1 else Mesh(np.array(everywhere[:count]), (SAMPLES,))


def is_first() -> bool:
    """Whether this process writes files and reports."""
    return jax.process_index() == 0


def shared_out(function: Callable[..., Any], mesh: Mesh | None, parts: int) -> Callable[..., Any]:
    """A function whose last arguments, `parts` of them, are arrays over samples, run on each
    device's part of them.

    Its results must be the same on all devices: `total` and `highest` make them so.
    """
    if mesh is None:
        return function

    def run(*arguments: Any) -> Any:
        whole = len(arguments) - parts
        specs = (
            *(PartitionSpec() for _ in range(whole)),
            *(PartitionSpec(SAMPLES) for _ in range(parts)),
        )
        shared = jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
        )
        return shared(*arguments)

    return run


def total(tree: Any, mesh: Mesh | None) -> Any:
    """Sums over the devices."""
    return tree if mesh is None else jax.lax.psum(tree, SAMPLES)


def highest(tree: Any, mesh: Mesh | None) -> Any:
    """Maxima over the devices."""
    return tree if mesh is None else jax.lax.pmax(tree, SAMPLES)
