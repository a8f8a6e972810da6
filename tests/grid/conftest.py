"""The zoo's files, with the recordings of what their frameworks play."""

from pathlib import Path

import numpy as np
import pytest

from jaxsnn.nir import read
from tests.nir.conftest import zoo as zoo
from tests.nir.test_zoo import FACTS, options_of

RECORDED = tuple(name for name in FACTS if "spikes" in FACTS[name])


@pytest.fixture(scope="session")
def recordings():
    """Recordings by name: what went in (time, batch, *shape) and what came out."""
    with np.load(Path(__file__).parents[1] / "data" / "recordings.npz") as file:
        packed = {key: file[key] for key in file.files}
    found = {}
    for name in RECORDED:
        key = f"x{packed[f'{name}.x']}"
        shape = tuple(packed[f"{key}.shape"])
        x = np.unpackbits(packed[key], count=int(np.prod(shape))).reshape(shape).astype(bool)
        found[name] = (x, packed[f"{name}.y"].astype(np.float32))
    return found


@pytest.fixture
def recorded(zoo, recordings):
    """`recorded(name, **options)`: a graph read with all that its file does not say, the
    recording's x and y.
    """

    def load(name, **options):
        graph = read(zoo[name], dialect=FACTS[name]["framework"], **{**options_of(name), **options})
        return graph, *recordings[name]

    return load
