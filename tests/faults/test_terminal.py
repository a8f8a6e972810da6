"""Nothing that a file says steers the terminal, or a picture's reader."""

import json
import subprocess
import sys
import unicodedata

import h5py
import numpy as np
import pytest

from jaxsnn.errors import GraphError, printable
from jaxsnn.nir import build, read
from tests.helpers.refusals import assert_refused

_HOSTILE = "a\x1b]0;owned\x07\x9b2J\u202eb"


def steering(text):
    """Characters that steer: controls but the ends of lines, and marks of direction."""
    return [
        char
        for char in text
        if (unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t")
        or "\u202a" <= char <= "\u202e"
    ]


def test_every_control_character_and_mark_of_direction_is_a_number():
    every = "".join(map(chr, range(0x3000)))
    shown = printable(every + "\ud800")
    assert steering(shown) == []
    unchanged = [char for char in every if char in shown]
    assert len(unchanged) > 0x3000 - 100
    assert printable("naïve μs ✓ 神経\n\t") == "naïve μs ✓ 神経\n\t"


@pytest.mark.parametrize("name", [_HOSTILE, "two\nlines", "tab\there", "\x9bcsi"])
def test_a_name_that_steers_is_refused(name, tmp_path):
    with h5py.File(tmp_path / "mail.nir", "w") as file:
        node = file.create_group("node")
        node["type"] = "NIRGraph"
        node.create_group("nodes").create_group(name)["type"] = "Input"
    with pytest.raises(GraphError) as caught:
        read(tmp_path / "mail.nir")
    message = str(caught.value)
    assert "is not valid text" in message
    assert steering(message) == []
    assert "\n" not in message


@pytest.mark.parametrize("place", ["type", "version", "unknown"])
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_what_a_file_says_is_printed_as_text(place, flags, tmp_path):
    path = tmp_path / "mail.nir"
    with h5py.File(path, "w") as file:
        file["version"] = _HOSTILE if place == "version" else "1.0"
        node = file.create_group("node")
        node["type"] = "NIRGraph"
        linear = node.create_group("nodes/linear")
        linear["type"] = _HOSTILE if place == "type" else "Linear"
        linear["weight"] = np.ones((2, 2))
        if place == "unknown":
            linear["metadata"] = _HOSTILE
    process = subprocess.run(
        [sys.executable, "-m", "jaxsnn.commands.cli", "info", str(path), "-v", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert steering(process.stdout + process.stderr) == []
    assert process.stdout + process.stderr
    if flags and process.stdout:
        json.loads(process.stdout)


def test_a_graph_in_python_has_no_such_names_either():
    nodes = {"in": build.input(1), _HOSTILE: build.linear(weight=[[1.0]]), "out": build.output(1)}
    assert_refused(
        lambda: build.network(nodes, [("in", _HOSTILE, "out")]),
        GraphError,
        "is not valid text",
    )
