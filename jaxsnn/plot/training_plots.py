"""Training: loss and error by epoch, and the weights before and after."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsnn.errors import UsageError, listing
from jaxsnn.keywords import suggests_keywords
from jaxsnn.plot.picture import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    Canvas,
    Picture,
    quiet,
)
from jaxsnn.wording import Text

#: Descriptions of losses.
LOSSES = {
    "ttfs": "first-spike cross-entropy",
    "mse": "squared error of first-spike times, in tau_syn²",
    "max": "cross-entropy of the largest voltages",
    "mean": "cross-entropy of the mean voltages",
    "count": "cross-entropy of spike counts",
    "integral": "cross-entropy of voltage integrals",
    "exp-sum": "cross-entropy of exponentially weighted spikes",
}


@suggests_keywords
def learning_curve(fit: Any, *, title: str = "", ax: Any = None) -> Picture:
    """Draw error rate and loss of a training run by epoch; the axis names the loss.

    Args:
        fit: A `jaxsnn.train.Fit`, or the result of its `as_dict`, such as a history file; of a run that
            has not ended, {"epochs": [...]} suffices.
        title: Title of the picture.
        ax: Axes of matplotlib to draw on; default: a new figure.

    Raises:
        UsageError: matplotlib is missing, or there are no epochs.
    """
    run = fit if isinstance(fit, dict) else fit.as_dict()
    history, best, test_accuracy = run["epochs"], run.get("best_epoch"), run.get("test_accuracy")
    if not history:
        raise UsageError("the training run has no epochs", fix="train for at least one epoch")
    canvas = Canvas(ax, 8.0, 4.0)
    errors, losses = canvas.panels(1, 2)[0]
    epochs = [record["epoch"] for record in history]
    last = max(epochs[-1], 1)
    for axes, name in ((errors, "accuracy"), (losses, "loss")):
        for part, colour in (("train", GREY), ("validation", BLUE)):
            values = np.array([record[f"{part}_{name}"] for record in history])
            values = 100 * (1 - values) if name == "accuracy" else values
            label = "training" if part == "train" else part
            axes.plot(epochs, values, color=colour, label=label, linewidth=1.4)
        if best is not None:
            label = f"best epoch: {best}"
            axes.axvline(best, color=ORANGE, linewidth=1, linestyle="--", label=label)
        axes.set(xlabel="epoch", yscale="log", xlim=(-0.03 * last, 1.03 * last))
        axes.xaxis.get_major_locator().set_params(integer=True)
        quiet(axes)
    test_error = None if test_accuracy is None else 100 * (1 - test_accuracy)
    if test_error:
        label = f"test, evaluated once: {test_error:.2f} %"
        errors.axhline(test_error, color=VERMILION, linewidth=1, linestyle=":", label=label)
    errors.set(ylabel="error rate (%)")
    _plain_numbers(errors.yaxis)
    _plain_numbers(losses.yaxis)
    losses.set(ylabel=f"loss: {loss_in_words(run['settings'])}" if "settings" in run else "loss")
    errors.legend(fontsize=8)
    losses.legend(fontsize=8)
    canvas.set_title(title, fontsize=11)
    alt = f"error and loss by epoch, {len(history) - 1} epochs"
    if test_error is not None:
        alt = f"error and loss by epoch, test error {test_error:.2f} % at epoch {best}"
    return canvas.picture(alt)


def loss_in_words(settings: dict[str, Any]) -> str:
    """Return the description of the minimised loss, from the settings of a run."""
    loss = settings.get("loss", {})
    name = loss.get("name", "user-defined loss") if isinstance(loss, dict) else str(loss)
    return LOSSES.get(str(name), str(name)[:60])


def _plain_numbers(axis: Any) -> None:
    """Label a logarithmic axis with a few plain numbers; if it spans less than a factor of ten,
    with round numbers at even distances.
    """
    from matplotlib.ticker import MaxNLocator, NullLocator

    axis.set_major_formatter(lambda value, _: f"{value:g}")
    low, high = axis.get_view_interval()
    if high < 10 * low:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_minor_locator(NullLocator())
        return
    axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")


@suggests_keywords
def weights(
    graph: Any, before: Any = None, *, bins: int = 40, title: str = "", ax: Any = None
) -> Picture:
    """Draw the distribution of the weights of each Linear, Affine or convolution, after and before
    training.

    Args:
        graph: A `jaxsnn.Graph`, after training.
        before: The same graph before training, drawn behind it in grey.
        bins: Number of intervals.
        ax: Axes of matplotlib to draw on; default: a new figure.

    Raises:
        UsageError: matplotlib is missing, no node has weights, or no node has weights in both
            graphs.
    """
    node_weights, earlier = _weights_of(graph), {} if before is None else _weights_of(before)
    if not node_weights:
        raise UsageError("no node of the graph has weights", fix="pass a graph with weights")
    if before is not None and not node_weights.keys() & earlier.keys():
        raise UsageError(
            Text(
                "the two graphs have no node with weights in common: {expected} before training, "
                "{actual} after",
                expected=listing(earlier),
                actual=listing(node_weights),
            ),
            fix="pass the same graph as it was before training",
        )
    canvas = Canvas(ax, min(3.2 * len(node_weights) + 0.8, 13.0), 3.2)
    panels = canvas.panels(1, len(node_weights))[0]
    for axes, (name, after) in zip(panels, node_weights.items(), strict=True):
        old = earlier.get(name)
        every = after if old is None else np.concatenate([after, old])
        edges = np.histogram_bin_edges(every, bins)
        if old is not None:
            counts, _ = np.histogram(old, edges)
            axes.stairs(counts, edges, fill=True, color=GREY, alpha=0.45, label="before")
        counts, _ = np.histogram(after, edges)
        label = "after" if old is not None else None
        axes.stairs(counts, edges, color=BLUE, linewidth=1.6, label=label)
        axes.set_title(f"{name}: {after.size} weights", fontsize=9)
        axes.set_xlabel("weight (unit of the file)")
        axes.locator_params(axis="x", nbins=4)
        quiet(axes)
        if old is not None:
            axes.legend(fontsize=8)
    panels[0].set_ylabel("number of weights")
    canvas.set_title(title, fontsize=11)
    ranges = (
        f"{weights_of_node.size} of '{name}', {weights_of_node.min():.3g} to {weights_of_node.max():.3g}"
        for name, weights_of_node in node_weights.items()
    )
    text = f"weights: {'; '.join(ranges)}"
    if before is not None and (new := node_weights.keys() - earlier.keys()):
        text += f"; without weights before training: {', '.join(repr(name) for name in node_weights if name in new)}"
    return canvas.picture(text)


def _weights_of(graph: Any) -> dict[str, np.ndarray]:
    """Return the weights of each node with weights, as a flat array."""
    return {
        name: np.ravel(np.asarray(node.parameters["weight"], float))
        for name, node in graph.nodes.items()
        if np.size(node.parameters.get("weight", ()))
    }
