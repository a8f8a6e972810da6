"""What a file does not say: decided from an option, a tag or the numbers, or left open with the
reason.
"""

import dataclasses

import numpy as np
import pytest

from jaxsnn.errors import DialectError, UsageError
from jaxsnn.nir import (
    DIALECTS,
    build,
    dialect_of,
    export,
    parse,
    read,
    require,
    resistance,
    resolve,
    spike_area,
    tagged,
    write,
)
from jaxsnn.nir.frameworks.evidence import estimate
from jaxsnn.nir.frameworks.rockpool import lambert_w
from jaxsnn.nir.model.nodes import NEURONS, TYPES


def network(neurons, dialect="nir", **options):
    """One population behind a weight matrix; options are read as those of the given dialect."""
    untagged = export(
        build.sequential(build.input(2), build.linear(3), neurons, seed=0, dialect="nir")
    )
    untagged.metadata = {}
    return parse(untagged, dialect=dialect, **options)


def test_every_dialect_has_rules_for_neurons_only():
    neurons = {cls.__name__ for cls in NEURONS}
    for name, conventions in DIALECTS.items():
        assert conventions.name == name
        assert set(conventions.rules) <= neurons <= set(TYPES)


def test_the_step_follows_from_the_numbers(zoo):
    dialect = read(zoo["snntorch_v_syn_sub"], dialect="snntorch").dialect
    assert dialect.dt == 1e-4
    assert "dt is 100 us, from tau/r of all neurons" in dialect.why
    assert (dialect.reset, dialect.reset_delay) == (None, None)
    assert "say reset= and reset_delay=" in dialect.why


@pytest.mark.parametrize(
    ("unit", "taus", "step", "dt"),
    [
        ("ms", (10, 20, 40), 0.5, 5e-4),
        ("s", (10e-3, 20e-3, 40e-3), 1.0008e-3, 1.0008e-3),  # 0.08 %: no rounding of float32
    ],
)
def test_the_step_has_the_unit_of_the_file_and_all_its_digits(unit, taus, step, dt):
    tau = np.array(taus)
    gain = 1 - step / tau
    neurons = build.node("LIF", 3, tau=tau, r=gain, v_leak=0.0, v_threshold=1.0)
    assert network(neurons, "spyx", time_unit=unit).dialect.dt == pytest.approx(dt, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "dialect", "dt", "message"),
    [
        (
            "snntorch_v_syn_sub",
            "snntorch",
            "1ms",
            r"1 ms\) contradicts .* tau_syn = 0.0005 and w_in = 5, so dt = tau/r = 100 us",
        ),
        ("snntorch_v_syn_sub", "auto", 1e-3, r"^dt=0\.001 \(1 ms\) contradicts"),
        ("rockpool_b_liftorch", "rockpool", "2ms", r"dt = tau W\(1/r\) = 1 ms"),
        ("spyx_v_lif", "spyx", "1ms", r"dt = tau \(1-r\) = 100 us"),
        ("spikingjelly_v_if", "spikingjelly", "1ms", "dt = tau/r = 100 us"),
    ],
)
def test_a_step_that_contradicts_the_numbers_is_refused_with_both(zoo, name, dialect, dt, message):
    with pytest.raises(DialectError, match=message) as caught:
        read(zoo[name], dialect=dialect, dt=dt)
    assert "\n" not in str(caught.value)
    assert caught.value.fix == "leave dt= out, or say another dialect="
    assert caught.value.problem.code == "contradiction"
    assert f"node '{caught.value.node}'" in caught.value.problem.message


@pytest.mark.parametrize(
    ("name", "dialect", "message"),
    [
        (
            "rockpool_b_liftorch",
            "snntorch",
            "snntorch writes one dt = tau/r, but node '1_LIFTorch' has",
        ),
        ("snntorch_v_leaky_sub", "norse", "norse writes r = 1, but node '1' has 10"),
        ("snntorch_v_syn_sub", "hxtorch", "hxtorch writes r = 1, but node '1' has 10"),
        (
            "sinabs_v_lif",
            "rockpool",
            "rockpool writes r = .tau/dt. exp.-dt/tau., but node '1' has r = 1",
        ),
        (
            "sinabs_v_lif",
            "spyx",
            r"spyx writes one dt = tau \(1-r\), but node '1' has tau = 10 and r = 1, so dt = 0",
        ),
        ("norse_v_li", "spikingjelly", "node '3' is a LI, which spikingjelly never writes"),
        (
            "norse_v_lifbox_vleak",
            "spikingjelly",
            "spikingjelly writes v_leak = v_reset, but node '1' has",
        ),
        (
            "sinabs_v_lif",
            "snntorch",
            "always writes with dt = 100 us, but node '1' has tau = 10 and r = 1",
        ),
    ],
)
def test_a_dialect_that_contradicts_the_numbers_is_refused(zoo, name, dialect, message):
    with pytest.raises(DialectError, match=message) as caught:
        read(zoo[name], dialect=dialect)
    assert caught.value.problem.code == "contradiction"
    assert f"node '{caught.value.node}'" in caught.value.problem.message
    assert "another dialect=" in caught.value.fix


def test_numbers_of_half_precision_are_named_where_no_dialect_fits():
    """tau and r of one dt, rounded to 3 digits, fit to none."""
    rest = np.array([0.1, 0.2, 0.3], np.float16)
    half = export(network(build.lif(tau=1e-4 / rest, r=1 / rest)))
    half.metadata = {}
    half.nodes["2"].tau, half.nodes["2"].r = (1e-4 / rest).astype(np.float16), 1 / rest
    message = (
        r"export the network in float32 \(net.float\(\)\), as the numbers of node '2' are float16"
    )
    with pytest.raises(DialectError, match=message):
        parse(half, dialect="snntorch")
    found = parse(half).dialect
    assert found.name is None
    assert "of node '2' are float16" in found.why


def test_another_step_is_believed_when_it_is_said():
    neurons = build.cubalif(tau_mem=0.02, tau_syn=0.01, r=20.0, w_in=10.0)
    with pytest.raises(
        DialectError, match=r"dt = 100 us, .* = 1 ms: say dt=0\.001 if that is meant"
    ):
        network(neurons, "snntorch")
    assert network(neurons, "snntorch", dt="1ms").dialect.dt == 1e-3


def test_hand_written_numbers_prove_nothing():
    """r = tau/dt holds for any single pair of numbers, with some dt."""
    for r, tau in ((10.0, 0.001), (20.0, 0.002), (0.9, 0.01), (1.0, 1e-4)):
        graph = network(build.lif(tau=tau, r=r))
        assert resolve(graph).name is None
        assert resolve(graph).fix.startswith("say dialect=, one of nir, ")


def test_what_the_numbers_prove_changes_with_the_numbers(zoo):
    graph = read(zoo["snntorch_v_leaky_sub"])
    assert graph.dialect.name == "snntorch"
    node = graph.nodes["1"]
    changed = graph.with_nodes([node.replace(tau=node.value("tau") * np.float32(1.5))])
    assert resolve(changed).name is None
    assert "snntorch" not in resolve(changed).choices


def test_lambert_w_solves_its_equation():
    z = np.concatenate([[0.0], np.logspace(-8, 6, 300)])
    w = lambert_w(z)
    np.testing.assert_allclose(w * np.exp(w), z, rtol=1e-12)


def test_neurons_without_leak_say_nothing_about_the_step():
    graph = network(build.lif(tau=[np.inf, 0.001, 0.002], r=[np.inf, 10.0, 20.0]), "snntorch")
    assert graph.dialect.dt == 1e-4
    assert estimate(graph.nodes, DIALECTS["snntorch"].evidence).agrees


OPTIONS = [
    ({"dialect": "snntorhc"}, "unknown dialect 'snntorhc': did you mean 'snntorch'"),
    ({"reset": "soft"}, "reset=.soft. is unknown: say one of zero, subtract, none"),
    ({"reset": "9:zero"}, "reset names '9', which is not a neuron of the graph: There are 1, 3"),
    (
        {"reset": ["zero", "subtract"]},
        "reset is said twice for all nodes, 'zero' and 'subtract': say which node has the other",
    ),
    ({"readout": "0"}, "readout names '0', which is not a neuron"),
    ({"time_unit": "h"}, "time_unit=.h. is unknown: say one of s, ms, step"),
    ({"dialect": "norse", "dt_export": 0}, "not a positive, finite time"),
    ({"dt": "5 parsec"}, "unknown unit 'parsec'"),
    ({"dt": -1.0}, "not a positive, finite time"),
    (
        {"dialect": "snntorch", "dt_export": "1ms"},
        "dt_export is for the dialect norse, not for snntorch",
    ),
    (
        {"dialect": "snntorch", "norm_input": "1:true"},
        "norm_input is for the dialect sinabs, not for snntorch",
    ),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_options_that_make_no_sense_are_refused(zoo, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        read(zoo["snntorch_v_li"], **options)
    assert caught.value.exit_code == 2


def test_a_fixed_unit_cannot_be_changed(zoo):
    with pytest.raises(
        DialectError,
        match=r"time_unit=.ms. contradicts the dialect snntorch, which writes time in 's'",
    ):
        read(zoo["snntorch_v_li"], time_unit="ms")
    with pytest.raises(
        DialectError, match=r"time_unit=.step. contradicts .* = 0.0001, which is 1 where"
    ):
        read(zoo["spyx_v_lif"], time_unit="step")


def test_options_hold_for_all_or_for_one(zoo):
    graph = read(
        zoo["snntorch_v_li"],
        reset=["zero", "3:none"],
        reset_delay="false",
        spike_kernel={"1": "delta"},
    )
    assert [graph.dialect.at(name).reset for name in ("1", "3")] == ["zero", "none"]
    assert [graph.dialect.at(name).spike_kernel for name in ("1", "3")] == ["delta", "box"]
    assert graph.dialect.at("1").reset_delay is False
    readout = read(zoo["snntorch_v_li"], reset="subtract", readout="3").dialect
    assert (readout.at("3").readout, readout.at("3").reset) == (True, "none")
    assert (readout.at("1").readout, readout.at("1").reset) == (False, "subtract")


def test_undecided_files_are_read_but_not_played(zoo):
    graph = read(zoo["norse_v_lifcell"], dt="1ms")
    assert graph.dialect.name is None
    assert graph.dialect.dt == 1e-3
    with pytest.raises(
        DialectError,
        match=r"node '1': .* needs the dialect of the file \(The numbers .* allow nir, norse, .*\): say",
    ) as caught:
        spike_area(graph.dialect, graph.nodes["1"])
    assert (
        caught.value.fix == "say dialect=, one of nir, norse, rockpool==importer, jaxsnn, hxtorch"
    )
    assert caught.value.node == "1"


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        (
            {"dialect": "norse"},
            "seconds",
            "needs the dt that Norse's exporter was given: say dt_export=",
        ),
        (
            {"dialect": "hxtorch"},
            "seconds",
            r"needs the unit of time: say time_unit= \((?!.*say time_unit).* look like s",
        ),
        (
            {"dialect": "nir", "time_unit": "step"},
            "seconds",
            "needs the length of a step, in which .* say dt=",
        ),
        ({"dialect": "norse"}, "dt", "needs dt, which the file does not say: say dt=$"),
        ({}, "name", "needs the dialect of the file .The numbers do not decide"),
    ],
)
def test_what_is_missing_is_asked_for_by_its_option(zoo, options, field, message):
    dialect = read(zoo["norse_v_lifcell"], **options).dialect
    with pytest.raises(DialectError, match=f"^the engine {message}"):
        require(dialect, [field], "the engine")


def test_milliseconds_are_never_taken_for_seconds(zoo):
    dialect = read(zoo["jaxsnn_b_cubalif"], dialect="jaxsnn").dialect
    assert dialect.time_unit is None
    assert dialect.seconds is None
    assert "Its time constants, 5 to 10, look like ms" in dialect.why
    assert read(zoo["jaxsnn_b_cubalif"], dialect="hxtorch", time_unit="ms").dialect.seconds == 1e-3


def areas(graph):
    return {
        name: (area.kind, area.seconds)
        for name in graph.neurons
        if (area := spike_area(graph.dialect, graph.nodes[name]))
    }


def test_the_gain_of_each_framework(zoo):
    """One spike of weight w must do what the framework's own step does (to first order in dt)."""
    assert areas(read(zoo["snntorch_v_leaky_sub"])) == {"1": ("fixed", 1e-4), "3": ("fixed", 1e-4)}
    assert areas(read(zoo["norse_v_lifbox"], dialect="norse", dt="1ms")) == {
        "1": ("fixed", 1e-3),
        "3": ("fixed", 1e-3),
    }
    assert areas(read(zoo["norse_v_lifcell"], dialect="norse")) == {
        "1": ("jump", None),
        "3": ("jump", None),
    }
    assert areas(read(zoo["jaxsnn_b_cubalif"], dialect="jaxsnn")) == {
        "h": ("scaled jump", None),
        "o": ("scaled jump", None),
    }
    assert areas(read(zoo["spikingjelly_v_if"], dialect="spikingjelly")) == {
        "_1": ("fixed", 1e-4),
        "_3": ("fixed", 1e-4),
    }
    sinabs = {"dialect": "sinabs", "dt": 1.0, "norm_input": ["true", "3:false"]}
    assert areas(read(zoo["sinabs_v_li"], **sinabs)) == {"1": ("fixed", 1.0), "3": ("jump", None)}
    literal = {"dialect": "nir", "time_unit": "ms"}
    assert areas(read(zoo["jaxsnn_b_cubalif"], **literal)) == {
        "h": ("fixed", 1e-3),
        "o": ("fixed", 1e-3),
    }
    with pytest.raises(
        DialectError,
        match=r"node '1': the strength of a spike needs norm_input, .* say norm_input=$",
    ):
        areas(read(zoo["sinabs_v_lif"], dialect="sinabs", dt=1.0))


def test_a_type_that_a_framework_does_not_have_is_refused():
    graph = network(build.cubali(tau_mem=0.02, tau_syn=0.01))
    dialect = dialect_of("snntorch")
    with pytest.raises(
        DialectError,
        match=r"'2' is a CubaLI, which snntorch never writes \(it writes LIF, CubaLIF\)",
    ):
        spike_area(dialect, graph.nodes["2"])


def test_resistance_is_in_seconds_and_what_the_framework_plays(zoo):
    spyx = read(zoo["spyx_v_cuba"])
    np.testing.assert_allclose(resistance(spyx.dialect, spyx.nodes["layer_1"]), 10, rtol=1e-6)
    steps = read(zoo["sinabs_v_iaf"], dialect="sinabs", dt="1ms")
    np.testing.assert_allclose(resistance(steps.dialect, steps.nodes["1"]), 1000)
    snntorch = read(zoo["snntorch_v_syn_sub"])
    assert resistance(snntorch.dialect, snntorch.nodes["1"]) is snntorch.nodes["1"].value("r")


def test_seconds_of_a_unit():
    assert dialect_of("nir", time_unit="ms").seconds == 1e-3
    assert dialect_of("sinabs", time_unit="step", dt=0.002).seconds == 0.002
    assert dialect_of("norse", time_unit="s", dt_export=1e-3).seconds == 1000
    assert dialect_of("norse", time_unit="s").seconds is None


def test_the_tag_tells_all_and_is_not_needed(zoo, tmp_path):
    said = {"reset": ["zero", "3:none"], "reset_delay": False, "readout": "3"}
    graph = read(zoo["snntorch_v_li"], dialect="snntorch", **said)
    write(tmp_path / "tagged.nir", tagged(graph))
    again = read(tmp_path / "tagged.nir").dialect
    assert again.decided_by == "metadata"
    assert dataclasses.replace(again, decided_by="argument", why="") == dataclasses.replace(
        graph.dialect, why=""
    )
    other = read(tmp_path / "tagged.nir", reset="subtract").dialect
    assert (other.reset, other.at("3").reset) == ("subtract", "none")
    assert "jaxsnn" not in graph.metadata


def test_a_tag_counts_where_its_own_dialect_is_said(zoo, tmp_path):
    said = {"reset": ["subtract", "3:none"], "reset_delay": False, "readout": "3"}
    graph = read(zoo["snntorch_v_li"], dialect="snntorch", **said)
    write(tmp_path / "tagged.nir", tagged(graph))
    again = read(tmp_path / "tagged.nir", dialect="snntorch")
    assert dataclasses.replace(again.dialect, why="") == dataclasses.replace(graph.dialect, why="")
    assert again.dialect.why == "snntorch was said, as its metadata do."
    assert again.warnings == read(tmp_path / "tagged.nir").warnings

    other = read(tmp_path / "tagged.nir", dialect="snntorch", reset="zero").dialect
    assert (other.reset, other.reset_delay, other.at("3").reset) == ("zero", False, "none")
    assert "Its metadata say reset subtract; zero was said." in other.why
    one = read(tmp_path / "tagged.nir", reset="3:zero").dialect
    assert one.at("3").reset == "zero"
    assert "Its metadata say reset of '3' none; zero was said." in one.why


def test_another_dialect_than_the_tag_is_told(tmp_path):
    graph = build.sequential(
        build.input(2), build.linear(3), build.cubalif(tau_mem="10ms", tau_syn="5ms"), seed=0
    )
    write(tmp_path / "a.nir", graph)
    other = read(tmp_path / "a.nir", dialect="nir", time_unit="ms")
    assert (other.dialect.name, other.dialect.reset, other.dialect.time_unit) == (
        *("nir", graph.dialect.reset, "ms"),
    )
    told = "Its metadata say dialect jaxsnn, time unit s, reset zero; nir was said"
    assert f"{told}." in other.dialect.why
    made = parse(other.source, dialect=dialect_of("nir", time_unit="ms"))
    for one in (other, made):
        assert [(problem.code, problem.message) for problem in one.warnings] == [
            ("other-dialect", told)
        ]
    assert not read(tmp_path / "a.nir", dialect="jaxsnn").warnings


def test_the_version_of_a_tag_counts_where_none_is_said(tmp_path):
    layers = build.input(2), build.linear(3), build.lif(tau=0.01)
    graph = build.sequential(*layers, seed=0, dialect="norse==main", dt="1ms")
    write(tmp_path / "a.nir", graph)
    again = read(tmp_path / "a.nir", dialect="norse").dialect
    assert (again.version, again.dt) == ("main", 1e-3)
    assert again.why.startswith("norse was said, and its metadata name norse==main.")
    other = read(tmp_path / "a.nir", dialect="norse==importer")
    assert other.dialect.version == "importer"
    assert "Its metadata say dialect norse==main" in other.warnings[0].message
    graph = build.sequential(*layers, seed=0, dialect="norse==importer", dt="1ms")
    write(tmp_path / "c.nir", graph)
    plain = read(tmp_path / "c.nir", dialect="norse", dt_export=1.0)  # which its importer has not
    assert (plain.dialect.version, plain.dialect.seconds) == (None, 1.0)
    assert "Its metadata say dialect norse==importer" in plain.warnings[0].message


def test_what_is_said_for_all_goes_before_a_tag_that_says_it_of_one(tmp_path):
    lif = build.lif(3, tau="10ms", v_threshold=0.1)
    one = network(lif, time_unit="s", dt="1ms", spike_kernel="2:box", reset="2:subtract")
    write(tmp_path / "a.nir", tagged(one))
    said = read(tmp_path / "a.nir", spike_kernel="delta", time_unit="ms").dialect
    assert (said.at("2").spike_kernel, said.at("2").reset) == ("delta", "subtract")
    assert (said.time_unit, said.dt) == ("ms", 1e-3)
    assert "Its metadata say spike kernel of '2' box; delta was said." in said.why
    assert "Its metadata say time unit s; ms was said." in said.why


@pytest.mark.parametrize(
    "tag",
    [
        "no json",
        "[]",
        "{}",
        '{"name": "unheard-of"}',
        '{"name": "snntorch", "dt": "long"}',
        '{"name": "snntorch", "colour": "red"}',
        '{"name": "snntorch", "nodes": {"9": {"reset": "zero"}}}',
        '{"name": "norse"}',
        '{"name": "snntorch", "dt": 0.002}',
        f'{{"name": "snntorch", "dt": 1{"0" * 400}}}',
        '{"name": "snntorch", "dt": [1]}',
        '{"name": "snntorch", "nodes": {"1": {"colour": "red"}}}',
        "[" * 100_000,
    ],
)
def test_a_tag_that_is_wrong_is_not_believed(zoo, tmp_path, tag):
    from jaxsnn.nir.io.files import Group, load, save, text_dataset

    document = load(zoo["snntorch_v_leaky_sub"])
    document["node"]["metadata"] = Group({"jaxsnn": text_dataset(tag)})
    save(tmp_path / "a.nir", document)
    dialect = read(tmp_path / "a.nir").dialect
    assert (dialect.name, dialect.decided_by) == ("snntorch", "inference")
    assert "The entry 'jaxsnn' of its metadata is not believed" in dialect.why
    assert "\n" not in dialect.why


def test_a_graph_that_is_built_is_read_again_without_options(tmp_path):
    graph = build.sequential(
        build.input(2), build.linear(3), build.cubalif(tau_mem="10ms", tau_syn="5ms"), seed=0
    )
    assert (graph.dialect.name, graph.dialect.time_unit, graph.dialect.seconds) == (
        "jaxsnn",
        "s",
        1.0,
    )
    write(tmp_path / "a.nir", graph)
    again = read(tmp_path / "a.nir").dialect
    assert dataclasses.replace(again, decided_by="argument", why="") == dataclasses.replace(
        graph.dialect, why=""
    )


def test_an_option_that_does_not_exist_is_refused():
    graph = build.sequential(build.input(2), build.linear(3), build.li(tau="10ms"), seed=0)
    with pytest.raises(UsageError, match="unknown option 'rest': did you mean 'reset'"):
        resolve(graph, rest="zero")
    with pytest.raises(UsageError, match="a Dialect is complete, so reset would be ignored"):
        parse(export(graph), dialect=graph.dialect, reset="zero")
    assert parse(export(graph), dialect=graph.dialect).dialect == graph.dialect


def test_the_area_of_a_spike_can_be_said_of_the_literal_equations():
    lif = build.lif(3, tau="10ms", v_threshold=0.1)
    dialect = network(lif, time_unit="s", spike_area="100us").dialect
    assert dialect.own == {"spike_area": 1e-4}
    assert (dialect.spike_kernel, dialect.dt) == ("box", 1e-4)
    assert 'a current of 1 that lasts 0.0001 s; say spike_kernel="delta"' in dialect.why
    longer = network(lif, time_unit="s", spike_area="100us", dt="1ms")
    assert (longer.dialect.spike_kernel, longer.dialect.dt) == ("box", 1e-3)
    assert "a current of 0.1 that lasts 0.001 s" in longer.dialect.why
    assert spike_area(longer.dialect, longer.nodes["2"]).seconds == 1e-4
    delta = network(lif, time_unit="s", spike_area="100us", spike_kernel="delta").dialect
    assert (delta.spike_kernel, delta.dt) == ("delta", None)
    again = parse(export(tagged(network(lif, time_unit="s", spike_area="100us"))))
    assert again.dialect.own == {"spike_area": 1e-4}
    later = parse(export(tagged(network(lif, time_unit="s"))), dialect="nir", spike_area="100us")
    assert later.dialect.spike_kernel == "box"
    with pytest.raises(UsageError, match="not a positive, finite time"):
        network(lif, time_unit="s", spike_area=-1.0)
    with pytest.raises(UsageError, match="spike_area is for the dialect nir"):
        network(lif, dialect="jaxsnn", spike_area="100us")
