"""The steps of the demo: each gives a value, lines for people and facts for scripts."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.errors import SimulationError, listing
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.event.event_options import EventOptions
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.event.native.native_build import native_library
from jaxsnn.event.native.native_limits import kernels_enabled
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events
from jaxsnn.nir import Graph, read, write
from jaxsnn.nir.graphs.export import same_array
from jaxsnn.nir.io.files import Dataset, Group, load
from jaxsnn.nir.model.passes import sizes as population_sizes
from jaxsnn.simulation.audit import audit
from jaxsnn.simulation.simulate import simulate
from jaxsnn.train import Data, Fit, Latency, Splits, accuracy, fit
from jaxsnn.train.data.named_encoders import INPUT_SPAN
from jaxsnn.train.loop.defaults import make_loss
from jaxsnn.units import format_time
from jaxsnn.wording import Text

#: File with the network of the demo.
SOURCE = Path(str(importlib.resources.files("jaxsnn.commands.demo"))) / "snntorch_yinyang.nir"

#: Options of the reader that the file of the demo does not contain.
DIALECT_OPTIONS: dict[str, Any] = {"dialect": "snntorch", "reset": "zero", "reset_delay": True}


@dataclass(frozen=True, kw_only=True)
class DemoRun:
    """Simulation of a graph on the test points: its spikes and its answers."""

    network: Network
    inputs: dict[str, Events]
    t_end: float
    solution: EventSolution
    accuracy: float

    @property
    def per_neuron(self) -> dict[str, float]:
        """Mean number of spikes per neuron and point, by population."""
        return {
            name: float(np.mean(np.asarray(population_spikes.count)))
            for name, population_spikes in self.solution.spikes.items()
        }


def run_points(graph: Graph, data: Data) -> DemoRun:
    """Simulate a graph on points, event by event."""
    network = lower(graph)
    loss = make_loss("ttfs", network)
    events = Latency(t_min=0.0, t_max=INPUT_SPAN * loss.tau, bias=True, first="small")(data.x)
    solution = simulate(network, events, loss.t_max, engine=EventDriven(max_spikes="auto"))
    return DemoRun(
        network=network,
        inputs={next(iter(network.inputs)): events},
        t_end=loss.t_max,
        solution=solution,
        accuracy=float(accuracy(loss.predict(solution), data.y)),
    )


def read_step(source: Path) -> tuple[Graph, list[str], dict[str, Any]]:
    graph = read(source, **DIALECT_OPTIONS)
    counts = population_sizes(graph)
    kinds = {name: f"{counts[name]} {graph.nodes[name].type}" for name in graph.neurons}
    path = " -> ".join(
        f"{name} ({kinds[name]})" if name in kinds else name for name in graph.order()
    )
    neuron = graph.nodes[graph.neurons[0]]
    shared = {
        name: np.unique(np.asarray(value, float)) for name, value in neuron.parameters.items()
    }
    says = [
        f"{name} {format_time(value[0]) if name.startswith('tau') else f'{value[0]:g}'}"
        for name, value in shared.items()
        if value.size == 1
    ]
    lines = [
        f"{source.name}, written by snnTorch's own exporter",
        f"specified        {path}",
        f"                 {', '.join(says)}",
        "not specified    time step, effect of a spike, reset",
        f"user options     {', '.join(f'{option} {str(value).lower()}' for option, value in DIALECT_OPTIONS.items())}",
        f"inferred         dt {format_time(graph.dialect.dt or 0.0)}: tau/r is the same for all neurons",
    ]
    return (
        graph,
        lines,
        {"file": source.name, "options": DIALECT_OPTIONS, "dialect": graph.dialect.as_dict()},
    )


def kernels_step() -> tuple[None, list[str], dict[str, Any]]:
    """Load the native kernels, or compile them, so that the next steps show their own times."""
    if not kernels_enabled(EventOptions()):
        return None, ["not used, because JAXSNN_BACKEND is xla"], {"source": "none"}
    library = native_library()
    if not library.there:
        lines = [f"not available, XLA is used instead, which is slower: {library.reason}"]
        return None, lines, {"source": "none"}
    if library.level:
        lines = [f"those of the installed package, for {library.level} processors"]
        return None, lines, {"source": "prebuilt", "level": library.level}
    lines = ["compiled on this machine, once: later runs load them from the cache"]
    return None, lines, {"source": "compiled"}


def simulate_step(graph: Graph, data: Data) -> tuple[DemoRun, list[str], dict[str, Any]]:
    ran = run_points(graph, data)
    lines = [
        f"{len(data)} Yin-Yang points, five input spikes each, simulated event by event, with exact spike times",
        f"spikes per neuron and point: {listed(ran.per_neuron)}",
        f"accuracy before training: {ran.accuracy:.2%}",
    ]
    return ran, lines, facts_of(ran)


def check_step(ran: DemoRun) -> tuple[None, list[str], dict[str, Any]]:
    audits = audit(ran.network, ran.inputs, ran.solution, ran.t_end)
    lines = [
        "check of the membrane potential V, recomputed in float64 from the spikes by an "
        "independent formula (unit: v_threshold - v_reset):"
    ]
    for name, population_audit in audits.items():
        above = (
            f"exceeds the threshold by at most {population_audit.elsewhere:.0e}"
            if population_audit.elsewhere > 0
            else "never exceeds the threshold"
        )
        lines.append(
            f"{name}: at each of {population_audit.spikes} spikes, V is within "
            f"{population_audit.at_spikes:.0e} of the threshold; "
            f"at {population_audit.times} other times per point, V {above}"
        )
    return (
        None,
        lines,
        {
            "populations": {
                name: asdict(population_audit) for name, population_audit in audits.items()
            }
        },
    )


def train_step(
    graph: Graph,
    data: Splits,
    epochs: int,
    seed: int,
    progress: Callable[[str], None] | None,
    before: DemoRun,
) -> tuple[tuple[Fit, DemoRun], list[str], dict[str, Any]]:
    trained = fit(graph, data, loss="ttfs", epochs=epochs, seed=seed, progress=progress)
    after = run_points(trained.graph, data.test)
    lines = [
        f"{len(data.train)} training points, {epochs} epochs, exact gradients of spike times (EventProp), Adam",
        f"test accuracy: {before.accuracy:.2%} -> {trained.test_accuracy:.2%} "
        f"(epoch {trained.best_epoch}, selected on {len(data.validation)} validation points)",
        f"spikes per neuron and point: {listed(before.per_neuron)} -> {listed(after.per_neuron)}",
        *("note: " + note for note in trained.notes),
    ]
    facts = {
        "epochs": epochs,
        "best_epoch": trained.best_epoch,
        "test_accuracy": trained.test_accuracy,
        "accuracy_in_steps": trained.accuracy_in_steps,
    }
    return (trained, after), lines, facts | {"notes": list(trained.notes), **facts_of(after)}


def export_step(
    graph: Graph, source: Path, exported: Path, force: bool
) -> tuple[None, list[str], dict[str, Any]]:
    write(exported, graph, force)
    old, new = dict(_datasets(load(source))), dict(_datasets(load(exported)))
    changed = [name for name in old if name in new and not _same(old[name], new[name])]
    added, lost = (
        [name for name in new if name not in old],
        [name for name in old if name not in new],
    )
    lines = [
        f"{exported.name}: changed datasets: {len(changed)} of {len(old)} ({listing(changed)})",
        f"identical bit for bit: {len(old) - len(changed) - len(lost)}; added: {len(added)}; lost: {len(lost)}",
    ]
    return None, lines, {"file": str(exported), "changed": changed, "added": added, "lost": lost}


def _datasets(group: Group, path: str = "") -> Iterator[tuple[str, Dataset]]:
    """Yield all datasets of a document with their paths; paths of nodes begin at the node's
    name.
    """
    for name, entry in group.items():
        full = f"{path}/{name}" if path else name
        if isinstance(entry, Dataset):
            yield full.removeprefix("node/nodes/"), entry
        else:
            yield from _datasets(entry, full)


def _same(old: Dataset, new: Dataset) -> bool:
    """Return whether two datasets are equal bit by bit; text is compared by value."""
    first, second = np.asarray(old.value), np.asarray(new.value)
    if first.dtype == object:
        return old.dtype == new.dtype and first.tolist() == second.tolist()
    return same_array(first, second)


def read_back_step(
    exported: Path, data: Data, after: DemoRun
) -> tuple[None, list[str], dict[str, Any]]:
    again = run_points(read(exported, **DIALECT_OPTIONS), data)
    compared = {}
    for name, spikes in after.solution.spikes.items():
        first, second = np.asarray(spikes.time), np.asarray(again.solution.spikes[name].time)
        same = first.shape == second.shape and first.tobytes() == second.tobytes()
        if not same:
            raise SimulationError(
                Text(
                    "population '{node}' of {path} does not fire the spikes that it was trained "
                    "with",
                    node=name,
                    path=exported,
                ),
                fix="please report it: the exporter wrote a different network",
                node=name,
            )
        compared[name] = int(np.isfinite(first).sum())
    lines = [
        f"read {exported.name} back and simulated it on the {len(data)} test points:",
        f"{sum(compared.values())} spikes ({listed(compared)}), at the same times as before the export, bit for bit",
        "not compared with snnTorch itself, which is time-stepped and resets one time step "
        "after a spike",
    ]
    return None, lines, {"equal": True, "spikes": compared}


def facts_of(ran: DemoRun) -> dict[str, Any]:
    return {"accuracy": ran.accuracy, "spikes_per_neuron": ran.per_neuron}


def listed(values: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )
