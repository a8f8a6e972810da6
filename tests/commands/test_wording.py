"""Texts that refer to options: one declaration, one renderer for each surface."""

import copy
import json
import pickle

import numpy as np
import pytest

import jaxsnn
from jaxsnn.errors import JaxsnnError, Note, Problem, UsageError, shown
from jaxsnn.nir import limit_reading
from jaxsnn.options import DT, ENGINE, FORCE, MAX_BYTES, RESET, T_END
from jaxsnn.units import format_time
from jaxsnn.wording import Text, for_command_line, text_of_json, text_to_json
from tests.helpers.command_line import DEMO_NET, run_cli

ADVICE = Text("set {reset} or {dt}", reset=RESET.set_to("zero", node="lif"), dt=DT)
PYTHON, COMMAND_LINE = 'set reset={"lif": "zero"} or dt', "set --reset lif:zero or --dt"


@pytest.mark.parametrize(
    ("reference", "python", "command_line"),
    [
        (RESET.set_to("zero"), 'reset="zero"', "--reset zero"),
        (RESET.set_to("zero", "none"), 'reset="zero" or "none"', "--reset zero or none"),
        (RESET.set_to(False, node="a"), 'reset={"a": False}', "--reset a:false"),
        (DT.set_to(1e-4), "dt=0.0001", "--dt 0.0001"),
        (DT.keyword, "dt=", "--dt"),
        (DT.title, "dt", "--dt"),
        (T_END.equal_to("40 ms"), "t_end = 40 ms", "--t-end 40 ms"),
        (FORCE.set_to(True), "force=True", "--force"),
        (ENGINE.set_to("grid"), "engine=TimeStepped()", "--engine grid"),
    ],
)
def test_each_surface_has_its_words(reference, python, command_line):
    text = Text("{option}", option=reference)
    assert str(text) == python
    assert for_command_line(text) == command_line


@pytest.mark.parametrize(
    "same",
    [
        copy.deepcopy(ADVICE),
        pickle.loads(pickle.dumps(ADVICE)),
        text_of_json(json.loads(json.dumps(text_to_json(ADVICE)))),
        Text("{advice}", advice=ADVICE),
        Text.joined("", [ADVICE]),
        "" + ADVICE + "",
        Note(ADVICE, kind="assumed"),
        pickle.loads(pickle.dumps(Note(ADVICE, kind="assumed"))),
    ],
)
def test_what_is_made_of_a_text_keeps_its_references(same):
    assert same == PYTHON
    assert for_command_line(same) == COMMAND_LINE


def test_a_part_is_left_out_with_its_references():
    text = Text("a, {dt} b", dt=DT.keyword)
    assert for_command_line(text.without(Text(", {dt}", dt=DT.keyword))) == "a b"
    assert text.without(Text("{dt}", dt=DT.title)) == text
    assert for_command_line(Text("say {dt}. ", dt=DT).without_end(" .")) == "say --dt"


def test_errors_keep_options_and_facts_in_another_process():
    message = Text("{option} is {seconds}", option=DT, seconds=-1.5)
    error = pickle.loads(pickle.dumps(UsageError(message, fix=ADVICE, node="lif")))
    assert type(error) is UsageError
    assert str(error) == f"dt is -1.5: {PYTHON}"
    assert error.problem.as_dict() == {
        "node": "lif",
        "code": "usage",
        "severity": "error",
        "message": "--dt is -1.5",
        "facts": {"seconds": -1.5},
        "fix": COMMAND_LINE,
    }


def test_several_problems_keep_their_advice():
    problems = [Problem(code="broken", message="a", fix=ADVICE, facts={"size": 3})] * 3
    error = JaxsnnError.of(problems)
    assert error.problem.facts == {"size": 3}
    assert error.problem.as_text() == f"a: {COMMAND_LINE} (and 2 more problems)"


def test_a_fact_is_the_value_and_not_how_a_message_shows_it():
    text = Text("{dt} of {value}", dt=format_time(0.01), value=shown(True))
    assert text == "10 ms of True"
    assert text.facts == {"dt": 0.01, "value": True}


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), -np.inf])
def test_a_fact_that_json_has_no_number_for_is_text(value):
    problem = Problem(message=Text("{count} of {value}", count=np.int64(3), value=value))
    assert problem.as_dict()["facts"] == {"count": 3, "value": str(float(value))}


def test_json_of_an_error_has_code_node_and_facts(capsys, tmp_path):
    options = ("--dialect", "snntorch", "--to", "norse", "--json")
    out, _ = run_cli(capsys, "convert", DEMO_NET, tmp_path / "out.nir", *options, code=1)
    error = json.loads(out)["error"]
    assert (error["code"], error["node"]) == ("not-said", "lif1")
    assert error["facts"] == {"node": "lif1", "field": "reset", "dialect": "snntorch"}
    assert error["fix"].startswith("pass --reset (zero, subtract or none)")


def test_the_process_that_reads_says_which_option_helps(capsys):
    _, err = run_cli(capsys, "info", DEMO_NET, "--max-bytes", "10", code=2)
    assert f"pass {MAX_BYTES.long_flag} " in err
    with (
        limit_reading(max_bytes=10, read_timeout=60),
        pytest.raises(JaxsnnError, match="max_bytes="),
    ):
        jaxsnn.read(DEMO_NET)
