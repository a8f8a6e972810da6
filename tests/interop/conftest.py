"""One thread for torch, and a way to convert, load and simulate."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxsnn.nir import Graph, write
from jaxsnn.nir.convert.pipeline import Converted, convert
from tests.interop.players import compare, play


@pytest.fixture(autouse=True)
def one_thread(one_torch_thread: None) -> None:
    """In every test here."""


@pytest.fixture
def converts(tmp_path: Path) -> Callable[..., Converted]:
    """`converts(graph, target, x, y)`: the target's importer must fire y; gives the conversion."""

    def check(graph: Graph, target: str, x: np.ndarray, y: np.ndarray) -> Converted:
        path = tmp_path / "converted.nir"
        made = convert(graph, to=target, path=str(path))
        write(path, made.graph)
        got = play(made.load_with, target, x)
        shift = next(iter(made.shift.values()), 0)
        identical, trains, active = compare(y, got, shift)
        assert active >= trains / 4, (
            f"only {active} of {trains} trains have a spike: they prove little"
        )
        assert y.mean() < 0.9
        assert identical >= 0.99 * trains, f"{identical} of {trains} trains are identical"
        assert made.losses == ()
        return made

    return check
