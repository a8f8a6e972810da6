"""What several tests of the event engine share."""

from collections.abc import Iterator

import pytest

from jaxsnn.event.adjoint import arrival_tiles, arrivals_back
from jaxsnn.event.forward import simulate_layer


@pytest.fixture(scope="module")
def minor_from_8() -> Iterator[None]:
    """From 8 neurons on these are the last axis, and not from `MINOR_NEURONS` on: small populations
    test both layouts.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (simulate_layer, arrival_tiles, arrivals_back):
            patch.setattr(module, "MINOR_NEURONS", 8)
        yield
