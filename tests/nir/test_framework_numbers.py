"""What single numbers in the descriptions of frameworks decide."""

import dataclasses

import numpy as np
import pytest

from jaxsnn import lower
from jaxsnn.errors import ConversionError
from jaxsnn.nir import build
from jaxsnn.nir.convert import convert
from jaxsnn.nir.frameworks.snntorch import _is_single_precision


def test_norse_is_refused_a_current_that_starts_elsewhere():
    neurons = build.cubalif(tau_mem=10e-3, tau_syn=5e-3, v_leak=0.1)
    layers = (build.linear(2), neurons)
    graph = build.sequential(
        build.input(3), *layers, seed=0, dialect="norse", dt=1e-3, dt_export=1.0
    )
    assert convert(graph, to="norse").losses == ()
    zero = dataclasses.replace(graph, dialect=dataclasses.replace(graph.dialect, initial="zero"))
    with pytest.raises(ConversionError, match=r"'2'.*Norse starts its current at v_leak"):
        convert(zero, to="norse")


@pytest.mark.parametrize(
    ("betas", "single"),
    [
        ([np.float32(0.9)], True),
        ([0.9], False),
        ([0.5, 4095 / 4096], False),  # the same in both precisions
        ([0.5, 8191 / 8192], True),
        ([np.float32(0.9), 0.9], False),
    ],
)
def test_snntorch_is_known_by_betas_in_single_precision(betas, single):
    r = 1 / (1 - np.asarray(betas, float))
    layers = build.linear(len(betas)), build.lif(tau=r * 1e-4, r=r)
    graph = build.sequential(build.input(1), *layers, seed=0, dialect="snntorch")
    assert _is_single_precision(graph.nodes) is single


@pytest.mark.parametrize(
    ("floor", "neuron", "taken"),
    [
        (-1.0, build.integrate_and_fire(), True),
        (-2.0, build.integrate_and_fire(v_threshold=2.0), True),
        (-1.0, build.integrate_and_fire(v_threshold=[1.0, 2.0]), False),
        (-0.5, build.integrate_and_fire(), False),
        (-1.0, build.lif(tau=5.0), False),
    ],
)
def test_sinabs_bounds_its_iaf_by_minus_their_threshold(floor, neuron, taken):
    layers = (build.linear(2), neuron)
    graph = build.sequential(
        build.input(2), *layers, seed=0, dialect="sinabs", min_v_mem=floor, norm_input=False
    )
    if taken:
        assert convert(graph, to="sinabs").losses == ()
        return
    with pytest.raises(ConversionError, match="'2'"):
        convert(graph, to="sinabs")


@pytest.mark.parametrize(
    ("dialect", "r", "detached"), [("snntorch", 10.0, True), ("spyx", 0.9, False)]
)
def test_gradients_pass_the_resets_of_spyx(dialect, r, detached):
    layers = build.linear(2), build.lif(tau=1e-3, r=r)
    said = {"reset": "subtract", "reset_delay": True, "dt": 1e-4}
    graph = build.sequential(build.input(2), *layers, seed=0, dialect=dialect, **said)
    (population,) = lower(graph).populations.values()
    assert population.detaches_resets is detached
