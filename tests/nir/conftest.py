"""What an HDF5 file holds, to the last bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.hdf5_entries import entries_of


@pytest.fixture(scope="session")
def entries() -> Callable[[Path], dict[str, Any]]:
    """Everything that an HDF5 file holds."""
    return entries_of
