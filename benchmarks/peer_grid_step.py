"""Times a training step of the time-stepped engine beside snnTorch and Norse, on the same network,
interleaved, in one run.

    python benchmarks/peer_grid_step.py        # needs the interop extra

5-120-3, 100 steps, a batch of 64, cross-entropy of spike counts, Adam. Each network is written by
its framework and read from what it wrote; its spikes and its gradients are compared before anything
is timed.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import norse.torch as norse
import numpy as np
import optax
import snntorch
import torch
from norse.torch.functional.lif_box import LIFBoxParameters
from norse.torch.module.lif_box import LIFBoxCell
from norse.torch.utils.export_nir import to_nir
from snntorch import surrogate, utils
from snntorch.export_nir import export_to_nir

from jaxsnn import FastSigmoid, TimeStepped, lower, parse, simulate
from jaxsnn.units import format_time

STEPS, BATCH, SIZES, RATE = 100, 64, (5, 120, 3), 1e-3
IN_A_ROW = 20


def snntorch_network() -> tuple[torch.nn.Module, dict]:
    """Two Leaky layers, and how to read what snnTorch's exporter writes of them."""

    def leaky(size):
        options = {"spike_grad": surrogate.fast_sigmoid(slope=25), "init_hidden": True}
        return snntorch.Leaky(
            beta=torch.full((size,), 0.9), threshold=torch.full((size,), 0.5), **options
        )

    layers = (
        torch.nn.Linear(*SIZES[:2]),
        leaky(SIZES[1]),
        torch.nn.Linear(*SIZES[1:]),
        leaky(SIZES[2]),
    )
    return torch.nn.Sequential(*layers), {
        "dialect": "snntorch",
        "reset": "subtract",
        "reset_delay": True,
    }


def norse_network() -> tuple[torch.nn.Module, dict]:
    """Two LIFBoxCell layers, likewise."""

    def box(size):
        others = {"v_th": torch.full((size,), 0.05), "v_leak": torch.zeros(size)}
        return LIFBoxCell(LIFBoxParameters(tau_mem_inv=torch.full((size,), 100.0), **others))

    layers = torch.nn.Linear(*SIZES[:2]), box(SIZES[1]), torch.nn.Linear(*SIZES[1:]), box(SIZES[2])
    return norse.SequentialState(*layers), {"dialect": "norse", "dt": 1e-3, "dt_export": 1e-3}


def torch_counts(kind: str, network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Spikes that leave the network, (steps, batch, outputs)."""
    outputs, state = [], None
    if kind == "snntorch":
        utils.reset(network)
        outputs = [network(frame) for frame in x]
    else:
        for frame in x:
            spikes, state = network(frame, state)
            outputs.append(spikes)
    return torch.stack(outputs)


def torch_step(
    kind: str, network: torch.nn.Module, x: np.ndarray, labels: np.ndarray
) -> Callable[[], None]:
    """A training step of a framework."""
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    signal, targets = torch.as_tensor(x), torch.as_tensor(labels)

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(
            torch_counts(kind, network, signal).sum(0), targets
        ).backward()
        optimizer.step()

    return step


def our_loss(network, x, labels, slope):
    """Loss as a function of the weights."""

    def loss(weights):
        changed = network.with_parameters({**network.parameters, **weights})
        y = simulate(
            changed, x, engine=TimeStepped(surrogate=FastSigmoid(slope=slope)), throw=False
        ).output()
        return optax.softmax_cross_entropy_with_integer_labels(y.sum(axis=0), labels).mean()

    return loss


def our_step(weights, loss) -> Callable[[], None]:
    """The same training step of the time-stepped engine."""
    optimizer = optax.adam(RATE)

    @jax.jit
    def update(weights, state):
        changes, state = optimizer.update(jax.grad(loss)(weights), state)
        return optax.apply_updates(weights, changes), state

    kept = [weights, optimizer.init(weights)]

    def step():
        kept[:] = jax.block_until_ready(update(*kept))

    return step


def compare(kind: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """Training steps of a framework and of ours; equal spikes and gradients are made sure of.

    Raises:
        SystemExit: they differ.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = (rng.random((STEPS, BATCH, SIZES[0])) < 0.3).astype(np.float32)
    labels = rng.integers(0, SIZES[2], BATCH)
    theirs, options = {"snntorch": snntorch_network, "norse": norse_network}[kind]()
    sample = torch.zeros(1, SIZES[0])
    written = (
        export_to_nir(theirs, sample, ignore_dims=[0])
        if kind == "snntorch"
        else to_nir(theirs, sample)
    )
    network = lower(parse(written, **options))
    names = [wire.name for wire in network.wires if wire.kind == "Affine"]
    weights = {name: network.parameters[name] for name in names}
    expected = torch_counts(kind, theirs, torch.as_tensor(x)).detach().numpy()
    if (
        not np.array_equal(simulate(network, x, engine=TimeStepped()).output(), expected)
        or not expected.any()
    ):
        raise SystemExit(f"{kind}: the spikes differ, or there are none")
    counts = torch_counts(kind, theirs, torch.as_tensor(x)).sum(0)
    torch.nn.functional.cross_entropy(counts, torch.as_tensor(labels)).backward()
    # Norse's SuperSpike is a fast sigmoid of slope 1, whatever its alpha.
    loss = our_loss(
        network, jnp.asarray(x), jnp.asarray(labels), {"snntorch": 25.0, "norse": 1.0}[kind]
    )
    ours = jax.grad(loss)(weights)
    layers = [module for module in theirs.modules() if isinstance(module, torch.nn.Linear)]
    for name, layer in zip(names, layers, strict=True):
        slope = layer.weight.grad.numpy()
        if np.linalg.norm(ours[name]["weight"] - slope) > 1e-3 * np.linalg.norm(slope):
            raise SystemExit(f"{kind}: the gradients of {name} differ")
    return torch_step(kind, theirs, x, labels), our_step(weights, loss)


def seconds_of(step: Callable[[], None], repeats: int = IN_A_ROW) -> float:
    """Seconds of a training step, in a row of some."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def fastest_threads(step: Callable[[], None]) -> int:
    """The number of threads with which torch is fastest."""
    found = {}
    for threads in range(1, (os.cpu_count() or 1) + 1):
        torch.set_num_threads(threads)
        step()
        found[threads] = min(seconds_of(step, 2) for _ in range(3))
    return min(found, key=found.__getitem__)


def main() -> None:
    """Print a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=5, help="of twenty training steps of each library"
    )
    parser.add_argument(
        "--threads", type=int, help="threads of torch; default: as many as are fastest"
    )
    arguments = parser.parse_args()
    for kind in ("snntorch", "norse"):
        steps = dict(zip((kind, "jaxsnn"), compare(kind), strict=True))
        threads = arguments.threads or fastest_threads(steps[kind])
        torch.set_num_threads(threads)
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(arguments.rounds + 1):  # the first round compiles
            for name, step in steps.items():
                seconds[name].append(seconds_of(step))
        medians = {name: statistics.median(found[1:]) for name, found in seconds.items()}
        best = {name: min(found[1:]) for name, found in seconds.items()}
        words = ", ".join(f"{name} {format_time(found)}" for name, found in medians.items())
        ratios = (found[kind] / found["jaxsnn"] for found in (medians, best))
        note = "{:.1f} times faster (best of each: {:.1f} times), torch with {} threads"
        print(f"{words}: {note.format(*ratios, threads)}")


if __name__ == "__main__":
    main()
