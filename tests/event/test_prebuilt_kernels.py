"""Kernels that an installed wheel contains: which library is loaded, and what happens without one."""

import ctypes
import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import types
import warnings
from pathlib import Path

import jax
import pytest

from jaxsnn.console import progress_reports
from jaxsnn.errors import EnvironmentWarning
from jaxsnn.event.native import kernel_compiler, native_build, native_limits
from jaxsnn.event.native.native_build import native_library

ROOT = Path(__file__).parents[2]
V3 = "flags : sse4_2 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A folder for prebuilt libraries, on a processor with AVX-512, with no variable set."""
    folder = tmp_path / "prebuilt"
    for module in (kernel_compiler, native_build):
        monkeypatch.setattr(module, "PREBUILT", folder)
    for name in ("CXX", "JAXSNN_CXXFLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(kernel_compiler, "cpu_features", lambda: V4)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    folder.mkdir()
    return folder


def built_library():
    """The path of the library that this process uses."""
    path = native_library("float32").path
    assert path is not None
    return path


@pytest.mark.parametrize(
    ("features", "levels"),
    [
        (V4, ["x86-64-v4", "x86-64-v3", "x86-64-v2"]),
        (V4.replace(" avx512vl", ""), ["x86-64-v3", "x86-64-v2"]),
        (V3.replace(" abm", ""), ["x86-64-v2"]),
        ("", ["x86-64-v2"]),
    ],
)
def test_a_processor_gets_the_levels_whose_features_it_has(features, levels, wheel, monkeypatch):
    monkeypatch.setattr(kernel_compiler, "cpu_features", lambda: features)
    assert kernel_compiler.supported_levels() == levels


@pytest.mark.parametrize(("machine", "levels"), [("arm64", ["generic"]), ("riscv64", [])])
def test_other_machines_have_one_level_or_none(machine, levels, wheel, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert kernel_compiler.supported_levels() == levels


def test_the_fastest_library_of_the_wheel_is_loaded(wheel, monkeypatch, native_kernels):
    # JAX refuses the kernels of a second library in one process.
    monkeypatch.setattr(native_build, "_register", lambda library, dtype: library)
    built = built_library()
    for level in ("x86-64-v2", "x86-64-v3"):
        shutil.copy(built, kernel_compiler.prebuilt_path("float32", level))
    kernel_compiler.prebuilt_path("float64", "x86-64-v4").write_bytes(b"of another type")
    library = native_library.__wrapped__("float32")
    assert (library.there, library.level) == (True, "x86-64-v3")
    assert library.path == kernel_compiler.prebuilt_path("float32", "x86-64-v3")


def test_a_library_of_other_sources_is_not_loaded(wheel, tmp_path, monkeypatch, native_kernels):
    shutil.copy(built_library(), kernel_compiler.prebuilt_path("float32", "x86-64-v4"))
    changed = tmp_path / "source"
    shutil.copytree(kernel_compiler.SOURCES, changed)
    (changed / "queue.h").write_text("// changed\n")
    monkeypatch.setattr(kernel_compiler, "SOURCES", changed)
    assert isinstance(native_build._load_prebuilt("float32"), str)


def test_compiler_flags_of_the_user_take_precedence(wheel, monkeypatch, native_kernels):
    shutil.copy(built_library(), kernel_compiler.prebuilt_path("float32", "x86-64-v4"))
    monkeypatch.setenv("JAXSNN_CXXFLAGS", "-O1")
    assert "JAXSNN_CXXFLAGS" in native_build._load_prebuilt("float32")


def test_a_compiler_that_an_environment_sets_is_not_called(wheel, monkeypatch, native_kernels):
    monkeypatch.setattr(native_build, "_register", lambda library, dtype: library)
    shutil.copy(built_library(), kernel_compiler.prebuilt_path("float32", "x86-64-v4"))
    monkeypatch.setenv("CXX", "/opt/conda/bin/x86_64-conda-linux-gnu-c++")
    monkeypatch.setattr(native_build, "find_compiler", lambda: pytest.fail("looked for a compiler"))
    assert native_library.__wrapped__("float32").level == "x86-64-v4"


def test_a_damaged_library_of_the_wheel_is_reported_and_replaced(wheel, native_kernels):
    path = kernel_compiler.prebuilt_path("float32", "x86-64-v4")
    path.write_bytes(b"no library")
    with pytest.warns(EnvironmentWarning, match=path.name):
        library = native_library.__wrapped__("float32")
    assert (library.there, library.level) == (True, "")
    assert path.name in library.reason


class _Metadata(ctypes.Structure):
    """XLA_FFI_Metadata with the first fields of its XLA_FFI_Api_Version."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("version_size", ctypes.c_size_t),
        ("version_extension", ctypes.c_void_p),
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
    )


class _Extension(ctypes.Structure):
    """XLA_FFI_Metadata_Extension."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(_Metadata)),
    )


class _CallFrame(ctypes.Structure):
    """The first fields of XLA_FFI_CallFrame."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.POINTER(_Extension)),
    )


def library_of_another_interface():
    """A library whose kernels answer, when JAX asks them, that they were compiled for version 0.99 of
    the interface.
    """

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_CallFrame))
    def kernel(frame):
        metadata = frame[0].extension[0].metadata[0]
        metadata.major, metadata.minor = 0, 99

    return types.SimpleNamespace(**dict.fromkeys(native_build.TARGETS, kernel))


def choice_of_library():
    """What replaces the library of a wheel for another version of JAX's interface, and a sum by JAX."""
    # This file takes the place of the library.
    native_build.supported_levels = lambda: ["x86-64-v2"]
    native_build.prebuilt_path = lambda dtype, level: Path(__file__)
    incompatible = library_of_another_interface()
    load = ctypes.CDLL
    ctypes.CDLL = lambda name: incompatible if name == __file__ else load(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        library = native_library("float32")
    categories = [warning.category.__name__ for warning in caught]
    total = float(jax.numpy.ones(3).sum())
    return library.there, library.level, "0.99" in library.reason, categories, total


@pytest.mark.parametrize("has_compiler", [True, False])
def test_a_library_of_another_version_of_jax_is_reported_and_replaced(
    has_compiler, run_python, tmp_path, native_kernels
):
    # A fresh process, in which JAX has not started its CPU backend.
    code = "from tests.event.test_prebuilt_kernels import choice_of_library; print(choice_of_library())"
    empty = {} if has_compiler else {"PATH": str(tmp_path), "CXX": ""}
    choice = run_python(code, JAXSNN_CXXFLAGS="", **empty).stdout
    assert choice == f"({has_compiler}, '', True, ['EnvironmentWarning'], 3.0)\n"


def test_without_a_compiler_the_reason_names_both(wheel, monkeypatch):
    monkeypatch.setattr(native_build, "find_compiler", lambda: None)
    wheel.rmdir()
    library = native_library.__wrapped__("float32")
    assert not library.there
    assert "no C++ compiler" in library.reason
    assert "no prebuilt kernels" in library.reason
    assert library.fix


def test_the_slower_backend_is_reported_once():
    native_limits._warn_of_slower_backend.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            native_limits._warn_of_slower_backend("no C++ compiler", "install a C++ compiler")
    assert [warning.category for warning in caught] == [EnvironmentWarning]
    assert "no C++ compiler" in str(caught[0].message)
    native_limits._warn_of_slower_backend.cache_clear()


@pytest.mark.parametrize("quiet", [True, False])
def test_compiling_is_announced_on_stderr_unless_the_command_is_quiet(
    quiet, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(native_build, "compile_library", lambda *_: None)
    with progress_reports(not quiet):
        native_build._compile("c++", "float32", tmp_path / "library.so")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == (0 if quiet else 2)


# -- building a wheel


@pytest.fixture
def hook(monkeypatch, tmp_path):
    """A build hook, with a stand-in for hatchling, which is not a dependency of the tests."""
    interface = types.ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = object  # pyright: ignore[reportAttributeAccessIssue]
    parts = interface.__name__.split(".")
    for length in range(1, len(parts)):
        name = ".".join(parts[:length])
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    path = ROOT / "build_backend" / "build_hook.py"
    spec = importlib.util.spec_from_file_location("build_hook_of_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hook = module.KernelBuildHook()
    hook.warnings = []
    hook.app = types.SimpleNamespace(
        display_warning=hook.warnings.append, display_info=lambda line: None
    )
    builder = types.SimpleNamespace(get_best_matching_tag=lambda: "cp311-cp311-linux_x86_64")
    hook.build_config = types.SimpleNamespace(builder=builder)
    compiler = module.kernel_compiler()
    monkeypatch.setattr(compiler, "find_compiler", lambda: "c++")
    monkeypatch.setattr(compiler, "cpu_features", lambda: V3)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.delenv("JAXSNN_WHEEL_LEVELS", raising=False)

    def compile_library(compiler, dtype, output, headers, flags):
        output.write_text(f"{dtype} {flags}")

    monkeypatch.setattr(compiler, "compile_library", compile_library)
    hook.compiler = compiler
    return hook


def build_data():
    return {"force_include": {}, "pure_python": True}


@pytest.mark.parametrize(
    ("setting", "levels"), [("", {"v3"}), ("all", {"v2", "v3", "v4"})], ids=["this machine", "all"]
)
def test_a_wheel_contains_both_types_for_its_levels(setting, levels, hook, monkeypatch):
    monkeypatch.setenv("JAXSNN_WHEEL_LEVELS", setting)
    data = build_data()
    hook.initialize("standard", data)
    included = {Path(target).name: Path(path) for path, target in data["force_include"].items()}
    licence = included.pop("LICENSE.XLA.txt")
    assert "Apache License" in licence.read_text()
    assert {(name.split("-")[1], name.split("-")[4]) for name in included} == {
        (dtype, level) for dtype in ("float32", "float64") for level in levels
    }
    assert (data["tag"], data["pure_python"]) == ("py3-none-linux_x86_64", False)
    assert all(library.exists() for library in included.values())
    hook.finalize("standard", data, "x.whl")
    assert not any(library.exists() for library in included.values())
    assert licence.exists()


def test_a_released_wheel_needs_the_licence_of_the_headers(hook, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    hook.initialize("standard", build_data())
    monkeypatch.setenv("JAXSNN_WHEEL_LEVELS", "all")
    with pytest.raises(RuntimeError):
        hook.initialize("standard", build_data())


def test_a_wheel_without_a_compiler_is_pure_and_says_so(hook, monkeypatch):
    monkeypatch.setattr(hook.compiler, "find_compiler", lambda: None)
    data = build_data()
    hook.initialize("standard", data)
    assert data == build_data()
    assert len(hook.warnings) == 1
    monkeypatch.setenv("JAXSNN_WHEEL_LEVELS", "all")
    with pytest.raises(RuntimeError):
        hook.initialize("standard", data)


def test_an_editable_install_compiles_nothing(hook, monkeypatch):
    monkeypatch.setattr(hook.compiler, "compile_library", lambda *_: pytest.fail("compiled"))
    data = build_data()
    hook.initialize("editable", data)
    hook.finalize("editable", data, "x.whl")
    assert data == build_data()
