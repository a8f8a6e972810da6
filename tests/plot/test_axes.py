"""Pictures on axes of the user, and in all file formats."""

from types import SimpleNamespace

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import jaxsnn
from jaxsnn import plot
from jaxsnn.errors import UsageError
from jaxsnn.nir import build
from jaxsnn.train import Latency

matplotlib.use("agg")
from matplotlib import pyplot as plt


@pytest.fixture(scope="module")
def pictures():
    """Function that draws each kind of picture, by name."""
    weight = np.array([[2.0, 0.5], [0.5, 2.0]])
    graph = build.sequential(
        build.input(2),
        build.linear(weight=weight),
        build.cubalif(tau_mem="10ms", tau_syn="5ms", v_threshold=0.1),
    )
    network = jaxsnn.lower(graph)
    events = jaxsnn.Events(time=jnp.array([[0.001, 0.004]]), index=jnp.array([[0, 1]]))
    solution = jaxsnn.simulate(network, events, t_end=0.05)
    outcome = jaxsnn.place_and_route(jaxsnn.quantize(graph).netlist)
    counts = SimpleNamespace(event=12, grid=10, count_cosine=0.9)
    comparison = SimpleNamespace(populations={"2": counts})
    record = {"epoch": 0, "train_accuracy": 0.5, "validation_accuracy": 0.4}
    record |= {"train_loss": 1.0, "validation_loss": 1.2}
    run = {"epochs": [record, record | {"epoch": 1}], "best_epoch": 1, "test_accuracy": 0.5}
    encoder = Latency(t_min=0.0, t_max=0.01)
    return {
        "raster": lambda **ax: plot.raster(solution, inputs=events, **ax),
        "histogram": lambda **ax: plot.histogram(solution, **ax),
        "voltage": lambda **ax: plot.voltage(solution, "2", network=network, inputs=events, **ax),
        "weights": lambda **ax: plot.weights(graph, **ax),
        "learning_curve": lambda **ax: plot.learning_curve(run | {"settings": {}}, **ax),
        "encodings": lambda **ax: plot.encodings(
            {"latency": (np.array([0.2, 0.5, 0.9]), encoder)}, **ax
        ),
        "fidelity": lambda **ax: plot.fidelity(comparison, **ax),
        "graph": lambda **ax: plot.graph(graph, **ax),
        "floorplan": lambda **ax: plot.floorplan(outcome, **ax),
    }


KINDS = (
    *("raster", "histogram", "voltage", "weights", "learning_curve", "encodings", "fidelity"),
    *("graph", "floorplan"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_drawn_within_axes_of_the_user(kind, pictures):
    figure, (ax, right) = plt.subplots(1, 2, figsize=(10, 4))
    right.plot([0, 1], [0, 1])
    blank = _pixels(figure)
    picture = pictures[kind](ax=ax)
    drawn = _pixels(figure)
    changed = (drawn != blank).any(-1)
    middle = changed.shape[1] // 2
    assert changed[:, :middle].mean() > 0.001
    assert not changed[:, middle + 50 :].any()
    assert picture.render("png").startswith(b"\x89PNG")
    plt.close(figure)


def _pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("ending", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<")]
)
def test_all_pictures_are_saved_in_all_formats(kind, ending, magic, pictures, tmp_path):
    path = tmp_path / f"picture.{ending}"
    pictures[kind]().save(path)
    assert path.read_bytes().startswith(magic)


def test_other_objects_than_axes_are_refused(pictures):
    for kind in KINDS:
        with pytest.raises(UsageError) as error:
            pictures[kind](ax=3)
        assert "int" in str(error.value)
