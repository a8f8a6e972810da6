"""The main job on a file that another framework wrote: read, simulate, train, export, read back, compare."""

from __future__ import annotations

import importlib.resources
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsnn import plot
from jaxsnn.audit import audit
from jaxsnn.errors import FileError, SimulationError, UsageError, listing
from jaxsnn.event.events import Events
from jaxsnn.lower import lower
from jaxsnn.network import Network
from jaxsnn.nir import Graph, read, write
from jaxsnn.nir.export import same_array
from jaxsnn.nir.files import Dataset, Group, load
from jaxsnn.nir.passes import sizes as population_sizes
from jaxsnn.output import refuse_unwritable, write_json
from jaxsnn.play import simulate_fully
from jaxsnn.simulate import Solution
from jaxsnn.train import Data, Fit, Latency, Splits, accuracy, fit, yinyang_splits
from jaxsnn.train.datasets import YINYANG_SIZES
from jaxsnn.train.plan import INPUT_SPAN, make_loss
from jaxsnn.units import format_time

#: What the demo writes into its folder.
FILES = ("trained.nir", "history.json", "learning_curve.png", "raster.png", "report.json")

#: The network of the demo.
SOURCE = Path(str(importlib.resources.files("jaxsnn"))) / "data" / "snntorch_yinyang.nir"

#: What it does not say, and the reader is told.
TOLD = {"dialect": "snntorch", "reset": "zero"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the demo.

    Attributes:
        name: what was done.
        lines: for people.
        facts: for scripts.
        seconds: wall time.
    """

    name: str
    lines: tuple[str, ...]
    facts: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the demo did.

    Attributes:
        test_accuracy: fraction.
        steps: in order.
        files: the names of `FILES` that were written -> path.
    """

    test_accuracy: float
    steps: tuple[Step, ...]
    files: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        steps = [{"name": step.name, **step.facts, "seconds": round(step.seconds, 3)} for step in self.steps]
        return {"schema": 1, "test_accuracy": self.test_accuracy, "steps": steps, "files": dict(self.files)}

    def as_text(self) -> str:
        """For people: what comes after the steps."""
        seconds = sum(step.seconds for step in self.steps)
        files = [f"  {path}" for path in self.files.values()]
        return "\n".join([f"test accuracy {self.test_accuracy:.2%}, in {seconds:.0f} s", *files])


def step_text(number: int, step: Step) -> str:
    """A step for people."""
    first, *others = step.lines
    margin = " " * 14
    return "\n".join(
        [f"{number}  {step.name:9s}  {first}  [{step.seconds:.1f} s]", *(margin + line for line in others)]
    )


@dataclass(frozen=True, kw_only=True)
class _Played:
    """A graph on the test points: what it fired, and what it answered."""

    network: Network
    inputs: dict[str, Events]
    t_end: float
    solution: Solution
    accuracy: float

    @property
    def per_neuron(self) -> dict[str, float]:
        """Population -> mean number of spikes of a neuron for one point."""
        return {name: float(np.mean(np.asarray(own.count))) for name, own in self.solution.spikes.items()}


def _play(graph: Graph, data: Data) -> _Played:
    network = lower(graph)
    loss = make_loss("ttfs", network)
    events = Latency(t_min=0.0, t_max=INPUT_SPAN * loss.tau, bias=True)(data.x)
    solution = simulate_fully(network, events, loss.t_max)
    return _Played(
        network=network,
        inputs={next(iter(network.inputs)): events},
        t_end=loss.t_max,
        solution=solution,
        accuracy=float(accuracy(loss.predict(solution), jnp.asarray(data.y))),
    )


class _Steps:
    """Runs steps, times them and collects what they say."""

    def __init__(self, step_done: Callable[[int, Step], None] | None):
        self.done: list[Step] = []
        self.step_done = step_done

    def run(self, name: str, work: Callable[..., tuple[Any, list[str], dict[str, Any]]], *arguments: Any) -> Any:
        """Do `work`, which gives a value, lines and facts; return the value."""
        start = time.perf_counter()
        value, lines, facts = work(*arguments)
        step = Step(name=name, lines=tuple(lines), facts=facts, seconds=time.perf_counter() - start)
        self.done.append(step)
        if self.step_done is not None:
            self.step_done(len(self.done), step)
        return value


def demo(
    folder: str | Path,
    *,
    force: bool = False,
    epochs: int = 50,
    seed: int = 0,
    sizes: Sequence[int] | None = None,
    step_done: Callable[[int, Step], None] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Run the main job and write what came of it into a folder.

    Args:
        folder: is made if it does not exist.
        force: overwrite the files of an earlier run.
        epochs, seed: of the training run.
        sizes: numbers of points for training, validation and test; default those of the paper.
        step_done: is told each step, with its number, as it ends.
        progress: takes one line for each epoch.

    Raises:
        FileError: a file would be overwritten.
        SimulationError: the file that was read back does not fire the same spikes.
    """
    folder = _prepared(Path(folder), force)
    data = yinyang_splits(seed, sizes or YINYANG_SIZES)
    exported = folder / "trained.nir"
    steps = _Steps(step_done)

    graph = steps.run("read", _read, SOURCE)
    before = steps.run("simulate", _simulate, graph, data.test)
    steps.run("check", _check, before)
    trained, after = steps.run("train", _train, graph, data, epochs, seed, progress, before)
    steps.run("export", _export, trained.graph, SOURCE, exported, force)
    steps.run("read back", _read_back, exported, data.test, after)
    written = steps.run("draw", _draw, folder, trained, after, data.test, force)

    write_json(folder / "history.json", trained.as_dict(), force)
    names = ("trained.nir", "history.json", *written, "report.json")
    files = {name: str(folder / name) for name in FILES if name in names}
    report = Report(test_accuracy=trained.test_accuracy, steps=tuple(steps.done), files=files)
    write_json(folder / "report.json", report.as_dict(), force)
    return report


def _prepared(folder: Path, force: bool) -> Path:
    """The folder, made if it is missing, with room for all files."""
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file: name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder} cannot be made: {error.strerror}") from error
    for name in FILES:
        refuse_unwritable(folder / name, force)
    return folder


def _read(source: Path) -> tuple[Graph, list[str], dict[str, Any]]:
    graph = read(source, **TOLD)
    counts = population_sizes(graph)
    kinds = {name: f"{counts[name]} {graph.nodes[name].type}" for name in graph.neurons}
    path = " -> ".join(f"{name} ({kinds[name]})" if name in kinds else name for name in graph.order())
    neuron = graph.nodes[graph.neurons[0]]
    shared = {name: np.unique(np.asarray(value, float)) for name, value in neuron.parameters.items()}
    says = [
        f"{name} {format_time(value[0]) if name.startswith('tau') else f'{value[0]:g}'}"
        for name, value in shared.items()
        if value.size == 1
    ]
    lines = [
        f"{source.name}, written by snnTorch's own exporter",
        f"it says          {path}",
        f"                 {', '.join(says)}",
        "it does not say  how long a time step is, how strong a spike is, how a neuron is reset",
        f"so it was told   {', '.join(f'{option} {value}' for option, value in TOLD.items())}",
        f"and found        dt {format_time(graph.dialect.dt or 0.0)}: tau/r, the same for all neurons",
    ]
    return graph, lines, {"file": source.name, "told": TOLD, "dialect": graph.dialect.as_dict()}


def _simulate(graph: Graph, data: Data) -> tuple[_Played, list[str], dict[str, Any]]:
    played = _play(graph, data)
    lines = [
        f"{len(data)} Yin-Yang points, five input spikes each, event by event: exact times, no time step",
        f"spikes of a neuron for one point: {_listed(played.per_neuron)}",
        f"accuracy, untrained: {played.accuracy:.2%}",
    ]
    return played, lines, _facts(played)


def _check(played: _Played) -> tuple[None, list[str], dict[str, Any]]:
    found = audit(played.network, played.inputs, played.solution, played.t_end)
    lines = ["voltages recomputed in float64 from the spikes alone, by another formula (unit: v_threshold - v_reset):"]
    for name, own in found.items():
        above = f"exceeds it by {own.elsewhere:.0e} at most" if own.elsewhere > 0 else "never exceeds it"
        lines.append(
            f"{name}: at each of {own.spikes} spikes V is within {own.at_spikes:.0e} of the threshold; "
            f"at {own.times} other times per point it {above}"
        )
    return None, lines, {"populations": {name: asdict(own) for name, own in found.items()}}


def _train(
    graph: Graph, data: Splits, epochs: int, seed: int, progress: Callable[[str], None] | None, before: _Played
) -> tuple[tuple[Fit, _Played], list[str], dict[str, Any]]:
    trained = fit(graph, data, epochs=epochs, seed=seed, progress=progress)
    after = _play(trained.graph, data.test)
    lines = [
        f"{len(data.train)} other points, {epochs} epochs, exact gradients of spike times (EventProp), Adam",
        f"test accuracy: {before.accuracy:.2%} -> {trained.test_accuracy:.2%} "
        f"(epoch {trained.best_epoch}, chosen on {len(data.validation)} further points)",
        f"spikes of a neuron for one point: {_listed(before.per_neuron)} -> {_listed(after.per_neuron)}",
        *(f"note: {note}" for note in trained.notes),
    ]
    facts = {"epochs": epochs, "best_epoch": trained.best_epoch, "test_accuracy": trained.test_accuracy}
    return (trained, after), lines, facts | {"notes": list(trained.notes), **_facts(after)}


def _export(graph: Graph, source: Path, exported: Path, force: bool) -> tuple[None, list[str], dict[str, Any]]:
    write(exported, graph, force)
    old, new = dict(_datasets(load(source))), dict(_datasets(load(exported)))
    changed = [name for name in old if name in new and not _same(old[name], new[name])]
    added, lost = [name for name in new if name not in old], [name for name in old if name not in new]
    lines = [
        f"{exported.name}: {len(changed)} of {len(old)} datasets have new numbers ({listing(changed)})",
        f"{len(old) - len(changed) - len(lost)} are the same bit for bit, {len(added)} were added, {len(lost)} lost",
    ]
    return None, lines, {"file": str(exported), "changed": changed, "added": added, "lost": lost}


def _datasets(group: Group, path: str = "") -> Iterator[tuple[str, Dataset]]:
    """All datasets of a document with their paths, those of nodes from the node's name on."""
    for name, entry in group.items():
        full = f"{path}/{name}" if path else name
        if isinstance(entry, Dataset):
            yield full.removeprefix("node/nodes/"), entry
        else:
            yield from _datasets(entry, full)


def _same(old: Dataset, new: Dataset) -> bool:
    """Equal in every bit; text is an array of objects, which has none."""
    first, second = np.asarray(old.value), np.asarray(new.value)
    if first.dtype == object:
        return old.dtype == new.dtype and first.tolist() == second.tolist()
    return same_array(first, second)


def _read_back(exported: Path, data: Data, after: _Played) -> tuple[None, list[str], dict[str, Any]]:
    again = _play(read(exported, **TOLD), data)
    compared = {}
    for name, spikes in after.solution.spikes.items():
        first, second = np.asarray(spikes.time), np.asarray(again.solution.spikes[name].time)
        same = first.shape == second.shape and first.tobytes() == second.tobytes()
        if not same:
            raise SimulationError(
                f"population '{name}' of {exported} does not fire the spikes that it was trained with"
            )
        compared[name] = int(np.isfinite(first).sum())
    lines = [
        f"{exported.name} read again, and played on the {len(data)} test points:",
        f"{sum(compared.values())} spikes ({_listed(compared)}), all at the times from before the export, bit for bit",
        "not compared: snnTorch itself, which steps by dt and resets a step late, so that its spikes lie on that grid",
    ]
    return None, lines, {"equal": True, "spikes": compared}


def _draw(
    folder: Path, trained: Fit, after: _Played, data: Data, force: bool
) -> tuple[tuple[str, ...], list[str], dict[str, Any]]:
    names = ("learning_curve.png", "raster.png")
    try:
        plot.learning_curve(
            folder / names[0],
            trained.history,
            best_epoch=trained.best_epoch,
            test_accuracy=trained.test_accuracy,
            title="Yin-Yang, trained on exact spike times",
            force=force,
        )
        _draw_raster(folder / names[1], after, data, force)
    except UsageError as error:
        return (), [f"left out: {error}"], {"pictures": [], "left_out": str(error)}
    lines = [f"{names[0]}: errors and loss by epoch; {names[1]}: what goes in, what fires, who is first"]
    return names, lines, {"pictures": list(names)}


def _draw_raster(path: Path, played: _Played, data: Data, force: bool) -> None:
    """One point of each class: what goes in, what the hidden layer does, who is first at the output."""
    (entry, events), *_ = played.inputs.items()
    samples = []
    for label, kind in enumerate(data.classes):
        sample = int(np.flatnonzero(data.y == label)[0])
        trains = {entry: _one_train(events, sample, played.network.inputs[entry])}
        for name in played.solution.spikes:
            size = played.network.populations[name].size
            trains[name] = _one_train(played.solution.events(name), sample, size)
        x, y = data.x[sample, :2]
        samples.append((f"a point of '{kind}': x = {x:.2f}, y = {y:.2f}", trains))
    last = list(played.solution.spikes)[-1]
    latest = max(float(train.time.max(initial=0.0)) for _, trains in samples for train in trains.values())
    plot.raster(
        path,
        samples,
        t_end=min(1.05 * latest, played.t_end),
        title="The trained network on three test points: the first spike of the last row (circled) is its answer",
        labels={entry: ("x", "y", "1-x", "1-y", "bias"), last: data.classes},
        circled=last,
        force=force,
    )


def _one_train(events: Events, sample: int, size: int) -> plot.Train:
    time, index = np.asarray(events.time)[sample], np.asarray(events.index)[sample]
    used = np.isfinite(time)
    return plot.Train(time=time[used], index=index[used], size=size)


def _facts(played: _Played) -> dict[str, Any]:
    return {"accuracy": played.accuracy, "spikes_per_neuron": played.per_neuron}


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
