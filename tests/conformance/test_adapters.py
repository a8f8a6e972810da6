"""Which adapters and cells a run takes, and which it refuses."""

import numpy as np
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


def test_a_module_that_takes_its_state_gets_it():
    torch = pytest.importorskip("torch")
    from jaxsnn.conformance.torch_modules import run_stateful

    class Sum(torch.nn.Module):
        def forward(self, x, state=None):
            total = x if state is None else state + x
            return total, total

    y = run_stateful(Sum(), np.ones((3, 1, 1), np.float32))
    assert y.ravel().tolist() == [1, 2, 3]
