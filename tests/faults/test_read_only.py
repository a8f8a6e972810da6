"""A place that takes no files is refused in one line, before anything is simulated or trained."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxsnn import output
from jaxsnn.errors import FileError
from jaxsnn.output import write_atomically
from tests.faults import read_only
from tests.helpers.command_line import ROOT
from tests.helpers.refusals import assert_refused

NAMESPACES = (("unshare", "--mount"), ("unshare", "--mount", "--map-root-user"))


def namespace(folder):
    """What runs a program with mounts of its own; None where the system allows nobody that."""
    mount = ("mount", "-t", "tmpfs", "none", str(folder))
    for prefix in NAMESPACES:
        if (
            shutil.which("unshare")
            and not subprocess.run([*prefix, *mount], capture_output=True, check=False).returncode
        ):
            return prefix
    return None


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    prefix = namespace(folder)
    if prefix is None:
        pytest.skip("this system lets nobody mount a file system")
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.faults.read_only", str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line.pop("name"): line for line in lines}


def test_commands_refuse_a_read_only_place_before_their_work(outcomes):
    written = outcomes["run that may write"]
    assert (written["code"], written["began"]) == (0, ["run"])
    refused = {
        name: outcome
        for name, outcome in outcomes.items()
        if outcome["code"] and "began" in outcome
    }
    assert len(refused) > 20
    assert len(refused) == len(read_only.COMMANDS)
    for name, outcome in refused.items():
        assert outcome["code"] == 2, (name, outcome)
        assert outcome["began"] == [], (name, outcome)
        assert "unexpected" not in outcome["error"], (name, outcome)
        assert outcome["error"].count("\n") == 1, (name, outcome)
        assert any(word in outcome["error"] for word in ("read-only", "Read-only")), (name, outcome)


def test_a_disk_that_becomes_read_only_after_the_last_write_is_a_note(outcomes):
    """The picture is complete, and its temporary file remains."""
    outcome = outcomes["closed at link"]
    assert (outcome["code"], outcome["error"]) == (0, "")
    temporary, picture = outcome["files"]
    assert picture == "OUT.svg"
    assert f"closed-link/{temporary} (Read-only file system)" in outcome["notes"]


def test_a_disk_that_becomes_read_only_before_is_one_error(outcomes):
    outcome = outcomes["closed at replace"]
    assert outcome["code"] == 2
    assert outcome["error"].count("\n") == 1
    assert "OUT.svg cannot be written (Read-only file system)" in outcome["error"]
    (temporary,) = outcome["files"]
    assert f"closed-replace/{temporary} (Read-only file system)" in outcome["notes"]


@pytest.mark.parametrize("force", [False, True])
def test_a_file_system_that_becomes_read_only_is_an_ordinary_error(force, tmp_path, monkeypatch):
    """Then not even temporary files can be removed, nor said to be missing."""
    (tmp_path / "file").write_text("what was there") if force else None

    def fail(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(output, "open", fail, raising=False)
    monkeypatch.setattr(Path, "unlink", fail)
    assert_refused(
        lambda: write_atomically(tmp_path / "file", "new", force=force),
        FileError,
        "Read-only file system",
    )
    assert not force or (tmp_path / "file").read_text() == "what was there"


@pytest.mark.parametrize("force", [False, True])
def test_the_folder_that_counts_is_the_one_that_a_link_leads_to(force, tmp_path, monkeypatch):
    free, closed = tmp_path / "free", tmp_path / "closed"
    for folder in (free, closed):
        folder.mkdir()
    (closed / "file").write_text("old")
    (free / "link").symlink_to(closed / "file")
    access = os.access

    def fails_in_closed(path, mode, **options):
        return access(path, mode, **options) and not (mode & os.W_OK and Path(path) == closed)

    monkeypatch.setattr(os, "access", fails_in_closed)
    assert output.refuse_unwritable(free / "new") == free / "new"
    assert_refused(lambda: output.refuse_unwritable(closed / "new", force), FileError)
    assert_refused(lambda: output.refuse_unwritable(free / "link", force), FileError)
