"""The kernels on machines with shorter vectors, or without their instructions, against XLA's backend."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxsnn.event.native.kernel_compiler import SOURCES, UNITS, find_compiler

MACHINES = {
    "AVX-512": "-march=x86-64-v4",
    "AVX2": "-march=x86-64-v3",
    "SSE4": "-march=x86-64-v2",
    # A machine whose vector instructions the kernels do not know.
    "plain": "-march=x86-64-v2 -U__SSE2__",
}
TESTS = (
    "both_backends_agree or float32_is_as_exact or threads_changes_no_bit or just_reaches or "
    "every_number_goes or earliest or a_stream_fires_what_a_simulation or pieces_of_any_size or "
    "loop_agrees or whole_networks_agree"
)


pytestmark = pytest.mark.usefixtures("native_kernels")

#: Feature that the processor needs to run them, as Linux names it.
NEEDS = {"AVX-512": "avx512vl", "AVX2": "avx2", "SSE4": "sse4_2", "plain": "sse4_2"}


def flags_of(machine):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"compilers for {platform.machine()} do not know {MACHINES[machine]}")
    return MACHINES[machine].split()


@pytest.mark.parametrize(("machine", "numbers"), [("AVX2", "float"), ("plain", "double")])
def test_the_kernels_compile_for_other_machines(machine, numbers):
    command = [find_compiler(), "-std=c++17", "-fsyntax-only", "-w", *flags_of(machine)]
    command += [f"-DNUMBER={numbers}", f"-I{jax.ffi.include_dir()}"]
    command += [str(SOURCES / unit) for unit in UNITS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_other_machines_fire_the_same_spikes(machine, tmp_path):
    flags, needed = flags_of(machine), NEEDS[machine]
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists() and needed not in cpu_info.read_text().split():
        pytest.skip(f"this processor does not know {needed}")
    files = (
        "native",
        "native_weights",
        "native_places",
        "native_groups",
        "native_readout",
        "streaming",
    )
    folder = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", TESTS]
        + [str(folder / f"test_{name}.py") for name in files],
        env={**os.environ, "JAXSNN_CXXFLAGS": " ".join(flags), "JAXSNN_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert len(list(tmp_path.rglob("*.so"))) == 2
    assert "skipped" not in done.stdout.splitlines()[-1]  # tests without kernels would be skipped
