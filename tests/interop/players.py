"""Plays files with the frameworks' own importers, from the line of Python that `convert` gives."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.nir import Graph, write
from jaxsnn.nir.convert.pipeline import Converted, convert


def needs_spyx() -> None:
    """Skip a test that runs Spyx, which has an environment of its own; where the page of all
    frameworks is written it has to be there.
    """
    if "INTEROP_DOCUMENT" not in os.environ:
        pytest.importorskip("spyx")
    importlib.import_module("spyx")


def play(line: str, framework: str, x: np.ndarray) -> np.ndarray:
    """Spikes (time, batch, *shape) of a file for spikes x (time, batch, *shape).

    Args:
        line: Loads the file; defines `net`, and for Spyx `y`.
        framework: Whose importer the line calls.
        x: Channels first.
    """
    logging.getLogger().setLevel(logging.ERROR)
    namespace: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        if framework == "spyx":
            import jax.numpy as jnp

            namespace["x"] = jnp.asarray(_channels_last(x), jnp.float32)
            exec(line, namespace)
            y = np.asarray(namespace["y"])
            return np.moveaxis(y, -1, 2) if y.ndim == 5 else y
        import torch

        with torch.no_grad():
            exec(line, namespace)
            return stepped(namespace["net"], x)


def import_and_play(
    graph: Graph, framework: str, x: np.ndarray, path: Path, **options: Any
) -> tuple[Converted, np.ndarray]:
    """Return the conversion of a graph, and what the framework gives for its file at `path`."""
    conversion = convert(graph, to=framework, path=str(path), **options)
    write(path, conversion.graph, force=True)
    return conversion, play(conversion.load_with, framework, x)


def run_in_steps(graph: Graph, x: np.ndarray) -> np.ndarray:
    """Return the outputs of the time-stepped engine in float32."""
    return np.asarray(simulate(lower(graph, dtype=np.float32), x, engine=TimeStepped()).output())


def shift_of(conversion: Converted) -> int:
    """Return by how many steps the outputs of a conversion are later."""
    return next(iter(conversion.shift.values()), 0)


def stepped(net: Any, x: np.ndarray) -> np.ndarray:
    """The outputs of a torch module that takes (input, state) and gives (output, state)."""
    import torch

    outputs, state = [], None
    with torch.no_grad():
        for frame in torch.as_tensor(x, dtype=torch.float32):
            out, state = net(frame, state)
            outputs.append(np.array(out.detach().numpy()))
    return np.stack(outputs)


def _channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 2, -1) if x.ndim == 5 else x


def compare(expected: np.ndarray, got: np.ndarray, shift: int) -> tuple[int, int, int]:
    """Trains that are identical, trains, and trains with a spike; `shift`: steps by which `got` is
    later.
    """
    expected, got = expected.reshape(*expected.shape[:2], -1), got.reshape(*got.shape[:2], -1)
    steps = len(expected) - abs(shift)
    late, early = (got[shift:], expected) if shift >= 0 else (got, expected[-shift:])
    same = (late[:steps] == early[:steps]).all(axis=0)
    return int(same.sum()), same.size, int((expected != 0).any(axis=0).sum())
