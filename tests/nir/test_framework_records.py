"""What the records of frameworks say in numbers and in true and false: each fact a second time, from
the sources that the files of `jaxsnn/nir/frameworks` name, so that no single character decides it.
"""

import dataclasses

import numpy as np
import pytest

from jaxsnn.nir.frameworks import framework_of, frameworks
from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.frameworks.rockpool import lambert_w
from jaxsnn.nir.model import decays
from jaxsnn.nir.model.dialect import (
    UNIT_SECONDS,
    Conventions,
    FrameworkOption,
    Rule,
)

#: Conventions by framework and version: time of the reset, reset, and further fields.
AT_ONCE, LATER, OPEN = "at once", "later", "open"
SECONDS = {"time_unit": "s"}
UNITS = {"constant_input": "current", "recurrent_delay": 0}
STEPS = {"threshold": ">=", "spikes_per_step": "several"}
SPYX = {"resets_at_start": True, "spikes_from": "before"}
NORSE = SECONDS | {"initial": "v_leak"}
SNNTORCH = SECONDS | {"dt": 1e-4, "resets_at_start": True, "runs_loops": "in turn"}
UNRUN = {"ran": False}
WRITES = {
    "nir": (AT_ONCE, "zero", UNITS),
    "snntorch==1.0": (OPEN, None, SNNTORCH),
    "snntorch==main": (OPEN, None, SNNTORCH),
    "norse==1.1": (AT_ONCE, "zero", NORSE | {"runs_loops": "depth first"}),
    "norse==main": (AT_ONCE, "zero", NORSE | {"runs_loops": "in turn"}),
    "norse==importer": (AT_ONCE, "zero", NORSE | {"importer": "1.1", "runs_loops": "depth first"}),
    "sinabs": (
        AT_ONCE,
        "subtract",
        STEPS | {"time_unit": "step"},
    ),
    "rockpool": (AT_ONCE, "subtract", SECONDS | STEPS),
    "rockpool==importer": (AT_ONCE, "subtract", SECONDS | STEPS | {"importer": "3.1"}),
    "spyx": (
        LATER,
        "subtract",
        SPYX | {"time_unit": "from dt", "recurrent_delay": 0, "channels_last": True},
    ),
    "spikingjelly": (
        AT_ONCE,
        "zero",
        SECONDS
        | {"threshold": ">=", "initial": "v_reset", "runs_loops": "in turn"}
        | {"loops_by_importer": True},
    ),
    "jaxsnn": (AT_ONCE, "zero", UNITS),
    "hxtorch": (AT_ONCE, "zero", UNITS | UNRUN | {"initial": "v_leak"}),
    "snn_mlir": (AT_ONCE, "zero", SECONDS | UNRUN | {"reads_only": True}),
    "lava": (AT_ONCE, "zero", SECONDS | UNRUN | {"dt": 1e-4}),
    "nengo": (
        AT_ONCE,
        "zero",
        SECONDS | UNRUN | {"reads_only": True, "constant_input": "current"},
    ),
    "spinnaker2": (OPEN, None, UNRUN | {"reads_only": True}),
}
#: Properties of the evidence in numbers, by framework and version.
EVIDENCE = {
    **{name: {"proves": True} for name in ("snntorch==1.0", "snntorch==main", "rockpool", "spyx")},
    "spikingjelly": {"r_of_one_is_silent": True, "r_is_rate": True},
}

FORKS, SUMS, AVERAGES = {"wiring": ("forks",)}, {"pool": "SumPool2d"}, {"pool": "AvgPool2d"}
BY_NAME = AVERAGES | {"starts_at_reset": True, "order": "names"}
SEVERAL = {"subtracts": ("at once", "several")}
SNNTORCH_READS = BY_NAME | {"subtracts": ("later", "unless above")}
NORSE_READS = SUMS | {"subtracts": ("at once", "later", "several"), "lacks": ("pool padding",)}
#: Importers: time step in seconds, assumed reset and start, and further fields.
READS = {
    "snntorch==1.0": (1e-4, "zero", "zero", SNNTORCH_READS),
    "snntorch==main": (1e-4, "zero", "zero", SNNTORCH_READS | UNRUN),
    "norse==1.1": (
        1e-3,
        "zero",
        "v_leak",
        NORSE_READS | {"order": "depth first"},
    ),
    "norse==main": (1e-3, "zero", "v_leak", NORSE_READS | UNRUN),
    "sinabs==3.1": (
        1e-3,
        "subtract",
        "zero",
        SEVERAL | SUMS | FORKS | {"lacks": ("pool padding", "scalars")},
    ),
    "rockpool==3.1": (
        1e-3,
        "subtract",
        "zero",
        SEVERAL | FORKS | {"bursts": True},
    ),
    "spyx==1.0": (
        1.0,
        "subtract",
        "zero",
        SUMS
        | {"torch_names": False, "lacks": ("dilation",), "wiring": ("loops",)}
        | {"subtracts": ("later",)},
    ),
    "spikingjelly==2.0": (
        1e-4,
        "zero",
        "v_reset",
        BY_NAME | {"uniform": True, "counts_batch": False, "subtracts": ("at once",)},
    ),
    "jaxsnn==0.3": (None, "zero", "zero", {"torch_names": False}),
    "hxtorch==main": (
        None,
        "zero",
        "v_leak",
        FORKS | UNRUN | {"order": "edges"},
    ),
    "snn_mlir==main": (
        1e-3,
        "zero",
        "zero",
        UNRUN | {"lacks": ("scalars",), "torch_names": False, "wiring": (), "uniform": True},
    ),
    "lava==main": (1e-4, "zero", "zero", SUMS | UNRUN | {"wiring": ("loops",)}),
    "nengo==4.0": (
        1e-3,
        "zero",
        "zero",
        SUMS | UNRUN | {"wiring": ("forks", "sums"), "uniform": True},
    ),
    "spinnaker2==main": (1.0, None, None, UNRUN),
}


def named(name, version):
    return f"{name}=={version}" if version else name


def declared_values(record):
    """What a record says in words and numbers, but what names it."""
    naming = ("name", "version", "after", "run", "reset", "reset_delay")
    return {
        field.name: value
        for field in dataclasses.fields(record)
        for value in [getattr(record, field.name)]
        if isinstance(value, bool | int | float | str)
        and field.name not in naming
        and value != field.default
    }


def test_what_each_framework_writes():
    remaining = {
        named(name, conventions_of_version.version): conventions_of_version
        for name, framework in frameworks().items()
        for conventions_of_version in framework.dialects
    }
    delays = {AT_ONCE: False, LATER: True, OPEN: None}
    for name, (delay, reset, others) in WRITES.items():
        conventions = remaining.pop(name)
        assert declared_values(conventions) == others, name
        assert (conventions.reset, conventions.reset_delay) == (reset, delays[delay]), name
        assert declared_values(conventions.evidence) == EVIDENCE.get(name, {}), name
    assert not remaining


def described(importer):
    """What an importer's record says beside tables and functions, with the pool that follows."""
    lists = {
        field.name: value
        for field in dataclasses.fields(importer)
        if field.name in ("lacks", "subtracts", "wiring")
        and (value := getattr(importer, field.name)) != field.default
    }
    pool = {} if importer.pool is None else {"pool": importer.pool}
    return declared_values(importer) | lists | pool


def test_what_each_importer_reads():
    remaining = {
        named(name, importer_of_version.version): importer_of_version
        for name, framework in frameworks().items()
        for importer_of_version in framework.importers
    }
    for name, (dt, reset, initial, others) in READS.items():
        importer = remaining.pop(name)
        assert described(importer) == others | ({"dt": dt} if dt not in (1, None) else {}), name
        assert (importer.dt, importer.continuous) == (dt, dt is None), name
        assert (importer.reads.get("reset"), importer.reads.get("initial")) == (reset, initial)
        late = {None: None, "spyx==1.0": True}.get(reset and name, False)
        assert importer.reads.get("reset_delay") is late, name
    assert not remaining


def test_what_importers_make_of_what_only_they_know():
    """norse main writes true seconds; sinabs's importer counts steps, bounds nothing by itself."""
    main, sinabs = framework_of("norse").importers[1].reads, framework_of("sinabs").importers[0]
    assert (main["dt_export"], main["version"]) == (1.0, "main")
    released, unreleased, imported = (
        dialect.unit_option for dialect in framework_of("norse").dialects
    )
    assert released is not None
    assert unreleased is not None
    assert imported is None
    assert (released.fallback, (unreleased.fallback or ("",))[0]) == (None, 1.0)
    assert released.seconds is not None
    assert released.seconds(0.25) == 4.0
    assert "dt" in framework_of("snntorch").importers[0].reads
    assert "dt" not in framework_of("snntorch").importers[1].reads
    assert framework_of("norse").leaf_options == {"dt_export": 1.0}
    assert sinabs.reads["norm_input"] is False
    tried = {option.name: option.tries for option in framework_of("sinabs").options}
    assert tried["norm_input"] == (True, False)
    assert tried["min_v_mem"] == ("none", -1.0)
    assert dict(UNIT_SECONDS) == {"s": 1.0, "ms": 0.001}


NUMBERS = {"tau": 0.05, "tau_mem": 0.02, "tau_syn": 0.01, "r": 4.0, "w_in": 5.0}


@pytest.mark.parametrize(
    ("decay", "text", "expected", "needs_dt"),
    [
        (decays.NO_DECAY, "1", 1.0, False),
        (decays.R, "r", 4.0, False),
        (decays.FROM_R, "1-1/r", 0.75, False),
        (decays.FROM_W_IN, "1-1/w_in", 0.8, False),
        (decays.EULER_MEMBRANE, "1-dt/tau_mem", 0.85, True),
        (decays.EULER_SYNAPSE, "1-dt/tau_syn", 0.7, True),
        (decays.EXACT_MEMBRANE, "exp(-dt/tau_mem)", np.exp(-0.15), True),
        (decays.EXACT_SYNAPSE, "exp(-dt/tau_syn)", np.exp(-0.3), True),
    ],
    ids=str,
)
def test_factors_of_a_step(decay, text, expected, needs_dt):
    parameters = {name: np.array([value, value]) for name, value in NUMBERS.items()}
    np.testing.assert_allclose(
        decay.factor(parameters, 0.003, np), [expected, expected], rtol=1e-12
    )
    assert (str(decay), decay.needs_dt) == (text, needs_dt)
    assert "function" not in repr(decay)


def test_leaky_neurons_without_a_current_have_one_time_constant():
    parameters = {"tau": np.array([0.05, 0.01]), "r": np.array([4.0, 4])}
    np.testing.assert_allclose(decays.EULER_MEMBRANE.factor(parameters, 0.003, np), [0.94, 0.7])
    np.testing.assert_allclose(
        decays.EXACT_MEMBRANE.factor(parameters, 0.003, np), np.exp([-0.06, -0.3])
    )


def test_steps_by_the_numbers_of_a_file():
    """r = 1 - dt/tau (Spyx), tau/dt (most), (tau/dt) exp(-dt/tau) and tau/dt - 1 (Rockpool)."""
    tau, dt = np.array([0.02, 0.05]), 0.004
    written = {"spyx": 1 - dt / tau, "snntorch": tau / dt, "rockpool": tau / dt * np.exp(-dt / tau)}
    for name, r in written.items():
        length = framework_of(name).dialects[0].evidence.dt_from
        assert length is not None
        np.testing.assert_allclose(length.of(tau, r), dt, rtol=1e-9, err_msg=name)
        assert length.synapses is (name == "snntorch")
        assert "function" not in repr(length)
    length = framework_of("rockpool").dialects[1].evidence.dt_from
    assert length is not None
    np.testing.assert_allclose(length.of(tau, tau / dt - 1), dt)


def test_lambert_w_is_the_inverse_of_w_exp_w():
    w = np.concatenate([[0.0], np.logspace(-9, 2.5, 300)])
    np.testing.assert_allclose(lambert_w(w * np.exp(w)), w, rtol=1e-12)


def test_rules_of_types_from_outside():
    rule, default = Rule(), Rule(arrival="jump")
    conventions = Conventions(name="x", rules={"LIF": rule}, others=default)
    assert conventions.rule("LIF") is rule
    assert conventions.rule("CubaLIF") is None
    assert conventions.rule("Izhikevich") is default


def test_types_that_an_importer_takes():
    some, every = Importer(version="1", nodes=("LIF",)), Importer(version="1")
    reads = {kind: some.reads_type(kind) for kind in ("LIF", "LI", "Izhikevich")}
    assert reads == {"LIF": True, "LI": False, "Izhikevich": False}
    reads = {kind: every.reads_type(kind) for kind in ("LIF", "LI", "Izhikevich")}
    assert reads == {"LIF": True, "LI": True, "Izhikevich": False}


def test_a_framework_is_written_for_if_one_importer_is():
    def write(*arguments):
        raise NotImplementedError

    silent, able = Importer(version="1"), Importer(version="2", write=write)
    conventions = Conventions(name="x", rules={})
    option = FrameworkOption(name="o", kind="bool", help="")
    twice = (dataclasses.replace(conventions, options=(option,)),) * 2
    for importers, writable in [((), False), ((silent,), False), ((silent, able), True)]:
        framework = Framework(name="x", title="X", dialects=twice, importers=importers)
        assert framework.writable is writable
        assert framework.options == (option,)
    assert not silent.after
    assert silent.released
    assert not Importer(version="main", after="1").released
