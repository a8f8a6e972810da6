"""The grid engine fires the very spikes that the frameworks recorded, for every file that can say
how.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate, verify
from tests.helpers.zoo import FACTS, RECORDED

MEMBRANES = ("norse_v_li", "sinabs_v_li", "snntorch_v_li")
LOST = tuple(name for name in RECORDED if FACTS[name].get("reproducible") is False)
SPIKES = tuple(name for name in RECORDED if name not in (*MEMBRANES, *LOST))


def test_all_recordings_are_here(recordings):
    assert len(RECORDED) == 34
    assert LOST == ("rockpool_v_rec", "sinabs_v_lif_syn")
    for name, (x, y) in recordings.items():
        assert list(x.shape) == FACTS[name]["x_shape"]
        assert list(y.shape) == FACTS[name]["y_shape"]
        assert 0.15 < x.mean() < 0.35
        assert y.mean() == pytest.approx(FACTS[name]["y_mean"], abs=1e-3)


@pytest.mark.parametrize("name", SPIKES)
def test_every_train_is_identical(name, recorded):
    report = verify(*recorded(name))
    assert report.first_difference is None
    assert report.identical == report.trains == np.prod(FACTS[name]["y_shape"][1:])
    assert report.identical_active == report.active >= report.trains / 3
    assert report.spikes_got == report.spikes_expected > 0
    assert report.ok


@pytest.mark.parametrize("name", MEMBRANES)
def test_membranes_agree(name, recorded):
    report = verify(*recorded(name))
    assert report.ok
    assert report.trains == 0
    assert report.relative_rmse is not None
    assert report.relative_rmse < 1e-6


@pytest.mark.parametrize("name", LOST)
def test_what_an_exporter_lost_does_not_come_back(name, recorded):
    report = verify(*recorded(name))
    assert not report.ok
    assert report.first_difference is not None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("snntorch_v_leaky_sub", {"reset": "zero"}),
        ("snntorch_v_leaky_sub", {"reset_delay": False}),
        ("snntorch_v_rleaky_zero", {"reset_delay": False}),
        ("snntorch_v_syn_zero_nodelay", {"reset_delay": True}),
        ("norse_v_lifbox_vleak", {"initial": "zero"}),
        ("norse_v_lifbox", {"dt_export": 1}),
        ("norse_v_lifbox", {"dt": 2e-3}),
        ("sinabs_v_lif", {"norm_input": False}),
        ("spikingjelly_v_lif_vreset", {"initial": "zero"}),
        ("spyx_v_lif", {"reset": "none"}),
    ],
)
def test_another_option_is_another_network(name, options, recorded):
    assert not verify(*recorded(name, **options)).ok


def test_options_hold_for_one_node(recorded):
    graph, x, y = recorded("snntorch_v_leaky_sub", reset=["zero", "1:subtract", "3:subtract"])
    assert verify(graph, x, y).ok
    graph, x, y = recorded("snntorch_v_leaky_sub", reset=["subtract", "3:zero"])
    assert not verify(graph, x, y).ok


@pytest.mark.parametrize(
    "name", ["snntorch_v_rsyn_sub", "norse_v_lifcell", "spyx_v_conv_hwc", "sinabs_v_iaf"]
)
def test_recordings_fire_the_same_under_jit_vmap_and_one_by_one(name, recorded):
    graph, x, y = recorded(name)
    network, samples = lower(graph), jnp.asarray(x[:, :4], jnp.float32)

    def play(x):
        return simulate(network, x, engine=TimeStepped(), throw=False).output()

    np.testing.assert_array_equal(jax.jit(play)(samples), y[:, :4])
    mapped = jax.vmap(lambda sample: play(sample[:, None])[:, 0], in_axes=1, out_axes=1)(samples)
    np.testing.assert_array_equal(mapped, y[:, :4])


def test_sinabs_needs_no_length_of_a_step(zoo, recordings):
    from jaxsnn.nir import read

    x, y = recordings["sinabs_v_lif"]
    graph = read(zoo["sinabs_v_lif"], dialect="sinabs", norm_input=True)
    assert graph.dialect.dt is None
    assert verify(graph, x, y).ok
    assert simulate(lower(graph), x, engine=TimeStepped()).dt is None
    assert simulate(lower(graph), x, engine=TimeStepped(dt=1e-3)).dt == 1e-3
    assert verify(graph, x, y, engine=TimeStepped(dt=1e-3)).ok
