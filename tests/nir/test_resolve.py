"""One rule for each neuron of a graph, and one message for each refusal, whoever refuses."""

import dataclasses
import re
from functools import partial

import numpy as np
import pytest

import jaxsnn
from jaxsnn.errors import ConversionError, DialectError
from jaxsnn.network.structure import Population
from jaxsnn.nir import build
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.dialects.resolve import resolve_neuron, resolve_neurons
from jaxsnn.nir.dialects.steps import step_of
from jaxsnn.nir.frameworks.source_rule import NeuronRule
from jaxsnn.nir.model.nodes import LIF
from jaxsnn.nir.model.passes import shapes
from tests.helpers.refusals import assert_refused
from tests.helpers.zoo import RECORDED
from tests.interop.drawn import drawn_nets


def rules_of(neurons, **options):
    graph = build.sequential(build.input(2), build.linear(3), neurons, seed=0, **options)
    return resolve_neurons(graph)["2"], graph


def recurrent(neurons, **options):
    """Neurons that feed themselves, in the dialect of snnTorch."""
    nodes = {
        "in": build.input(2),
        "w": build.linear(3),
        "lif": neurons,
        "rec": build.linear(3),
        "out": build.output(),
    }
    edges = [("in", "w"), ("w", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "out")]
    graph = build.network(nodes, edges, dialect="snntorch", seed=0, **options)
    return resolve_neurons(graph)["lif"]


LEAKY = build.lif(tau=5e-3, r=50.0)
SYNAPTIC = build.cubalif(tau_mem=5e-3, tau_syn=2e-3, r=50.0, w_in=20.0)


@pytest.mark.parametrize("name", RECORDED)
def test_populations_have_the_fields_of_their_rules(name, recorded):
    graph, _, _ = recorded(name)
    rules, populations = resolve_neurons(graph), jaxsnn.lower(graph).populations
    assert rules.keys() == populations.keys()
    fields = [
        {field.name for field in dataclasses.fields(kind)} for kind in (NeuronRule, Population)
    ]
    shared = set.intersection(*fields)
    assert {"membrane", "reset", "resets_first", "threshold", "initial", "dt"} <= shared
    for node, rule in rules.items():
        for field in shared:
            assert getattr(populations[node], field) == getattr(rule, field), (node, field)


def test_what_is_unknown_is_none_and_a_problem_of_that_name():
    rule, _ = rules_of(SYNAPTIC, dialect="snntorch", dt=None)
    fields = {field.name for field in dataclasses.fields(rule)}
    unknown = {name for name in fields if getattr(rule, name) is None}
    assert unknown & rule.problems.keys() == {"reset", "reset_delay"}
    assert unknown - rule.problems.keys() <= {"floor"}
    says = "node '2': the neuron model needs reset, .*reset= .*reset_delay= "
    assert_refused(lambda: rule.require("dt", "reset", "reset_delay"), DialectError, says)
    rule.require("dt", "seconds", "initial")
    assert_refused(lambda: step_of(rule, (3,)), DialectError, "needs reset,")


def test_who_needs_what_is_unknown_says_the_same():
    _, graph = rules_of(LEAKY, dialect="snntorch")
    problems = map(str, jaxsnn.check(graph, "grid").problems)
    (problem,) = [problem for problem in problems if "needs reset," in problem]
    for target in ("norse", "spikingjelly"):
        with pytest.raises(DialectError) as refusal:
            convert(graph, to=target)
        assert str(refusal.value) == problem
    assert problem in map(str, jaxsnn.check(graph, "norse").problems)


def test_a_reset_that_is_not_below_the_threshold_is_one_problem():
    options = {"dialect": "nir", "time_unit": "s", "spike_area": "1ms", "dt": "1ms"}
    rule, graph = rules_of(build.lif(tau=5e-3, v_threshold=[1.0, 2.0, 3.0], v_reset=2.5), **options)
    expected = (
        "node '2' (LIF): neuron 0 resets to 2.5, which is not below its v_threshold 1, so it fires without "
        "input, and without a refractory period it never stops: lower v_reset or raise v_threshold"
    )
    assert str(rule.problems["v_reset"]) == expected
    assert expected in map(str, jaxsnn.check(graph, "event").problems)
    to_norse = partial(convert, graph, to="norse", approximate=True)
    assert_refused(to_norse, ConversionError, re.escape(expected))
    subtracts, _ = rules_of(build.lif(tau=5e-3, v_reset=2.5), reset="subtract", **options)
    assert "v_reset" not in subtracts.problems
    started, _ = rules_of(build.lif(tau=5e-3, v_leak=1.5), initial="v_leak", **options)
    says = (
        "node '2' (LIF): neuron 0 starts at 1.5, which is not below its v_threshold 1, so it fires"
    )
    assert str(started.problems["v_start"]).startswith(says)


def test_a_neuron_that_a_framework_does_not_have_is_a_problem():
    node = LIF(name="x", tau=np.ones(2), r=np.ones(2), v_leak=np.zeros(2), v_threshold=np.ones(2))
    rule = resolve_neuron(node, jaxsnn.nir.dialect_of("hxtorch", time_unit="ms"))
    says = "node 'x' is of type LIF, which hxtorch never writes"
    assert_refused(lambda: rule.is_continuous, DialectError, says)
    assert_refused(lambda: step_of(rule, (2,)), DialectError, says)


def test_what_snntorch_does_in_recurrent_neurons_alone():
    """RLeaky resets after it has decayed; RSynaptic resets late, unless another is said of it."""
    at_once = {"reset": "zero", "reset_delay": False}
    assert rules_of(LEAKY, dialect="snntorch", **at_once)[0].resets_first
    assert not recurrent(LEAKY, **at_once).resets_first
    assert recurrent(LEAKY, **at_once).reset_delay is False
    late = recurrent(SYNAPTIC, **at_once)
    assert late.reset_delay is True
    assert (
        "reset_delay is True, not False, because snntorch supports nothing else" in late.remarks[0]
    )
    assert "reset_delay" not in recurrent(SYNAPTIC, reset="zero").problems
    declared = recurrent(SYNAPTIC, reset="zero", reset_delay={"lif": False})
    assert declared.reset_delay is False
    assert "always act as if it were True" in declared.remarks[0]
    assert not recurrent(SYNAPTIC, reset="zero", reset_delay=True).remarks


def test_what_single_frameworks_do():
    spyx = rules_of(build.lif(tau=5e-3, r=0.8), dialect="spyx", time_unit="s")[0]
    assert (spyx.detaches_resets, spyx.resistance) == (False, "tau/dt")
    options = {"dialect": "sinabs", "norm_input": False}
    sinabs = rules_of(build.lif(tau=5.0), **options)[0]
    assert (sinabs.spikes_per_step, sinabs.floor) == ("several", None)
    assert (
        "so no lower bound of the membrane potential is assumed: pass min_v_mem="
        in sinabs.assumed[0]
    )
    bounded = rules_of(build.lif(tau=5.0), spike_fn="single", min_v_mem=-1, **options)[0]
    assert (bounded.spikes_per_step, bounded.floor, bounded.assumed) == ("one", -1.0, ())


def test_the_step_of_a_rule_is_that_of_its_framework():
    """V = 0.9 V + x of snnTorch; V + dt/tau (v_leak - V + x) of Norse; all numbers in one step."""
    for name, graph in drawn_nets(2):
        sizes = shapes(graph)
        for node, rule in resolve_neurons(graph).items():
            step = step_of(rule, sizes[node][1] or (), readouts=True)
            assert step.several is (rule.spikes_per_step == "several"), name
            assert step.late is (rule.spikes_from == "before" and rule.resets), name
            assert np.all((step.decay >= 0) & (step.decay <= 1)), name
            if rule.membrane == "leak":
                np.testing.assert_array_equal(step.gain, 1)
            if rule.membrane == "euler":
                np.testing.assert_allclose(step.gain, 1 - step.decay)
