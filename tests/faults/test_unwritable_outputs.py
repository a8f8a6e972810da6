"""An output that cannot be written is refused before anything is simulated, trained or mapped, by every
command that writes.
"""

import os
from pathlib import Path

import pytest

from jaxsnn.bss2.deploy import deployed
from jaxsnn.commands.cli import COMMANDS as ALL_COMMANDS
from jaxsnn.commands.demo_command import FILES
from jaxsnn.output import refuse_unwritable_folder, write_folder
from tests.faults import injected
from tests.faults.read_only import COMMANDS, outcome_of

#: Commands that have no file or folder as output.
WITHOUT_OUTPUT = {"info", "check", "matrix", "compare", "doctor", "completion"}
#: Commands whose output is a folder, with a file that they write into it.
FOLDERS = {
    "conformance --failures": "issue.md",
    "deploy": Path(deployed("OUT")[0]).name,
    "deploy into a folder that is to be made": Path(deployed("OUT")[0]).name,
    "demo": FILES[0],
}
#: Each output of each command: the command, and the place of the output among its arguments.
OUTPUTS = [
    (name, place)
    for name, argv in COMMANDS.items()
    for place, argument in enumerate(argv)
    if argument.startswith("OUT")
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folder with the files that the commands read."""
    folder, before = tmp_path_factory.mktemp("inputs"), Path.cwd()
    os.chdir(folder)
    try:
        injected._prepare(folder)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def place(inputs, tmp_path, monkeypatch):
    """Empty folder with links to the files that the commands read."""
    for path in inputs.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def missing_folder(path, content):
    if content:  # folders are made, but not inside a file
        Path("a file").write_text("")
        return Path("a file") / path
    return Path("nowhere") / path


def existing(path, content):
    if content:
        path.mkdir(parents=True)
        path = path / content
    path.write_bytes(b"what was there")


def folder_instead(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if content:
        path.write_bytes(b"what was there")
    else:
        path.mkdir()


def pipe_instead(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def dangling_link(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("nothing")


def long_name(path, content):
    return path.with_name("x" * (300 - len(path.suffix)) + path.suffix)


def name_too_long_for_a_temporary_file(path, content):
    return path.with_name("x" * (250 - len(path.suffix)) + path.suffix)


#: Obstacles: each puts something at the path of an output, or returns another path.
OBSTACLES = (
    missing_folder,
    existing,
    folder_instead,
    pipe_instead,
    dangling_link,
    long_name,
    name_too_long_for_a_temporary_file,
)


def test_every_command_that_writes_is_in_the_table():
    assert {argv[0] for argv in COMMANDS.values()} | WITHOUT_OUTPUT == set(ALL_COMMANDS)


@pytest.mark.parametrize("obstacle", OBSTACLES, ids=lambda function: function.__name__)
@pytest.mark.parametrize(("name", "position"), OUTPUTS)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    name, position, obstacle, place
):
    argv = list(COMMANDS[name])
    if name == "demo" and obstacle is name_too_long_for_a_temporary_file:
        pytest.skip("the demo makes its folder under its own name")
    path = Path(argv[position])
    content = FOLDERS.get(name, "") if path.suffix == "" else ""
    argv[position] = str(obstacle(path, content) or path)
    forced = ["--force"] if obstacle in (folder_instead, pipe_instead) else []
    before = contents(place)
    outcome = outcome_of([*argv, *forced])
    assert (outcome["code"], outcome["began"]) == (2, []), outcome
    assert outcome["error"].count("\n") == 1, outcome
    assert "unexpected" not in outcome["error"], outcome
    assert contents(place) == before or name == "demo"


def contents(folder):
    return sorted(
        (str(path), path.read_bytes() if path.is_file() else None) for path in folder.rglob("*")
    )


@pytest.mark.parametrize("ending", [".history.json", ".mapping.json", ".checkpoint"])
def test_files_beside_a_trained_network_are_refused_before_the_work(ending, place):
    Path(f"OUT{ending}").write_bytes(b"what was there")
    outcome = outcome_of(COMMANDS["train on an emulated chip"])
    assert (outcome["code"], outcome["began"]) == (2, []), outcome
    assert f"OUT{ending}" in outcome["error"]
    assert Path(f"OUT{ending}").read_bytes() == b"what was there"
    assert not Path("OUT.nir").exists()


def test_a_folder_is_refused_exactly_if_it_cannot_be_written(tmp_path):
    refuse_unwritable_folder(tmp_path / "a" / "b", ["file"])
    write_folder(tmp_path / "a" / "b", {"file": "content"})
    refuse_unwritable_folder(tmp_path / "a" / "b", ["other"])
    refuse_unwritable_folder(tmp_path / "a" / "b", ["file"], force=True)
    write_folder(tmp_path / "a" / "b", {"file": "new"}, force=True)
    assert (tmp_path / "a" / "b" / "file").read_text() == "new"


def test_the_longest_name_that_is_not_refused_is_written(tmp_path):
    from jaxsnn.errors import FileError
    from jaxsnn.output import refuse_unwritable, write_atomically

    lengths = []
    for length in range(200, 260):
        try:
            refuse_unwritable(tmp_path / ("x" * length))
        except FileError:
            break
        lengths.append(length)
    write_atomically(tmp_path / ("x" * lengths[-1]), "content")
    assert 200 < len(lengths) + 200 < 256
