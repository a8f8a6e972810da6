"""One thread for torch, and a way to convert, load and play."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from jaxsnn.nir import Graph, write
from jaxsnn.nir.convert import Converted, convert
from tests.grid.conftest import recorded as recorded
from tests.grid.conftest import recordings as recordings
from tests.interop.players import compare, play
from tests.nir.conftest import zoo as zoo


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More threads only wait for each other on networks of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
