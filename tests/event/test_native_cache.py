"""Libraries in the cache folder: built once, whole or built again, and the truth of what is not there."""

import os
import subprocess
import sys
import threading
import time

import pytest

from jaxsnn import stream
from jaxsnn.errors import LoweringError
from jaxsnn.event.native import native_build
from jaxsnn.event.native.native_build import _built, native_library
from jaxsnn.event.native.native_cache import cache_folder, is_intact, locked_build
from tests.event.test_native import current_based, network
from tests.helpers.refusals import assert_refused


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler that takes no time; `calls` counts what it built."""
    if os.name == "nt":
        pytest.skip("the compiler is a script of a shell")
    script, calls = tmp_path / "compiler", tmp_path / "calls"
    calls.touch()
    last = "for last; do :; done"
    lines = '[ "$1" = --version ] && exit', last, f"echo x >> {calls}", 'echo no library > "$last"'
    script.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("JAXSNN_CACHE_DIR", str(tmp_path / "cache"))
    return script


def calls(compiler):
    return len(compiler.with_name("calls").read_text().split())


DAMAGES = {
    "cut": lambda path: os.truncate(path, 3),
    "empty": lambda path: path.write_bytes(b""),
    "another byte": lambda path: path.write_bytes(b"No library\n"),
    "no record": lambda path: path.with_suffix(".sum").unlink(),
    "a broken record": lambda path: path.with_suffix(".sum").write_bytes(b"\xff\x00"),
    "an empty record": lambda path: path.with_suffix(".sum").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_library_is_built_again(damage, compiler):
    path = _built(str(compiler), "float32")
    assert _built(str(compiler), "float32") == path
    assert calls(compiler) == 1
    DAMAGES[damage](path)
    assert _built(str(compiler), "float32") == path
    assert path.read_text() == "no library\n"
    assert is_intact(path)
    assert calls(compiler) == 2
    assert sorted(file.suffix for file in path.parent.iterdir()) == [".so", ".sum"]


def test_a_cut_library_is_replaced_before_it_is_loaded(run_python, compiler, native_kernels):
    """Loading it would be a bus error."""
    there = native_library("float32").path
    text = compiler.read_text().replace("echo no library >", f"cp {there}")
    compiler.write_text(text)
    code = "from jaxsnn.event.native.native_build import native_library\nprint(native_library().reason)"
    path = _built(str(compiler), "float32")
    os.truncate(path, path.stat().st_size // 2)
    assert run_python(code).stdout.strip() == f"built by {compiler} into {path}"
    assert calls(compiler) == 2


def test_a_library_that_cannot_be_loaded_is_built_again_once(compiler):
    for _ in range(2):
        library = native_library.__wrapped__("float32")
        assert not library.there
        assert ".so cannot be loaded: " in library.reason
        assert "folder from which programs may be executed" in library.fix
        assert calls(compiler) == 2


def test_a_compiler_that_fails_is_reported(compiler, tmp_path):
    compiler.write_text("#!/bin/sh\necho 'x.cc: error: no such luck' >&2\nexit 1\n")
    assert "could not build the native kernels" in native_library.__wrapped__("float32").reason
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_of_several_processes_one_builds(compiler, tmp_path):
    compiler.write_text(compiler.read_text().replace("echo x", "sleep 1\necho x"))
    code = f"from jaxsnn.event.native.native_build import _built\nprint(_built('{compiler}', 'float32').exists())"
    builders = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [builder.communicate()[0].strip() for builder in builders] == ["True", "True"]
    assert calls(compiler) == 1
    assert list((tmp_path / "cache").rglob("*.lock")) == []


def test_a_folder_that_cannot_be_written_is_named(compiler, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXSNN_CACHE_DIR", str(tmp_path / "file"))
    library = native_library.__wrapped__("float32")
    assert (
        f"the native kernels cannot be stored in {tmp_path / 'file'} (JAXSNN_CACHE_DIR): "
        in library.reason
    )
    monkeypatch.setattr("jaxsnn.event.streaming.native_library", lambda dtype: library)
    net = network(current_based())
    fix = "set JAXSNN_CACHE_DIR to a writable folder"
    assert_refused(
        lambda: stream(net), LoweringError, "cannot be stored", code="no-native", fix=fix
    )


@pytest.mark.parametrize(("setting", "folder"), [(".", "."), ("lib", "lib"), ("~/lib", "home/lib")])
def test_folders_are_whole_paths(setting, folder, tmp_path, monkeypatch):
    """The system looks for a library without a slash in its name elsewhere."""
    monkeypatch.chdir(tmp_path)
    for home in ("HOME", "USERPROFILE"):  # the latter on Windows
        monkeypatch.setenv(home, str(tmp_path / "home"))
    monkeypatch.setenv("JAXSNN_CACHE_DIR", setting)
    assert cache_folder() == (tmp_path / folder).resolve()


def test_leftovers_of_killed_builds_are_removed(compiler, tmp_path):
    path, old = _built(str(compiler), "float32"), time.time() - 2 * native_build._PATIENCE * 100
    folders = {
        f"{path.stem}-abc": False,
        "tmp_old": False,
        "tmp_new": True,
        "tmp_of_others": True,
        "tmp_empty": True,
    }
    for name in folders:
        folder = path.parent / name
        folder.mkdir()
        if name != "tmp_empty":
            (folder / ("x" if name == "tmp_of_others" else "native-float64-0.so")).touch()
        if name != "tmp_new":
            os.utime(folder, (old, old))
    path.unlink()
    _built(str(compiler), "float32")
    assert {name: (path.parent / name).exists() for name in folders} == folders


@pytest.mark.skipif(os.name == "nt", reason="nothing locks there")
def test_one_at_a_time_is_alone(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(100):
            with locked_build(tmp_path / "x.so") as locked:
                inside.append(locked)
                most.append(len(inside))
                time.sleep(0)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 400
    assert max(most) == 1
