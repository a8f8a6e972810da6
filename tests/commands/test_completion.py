"""`jaxsnn completion`: every command and option, and a script that bash takes."""

import argparse
import json
import re
import subprocess

import pytest

from tests.commands.test_cli import commands
from tests.helpers.command_line import call, refused, run_cli


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_every_command_and_option(capsys, shell):
    out, _ = run_cli(capsys, "completion", shell)
    for name, parser in commands().items():
        assert name in out
        for action in parser._actions:
            if action.help == argparse.SUPPRESS:
                continue
            for flag in action.option_strings:
                long = flag.startswith("--")
                assert (f"-l {flag[2:]}" if shell == "fish" else flag) in out or not long, flag


def test_values_that_are_files_are_completed(capsys):
    script = call(capsys, "completion", "zsh")[1]
    section = script.partition("_shtab_jaxsnn_verify_options=(")[2].partition("\n)\n")[0]
    ends = {line.split("[")[0].strip(): line.rpartition(":")[2] for line in section.splitlines()}
    assert ends['"--recording'] == '_files"'
    assert ends['"--debug'] != '_files"'
    assert ends['"*--reset'] != '_files"'


def test_what_a_command_refuses_is_not_offered(capsys):
    script = json.loads(call(capsys, "completion", "bash", "--json")[1])["script"]
    line = next(
        line
        for line in script.splitlines()
        if line.startswith("_shtab_jaxsnn_tune_option_strings=")
    )
    offered = set(re.findall(r"--[a-z-]+", line))
    assert "--spikes-per-sample" in offered
    assert offered.isdisjoint({"--calibrate", "--engine", "--plot", "--resume"})


def test_bash_takes_the_completion(capsys, tmp_path):
    script = tmp_path / "c.sh"
    script.write_text(call(capsys, "completion", "bash")[1])
    ask = "COMP_WORDS=(jaxsnn draw --fo); COMP_CWORD=2; _shtab_jaxsnn; echo ${COMPREPLY[@]}"
    done = subprocess.run(
        ["bash", "-c", f"source {script}; {ask}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["--force"]
    assert refused(capsys, "completion", "tcsh")[1].endswith("Available: bash, zsh, fish\n")
