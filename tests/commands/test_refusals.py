"""What users pass by mistake is refused in one line that says what is wrong."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn.commands.run_command import run_file
from jaxsnn.errors import FileError, LoweringError, UsageError
from jaxsnn.nir import build
from jaxsnn.simulation.recordings import inputs_of, load_arrays


def graph_of(neurons, dialect, **options):
    return build.sequential(
        build.input(2), build.linear(3), neurons, seed=0, dialect=dialect, **options
    )


@pytest.fixture
def cuba():
    return graph_of(build.cubalif(tau_mem=10e-3, tau_syn=5e-3), "jaxsnn")


@pytest.fixture
def leaky():
    """snnTorch ties tau and r: r = tau/dt, dt = 0.1 ms."""
    neurons = build.lif(tau=np.array([1e-3, 2e-3, 4e-3]), r=np.array([10.0, 20.0, 40.0]))
    return graph_of(neurons, "snntorch", reset="zero", reset_delay=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {name: p[name] for name in p if name != "1"}, "the parameters have no node '1'"),
        (lambda p: {**p, "hidden": {}}, "the network has no node 'hidden'"),
        (
            lambda p: {**p, "2": {"tau_mem": p["2"]["tau_mem"]}},
            "node '2' is given no parameter 'tau_syn'",
        ),
        (
            lambda p: {**p, "2": {**p["2"], "tau_sin": jnp.ones(3)}},
            "has no parameter 'tau_sin': did you mean 'tau_syn'",
        ),
        (
            lambda p: {**p, "1": {"weight": jnp.ones((2, 3))}},
            r"weight has shape \(2, 3\): give it the shape \(3, 2\)",
        ),
    ],
)
def test_parameters_that_do_not_fit_the_network(cuba, change, message):
    network = jaxsnn.lower(cuba)
    with pytest.raises(UsageError, match=message) as caught:
        network.with_parameters(change(dict(network.parameters)))
    assert "\n" not in str(caught.value)


def test_traced_parameters_that_fit(cuba):
    network = jaxsnn.lower(cuba)
    same = jax.jit(lambda p: network.with_parameters(p).parameters)(network.parameters)
    assert jax.tree.structure(same) == jax.tree.structure(network.parameters)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.full((3, 1, 2), np.nan), r"x has nan at \(0, 0, 0\)"),
        (np.zeros((0, 1, 2)), r"x has shape \(0, 1, 2\)"),
        (np.zeros((4, 0, 2)), r"x has shape \(4, 0, 2\)"),
        (np.full((3, 1, 2), "spike"), "x holds <U5: save numbers"),
    ],
)
def test_inputs_that_cannot_be_played(cuba, x, message):
    network = jaxsnn.lower(cuba)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError, match=message):
            inputs_of({"x": x}, network)


def test_files_that_are_no_arrays(tmp_path):
    text, one, objects = (tmp_path / name for name in ("text.npz", "one.npz", "objects.npz"))
    text.write_text("x = 1\n")
    with open(one, "wb") as file:
        np.save(file, np.ones(3))
    np.savez(objects, x=np.array([{}, []], dtype=object))
    for path, message in (
        (text, "is not an .npz file of arrays: save it with numpy.savez"),
        (one, "holds one array: save it with numpy.savez, under a name"),
        (objects, "array 'x' holds Python objects: save numbers"),
    ):
        with pytest.raises(FileError, match=message) as caught:
            load_arrays(path)
        assert "pickle" not in str(caught.value)


@pytest.mark.parametrize("name", ["tau", "r"])
def test_one_of_two_tied_numbers_is_not_written_alone(leaky, name):
    """snnTorch's importer plays r; a tau that went another way would tell everybody else something
    else.
    """
    network = jaxsnn.lower(leaky)
    parameters = {
        **network.parameters,
        "2": {**network.parameters["2"], name: 1.5 * network.parameters["2"][name]},
    }
    with pytest.raises(
        LoweringError, match=r"node '2' has tau = .* and r = .*: change both so that tau/r stays"
    ):
        jaxsnn.update_graph(leaky, network.with_parameters(parameters))


def test_tied_numbers_that_changed_alike_are_written(leaky):
    network = jaxsnn.lower(leaky)
    own = {
        name: 1.5 * value if name in ("tau", "r") else value
        for name, value in network.parameters["2"].items()
    }
    trained = jaxsnn.update_graph(leaky, network.with_parameters({**network.parameters, "2": own}))
    np.testing.assert_allclose(trained.nodes["2"].value("r"), [15.0, 30.0, 60.0])
    np.testing.assert_allclose(jaxsnn.lower(trained).parameters["2"]["tau"], own["tau"])


@pytest.mark.parametrize("delay", [True, False])
def test_an_option_without_effect_is_noted(delay, tmp_path):
    neurons = build.cubalif(tau_mem=1e-3, tau_syn=5e-4, r=10.0, w_in=5.0)
    graph = graph_of(neurons, "snntorch", reset="zero", reset_delay=delay)
    np.savez(tmp_path / "x.npz", x=np.ones((5, 1, 2)))
    notes = run_file(graph, tmp_path / "x.npz", tmp_path / "y.npz").notes
    assert [note for note in notes if "reset_delay of 2 has no effect" in note] == list(notes)
    assert bool(notes) is delay
