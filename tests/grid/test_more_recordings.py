"""Networks that were read wrong, or refused, once: learnt decays out of range, pools that are
padded by name, membranes with a floor, readouts that reset.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate, verify
from jaxsnn.compatibility.checks import check
from jaxsnn.errors import ConversionError, LoweringError, UsageError
from jaxsnn.network.spikes import dense_to_events
from jaxsnn.nir import read, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.graphs.export import tagged
from tests.helpers.zoo import MORE

MEMBRANES = ("snn_mem_spiking_sub", "snn_mem_spiking_zer_now", "snc_ends_flatten")
#: Networks whose output is a level or a membrane potential, which is compared by its error.
LEVELS = (*MEMBRANES, "spyx3_ends_flatten", "spyx_psu")


@pytest.mark.parametrize("name", MORE)
def test_every_train_and_membrane_is_the_recorded_one(name, more):
    report = verify(*more(name))
    assert report.ok
    if name in LEVELS:
        assert report.relative_rmse is not None
        assert report.relative_rmse < 1e-6
    else:
        assert report.identical_active == report.active > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sin_minvmem", {"min_v_mem": None}),
        ("sin_minvmem", {"min_v_mem": "none"}),
        ("sin_minvmem", {"min_v_mem": [-0.1, "5:none"]}),
        ("sin_minvmem", {"spike_fn": "single"}),
        ("nhead_iaf_vreset", {"initial": "zero"}),
        ("snn_mem_spiking_sub", {"reset": "subtract"}),
        ("snn_mem_spiking_sub", {"reset": ["subtract", "3:zero"]}),
        ("sj_cuba_vreset", {"initial": "zero"}),
    ],
)
def test_another_option_is_another_network(name, options, more):
    assert not verify(*more(name, **options)).ok


@pytest.mark.parametrize(
    "name", ["spyx_beta_neg", "snn_trained_learnable", "sin_minvmem", "spyx_psu"]
)
def test_what_is_written_is_read_without_options(name, more, tmp_path):
    graph, x, y = more(name)
    write(tmp_path / "again.nir", tagged(graph))
    again = read(tmp_path / "again.nir")
    assert again.dialect.option("min_v_mem") == graph.dialect.option("min_v_mem")
    assert verify(again, x, y).ok


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("nhead_iaf_vreset", "norse"),
        ("sj_cuba_vreset", "spikingjelly"),
        ("oth_spyx_sumpool_same_spikes", "spyx"),
        ("spyx_beta_neg", "spyx"),
        ("snn_trained_learnable", "spyx"),
    ],
)
def test_conversions_fire_the_same_spikes(name, to, more):
    graph, x, y = more(name)
    converted = convert(graph, to=to)
    late = max(converted.shift.values(), default=0)
    network = lower(converted.graph, dtype=np.float32)
    z = np.asarray(simulate(network, jnp.asarray(x, jnp.float32), engine=TimeStepped()).output())
    np.testing.assert_array_equal(z[late:], y[: len(y) - late])


def test_a_floor_is_refused_where_nothing_has_one(more):
    graph, x, _ = more("sin_minvmem")
    assert "floor" in [problem.code for problem in check(graph, "event").problems]
    with pytest.raises(
        LoweringError, match=r"node '1' \(LIF\) has a lower bound of the membrane potential, -0\.1"
    ):
        simulate(graph, dense_to_events(x, 1e-3), t_end=0.2)
    with pytest.raises(ConversionError, match=r"has the lower bound -0\.1"):
        convert(graph, to="norse")
    unsaid, x, _ = more("sin_minvmem", min_v_mem=None)
    assert unsaid.dialect.option("min_v_mem") is None
    assert "min_v_mem" in unsaid.dialect.why
    notes = simulate(unsaid, jnp.asarray(x[:3], jnp.float32), engine=TimeStepped()).notes
    assert notes == (
        "min_v_mem is not in the file, so no lower bound of the membrane potential is assumed: pass min_v_mem=",
    )
    none, *_ = more("sin_minvmem", min_v_mem="none")
    assert not simulate(none, jnp.asarray(x[:3], jnp.float32), engine=TimeStepped()).notes


@pytest.mark.parametrize("value", ["low", "nan", "inf", "1:low", "lif:1"])
def test_a_floor_is_a_number_of_a_neuron(value, more):
    with pytest.raises(UsageError, match="min_v_mem"):
        more("sin_minvmem", min_v_mem=value)


def test_a_readout_that_resets_is_refused_where_nothing_has_one(more):
    graph, x, _ = more("snn_mem_spiking_sub")
    with pytest.raises(LoweringError, match=r"node '3' \(LIF\) is a readout that resets"):
        simulate(graph, dense_to_events(x, 1e-4), t_end=0.02)
    with pytest.raises(ConversionError, match="outputs its membrane potential and resets"):
        convert(graph, to="spyx")


def test_a_reset_delay_said_of_a_recurrent_node_counts(recorded):
    name = "snntorch_v_rsyn_sub"
    graph, x, y = recorded(name)
    loop = graph.recurrent_components()[0]
    (neuron,) = (node for node in loop if graph.nodes[node].type == "CubaLIF")
    for_all, *_ = recorded(name, reset_delay=[False, "3:true"])
    assert verify(for_all, x, y).ok
    at_once, *_ = recorded(name, reset_delay=[True, f"{neuron}:false"])
    assert not verify(at_once, x, y).ok
    inputs = jnp.asarray(x[:3], jnp.float32)
    (note,) = simulate(at_once, inputs, engine=TimeStepped()).notes
    assert "as specified for this node" in note
    (note,) = (
        text
        for text in simulate(for_all, inputs, engine=TimeStepped()).notes
        if f"'{neuron}'" in text
    )
    assert f'pass reset_delay={{"{neuron}": False}}' in note
