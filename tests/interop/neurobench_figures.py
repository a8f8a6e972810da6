"""Networks of snnTorch, and the metrics that the package `neurobench` computes for them.

`python -m tests.interop.neurobench_figures` writes tests/data/neurobench.json. It needs neurobench
2.3.0, which also installs tonic, in an environment of its own: nothing of this library is imported.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import snntorch
import torch

PATH = Path(__file__).parents[1] / "data" / "neurobench.json"


class Case(NamedTuple):
    """A network and its samples.

    Attributes:
        module: the network, with hidden states; the last layer returns (spikes, membrane).
        x: (time, batch, *shape).
        y: labels, (batch,).
        batch_size: samples that the package runs at once. It counts all inputs of a layer in one step of
            a batch as values if one of them is no spike.
    """

    module: torch.nn.Sequential
    x: np.ndarray
    y: np.ndarray
    batch_size: int


def _leaky(**options: Any) -> torch.nn.Module:
    return snntorch.Leaky(beta=0.9, init_hidden=True, **options)


def _with_weights(rng: np.random.Generator, module: torch.nn.Sequential, zeros: float) -> None:
    """Set random weights, mostly positive, a fraction of them zero, and small biases."""
    for layer in module.modules():
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        with torch.no_grad():
            if isinstance(weight, torch.Tensor):
                fan_in = weight[0].numel()
                values = rng.normal(1.5, 2.0, weight.shape) / fan_in**0.5
                values *= rng.random(weight.shape) >= zeros
                weight.copy_(torch.tensor(values))
            if isinstance(bias, torch.Tensor):
                bias.copy_(torch.tensor(rng.uniform(0.01, 0.05, bias.shape)))


def _case(
    seed: int,
    *layers: torch.nn.Module,
    shape: tuple[int, ...],
    analog: bool = False,
    batch_size: int = 1,
) -> Case:
    rng = np.random.default_rng(seed)
    module = torch.nn.Sequential(*layers)
    _with_weights(rng, module, zeros=0.3)
    x = (rng.random((25, 8, *shape)) < 0.3).astype(np.float32)
    if analog:  # steps with fractions, steps with spikes alone, and steps without anything
        x[::3] *= rng.choice([0.25, 1.0, -1.5], x[::3].shape)
        x[5:7] = 0
    return Case(module=module, x=x, y=rng.integers(0, 4, 8), batch_size=batch_size)


def _dense(**options: Any) -> Case:
    layers = torch.nn.Linear(6, 10), _leaky(), torch.nn.Linear(10, 4), _leaky(output=True)
    return _case(0, *layers, shape=(6,), **options)


def _convolutions() -> Case:
    return _case(
        1,
        torch.nn.Conv2d(1, 4, 3, padding=1, bias=False),
        _leaky(),
        torch.nn.AvgPool2d(2),
        torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        _leaky(),
        torch.nn.Flatten(),
        torch.nn.Linear(6 * 2 * 2, 4),
        _leaky(output=True),
        shape=(1, 8, 8),
    )


def _convolution_1d() -> Case:
    return _case(
        2,
        torch.nn.Conv1d(2, 3, 3, stride=2, dilation=2, padding=1),
        _leaky(),
        torch.nn.Flatten(),
        torch.nn.Linear(3 * 4, 4, bias=False),
        _leaky(output=True),
        shape=(2, 9),
    )


def _recurrent() -> Case:
    return _case(
        3,
        torch.nn.Linear(6, 9),
        snntorch.RLeaky(beta=0.9, linear_features=9, init_hidden=True),
        torch.nn.Linear(9, 4),
        _leaky(output=True),
        shape=(6,),
    )


def _synaptic() -> Case:
    neurons = snntorch.Synaptic(alpha=0.8, beta=0.9, init_hidden=True)
    layers = torch.nn.Linear(6, 10), neurons, torch.nn.Linear(10, 4), _leaky(output=True)
    return _case(4, *layers, shape=(6,))


def _chain() -> Case:
    """Two weight matrices without neurons between them: the second has operations on values."""
    layers = torch.nn.Linear(6, 5, bias=False), torch.nn.Linear(5, 4), _leaky(output=True)
    return _case(5, *layers, shape=(6,))


CASES: dict[str, Callable[[], Case]] = {
    "dense": _dense,
    "dense, in batches of 4": lambda: _dense(batch_size=4),
    "analog input": lambda: _dense(analog=True),
    "convolutions and a pool": _convolutions,
    "convolution in one dimension": _convolution_1d,
    "recurrent": _recurrent,
    "synaptic": _synaptic,
    "matrix after matrix": _chain,
}


def recorded() -> dict[str, dict[str, Any]]:
    """Return the metrics of all cases, as the package computes them."""
    from neurobench.benchmarks import Benchmark  # pyright: ignore[reportMissingImports]
    from neurobench.metrics.static import (  # pyright: ignore[reportMissingImports]
        ConnectionSparsity,
        Footprint,
    )
    from neurobench.metrics.workload import (  # pyright: ignore[reportMissingImports]
        ActivationSparsity,
        ClassificationAccuracy,
        SynapticOperations,
    )
    from neurobench.models import SNNTorchModel  # pyright: ignore[reportMissingImports]
    from neurobench.processors.postprocessors import (  # pyright: ignore[reportMissingImports]
        ChooseMaxCount,
    )

    metrics = (
        [Footprint, ConnectionSparsity],
        [ActivationSparsity, SynapticOperations, ClassificationAccuracy],
    )
    results = {}
    for name, make in CASES.items():
        case = make()
        samples = torch.utils.data.TensorDataset(
            torch.tensor(case.x).transpose(0, 1), torch.tensor(case.y)
        )
        loader = torch.utils.data.DataLoader(samples, batch_size=case.batch_size)
        model = SNNTorchModel(case.module)
        benchmark = Benchmark(model, loader, [], [ChooseMaxCount()], metrics)
        with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            results[name] = benchmark.run(quiet=True)
    return results


if __name__ == "__main__":
    packages = {name: version(name) for name in ("neurobench", "snntorch", "torch")}
    PATH.write_text(json.dumps({"packages": packages, "cases": recorded()}, indent=2) + "\n")
