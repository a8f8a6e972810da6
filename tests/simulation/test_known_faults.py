"""Faults that readers of NIR and event-based simulators are known for, each with a test that we do
not share it.
"""

import jax
import jax.numpy as jnp
import nir
import numpy as np
import pytest

import jaxsnn
from jaxsnn.errors import JaxsnnError, SimulationError
from jaxsnn.nir import build

TAU = 5e-3


def spikes_of(graph, events, name, **options):
    """Spike times of each neuron of a population, in the first sample."""
    options = {"engine": jaxsnn.EventDriven(max_spikes=64)} | options
    solution = jaxsnn.simulate(jaxsnn.lower(graph), events, 0.1, **options)
    return [np.asarray(times)[np.isfinite(times)] for times in solution.spikes[name].time[0]]


def one_layer(weight, **parameters):
    """An input, a linear node, and a population "2"."""
    neurons = build.cubalif(**({"tau_mem": 2 * TAU, "tau_syn": TAU} | parameters))
    return build.sequential(
        build.input(np.shape(weight)[1]),
        build.linear(len(weight), weight=np.array(weight)),
        neurons,
    )


def events(times, channels):
    return jaxsnn.Events(time=jnp.array(times), index=jnp.array(channels))


ONE = events([1e-3], [0])
BURST = events([1e-3, 2e-3, 3e-3], [0, 0, 0])

SOURCES = """
import numpy as np, jax.numpy as jnp, jaxsnn
from jaxsnn.nir import build
weights = {name: np.full((1, 1), weight) for name, weight in dict(a=6.0, b=9.0, c=20.0).items()}
layers = {name: build.linear(1, weight=weight) for name, weight in weights.items()}
layers |= {f"in_{name}": build.input(1) for name in weights}
layers |= {"sum": build.cubalif(tau_mem=0.01, tau_syn=0.005), "out": build.output()}
graph = build.network(layers, [[f"in_{name}", name, "sum"] for name in weights] + [["sum", "out"]])
inputs = {"in_a": 0.001, "in_b": 0.03, "in_c": 0.06}
inputs = {name: jaxsnn.Events(time=jnp.array([time]), index=jnp.array([0])) for name, time in inputs.items()}
times = jaxsnn.simulate(jaxsnn.lower(graph), inputs, 0.1).spikes["sum"].time[0, 0]
print(np.asarray(times).tobytes().hex())
"""


def test_weights_are_paired_with_their_sources_whatever_the_hash_seed(run_python):
    assert (
        run_python(SOURCES, PYTHONHASHSEED="0").stdout
        == run_python(SOURCES, PYTHONHASHSEED="1").stdout
    )


def test_an_exhausted_budget_is_no_silence():
    graph = one_layer([[400.0]])
    with pytest.raises(
        SimulationError, match=r"2 spikes of each are recorded: pass max_spikes=\d+ or more"
    ):
        spikes_of(graph, BURST, "2", engine=jaxsnn.EventDriven(max_spikes=2))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tau_mem", [8e-3, 20e-3]),
        ("tau_syn", [4e-3, 9e-3]),
        ("v_threshold", [1.0, 1.5]),
        ("v_leak", [0.0, 0.5]),
        ("v_reset", [0.0, -1.0]),
    ],
)
def test_parameters_count_neuron_by_neuron(name, values):
    """Taking element [0] of each parameter would make the two neurons equal."""
    both = spikes_of(one_layer([[9.0], [9.0]], **{name: np.array(values)}), BURST, "2")
    alone = [
        spikes_of(one_layer([[9.0]], **{name: np.array([value])}), BURST, "2")[0]
        for value in values
    ]
    assert all(len(times) > 1 for times in alone)
    assert not np.array_equal(*alone) if len(alone[0]) == len(alone[1]) else True
    for got, expected in zip(both, alone, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def read_as_literal_ode(tmp_path, r, w_in, v_leak=0.0, tau_mem=2 * TAU):
    neuron = {
        "tau_syn": TAU,
        "tau_mem": tau_mem,
        "r": r,
        "v_leak": v_leak,
        "v_threshold": 1.0,
        "w_in": w_in,
    }
    nodes = {
        "input": nir.Input({"input": np.array([1])}),
        "w": nir.Linear(np.array([[0.012]])),
        "n": nir.CubaLIF(**{key: np.array([value]) for key, value in neuron.items()}),
        "output": nir.Output({"output": np.array([1])}),
    }
    path = tmp_path / f"{r}-{w_in}-{v_leak}.nir"
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=[("input", "w"), ("w", "n"), ("n", "output")]))
    return spikes_of(jaxsnn.read(path, dialect="nir", time_unit="s"), ONE, "n")[0]


def test_r_and_w_in_scale_the_input(tmp_path):
    plain = read_as_literal_ode(tmp_path, 1.0, 2.0)
    assert not len(read_as_literal_ode(tmp_path, 1.0, 1.0))
    np.testing.assert_allclose(read_as_literal_ode(tmp_path, 2.0, 1.0), plain, rtol=1e-5)
    assert len(read_as_literal_ode(tmp_path, 4.0, 1.0)) > len(plain) > 0


@pytest.mark.parametrize("tau_mem", [TAU, 2 * TAU, 0.7 * TAU])
def test_v_leak_counts_at_every_ratio_of_the_time_constants(tmp_path, tau_mem):
    without = read_as_literal_ode(tmp_path, 2.0, 1.5, 0.0, tau_mem)
    with_leak = read_as_literal_ode(tmp_path, 2.0, 1.5, 0.5, tau_mem)
    assert len(with_leak) > 0
    assert len(without) == 0 or with_leak[0] < without[0] - 1e-5


@pytest.mark.usefixtures("x64")
def test_gradients_are_right_where_v_leak_is_not_zero():
    graph = one_layer([[6.0]], v_leak=0.3)
    network = jaxsnn.lower(graph)

    def first_spike(v_leak):
        parameters = {**network.parameters, "2": {**network.parameters["2"], "v_leak": v_leak}}
        return jaxsnn.simulate(network.with_parameters(parameters), ONE, 0.1).first_spike("2")[0, 0]

    at, step = network.parameters["2"]["v_leak"], 1e-6
    expected = (first_spike(at + step) - first_spike(at - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(first_spike)(at), [expected], rtol=1e-6)


def test_any_ratio_of_the_time_constants_is_exact():
    """Elsewhere a ratio other than 1 and 2 is refused, or off by a good part of tau."""
    for ratio in (0.3, 0.5, 1.0, 1.01, 2.0, 5.0):
        (times,) = spikes_of(one_layer([[9.0]], tau_mem=ratio * TAU), ONE, "2")
        tau_mem, after = ratio * TAU, times[0] - 1e-3
        if ratio == 1.0:
            voltage = 9.0 * after / TAU * np.exp(-after / TAU)
        else:
            voltage = (
                9.0 * TAU / (tau_mem - TAU) * (np.exp(-after / tau_mem) - np.exp(-after / TAU))
            )
        np.testing.assert_allclose(voltage, 1.0, rtol=1e-4)


def test_recurrence_without_a_delay_does_not_lock():
    """Elsewhere a recurrent group waits for its smallest delay, for ever where that is zero."""
    nodes = {
        "input": build.input(1),
        "w": build.linear(2, weight=np.full((2, 1), 9.0)),
        "output": build.output(),
    }
    nodes["n"] = build.cubalif(tau_mem=2 * TAU, tau_syn=TAU)
    edges, back = (
        ["input", "w", "n", "output"],
        build.linear(2, weight=np.array([[0.0, 3.0], [-3.0, 0.0]])),
    )
    alone, _ = spikes_of(build.network(nodes, [edges]), BURST, "n")
    excited, inhibited = spikes_of(
        build.network({**nodes, "back": back}, [edges, ["n", "back", "n"]]), BURST, "n"
    )
    assert excited[0] == alone[0]
    assert len(excited) >= len(alone) > len(inhibited) >= 1


def test_two_outputs_keep_their_edges(tmp_path):
    layers = {"input": build.input(1), "out_a": build.output(), "out_b": build.output()}
    layers |= {name: build.linear(2, weight=np.full((2, 1), 9.0)) for name in ("wa", "wb")}
    layers |= {name: build.cubalif(tau_mem=2 * TAU, tau_syn=TAU) for name in ("a", "b")}
    graph = build.network(layers, [["input", "wa", "a", "out_a"], ["input", "wb", "b", "out_b"]])
    jaxsnn.write(tmp_path / "two.nir", graph)
    assert sorted(nir.read(tmp_path / "two.nir").edges) == sorted(graph.edges)
    assert dict(jaxsnn.lower(jaxsnn.read(tmp_path / "two.nir")).outputs) == {
        "out_a": ("a",),
        "out_b": ("b",),
    }


def test_missing_ports_are_assumed_aloud_and_not_written(tmp_path):
    """nir.read adds them in silence, so that a broken export looks valid, and writes them."""
    lif = {"tau": np.ones(1), "r": np.ones(1), "v_leak": np.zeros(1), "v_threshold": np.ones(1)}
    nodes = {"w": nir.Linear(np.ones((1, 1))), "n": nir.LIF(**lif)}
    nir.write(tmp_path / "a.nir", nir.NIRGraph(nodes=nodes, edges=[("w", "n")], type_check=False))
    graph = jaxsnn.read(tmp_path / "a.nir")
    assert [finding.node for finding in graph.repairs] == ["input_w", "output_n"]
    jaxsnn.write(tmp_path / "b.nir", graph)
    assert sorted(nir.read(tmp_path / "b.nir", type_check=False).nodes) == ["n", "w"]


def test_errors_say_what_is_wrong():
    """No bare assertion: each says what, where and what to do."""
    with pytest.raises(JaxsnnError, match=r"'2'.*tau_mem"):
        one_layer([[1.0]], tau_mem=-1.0)
    with pytest.raises(JaxsnnError, match=r"5 channels|channel 7"):
        spikes_of(one_layer([[1.0] * 5]), events([1e-3], [7]), "2")
