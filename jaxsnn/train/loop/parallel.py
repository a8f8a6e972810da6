"""Data parallel training: the samples of a batch are distributed over devices, of this process or of
several.

Every device holds all parameters and all data; it takes its part of each batch, and gradients are
added up. The result is that of one device, up to the order of the sums. On several hosts each
process calls `join_processes` before anything else touches JAX, and then `fit` with the same
arguments; only process 0 writes files.

The devices of a CPU share a pool of threads, as many as there are cores or devices, which launch and
run programs. Once 32 programs of a device are in flight, a launch blocks its thread. If all threads
are blocked, a running program gets no thread for its last device, its other devices wait for that one
without end, and XLA aborts the process. So programs on several devices are launched one at a time:
results are moved to the host (`on_host`) before the next program is launched, and nothing else
computes with arrays on several devices.
"""

from __future__ import annotations

import gc
import ipaddress
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsnn.errors import SimulationError, UsageError, first_line
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.array_types import Array, UInt32
from jaxsnn.train.options import OPTIONS, TrainOptions
from jaxsnn.wording import Text

Tree = TypeVar("Tree")
Other = TypeVar("Other")

#: Name of the axis of the mesh.
SAMPLES = "samples"


@suggests_keywords
def join_processes(coordinator: str, processes: int, process: int) -> None:
    """Join this process to several that train together; on the CPU they communicate through gloo.

    Args:
        coordinator: HOST:PORT of process 0, reachable from all processes.
        processes: number of processes.
        process: number of this process, from 0.

    Raises:
        UsageError: invalid numbers or an invalid address.
        SimulationError: the other processes could not be reached.
    """
    if not 0 <= process < processes:
        raise UsageError(
            Text(
                "{option} is {process}, and the number of processes is {processes}",
                option=OPTIONS["process"],
                process=process,
                processes=processes,
            ),
            fix=f"number the processes from 0 to {processes - 1}",
        )
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise UsageError(
            Text(
                "{option} is '{coordinator}', which is not HOST:PORT",
                option=OPTIONS["coordinator"],
                coordinator=coordinator,
            ),
            fix=Text(
                "pass {coordinator}, with a host name or address and a port up to 65535",
                coordinator=OPTIONS["coordinator"].set_to("HOST:PORT"),
            ),
        )
    here: dict[str, Any] = {"coordinator_bind_address": coordinator} if _is_loopback(host) else {}
    try:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            coordinator, processes, process, initialization_timeout=_PATIENCE, **here
        )
    except RuntimeError as error:
        raise SimulationError(
            Text(
                "process {process} of {processes} could not connect to the other processes at "
                "{coordinator} ({reason})",
                process=process,
                processes=processes,
                coordinator=coordinator,
                reason=first_line(error),
            ),
            fix="start all processes with the same address",
        ) from error


def _is_loopback(host: str) -> bool:
    """Return whether an address is local to this machine: then others cannot connect."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@contextmanager
def aborting_in_one_line(line: str) -> Iterator[None]:
    """Print one line instead of a stack trace if JAX aborts the process because it lost its
    coordinator. The abort comes from a thread of XLA, so that the process itself cannot print.

    All output to stderr passes through a child process, which forwards everything else unchanged.
    """
    if not hasattr(os, "fork"):
        yield
        return
    sys.stderr.flush()
    source, end = os.pipe()
    stderr = os.dup(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about locks of other threads, unused in the child
        relay = os.fork()
    if relay == 0:
        os.close(end)
        _relay(source, stderr, line)
    os.close(source)
    os.dup2(end, 2)
    os.close(end)
    try:
        yield
    finally:
        # Nothing here may replace the exception that ends the context, nor a result.
        with suppress(OSError):
            sys.stderr.flush()
        with suppress(OSError):
            os.dup2(stderr, 2)
            os.close(stderr)
            os.waitpid(relay, 0)


def _relay(source: int, stderr: int, line: str) -> NoReturn:
    """Copy all lines in the child process up to the one by which XLA reports that it aborts."""
    try:
        gc.disable()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent reports Ctrl-C
        aborted = False
        with os.fdopen(source, "rb") as lines:
            for output_line in lines:
                if _ABORTS in output_line and not aborted:
                    aborted = True
                    os.write(stderr, f"{line}\n".encode())
                elif not aborted and _OF_PARTNERS.match(output_line) is None:
                    os.write(stderr, output_line)
    finally:
        os._exit(0)


#: Message of XLA when it aborts, and its messages about other processes before.
_ABORTS = b"JAX distributed service detected fatal errors"
_OF_PARTNERS = re.compile(
    rb"[EFWI]\d{4} .*(coordination_service|preemption_sync)|Additional GRPC error|:UNKNOWN:Error received"
)
_PATIENCE = 60  # seconds


def join(options: TrainOptions) -> None:
    """Join the other processes if the options specify any, unless this process has joined already.

    Call it before anything else uses JAX.
    """
    if options.processes > 1 and not jax.distributed.is_initialized():
        join_processes(str(options.coordinator), options.processes, options.process)


def make_devices(options: TrainOptions) -> None:
    """Split the CPU into as many JAX devices as the options require.

    Call it before anything else uses JAX: it has no effect once JAX has started, or if the user has
    set the number of devices. If there are several processes, each has one device.
    """
    config: Any = jax.config
    is_set = _COUNT_FLAG in os.environ.get("XLA_FLAGS", "") or config.jax_num_cpu_devices >= 0
    if is_set or options.processes > 1 or (options.devices or 1) == 1:
        return
    with suppress(RuntimeError):  # JAX has already started; `make_mesh` reports what to do
        config.update("jax_num_cpu_devices", options.devices)


#: XLA's flag for the number of devices that a CPU shows.
_COUNT_FLAG = "xla_force_host_platform_device_count"


def make_mesh(devices: int | None) -> Mesh | None:
    """Return the first `devices` devices, of all processes, as a mesh of one axis; None for a
    single one.

    Args:
        devices: number of devices; None: all with several processes, else one.

    Raises:
        UsageError: there are fewer devices.
    """
    everywhere = jax.devices()
    several = jax.process_count() > 1
    count = (len(everywhere) if several else 1) if devices is None else devices
    if count < 1 or count > len(everywhere):
        raise UsageError(
            Text(
                "{option} is {count}, and the number of devices that JAX sees is {available}",
                option=OPTIONS["devices"],
                count=count,
                available=len(everywhere),
            ),
            fix="pass at most that number; for more devices on a CPU call fit before anything else uses JAX,"
            f" or set XLA_FLAGS=--{_COUNT_FLAG}={max(count, 1)} before jax is imported",
        )
    if several and count != len(everywhere):
        raise UsageError(
            Text(
                "{option} is {count}, and the {processes} processes have {available} devices",
                option=OPTIONS["devices"],
                count=count,
                processes=jax.process_count(),
                available=len(everywhere),
            ),
            fix="use all devices, or leave the number out",
        )
    return None if count == 1 else Mesh(np.array(everywhere[:count]), (SAMPLES,))


def is_first() -> bool:
    """Return whether this process writes files and reports."""
    return jax.process_index() == 0


def shared_out(function: Callable[..., Any], mesh: Mesh | None, parts: int) -> Callable[..., Any]:
    """Return a function whose last arguments, `parts` of them, are arrays over samples, distributed
    over the devices.

    Its results must be the same on all devices: `over_devices` makes them so.
    """
    if mesh is None:
        return function

    def run(*arguments: Any) -> Any:
        replicated = len(arguments) - parts
        specs = (
            *(PartitionSpec() for _ in range(replicated)),
            *(PartitionSpec(SAMPLES) for _ in range(parts)),
        )
        shared = jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
        )
        return shared(*arguments)

    return run


def on_all(tree: Tree, mesh: Mesh | None) -> Tree:
    """Copy the arrays of a tree to all devices of the mesh, once, so that no call copies them.

    With several processes nothing is done: each has its own, and they are the same.
    """
    if mesh is None or jax.process_count() > 1:
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def on_host(tree: Tree, mesh: Mesh | None) -> Tree:
    """Return the arrays of a tree as NumPy arrays, once they are computed; unchanged without a
    mesh.

    The function waits for the results of all devices and copies them to the host, so that the devices
    never have more than one program to run.
    """
    if mesh is None:
        return tree
    return jax.device_get(jax.block_until_ready(tree))  # `block_until_ready` waits for all devices


def on_first(tree: Tree, mesh: Mesh | None) -> tuple[Tree, Mesh | None]:
    """Return the arrays of a tree, which all devices hold, on the first device, and no mesh: for
    work that is too short to be distributed. Both are unchanged with several processes.
    """
    if mesh is None or jax.process_count() > 1:
        return tree, mesh

    def first(array: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
        return array.addressable_data(0) if isinstance(array, jax.Array) else array

    return jax.tree.map(first, tree), None


def over_devices(sums: Tree, maxima: Other, mesh: Mesh | None) -> tuple[Tree, Other]:
    """Return sums of one tree and maxima of another over the devices, exchanged in one operation.

    All leaves travel as bits in one vector, and every device adds up the vectors of all devices in
    the same order, so that the results are the same bits everywhere. A single operation is used,
    because the devices wait for each other at each operation.

    Args:
        sums, maxima: trees of arrays, the same shapes on all devices.
        mesh: the devices; None: one, and nothing is done.
    """
    if mesh is None:
        return sums, maxima
    added, highest = (jax.tree.map(jnp.asarray, tree) for tree in (sums, maxima))
    leaves, form = jax.tree.flatten((added, highest))
    words = jnp.concatenate([_words(leaf) for leaf in leaves])
    parts = iter(_split(jax.lax.all_gather(words, SAMPLES), leaves))
    added, highest = jax.tree.unflatten(form, parts)
    return (
        jax.tree.map(lambda part: jnp.sum(part, axis=0, dtype=part.dtype), added),
        jax.tree.map(lambda part: jnp.max(part, axis=0), highest),
    )


def _words(leaf: jax.Array) -> UInt32[Array, "words"]:
    """Return the bits of an array as 32-bit words."""
    narrow = leaf.dtype.itemsize < _WORD
    carried = leaf.astype(_carrier(leaf.dtype)) if narrow else leaf
    return jax.lax.bitcast_convert_type(carried, jnp.uint32).reshape(-1)


def _split(
    gathered: UInt32[Array, "devices words"], leaves: Sequence[jax.Array]
) -> Iterator[jax.Array]:
    """Yield the arrays that were packed into vectors of bits, each with a leading device axis."""
    devices, start = len(gathered), 0
    for leaf in leaves:
        dtype = _carrier(leaf.dtype)
        per_number = dtype.itemsize // _WORD
        end = start + leaf.size * per_number
        numbers = (devices, *leaf.shape)
        shape = numbers if per_number == 1 else (*numbers, per_number)
        bits = gathered[:, start:end].reshape(shape)
        yield jax.lax.bitcast_convert_type(bits, dtype).astype(leaf.dtype)
        start = end


def _carrier(dtype: np.dtype) -> np.dtype:
    """Return the type in which numbers are exchanged: their own, or one of 32 bits that fits."""
    if dtype.itemsize >= _WORD:
        return dtype
    return np.dtype(np.float32 if jnp.issubdtype(dtype, jnp.floating) else np.int32)


_WORD = 4  # bytes
