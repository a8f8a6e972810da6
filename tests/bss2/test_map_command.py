"""`jaxsnn map`, as a user calls it."""

import json
import subprocess
import sys

import pytest

from jaxsnn.nir import build, write
from tests.helpers.command_line import finished


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    for name, hidden, seed in (("net", 120, 0), ("other", 120, 1), ("huge", 600, 0)):
        neurons = build.cubalif(tau_mem=10e-3, tau_syn=5e-3)
        graph = build.sequential(
            build.input(5), build.linear(hidden), neurons, build.linear(3), neurons, seed=seed
        )
        write(folder / f"{name}.nir", graph)
    return folder


def mapped(folder, *arguments, code=0):
    return finished("map", *arguments, code=code, folder=folder)


def test_a_mapping_is_made_checked_and_drawn(folder):
    done = json.loads(mapped(folder, "net.nir", "-o", "m.json", "--svg", "m.svg", "--json").stdout)
    assert (done["schema"], done["fits"], done["runs"], done["signs"]) == (1, True, 1, "fixed")
    assert (done["stop_reason"], done["violations"]) == ("fits", [])
    assert done["used"]["circuits"] == {"used": 123, "available": 512}
    assert set(done["quantization"]["2"]) >= {"scale", "saturated", "rms_error"}
    assert (
        sum(value for name, value in done["events"][0].items() if name.endswith("from the host"))
        == 5
    )
    assert (folder / "m.svg").read_text().startswith("<svg")
    verified = json.loads(mapped(folder, "net.nir", "--verify", "m.json", "--json").stdout)
    assert (verified["fits"], verified["stop_reason"]) == (True, "verified")
    assert verified["used"] == done["used"]


def test_the_mapping_of_another_network_is_refused(folder):
    made = mapped(folder, "net.nir", "-o", "m2.json")
    assert "CADC LSB per us and LSB of a weight, the vendor's example has 0.10" in made.stdout
    done = mapped(folder, "other.nir", "--verify", "m2.json", code=1)
    assert "violation: mapping: it is of the net" in done.stdout
    content = json.loads(
        mapped(folder, "other.nir", "--verify", "m2.json", "--json", code=1).stdout
    )
    first = content["violations"][0]
    assert first["where"] == first["node"] == "mapping"
    assert (first["code"], first["severity"]) == ("other-net", "error")
    again = "map the network again, or give the options of quantization that it was made with"
    assert first["fix"] == again
    assert content["why"] == f"{len(content['violations'])} violations"


def test_it_answers_without_jax(folder):
    code = "import sys; from jaxsnn.commands.cli import main\n"
    code += "main(['map', 'net.nir', '-o', 'quick.json', '--force', '-q'])\n"
    code += "print([name for name in ('jax', 'optax', 'matplotlib') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("[]\n")


def test_the_same_bytes_whatever_the_hash_seed(folder, run_python):
    code = f"import os; os.chdir({str(folder)!r}); from jaxsnn.commands.cli import main\n"
    for seed in ("1", "2"):
        name = f"hash{seed}.json"
        run_python(f"{code}main(['map', 'net.nir', '-o', {name!r}, '-q'])", PYTHONHASHSEED=seed)
    assert (folder / "hash1.json").read_bytes() == (folder / "hash2.json").read_bytes()


def test_too_few_runs_are_refused_with_the_resource(folder):
    done = mapped(folder, "huge.nir", "-o", "no.json", "--runs", "1", code=1)
    assert done.stdout.startswith("impossible: '2', '4': 603 neurons need 1 or more circuits")
    assert done.stdout.endswith("(91 too many): allow --runs 2 or more\n")
    assert not (folder / "no.json").exists()
    done = json.loads(mapped(folder, "huge.nir", "-o", "two.json", "--json").stdout)
    assert (done["fits"], done["runs"], done["certificate"]["resource"]) == (True, 2, "circuits")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.nir"], "give one of them"),
        (["net.nir", "-o", "a.json", "--verify", "b.json"], "give one of them"),
        (["net.nir", "-o", "a.json", "--signs", "any"], "no signs 'any'"),
        (["net.nir", "-o", "a.json", "--time-limit", "soon"], "'soon' is not a time"),
        (["net.nir", "-o", "a.json", "--placer", "spraed"], "did you mean 'spread'?"),
        (["net.nir", "-o", "a.json", "--bias-period", "2us"], "add --bias source"),
        (
            ["net.nir", "-o", "a.json", "--bias", "source", "--bias-period", "2ns"],
            "--bias-period is 2e-09 s",
        ),
        (["net.nir", "--verify", "absent.json"], "absent.json: no such file"),
        (["net.nir", "--verify", "net.nir"], "is not text"),
    ],
)
def test_usage(folder, capsys, monkeypatch, arguments, message):
    from jaxsnn.commands.cli import main

    monkeypatch.chdir(folder)
    assert main(["map", *arguments]) in (1, 2)
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_a_slope_is_told_with_the_settings_at_which_it_was_measured(folder):
    lines = [{"slope": slope, "i_synin_gm": gm} for slope, gm in ((1e-4, 300), (9.0, 700))]
    (folder / "slopes.json").write_text(json.dumps(lines))
    made = ("net.nir", "-o", "slope.json", "--force", "--slope")
    done = json.loads(mapped(folder, *made, "slopes.json", "--json").stdout)
    assert done["measured"] == {"slope": 9.0, "i_synin_gm": 700, "synapse_dac_bias": 600}
    assert "at i_synin_gm 500 and synapse_dac_bias 600" in mapped(folder, *made, "9.0").stdout


def test_how_often_the_bias_channel_fires_is_said_again_to_verify(folder):
    graph = build.sequential(
        build.input(2),
        build.affine(weight=[[1.0, -0.5]], bias=[0.2]),
        build.cubalif(tau_mem=10e-3, tau_syn=5e-3),
    )
    write(folder / "biased.nir", graph)
    said = ("--bias", "source", "--bias-period", "3us")
    made = mapped(folder, "biased.nir", "-o", "biased.json", *said)
    assert "every 3 us of the chip" in made.stderr
    mapped(folder, "biased.nir", "--verify", "biased.json", *said)
    other = mapped(folder, "biased.nir", "--verify", "biased.json", *said[:2], code=1)
    assert "violation: mapping: it is of the net" in other.stdout
    seconds = mapped(folder, "biased.nir", "-o", "b.json", *said[:3], "3", code=1)
    assert "error: --bias-period is 3 s of the chip" in seconds.stderr
