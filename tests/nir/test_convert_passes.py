"""The passes of convert: what each requires and guarantees is checked between them."""

import dataclasses

import numpy as np
import pytest

from jaxsnn.errors import ConversionError
from jaxsnn.nir import build
from jaxsnn.nir.convert import pipeline
from jaxsnn.nir.convert.passes import (
    EDGES_JOIN_NODES,
    Condition,
    Conversion,
    ConversionPass,
    ConversionRequest,
    passes_checked,
    run_passes,
    without,
)
from jaxsnn.nir.convert.pipeline import PASSES, convert, passes_for
from jaxsnn.nir.convert.target import target_of
from jaxsnn.nir.frameworks.registry import writable
from jaxsnn.nir.model.draft import draft_of


def readout_network():
    """A layer of Norse's cells and a leaky readout, with a Scale between them."""
    neuron = {"tau_mem": 10e-3, "tau_syn": 5e-3}
    layers = (
        build.linear(4),
        build.cubalif(4, **neuron),
        build.node("Scale", scale=np.full(4, 2.0)),
        build.linear(2),
        build.cubali(2, **neuron),
    )
    options = {"dialect": "norse", "dt": 1e-3, "dt_export": 1e-3}
    return build.sequential(build.input(3), *layers, seed=0, **options)


def conversion_of(graph, to, **options):
    draft, draft_names = draft_of(graph)
    request = ConversionRequest(target=target_of(to), **options)
    return Conversion(request=request, source=graph, draft=draft, draft_names=draft_names)


def test_conditions_are_checked_in_tests(monkeypatch):
    assert passes_checked()
    monkeypatch.delenv("JAXSNN_CHECK_PASSES")
    assert not passes_checked()


def test_a_pass_has_a_verb_an_object_and_a_sentence():
    for conversion_pass in PASSES:
        assert "_" in conversion_pass.name
        assert conversion_pass.description.endswith(".")
        assert "\n" not in conversion_pass.description
        for condition in (*conversion_pass.requires, *conversion_pass.ensures):
            assert not condition.statement.endswith(".")


def test_what_a_pass_requires_is_checked_before_it_and_what_it_ensures_after_it():
    events = []

    def replace_everything(conversion):
        """Replace everything."""
        events.append("function")

    def noted(name, holds):
        return Condition(name, lambda conversion: events.append(name) or holds)

    def run(requires, ensures, check=True):
        events.clear()
        conversion_pass = ConversionPass(
            replace_everything, (noted("before", requires),), (noted("after", ensures),)
        )
        run_passes([conversion_pass], conversion_of(readout_network(), "norse"), check=check)

    run(True, True)
    assert events == ["before", "function", "after"]
    with pytest.raises(AssertionError, match="replace_everything requires: before, which does"):
        run(False, True)
    assert events == ["before"]
    with pytest.raises(AssertionError, match="replace_everything ensures: after, which does"):
        run(True, False)
    run(False, False, check=False)
    assert events == ["function"]


@pytest.mark.parametrize("name", ["resolve_steps", "replace_readouts", "order_nodes"])
def test_a_pass_that_does_nothing_is_noticed(name):
    """What a pass guarantees is no empty claim: without its work the check fails."""
    idle = [
        dataclasses.replace(conversion_pass, function=idle_pass)
        if conversion_pass.name == name
        else conversion_pass
        for conversion_pass in PASSES
    ]
    conversion = conversion_of(readout_network(), "sinabs" if name == "order_nodes" else "norse")
    with pytest.raises(AssertionError, match="does not hold"):
        run_passes(idle, conversion, check=True)


def idle_pass(conversion):
    """Do nothing."""


def test_every_guarantee_can_fail(monkeypatch):
    """Each condition is false of some state, so that it says something."""
    conversion = conversion_of(readout_network(), "snntorch")
    assert not without("Scale").holds(conversion)
    assert not pipeline.STEPS_RESOLVED.holds(conversion)
    conversion.draft.edges.append(("nobody", "output"))
    assert not EDGES_JOIN_NODES.holds(conversion)
    conversion.draft.shapes.clear()
    assert not pipeline.SHAPES_KNOWN.holds(conversion)


@pytest.mark.parametrize("to", writable())
def test_every_target_has_its_passes(to):
    pass_names = [
        conversion_pass.name
        for conversion_pass in passes_for(ConversionRequest(target=target_of(to)))
    ]
    assert pass_names.index("write_neurons") < pass_names.index("build_graph")
    solves = "resolve_flows" in pass_names
    assert solves == (to in ("hxtorch", "jaxsnn"))
    assert solves != ("resolve_steps" in pass_names)


def test_a_defect_is_no_refusal(monkeypatch):
    """A condition that does not hold is not reported as a network that cannot be converted."""
    never = Condition("nothing holds", lambda conversion: False)
    broken = [dataclasses.replace(PASSES[1], ensures=(never,))]
    monkeypatch.setattr(pipeline, "PASSES", broken)
    with pytest.raises(AssertionError, match="nothing holds"):
        convert(readout_network(), to="norse")
    assert not issubclass(AssertionError, ConversionError)
