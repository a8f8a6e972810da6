"""The scripts of examples/ do what the package relies on."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.helpers.command_line import DEMO_NET

ROOT = Path(__file__).parents[2]


def datasets(path: Path) -> dict[str, np.ndarray]:
    """Every dataset of an HDF5 file by its full name."""
    files = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                files.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return files


@pytest.mark.interop
def test_the_shipped_network_is_what_snntorch_exports(tmp_path):
    written = tmp_path / "again.nir"
    script = ROOT / "examples" / "export_snntorch.py"
    subprocess.run([sys.executable, script, written], check=True, timeout=120)

    again, shipped = datasets(written), datasets(DEMO_NET)
    assert list(again) == list(shipped)
    for name, value in shipped.items():
        assert np.asarray(again[name]).dtype == np.asarray(value).dtype, name
        if np.asarray(value).dtype.kind == "f":
            # Random normal numbers of torch differ in the last bits between instruction sets.
            np.testing.assert_allclose(again[name], value, rtol=1e-5, atol=1e-9, err_msg=name)
        else:
            np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_the_shipped_network_has_two_populations_at_a_ratio_of_exactly_two():
    shipped = datasets(DEMO_NET)
    assert shipped["node/nodes/fc1/weight"].shape == (120, 5)
    assert shipped["node/nodes/fc2/weight"].shape == (3, 120)
    for name in ("lif1", "lif2"):
        tau_mem, tau_syn = (shipped[f"node/nodes/{name}/{tau}"] for tau in ("tau_mem", "tau_syn"))
        np.testing.assert_array_equal(tau_mem, 2 * tau_syn)
        assert set(shipped[f"node/nodes/{name}/r"]) == {128.0}
        assert set(shipped[f"node/nodes/{name}/w_in"]) == {64.0}
