"""Which adapters and cells a run takes, and which it refuses."""

import pytest

from jaxsnn.conformance import adapter_of, run
from jaxsnn.errors import UsageError
from tests.conformance.faulty import Simulator


def test_a_name_without_a_cell_is_refused():
    with pytest.raises(UsageError, match="LIFF"):
        run(Simulator(), only="import/LIFF/")


@pytest.mark.parametrize(
    "name", ["snntorc", "nowhere:ADAPTER", "tests.conformance.faulty:Simulator"]
)
def test_what_is_no_adapter_is_refused(name):
    with pytest.raises(UsageError):
        adapter_of(name)
