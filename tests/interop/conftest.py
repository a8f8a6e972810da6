"""One thread for torch, and a way to convert, load and simulate."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxsnn.nir import Graph
from jaxsnn.nir.convert.pipeline import Converted
from tests.interop.players import compare, import_and_play, shift_of


@pytest.fixture(autouse=True)
def one_thread(one_torch_thread: None) -> None:
    """In every test here."""


@pytest.fixture
def converts(tmp_path: Path) -> Callable[..., Converted]:
    """`converts(graph, target, x, y)`: the target's importer must fire y; gives the conversion."""

    def check(graph: Graph, target: str, x: np.ndarray, y: np.ndarray) -> Converted:
        conversion, spikes = import_and_play(graph, target, x, tmp_path / "converted.nir")
        identical, trains, active = compare(y, spikes, shift_of(conversion))
        assert active >= trains / 4, (
            f"only {active} of {trains} trains have a spike: they prove little"
        )
        assert y.mean() < 0.9
        assert identical >= 0.99 * trains, f"{identical} of {trains} trains are identical"
        assert conversion.losses == ()
        return conversion

    return check
