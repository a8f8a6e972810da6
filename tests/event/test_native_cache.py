"""Libraries in the cache folder: built once, whole or built again, and the truth of what is not there."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from contextlib import nullcontext

import pytest

from jaxsnn import EnvironmentWarning, stream
from jaxsnn.errors import LoweringError
from jaxsnn.event.native import native_build
from jaxsnn.event.native.kernel_compiler import PATIENCE, UNITS
from jaxsnn.event.native.native_build import _build, _key, native_library
from jaxsnn.event.native.native_cache import (
    cache_folder,
    is_intact,
    locked_build,
    prepared_folder,
)
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


def built(compiler):
    """Path of a library after its build."""
    path = prepared_folder() / f"native-float32-{_key(str(compiler))}.so"
    _build(str(compiler), "float32", path)
    return path


def calls(compiler):
    """Number of builds: each runs the compiler once per unit, and once more to link."""
    runs = len(compiler.with_name("calls").read_text().split())
    builds, rest = divmod(runs, len(UNITS) + 1)
    assert rest == 0
    return builds


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
    path = built(compiler)
    assert built(compiler) == path
    assert calls(compiler) == 1
    DAMAGES[damage](path)
    with pytest.warns(EnvironmentWarning, match="the native kernels were built again"):
        assert built(compiler) == path
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
    path = built(compiler)
    os.truncate(path, path.stat().st_size // 2)
    assert run_python(code).stdout.startswith(f"built by {compiler} into {path};")
    assert calls(compiler) == 2


def test_a_library_that_cannot_be_loaded_is_built_again_once(compiler):
    for number in range(2):
        expected = (
            pytest.warns(EnvironmentWarning, match="built again") if number == 0 else nullcontext()
        )
        with expected:
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
    path = built(compiler)
    compiler.write_text(compiler.read_text().replace("echo x", "sleep 1\necho x"))
    for file in (path, path.with_suffix(".sum")):
        file.unlink()
    compiler.with_name("calls").write_text("")
    code = f"""from pathlib import Path
from jaxsnn.event.native.native_build import _build
_build({str(compiler)!r}, "float32", Path({str(path)!r}))
print(Path({str(path)!r}).exists())"""
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
    path, old = built(compiler), time.time() - 2 * PATIENCE * 100
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
    built(compiler)
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
    # A lock that another thread removes in the meantime is no foreign file.
    with warnings.catch_warnings():
        warnings.simplefilter("error", EnvironmentWarning)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(most) == 400
    assert max(most) == 1


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def link_to_copy(path):
    os.rename(path, path.with_name("copy"))
    path.symlink_to("copy")


def link_to_endless_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def hand_over(path):
    """Give a file to another user, or pretend so where only root may."""
    if os.geteuid() == 0:
        os.chown(path, OTHER_USER, OTHER_USER, follow_symlinks=False)
    else:
        pytest.skip("only root can give files to other users")


OTHER_USER = 65534
#: Changes of a library or a record, after which it is not loaded.
DISTRUSTED = {
    "pipe": pipe,
    "link": link_to_copy,
    "link to an endless device": link_to_endless_device,
    "writable by all": lambda path: path.chmod(0o777),
    "of another user": hand_over,
}


@pytest.mark.parametrize("suffix", [".so", ".sum"])
@pytest.mark.parametrize("change", DISTRUSTED)
def test_files_that_others_may_have_changed_are_replaced(change, suffix, compiler):
    path = built(compiler)
    DISTRUSTED[change](path.with_suffix(suffix))
    assert not is_intact(path)
    with pytest.warns(EnvironmentWarning, match="built again") as caught:
        assert built(compiler) == path
    assert len(caught) == 1
    assert is_intact(path)
    assert calls(compiler) == 2
    for file, mode in ((path, 0o700), (path.with_suffix(".sum"), 0o600)):
        status = file.lstat()
        assert stat.S_ISREG(status.st_mode)
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (mode, os.geteuid())


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o077])
def test_only_the_user_can_write_whatever_the_umask(mask, compiler, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSNN_CACHE_DIR", str(tmp_path / "new" / "cache"))
    before = os.umask(mask)
    try:
        path = built(compiler)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(file.stat().st_mode) for file in (path, *path.parents[:2])]
    assert modes == [0o700, 0o700, 0o700]


def make_lock_a_link(lock):
    lock.with_name("target").write_text("content")
    lock.symlink_to("target")


@pytest.mark.parametrize("place", [os.mkfifo, make_lock_a_link])
def test_what_is_no_lock_file_is_removed(place, compiler):
    path = built(compiler)
    path.unlink()
    place(path.with_suffix(".lock"))
    with pytest.warns(EnvironmentWarning, match="was not a lock file of this user"):
        assert is_intact(built(compiler))
    assert not os.path.lexists(path.with_suffix(".lock"))
    target = path.with_name("target")
    assert not target.exists() or target.read_text() == "content"


@pytest.fixture
def quick_compiler(compiler, native_kernels, monkeypatch):
    """A compiler that copies a library that can be loaded."""
    library = native_library("float32").path
    compiler.write_text(compiler.read_text().replace("echo no library >", f"cp {library}"))
    # Kernels can be registered once in a process.
    monkeypatch.setattr(native_build.jax.ffi, "register_ffi_target", lambda *_, **__: None)
    return compiler


def of_another_user(folder):
    folder.mkdir()
    hand_over(folder)


def writable_by_all(folder):
    folder.mkdir()
    folder.chmod(0o777)


def sticky_and_writable_by_all(folder):
    folder.mkdir()
    folder.chmod(0o1777)


def writable_by_a_group(folder):
    folder.mkdir(0o755)
    folder.chmod(0o775)
    if os.geteuid() == 0:
        os.chown(folder, -1, OTHER_USER)
    else:
        pytest.skip("only root can give files to other groups")


def below_one_that_is_writable_by_all(folder):
    outer = folder.with_name("outer")
    outer.mkdir()
    (outer / "inner").mkdir()
    outer.chmod(0o777)
    folder.symlink_to("outer/inner")


def link_of_another_user(folder):
    folder.with_name("elsewhere").mkdir()
    folder.symlink_to("elsewhere")
    hand_over(folder)


@pytest.mark.parametrize(
    "make",
    [
        of_another_user,
        writable_by_all,
        sticky_and_writable_by_all,
        writable_by_a_group,
        below_one_that_is_writable_by_all,
        link_of_another_user,
    ],
)
def test_a_folder_that_others_can_change_is_not_used(make, quick_compiler, tmp_path, monkeypatch):
    """Even if it contains an intact library of the right name."""
    trusted = built(quick_compiler)
    folder, temporary = tmp_path / "shared", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    make(folder)
    for file in (trusted, trusted.with_suffix(".sum")):
        shutil.copy2(file, folder)
    before = sorted(os.listdir(folder))
    monkeypatch.setenv("JAXSNN_CACHE_DIR", str(folder))
    with pytest.warns(EnvironmentWarning, match="compiled for this process only") as caught:
        library = native_library.__wrapped__("float32")
    assert library.there
    assert library.path is None
    assert "for this process only" in library.reason
    assert str(caught[0].message).startswith((str(folder), str(tmp_path / "outer")))
    assert calls(quick_compiler) == 2
    assert sorted(os.listdir(folder)) == before
    assert os.listdir(temporary) == []


def test_a_temporary_folder_that_others_can_replace_is_not_used_either(
    quick_compiler, tmp_path, monkeypatch
):
    for name in ("shared", "temporary"):
        writable_by_all(tmp_path / name)
    monkeypatch.setenv("JAXSNN_CACHE_DIR", str(tmp_path / "shared"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    library = native_library.__wrapped__("float32")
    assert not library.there
    assert f"{tmp_path / 'temporary'} can be changed by other users" in library.reason
    assert calls(quick_compiler) == 0


def test_a_link_of_the_user_to_a_safe_folder_is_followed(compiler, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("JAXSNN_CACHE_DIR", str(tmp_path / "link" / ".." / "link"))
    assert built(compiler).parent == tmp_path / "elsewhere"
    assert len(os.listdir(tmp_path / "elsewhere")) == 2


def test_links_in_a_circle_are_reported(compiler, tmp_path, monkeypatch):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    monkeypatch.setenv("JAXSNN_CACHE_DIR", str(tmp_path / "a"))
    library = native_library.__wrapped__("float32")
    assert not library.there
    assert "JAXSNN_CACHE_DIR" in library.fix


@pytest.mark.parametrize("members", [[], ["somebody"]])
def test_the_private_group_of_a_user_may_write(members, compiler, monkeypatch):
    grp, pwd = pytest.importorskip("grp"), pytest.importorskip("pwd")  # not on Windows
    user = pwd.getpwuid(os.geteuid())
    entry = grp.struct_group((user.pw_name, "x", user.pw_gid, members))
    monkeypatch.setattr(grp, "getgrgid", lambda group: entry)
    path = built(compiler)
    path.chmod(0o770)
    assert is_intact(path) == (not members)


def test_the_library_that_was_checked_is_the_one_that_is_loaded(quick_compiler, monkeypatch):
    """Another file takes its name between check and load."""
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("only there can an open file be loaded")
    path, load = built(quick_compiler), native_build.ctypes.CDLL

    def late(name):
        path.with_name("late").write_text("no library\n")
        os.replace(path.with_name("late"), path)
        return load(name)

    monkeypatch.setattr(native_build.ctypes, "CDLL", late)
    library = native_library.__wrapped__("float32")
    assert library.there, library.reason
    assert calls(quick_compiler) == 1
    assert path.read_text() == "no library\n"


def test_libraries_are_not_mistaken_for_each_other(quick_compiler, monkeypatch):
    """The loader knows them by their names, and a number that a program closes is used again."""
    first = native_library.__wrapped__("float32")
    assert first.there, first.reason
    monkeypatch.setattr(native_build.ctypes, "CDLL", lambda name: first.handle)
    with pytest.warns(EnvironmentWarning, match="built again"):
        second = native_library.__wrapped__("float64")
    assert not second.there
    assert f"cannot be distinguished from {first.path}" in second.reason


def test_a_failing_clean_up_is_reported_and_the_library_is_used(quick_compiler, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for name in ("unlink", "rmdir"):
        monkeypatch.setattr(os, name, fail)
    with pytest.warns(EnvironmentWarning, match="could not be removed") as caught:
        library = native_library.__wrapped__("float32")
    monkeypatch.undo()
    assert library.there, library.reason
    texts = " ".join(str(warning.message) for warning in caught)
    remaining = [
        file for file in library.path.parent.iterdir() if file.suffix not in (".so", ".sum")
    ]
    assert len(remaining) == 2
    assert all(str(file) in texts for file in remaining)


def test_a_library_of_root_in_a_folder_that_cannot_be_written_is_used(quick_compiler, monkeypatch):
    """As in a cache that all users of a machine share."""
    path, create = built(quick_compiler), os.open

    def fail(name, flags, *mode, **options):
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return create(name, flags, *mode, **options)

    monkeypatch.setattr(os, "open", fail)
    monkeypatch.setattr(os, "mkdir", lambda *_: fail("", os.O_CREAT))
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "geteuid", lambda: OTHER_USER)
    library = native_library.__wrapped__("float32")
    assert library.there, library.reason
    assert library.path == path
    assert calls(quick_compiler) == 1
    path.unlink()
    library = native_library.__wrapped__("float32")
    assert f"cannot be stored in {path.parent}" in library.reason
    assert os.strerror(errno.EROFS) in library.reason
