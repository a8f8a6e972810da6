"""What is shown of many changes and notes: few lines, in which no kind of change is missing."""

import numpy as np
import pytest

from jaxsnn.commands.remarks import line_of, similar_lines
from jaxsnn.errors import Problem
from jaxsnn.nir import build, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.model.changes import Change
from jaxsnn.wording import Text
from tests.helpers.command_line import run_cli, run_cli_json

SIZES = (30, 5)


def many_time_constants():
    """snnTorch neurons whose decays all differ: for SpikingJelly each is a node of its own."""
    rng = np.random.default_rng(0)

    def neurons(size):
        tau = (1e-4 / (1 - rng.uniform(0.5, 0.99, size))).astype(np.float32)
        return build.lif(size, tau=tau, r=tau / np.float32(1e-4))

    layers = [build.input(10)]
    for source, size in zip((10, *SIZES), SIZES, strict=False):
        weight = rng.normal(0.0, 0.1, (size, source)).astype(np.float32)
        layers += [build.linear(weight=weight), neurons(size)]
    return build.sequential(*layers, dialect="snntorch", reset="subtract", reset_delay=True)


def test_a_conversion_into_hundreds_of_nodes_is_told_in_a_few_lines(tmp_path, capsys):
    graph = many_time_constants()
    write(tmp_path / "net.nir", graph)
    argv = ["convert", tmp_path / "net.nir", tmp_path / "out.nir", "--to", "spikingjelly"]
    out, err = run_cli(capsys, *argv)
    lines = out.splitlines()
    assert len(lines) + len(err.splitlines()) <= 30
    nodes = sum(SIZES)
    assert any(line.startswith(f"{nodes} nodes '2_0' ... '4_4': ") for line in lines)
    content, _ = run_cli_json(capsys, *argv, "--force")
    changes = content["changes"]
    conversion = convert(graph, to="spikingjelly")
    assert len(changes) == len(conversion.changes) > 4 * nodes
    assert {change["node"] for change in changes} == {change.node for change in conversion.changes}
    # The numbers of changes that the lines stand for add up to all changes.
    shown = [int(line.split()[0]) for line in lines if line.split()[1:2] == ["nodes"]]
    first = next(place for place, line in enumerate(lines) if "load it with" in line)
    alone = first - 1 - len(shown)
    assert sum(shown) + alone == len(changes)
    assert f"({len(changes)} changes" in lines[first - 1]


def changes(*texts, node="n{}", why="of its importer's limits"):
    return [Change(node=node.format(n), what=text, why=why) for n, text in enumerate(texts)]


def change_of(template, **values):
    """Thirteen changes in these words; `values` hold a list for each field."""
    rows = (dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True))
    return changes(*(Text(template, **row) for row in rows))


MANY = range(13)


@pytest.mark.parametrize(
    ("remarks", "lines"),
    [
        (
            change_of("tau {old} becomes {new:g}", old=MANY, new=[n / 4 for n in MANY]),
            ["13 nodes 'n0' ... 'n12': tau 0 to 12 becomes 0 to 3 (of its importer's limits)"],
        ),
        (
            change_of("r {low} to {high} becomes 1", low=MANY, high=[20 - n for n in MANY]),
            ["13 nodes 'n0' ... 'n12': r 0 to 20 becomes 1 (of its importer's limits)"],
        ),
        (
            change_of("r {low} to {high} becomes 1", low=[0] * 13, high=range(20, 33)),
            ["13 nodes 'n0' ... 'n12': r 0 to 32 becomes 1 (of its importer's limits)"],
        ),
        (
            change_of("'{name}' is renamed", name=[f"a{n}" for n in MANY]),
            ["13 nodes 'n0' ... 'n12': 'a0' ... 'a12' is renamed (of its importer's limits)"],
        ),
        (
            changes(
                *(Text("v is {v} at {neuron}", v=-n / 1000, neuron=n) for n in range(1, 14)),
                "is dropped",
                "is dropped",
            ),
            [
                "13 nodes 'n0' ... 'n12': v is -0.013 to -0.001 at 1 to 13 (of its importer's limits)",
                "n13: is dropped (of its importer's limits)",
                "n14: is dropped (of its importer's limits)",
            ],
        ),
        (
            [
                Text("input '{node}': {count} events are left out", node=str(n), count=n)
                for n in MANY
            ],
            ["13 things: input '0' ... '12': 0 to 12 events are left out"],
        ),
        (["every step is one of the same"] * 13, ["13 things: every step is one of the same"]),
        (
            [Text("a {x}", x=1)] * 6 + [Text("b {x}", x=1)] * 7,
            ["6 things: a 1", "7 things: b 1"],
        ),
        (
            [
                Problem(code=code, message=Text("{count} lost", count=n))
                for code in ("dropped", "truncated")
                for n in range(7)
            ],
            ["7 things: 0 to 6 lost", "7 things: 0 to 6 lost"],
        ),
    ],
)
def test_similar_remarks_are_one_line(remarks, lines):
    expected = [*lines, f"({len(remarks)} things: --json has each of them)"]
    assert similar_lines(remarks, kind="things", prefix="> ") == [f"> {line}" for line in expected]


def test_few_remarks_stay_as_they_are():
    few = changes(*(f"tau {n} becomes 0" for n in range(12)))
    assert similar_lines(few, kind="changes") == [line_of(change) for change in few]


def test_what_is_left_out_is_counted():
    words = "abcdefghijklmnopqrstuvwxyz"
    unlike = changes(*(f"{word} is new" for word in words))
    lines = similar_lines(unlike, kind="changes")
    assert len(lines) == 22
    assert lines[20:] == ["... 6 more lines", "(26 changes: --json has each of them)"]
