"""What a file does not say: decided from an option, a tag or the numbers, or left open with the
reason.
"""

import dataclasses
from functools import partial

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
from jaxsnn.nir.dialects.inference import possible
from jaxsnn.nir.frameworks.evidence import estimate
from jaxsnn.nir.io.files import Group, load, text_dataset
from jaxsnn.nir.model.extension_nodes import EXTENSIONS
from jaxsnn.nir.model.nodes import NEURONS, TYPES
from tests.helpers.refusals import assert_refused


def network(neurons, dialect="nir", **options):
    """One population behind a weight matrix; options are read as those of the given dialect."""
    layers = build.linear(3), neurons
    untagged = export(build.sequential(build.input(2), *layers, seed=0, dialect="nir"))
    untagged.metadata = {}
    return parse(untagged, dialect=dialect, **options)


def test_every_dialect_has_rules_for_neurons_only():
    neurons = {cls.__name__ for cls in NEURONS}
    for name, conventions in DIALECTS.items():
        assert conventions.name == name
        assert set(conventions.rules) - set(EXTENSIONS) <= neurons <= set(TYPES)


def test_the_step_follows_from_the_numbers(zoo):
    dialect = read(zoo["snntorch_v_syn_sub"], dialect="snntorch").dialect
    assert dialect.dt == 1e-4
    assert "dt is 100 us, computed as tau/r from all neurons" in dialect.why
    assert (dialect.reset, dialect.reset_delay) == (None, None)
    assert "pass reset= and reset_delay=" in dialect.why


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


SYN, LI, SINABS, IF = "snntorch_v_syn_sub", "snntorch_v_li", "sinabs_v_lif", "spikingjelly_v_if"
#: File of the zoo, options that contradict it, and a pattern of the message.
CONTRADICTED = [
    (SYN, {"dialect": "snntorch", "dt": "1ms"}, "tau_syn = 0.0005 and w_in = 5, .* = 100 us"),
    (SYN, {"dt": 1e-3}, r"^dt=0\.001 \(1 ms\) contradicts"),
    ("rockpool_b_liftorch", {"dialect": "rockpool", "dt": "2ms"}, r"dt = tau W\(1/r\) = 1 ms"),
    ("spyx_v_lif", {"dialect": "spyx", "dt": "1ms"}, r"dt = tau \(1-r\) = 100 us"),
    (IF, {"dialect": "spikingjelly", "dt": "1ms"}, "dt = tau/r = 100 us"),
    ("rockpool_b_liftorch", {"dialect": "snntorch"}, "one dt = tau/r, but node '1_LIFTorch' has"),
    ("snntorch_v_leaky_sub", {"dialect": "norse"}, "r = 1, but node '1' has 10"),
    (SYN, {"dialect": "hxtorch"}, "r = 1, but node '1' has 10"),
    (SINABS, {"dialect": "rockpool"}, "r = .tau/dt. exp.-dt/tau., but node '1' has r = 1"),
    (SINABS, {"dialect": "spyx"}, "node '1' has tau = 10 and r = 1, so dt = 0"),
    ("norse_v_li", {"dialect": "spikingjelly"}, "node '3' is of type LI, which spikingjelly never"),
    ("norse_v_lifbox_vleak", {"dialect": "spikingjelly"}, "v_leak = v_reset, but node '1' has"),
    (SINABS, {"dialect": "snntorch"}, "dt = 100 us, but node '1' has tau = 10 and r = 1"),
]


@pytest.mark.parametrize(("name", "options", "says"), CONTRADICTED)
def test_what_contradicts_the_numbers_is_refused_with_both(zoo, name, options, says):
    node = read(zoo[name]).neurons[0] if "'" not in says else says.split("'")[1]
    assert_refused(
        lambda: read(zoo[name], **options),
        DialectError,
        says,
        node=node,
        code="contradiction",
        fix="a different dialect=",
    )


@pytest.mark.parametrize(
    ("name", "unit", "says"),
    [
        (LI, "ms", "the dialect snntorch, which writes times in 's'"),
        ("spyx_v_lif", "step", "= 0.0001, and dt is 1 in"),
    ],
)
def test_a_fixed_unit_cannot_be_changed(zoo, name, unit, says):
    says = f"time_unit=.{unit}. contradicts .*{says}"
    assert_refused(lambda: read(zoo[name], time_unit=unit), DialectError, says)


def test_another_step_is_believed_when_it_is_said():
    neurons = build.cubalif(tau_mem=0.02, tau_syn=0.01, r=20.0, w_in=10.0)
    says, fix = "dt = 100 us, .* = 1 ms", "pass dt=0.001 if this is correct"
    assert_refused(lambda: network(neurons, "snntorch"), DialectError, says, fix=fix)
    assert network(neurons, "snntorch", dt="1ms").dialect.dt == 1e-3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dialect": "snntorhc"}, "'snntorhc': did you mean 'snntorch'"),
        ({"dialect": "nors==main"}, "'nors': did you mean 'norse'"),
        ({"dialect": "norse==0.9"}, r"norse 0\.9 is unknown: known versions: 1\.1, main"),
        ({"reset": "soft"}, "reset=.soft. .* zero, subtract, none"),
        ({"reset": "9:zero"}, "reset refers to node '9', .*: Available: 1, 3"),
        ({"reset": ["zero", "subtract"]}, "reset is specified twice .* 'zero' and 'subtract'"),
        ({"readout": "0"}, "readout refers to node '0'"),
        ({"time_unit": "h"}, "time_unit=.h. .* s, ms, step"),
        ({"dialect": "norse", "dt_export": 0}, "not a positive, finite time"),
        ({"dt": "5 parsec"}, "unknown unit 'parsec'"),
        ({"dt": -1.0}, "not a positive, finite time"),
        ({"dialect": "snntorch", "dt_export": "1ms"}, "dt_export .* norse, not of snntorch"),
        ({"dialect": "snntorch", "norm_input": "1:true"}, "norm_input .* sinabs, not of snntorch"),
    ],
)
def test_options_that_make_no_sense_are_refused(zoo, options, says):
    assert_refused(lambda: read(zoo[LI], **options), UsageError, says)


def test_an_option_that_does_not_exist_is_refused():
    graph = build.sequential(build.input(2), build.linear(3), build.li(tau="10ms"), seed=0)
    reread = partial(parse, export(graph), dialect=graph.dialect)
    assert_refused(lambda: resolve(graph, rest="zero"), UsageError, "'rest': did you mean 'reset'")
    assert_refused(
        lambda: reread(reset="zero"),
        UsageError,
        "already specifies reset, which would have no effect",
    )
    assert reread().dialect == graph.dialect


# -- missing options


@pytest.mark.parametrize(
    ("options", "field", "says", "fix"),
    [
        (
            {"dialect": "norse"},
            "seconds",
            "the dt that was passed to Norse's exporter",
            "dt_export=",
        ),
        ({"dialect": "hxtorch"}, "seconds", "the unit of time: .* are probably in s", "time_unit="),
        ({"dialect": "nir", "time_unit": "step"}, "seconds", "the length of a time step", "dt="),
        ({"dialect": "norse"}, "dt", "needs dt", "pass dt="),
        (
            {},
            "name",
            "The parameters .* allow nir, norse, ",
            "one of nir, norse, rockpool==importer",
        ),
    ],
)
def test_what_is_missing_is_asked_for_by_its_option(zoo, options, field, says, fix):
    dialect = read(zoo["norse_v_lifcell"], **options).dialect
    ask = partial(require, dialect, [field], "the engine")
    assert_refused(ask, DialectError, f"^the engine .*{says}", fix=fix)


@pytest.mark.parametrize(
    ("name", "options", "dialect", "says", "fix"),
    [
        ("norse_v_lifcell", {"dt": "1ms"}, (None, 1e-3), "the dialect of the file", ""),
        (
            SINABS,
            {"dialect": "sinabs", "dt": 1.0},
            ("sinabs", 1.0),
            "strength of a spike",
            "norm_input=",
        ),
    ],
)
def test_a_gain_that_is_not_decided_is_refused(zoo, name, options, dialect, says, fix):
    graph = read(zoo[name], **options)
    assert (graph.dialect.name, graph.dialect.dt) == dialect
    ask = partial(spike_area, graph.dialect, graph.nodes["1"])
    assert_refused(ask, DialectError, says, node="1", fix=fix)


# -- gains


@pytest.mark.parametrize(
    ("name", "options", "areas"),
    [
        ("snntorch_v_leaky_sub", {}, [("fixed", 1e-4)] * 2),
        ("norse_v_lifbox", {"dialect": "norse", "dt": "1ms"}, [("fixed", 1e-3)] * 2),
        ("norse_v_lifcell", {"dialect": "norse"}, [("jump", None)] * 2),
        ("jaxsnn_b_cubalif", {"dialect": "jaxsnn"}, [("scaled jump", None)] * 2),
        ("jaxsnn_b_cubalif", {"dialect": "nir", "time_unit": "ms"}, [("fixed", 1e-3)] * 2),
        (IF, {"dialect": "spikingjelly"}, [("fixed", 1e-4)] * 2),
        (
            "sinabs_v_li",
            {"dialect": "sinabs", "dt": 1.0, "norm_input": ["true", "3:false"]},
            [("fixed", 1.0), ("jump", None)],
        ),
    ],
)
def test_the_gain_of_each_framework(zoo, name, options, areas):
    """One spike of weight w must do what the framework's own step does (to first order in dt)."""
    graph = read(zoo[name], **options)
    gains = [spike_area(graph.dialect, graph.nodes[neuron]) for neuron in graph.neurons]
    assert [(area.kind, area.seconds) for area in gains] == areas


def test_a_gain_of_a_type_that_a_framework_does_not_write_is_refused():
    node = network(build.cubali(tau_mem=0.02, tau_syn=0.01)).nodes["2"]
    says = r"'2' is of type CubaLI, .* \(it writes LIF, CubaLIF\)"
    assert_refused(lambda: spike_area(dialect_of("snntorch"), node), DialectError, says)


# -- tags


def of_norse(version):
    layers = build.input(2), build.linear(3), build.lif(tau=0.01)
    return build.sequential(*layers, seed=0, dialect=f"norse=={version}", dt="1ms")


def cubalif(dialect="jaxsnn"):
    neuron = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    return build.sequential(build.input(2), build.linear(3), neuron, seed=0, dialect=dialect)


def of_one(_):
    lif = build.lif(3, tau="10ms", v_threshold=0.1)
    options = {"time_unit": "s", "dt": "1ms", "spike_kernel": "2:box", "reset": "2:subtract"}
    return network(lif, **options)


def with_readout(zoo):
    options = {"reset": ["subtract", "3:none"], "reset_delay": False, "readout": "3"}
    return read(zoo[LI], dialect="snntorch", **options)


#: Graph whose tag is written, options for its file, expected dialect, reasons, and warning.
TAGGED = {
    "a dialect that was built": (
        lambda _: cubalif(),
        {},
        {"name": "jaxsnn", "seconds": 1.0},
        [],
        "",
    ),
    "its own name": (
        with_readout,
        {"dialect": "snntorch"},
        {"reset": "subtract", "3 reset": "none", "3 readout": True, "reset_delay": False},
        ["snntorch was specified; the metadata of the file agree."],
        "",
    ),
    "another reset": (
        with_readout,
        {"dialect": "snntorch", "reset": "zero"},
        {"reset": "zero", "reset_delay": False, "3 reset": "none"},
        ["Its metadata specify reset subtract; zero was specified."],
        "",
    ),
    "another reset of a node": (
        with_readout,
        {"reset": "3:zero"},
        {"reset": "subtract", "3 reset": "zero"},
        ["Its metadata specify reset of '3' none; zero was specified."],
        "",
    ),
    "another dialect": (
        lambda _: cubalif(),
        {"dialect": "nir", "time_unit": "ms"},
        {"name": "nir", "reset": "zero", "time_unit": "ms"},
        ["Its metadata specify dialect jaxsnn, time unit s, reset zero; nir was specified."],
        "dialect jaxsnn, time unit s, reset zero, but nir was specified",
    ),
    "a version": (
        lambda _: of_norse("main"),
        {"dialect": "norse"},
        {"version": "main", "dt": 1e-3},
        ["norse was specified; the metadata of the file specify norse==main."],
        "",
    ),
    "another version": (
        lambda _: of_norse("main"),
        {"dialect": "norse==importer"},
        {"version": "importer"},
        [],
        "dialect norse==main",
    ),
    "an option that the version has not": (
        lambda _: of_norse("importer"),
        {"dialect": "norse", "dt_export": 1.0},
        {"version": None, "seconds": 1.0},
        [],
        "dialect norse==importer",
    ),
    "something of all where a tag says it of one": (
        of_one,
        {"spike_kernel": "delta", "time_unit": "ms"},
        {"2 spike_kernel": "delta", "2 reset": "subtract", "time_unit": "ms", "dt": 1e-3},
        ["spike kernel of '2' box; delta was specified.", "time unit s; ms was specified."],
        "",
    ),
}


@pytest.mark.parametrize("case", TAGGED)
def test_arguments_go_before_a_tag_and_the_rest_is_its(case, zoo, tmp_path):
    make, options, expected, why, warning = TAGGED[case]
    write(tmp_path / "a.nir", tagged(make(zoo)))
    graph = read(tmp_path / "a.nir", **options)
    write(tmp_path / "b.nir", graph)
    for dialect in (graph.dialect, read(tmp_path / "b.nir").dialect):
        for key, value in expected.items():
            node, _, field = key.rpartition(" ")
            assert getattr(dialect.at(node) if node else dialect, field) == value, key
    assert all(text in graph.dialect.why for text in why)
    assert [warning in problem.message for problem in graph.warnings] == [True] * bool(warning)
    assert {problem.code for problem in graph.warnings} <= {"other-dialect"}


@pytest.mark.parametrize("make", [with_readout, lambda _: cubalif(), of_one])
def test_a_tag_has_the_dialect(make, zoo, tmp_path):
    graph = make(zoo)
    write(tmp_path / "a.nir", tagged(graph))
    dialect = read(tmp_path / "a.nir").dialect
    assert dialect.decided_by == "metadata"
    source = {"why": graph.dialect.why, "decided_by": graph.dialect.decided_by}
    assert dataclasses.replace(dialect, **source) == graph.dialect


def test_another_dialect_than_the_tag_is_told_of_a_document_too():
    graph = parse(cubalif().source, dialect=dialect_of("nir", time_unit="ms"))
    assert [problem.code for problem in graph.warnings] == ["other-dialect"]


def test_numbers_of_half_precision_are_named_where_no_dialect_fits():
    """tau and r of one dt, rounded to 3 digits, fit to none."""
    rest = np.array([0.1, 0.2, 0.3], np.float16)
    half = export(network(build.lif(tau=1e-4 / rest, r=1 / rest)))
    half.metadata = {}
    half.nodes["2"].tau, half.nodes["2"].r = (1e-4 / rest).astype(np.float16), 1 / rest
    says = (
        r"export the network in float32 \(net.float\(\)\): the parameters of node '2' are float16"
    )
    assert_refused(lambda: parse(half, dialect="snntorch"), DialectError, says)
    dialect = parse(half).dialect
    assert dialect.name is None
    assert "of node '2' are float16" in dialect.why


@pytest.mark.parametrize(("r", "tau"), [(10.0, 0.001), (20.0, 0.002), (0.9, 0.01), (1.0, 1e-4)])
def test_hand_written_numbers_prove_nothing(r, tau):
    """r = tau/dt holds for any single pair of numbers, with some dt."""
    dialect = resolve(network(build.lif(tau=tau, r=r)))
    assert dialect.name is None
    assert dialect.fix.startswith("pass dialect=, one of nir, ")


def test_what_the_numbers_prove_changes_with_the_numbers(zoo):
    graph = read(zoo["snntorch_v_leaky_sub"])
    assert graph.dialect.name == "snntorch"
    node = graph.nodes["1"]
    changed = graph.with_nodes([node.replace(tau=node.value("tau") * np.float32(1.5))])
    assert resolve(changed).name is None
    assert "snntorch" not in resolve(changed).choices


def test_neurons_without_leak_say_nothing_about_the_step():
    graph = network(build.lif(tau=[np.inf, 0.001, 0.002], r=[np.inf, 10.0, 20.0]), "snntorch")
    assert graph.dialect.dt == 1e-4
    assert estimate(graph.nodes, DIALECTS["snntorch"].evidence).agrees


def test_options_hold_for_all_or_for_one(zoo):
    options = {"reset": ["zero", "3:none"], "reset_delay": "false", "spike_kernel": {"1": "delta"}}
    first, third = (read(zoo[LI], **options).dialect.at(name) for name in ("1", "3"))
    assert (first.reset, first.spike_kernel, first.reset_delay) == ("zero", "delta", False)
    assert (third.reset, third.spike_kernel) == ("none", "box")
    dialect = read(zoo[LI], reset="subtract", readout="3").dialect
    first, third = dialect.at("1"), dialect.at("3")
    assert (first.readout, first.reset) == (False, "subtract")
    assert (third.readout, third.reset) == (True, "none")


@pytest.mark.parametrize(("tau", "unit"), [(0.5, "ms"), (0.49, "s")])
def test_the_unit_that_time_constants_look_like_turns_at_a_half(tau, unit):
    why = network(build.cubalif(tau_mem=tau, tau_syn=tau), dialect="hxtorch").dialect.why
    assert f"Its time constants, {tau:g} to {tau:g}, are probably in {unit}" in why


def allowed(**numbers):
    neurons = build.cubalif if "tau_mem" in numbers else build.lif
    return possible(network(neurons(**numbers)))


def test_the_versions_and_steps_that_numbers_allow():
    """Rockpool's importer ties r to dt in another way; snnTorch always writes with 0.1 ms."""
    tau = np.array([20e-3, 30e-3, 40e-3])
    imported = allowed(r=tau / 1e-3 - 1, tau_mem=tau, tau_syn=tau / 2)
    assert "rockpool==importer" in imported
    assert "rockpool" not in imported
    for dt, is_allowed in ((1e-4, True), (1e-3, False)):
        choices = allowed(tau=tau, r=tau / dt)
        assert ("snntorch" in choices) is is_allowed
        assert "spikingjelly" in choices


def test_milliseconds_are_never_taken_for_seconds(zoo):
    dialect = read(zoo["jaxsnn_b_cubalif"], dialect="jaxsnn").dialect
    assert (dialect.time_unit, dialect.seconds) == (None, None)
    assert "Its time constants, 5 to 10, are probably in ms" in dialect.why
    assert read(zoo["jaxsnn_b_cubalif"], dialect="hxtorch", time_unit="ms").dialect.seconds == 1e-3


@pytest.mark.parametrize(
    ("name", "options", "node", "expected"),
    [
        ("spyx_v_cuba", {}, "layer_1", 10),
        ("sinabs_v_iaf", {"dialect": "sinabs", "dt": "1ms"}, "1", 1000),
        (SYN, {}, "1", 10),
    ],
)
def test_resistance_is_in_seconds_and_what_the_framework_plays(zoo, name, options, node, expected):
    graph = read(zoo[name], **options)
    r = resistance(graph.dialect, graph.nodes[node])
    np.testing.assert_allclose(r, expected, rtol=1e-6)
    assert (r is graph.nodes[node].value("r")) is (name == SYN)


@pytest.mark.parametrize(
    ("name", "options", "seconds"),
    [
        ("nir", {"time_unit": "ms"}, 1e-3),
        ("sinabs", {"time_unit": "step", "dt": 0.002}, 0.002),
        ("norse", {"time_unit": "s", "dt_export": 1e-3}, 1000),
        ("norse", {"time_unit": "s"}, None),
    ],
)
def test_seconds_of_a_unit(name, options, seconds):
    assert dialect_of(name, **options).seconds == seconds


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
def test_a_tag_that_is_wrong_is_not_believed(zoo, tag):
    document = load(zoo["snntorch_v_leaky_sub"])
    document["node"]["metadata"] = Group({"jaxsnn": text_dataset(tag)})
    dialect = parse(document).dialect
    assert (dialect.name, dialect.decided_by) == ("snntorch", "inference")
    assert "The entry 'jaxsnn' of its metadata is ignored" in dialect.why
    assert "\n" not in dialect.why


LEAKY = build.lif(3, tau="10ms", v_threshold=0.1)
AREA = {"time_unit": "s", "spike_area": "100us"}


@pytest.mark.parametrize(
    ("options", "kernel", "dt", "why"),
    [
        ({}, "box", 1e-4, 'a current of 1 for 0.0001 s; pass spike_kernel="delta"'),
        ({"dt": "1ms"}, "box", 1e-3, "a current of 0.1 for 0.001 s"),
        ({"spike_kernel": "delta"}, "delta", None, ""),
    ],
)
def test_the_area_of_a_spike_can_be_said_of_the_literal_equations(options, kernel, dt, why):
    graph = network(LEAKY, **AREA, **options)
    dialect = graph.dialect
    assert (dialect.framework_options, dialect.spike_kernel, dialect.dt) == (
        {"spike_area": 1e-4},
        kernel,
        dt,
    )
    assert why in dialect.why
    assert dt is None or spike_area(dialect, graph.nodes["2"]).seconds == 1e-4


def test_a_tag_keeps_the_area_of_a_spike():
    assert parse(export(tagged(network(LEAKY, **AREA)))).dialect.framework_options == {
        "spike_area": 1e-4
    }
    untold = export(tagged(network(LEAKY, time_unit="s")))
    assert parse(untold, dialect="nir", spike_area="100us").dialect.spike_kernel == "box"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"time_unit": "s", "spike_area": -1.0}, "not a positive, finite time"),
        (
            {"dialect": "jaxsnn", "spike_area": "100us"},
            "spike_area is an option of the dialect nir",
        ),
    ],
)
def test_areas_that_make_no_sense_are_refused(options, says):
    assert_refused(lambda: network(LEAKY, **options), UsageError, says)
