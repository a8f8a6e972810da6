"""`jaxsnn map`, as a user calls it."""

import dataclasses
import json

import numpy as np
import pytest

from jaxsnn import TimeStepped, compare_resets, lower, simulate
from jaxsnn.bss2.check import check
from jaxsnn.bss2.mapping import to_json
from jaxsnn.bss2.mapping_files import quantize_as_mapped, read_mapping
from jaxsnn.bss2.search.portfolio import Attempts, place_and_route
from jaxsnn.bss2.search.quantize import quantize
from jaxsnn.commands.map_command import MapOutcome
from jaxsnn.errors import UsageError
from jaxsnn.nir import build, read, write
from tests.helpers.command_line import call, refused
from tests.helpers.refusals import assert_refused


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    neurons = build.cubalif(tau_mem=10e-3, tau_syn=5e-3)
    for name, hidden, seed in (("net", 120, 0), ("other", 120, 1), ("huge", 600, 0)):
        layers = build.linear(hidden), neurons, build.linear(3), neurons
        write(folder / f"{name}.nir", build.sequential(build.input(5), *layers, seed=seed))
    biased = build.affine(weight=[[1.0, -0.5]], bias=[0.2])
    write(folder / "biased.nir", build.sequential(build.input(2), biased, neurons))
    return folder


@pytest.fixture
def mapped(folder, capsys, monkeypatch):
    """`mapped(*arguments)`: what `jaxsnn map` prints in the folder, as JSON if that is asked for; and
    its errors.
    """
    monkeypatch.chdir(folder)

    def run(*arguments, code=0):
        exit_code, out, err = call(capsys, "map", *arguments)
        assert exit_code == code, err
        return json.loads(out) if "--json" in arguments else out, err

    return run


def test_a_mapping_is_made_checked_and_drawn(folder, mapped):
    done, _ = mapped("net.nir", "-o", "m.json", "--svg", "m.svg", "--json")
    assert (done["schema"], done["fits"], done["runs"], done["signs"]) == (1, True, 1, "fixed")
    assert (done["stop_reason"], done["violations"]) == ("fits", [])
    assert done["used"]["circuits"] == {"used": 123, "available": 512}
    assert set(done["quantization"]["2"]) >= {"scale", "saturated", "rms_error"}
    events = done["events"][0].items()
    assert sum(value for name, value in events if name.endswith("from the host")) == 5
    assert (folder / "m.svg").read_text().startswith("<svg")
    verified, _ = mapped("net.nir", "--verify", "m.json", "--json")
    assert (verified["fits"], verified["stop_reason"]) == (True, "verified")
    assert verified["used"] == done["used"]


def test_what_the_search_tried_is_shown(folder, mapped):
    report = folder / "tried.html"
    mapped("net.nir", "-o", "tried.json", "--seed", "3", "--report", str(report))
    done, _ = mapped("net.nir", "-o", "tried.json", "--seed", "3", "--json", "--force")
    (entry,) = done["attempts"]
    assert entry.pop("seconds") > 0
    assert entry == {
        **{"runs": 1, "signs": "fixed", "strategy": "spread, mixed", "seed": 3},
        **{"count": 1, "successes": 1, "overflow": None},
    }
    assert entry["strategy"] in report.read_text()
    verified, _ = mapped("net.nir", "--verify", "tried.json", "--json")
    assert verified["attempts"] == []
    # a search that gave up
    tried = Attempts(
        **{"runs": 2, "signs": "free", "strategy": "annealed, mixed", "seed": 3},
        **{"count": 7, "successes": 4, "overflow": 12, "seconds": 2.5},
    )
    quantized = quantize(read(folder / "net.nir"))
    nothing = {"mapping": None, "violations": (), "certificate": None, "files": {}}
    failed = MapOutcome(stop_reason="gave up", quantized=quantized, attempts=(tried,), **nothing)
    assert failed.as_dict()["attempts"] == [vars(tried)]
    (line,) = (line for line in failed.as_text().splitlines() if line.startswith("tried "))
    assert all(part in line for part in ("2 runs", "annealed, mixed", "7", "4", "12", "2.5 s"))


def test_the_mapping_of_another_network_is_refused(mapped):
    out, _ = mapped("net.nir", "-o", "m2.json")
    assert "CADC LSB per us and LSB of a weight; 0.10 in the vendor's example" in out
    verify = ("other.nir", "--verify", "m2.json")
    assert "violation: mapping: it was made for the netlist" in mapped(*verify, code=1)[0]
    content, _ = mapped(*verify, "--json", code=1)
    first = content["violations"][0]
    assert first["where"] == first["node"] == "mapping"
    assert (first["code"], first["severity"]) == ("other-net", "error")
    again = "map the network again, or pass the quantisation options with which it was made"
    assert first["fix"] == again
    assert content["why"] == f"{len(content['violations'])} violations"


def test_the_refractory_period_is_an_option(mapped):
    usual, _ = mapped("net.nir", "-o", "usual.json", "--json")
    longer, _ = mapped("net.nir", "-o", "longer.json", "--refractory-time", "20us", "--json")
    for done, expected in ((usual, 1.0), (longer, 20.0)):
        times = [targets["refractory_time"] for targets in done["calibration"].values()]
        assert times == pytest.approx([expected, expected])
    for repeated in ((), ("--refractory-time", "20us")):
        text, _ = mapped("net.nir", "--verify", "longer.json", *repeated)
        assert text.count("refractory 20 us (20 ms of the network)") == 2


OPTIONS = {
    "scale": "max",
    "synapses_per_weight": 2,
    "speedup": 500.0,
    "slope": 0.2,
    "v_leak": 85,
    "v_threshold": 140,
    "refractory_time": 2e-6,
}
#: The same on the command line, and other values.
FLAGS = {
    "--scale": ("max", "percentile"),
    "--synapses-per-weight": ("2", "1"),
    "--speedup": ("500", "1000"),
    "--slope": ("0.2", "0.3"),
    "--v-leak": ("85", "80"),
    "--v-threshold": ("140", "150"),
    "--refractory-time": ("2us", "1us"),
}


def test_a_mapping_stores_the_options_of_quantisation(folder, mapped, capsys):
    graph = read(folder / "net.nir")
    flags = [part for flag, (value, _) in FLAGS.items() for part in (flag, value)]
    mapped("net.nir", "-o", "options.json", *flags, "-q")
    mapping = read_mapping(folder / "options.json")
    stored = mapping.quantization.as_dict()
    settings = {"i_synin_gm": 500, "synapse_dac_bias": 600, "bias": "refuse", "approximate": False}
    assert stored == OPTIONS | settings
    expected, again = quantize(graph, **OPTIONS), quantize_as_mapped(graph, mapping)
    assert again.netlist.fingerprint() == expected.netlist.fingerprint()
    assert (again.speedup, again.measured) == (500.0, expected.measured)
    for name, population in expected.populations.items():
        actual = again.populations[name]
        assert actual.refractory_time == population.refractory_time == 2e-6
        for field in ("tau_mem", "tau_syn", "v_leak", "v_threshold", "v_reset"):
            assert (getattr(actual, field) == getattr(population, field)).all()
    # the same values may be repeated, and others are refused with both
    mapped("net.nir", "--verify", "options.json", *flags, "-q")
    for flag, (value, different_value) in FLAGS.items():
        line = refused(capsys, "map", "net.nir", "--verify", "options.json", flag, different_value)[
            1
        ]
        actual = {"2us": "2 us"}.get(value, value)
        assert flag in line
        assert f"the mapping was created with {actual}:" in line


@pytest.mark.parametrize(
    ("option", "different"),
    [("speedup", 500.0), ("refractory_time", 2e-6), ("v_leak", 81), ("v_threshold", 149)],
)
def test_a_network_with_other_options_is_not_that_of_the_mapping(folder, option, different):
    """The netlist may be the same, but the neurons of the chip are not."""
    graph = read(folder / "net.nir")
    usual = quantize(graph)
    mapping = place_and_route(usual.netlist).mapping
    assert check(mapping, usual.netlist) == ()
    changed = quantize(
        graph, scale={name: node.scale for name, node in usual.nodes.items()}, **{option: different}
    )
    assert changed.netlist.fingerprint() == usual.netlist.fingerprint()
    (violation,) = check(mapping, changed.netlist)
    value = getattr(usual.netlist.quantization, option)
    facts = {"option": option, "actual": value, "expected": different}
    assert (violation.code, violation.message.facts) == ("other-quantization", facts)
    edited = dataclasses.replace(mapping, quantization=changed.netlist.quantization)
    assert [problem.code for problem in check(edited, changed.netlist)] == ["other-net"]


def earlier_version(mapping, net):
    """The mapping as versions wrote it that did not store options."""
    return dataclasses.replace(mapping, quantization=None, fingerprint=net.fingerprint())


def test_options_that_an_earlier_mapping_does_not_store_are_assumed(folder, mapped):
    graph = read(folder / "net.nir")
    quantized = quantize(graph)
    mapping = earlier_version(place_and_route(quantized.netlist).mapping, quantized.netlist)
    assert "quantization" not in to_json(mapping)
    again = quantize_as_mapped(graph, mapping)
    assert again.notes[1:] == quantized.notes
    assumed = again.notes[0].what.facts["options"]
    assert "speedup 1000, refractory_time 1 us" in assumed
    some = quantize_as_mapped(graph, mapping, refractory_time=2e-6, speedup=500.0)
    assert (some.speedup, some.populations["2"].refractory_time) == (500.0, 2e-6)
    assumed = some.notes[0].what.facts["options"]
    assert assumed == "bias refuse, v_leak 80, v_threshold 150, slope none"


def test_a_mapping_of_an_earlier_version_is_recognised(folder, mapped):
    graph = read(folder / "net.nir")
    earlier = quantize(graph, scale="max", v_threshold=125)
    mapping = earlier_version(place_and_route(earlier.netlist).mapping, earlier.netlist)
    (folder / "earlier.json").write_text(to_json(mapping))
    done, _ = mapped("net.nir", "--verify", "earlier.json", "--json")
    assert done["fits"]
    highest = max(targets["threshold"][1] for targets in done["calibration"].values())
    assert highest == 125
    again = quantize_as_mapped(graph, mapping)
    assert again.notes[0].what.facts == {"v_threshold": 125, "limit": 150}
    assert "v_threshold 125" in again.notes[1].what.facts["options"]
    assert again.notes[2:] == earlier.notes
    # not of another network, and not where the current defaults fit
    unrelated = quantize(read(folder / "other.nir"))
    current = earlier_version(place_and_route(unrelated.netlist).mapping, unrelated.netlist)
    for network in (graph, read(folder / "other.nir")):
        same = quantize_as_mapped(network, current)
        assert same.netlist.fingerprint() == quantize(network).netlist.fingerprint()


def test_map_does_not_import_jax(folder, run_python):
    code = f"import os, sys; os.chdir({str(folder)!r}); from jaxsnn.commands.cli import main\n"
    code += "main(['map', 'net.nir', '-o', 'quick.json', '--force', '-q'])\n"
    code += "print([name for name in ('jax', 'optax', 'matplotlib') if name in sys.modules])"
    assert run_python(code).stdout.endswith("[]\n")


def test_the_same_bytes_whatever_the_hash_seed(folder, run_python):
    code = f"import os; os.chdir({str(folder)!r}); from jaxsnn.commands.cli import main\n"
    for seed in ("1", "2"):
        name = f"hash{seed}.json"
        run_python(f"{code}main(['map', 'net.nir', '-o', {name!r}, '-q'])", PYTHONHASHSEED=seed)
    assert (folder / "hash1.json").read_bytes() == (folder / "hash2.json").read_bytes()


def test_too_few_runs_are_refused_with_the_resource(folder, mapped):
    out, _ = mapped("huge.nir", "-o", "no.json", "--runs", "1", code=1)
    assert out.startswith("impossible: '2', '4': 603 neurons need 1 or more circuits")
    assert out.endswith("(91 too many): pass --runs 2 or more\n")
    assert not (folder / "no.json").exists()
    done, _ = mapped("huge.nir", "-o", "two.json", "--json")
    assert (done["fits"], done["runs"], done["certificate"]["resource"]) == (True, 2, "circuits")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.nir"], "pass one of the two"),
        (["net.nir", "-o", "a.json", "--verify", "b.json"], "pass one of the two"),
        (["net.nir", "-o", "a.json", "--signs", "any"], "signs 'any' are not supported"),
        (["net.nir", "-o", "a.json", "--time-limit", "soon"], "'soon' is not a time"),
        (["net.nir", "-o", "a.json", "--placer", "spraed"], "did you mean 'spread'?"),
        (["net.nir", "-o", "a.json", "--bias-period", "2us"], "pass --bias source"),
        (
            ["net.nir", "-o", "a.json", "--bias", "source", "--bias-period", "2ns"],
            "--bias-period is 2e-09 s",
        ),
        (
            ["net.nir", "-o", "a.json", "--refractory-time", "50us"],
            "--refractory-time is 5e-05 s; the chip supports 40 ns to 32 us",
        ),
        (
            ["biased.nir", "-o", "b.json", "--bias", "source", "--bias-period", "3"],
            "--bias-period is 3 s of chip time",
        ),
        (["net.nir", "--verify", "absent.json"], "absent.json: no such file"),
        (["net.nir", "--verify", "net.nir"], "is not text"),
    ],
)
def test_wrong_arguments_are_refused(folder, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    assert message in refused(capsys, "map", *arguments)[1]


def test_a_slope_is_shown_with_the_settings_at_which_it_was_measured(folder, mapped):
    lines = [{"slope": slope, "i_synin_gm": gm} for slope, gm in ((1e-4, 300), (9.0, 700))]
    (folder / "slopes.json").write_text(json.dumps(lines))
    options = ("net.nir", "-o", "slope.json", "--force", "--slope")
    done, _ = mapped(*options, "slopes.json", "--json")
    assert done["measured"] == {"slope": 9.0, "i_synin_gm": 700, "synapse_dac_bias": 600}
    assert "at i_synin_gm 500 and synapse_dac_bias 600" in mapped(*options, "9.0")[0]


def test_a_strength_beyond_all_public_settings_is_warned_of(folder, mapped):
    """Delta synapses become currents of 0.3 us, which must be strong."""
    layers = build.linear(weight=[[1.0, 0.5]]), build.lif(tau=1e-3)
    write(folder / "delta.nir", build.sequential(build.input(2), *layers), force=True)
    plain = ("delta.nir", "-o", "delta.json", "--force", "--json")
    done, _ = mapped(*plain)
    assert done["slope"] > 1
    warning = "no public setting of the chip reaches more than 0.15"
    assert warning in mapped(*plain)[1]
    assert warning not in mapped(*plain, "--slope", str(done["slope"]))[1]


def test_how_often_the_bias_channel_fires_is_that_of_the_mapping(mapped, capsys):
    bias = ("--bias", "source", "--bias-period", "3us")
    note = "one every 3 us of chip time"
    assert note in mapped("biased.nir", "-o", "biased.json", *bias)[1]
    verify = ("biased.nir", "--verify", "biased.json")
    for options in ((), bias[:2], bias):
        assert note in mapped(*verify, *options)[1]
    line = refused(capsys, "map", *verify, *bias[:3], "2us")[1]
    assert "--bias-period is 2 us; the mapping was created with 3 us:" in line


def subtracting(rng):
    """Two layers of snnTorch's Leaky, and inputs (time, batch, channels)."""
    neurons = build.lif(tau=1e-3, r=10.0)
    first, second = (
        build.linear(weight=rng.normal(0.4, 0.4, shape).astype(np.float32))
        for shape in ((8, 5), (3, 8))
    )
    layers = build.input(5), first, neurons, second, neurons
    options = {"dialect": "snntorch", "reset": "subtract", "reset_delay": True, "dt": 1e-4}
    return build.sequential(*layers, **options), (rng.random((40, 6, 5)) < 0.4).astype(np.float32)


def test_a_reset_that_subtracts_is_mapped_if_that_is_allowed(folder, mapped, capsys):
    graph, x = subtracting(np.random.default_rng(0))
    write(folder / "leaky.nir", graph, force=True)
    np.savez(folder / "x.npz", x=x)
    plain = ("map", folder / "leaky.nir", "-o", folder / "l.json")
    assert "or --approximate to map it with a reset to v_reset" in refused(capsys, *plain)[1]
    _, err = refused(capsys, *plain, "--input", folder / "x.npz")
    assert "--input has no effect here: remove the option, or add --approximate" in err
    approximate = ("leaky.nir", "-o", "l.json", "--approximate", "--force")
    out, err = mapped(*approximate)
    assert "changed; pass --input" in out
    assert "2: resets to v_reset, and the source subtracts v_threshold" in err
    assert mapped(*approximate, "--json")[0]["resets"] is None
    content, _ = mapped(*approximate, "--input", "x.npz", "--json")
    for name in ("2", "4"):
        runs = [
            np.asarray(simulate(lower(variant), x, engine=TimeStepped(record=True)).spikes[name])
            for variant in (graph, read(folder / "leaky.nir", reset="zero"))
        ]
        assert content["resets"][name] == {
            "subtracting": runs[0].sum(),
            "to_v_reset": runs[1].sum(),
            "changed": np.count_nonzero(runs[0] != runs[1]),
        }
        assert content["resets"][name]["changed"] > 0
    counted = compare_resets(graph, {"x": x})
    assert counted.as_dict() == content["resets"]
    assert counted.as_text() in mapped(*approximate, "--input", "x.npz")[0]
    assert mapped("leaky.nir", "--verify", "l.json", "--approximate", "--json")[0]["fits"]


def test_resets_are_compared_in_time_steps():
    graph, _ = subtracting(np.random.default_rng(0))
    events = {"time": np.zeros((1, 1)), "index": np.zeros((1, 1), int)}
    assert_refused(lambda: compare_resets(graph, events), UsageError)
    without_dt = graph.with_dialect(dataclasses.replace(graph.dialect, dt=None))
    assert_refused(
        lambda: compare_resets(without_dt, {}), UsageError, "length of a step is unknown"
    )
