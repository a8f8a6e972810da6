"""Neuron models from outside the package, in native kernels, alternately with eventax:

    make .venv-peers/eventax/.installed
    python benchmarks/custom_neurons.py

The network 5-100-3 has neurons of one model, in both layers, and a batch of 64 samples with one
spike of each input. Weights are scaled until hidden neurons fire twice on average and all outputs
fire. The gradients are those of the sum of the outputs' first spike times by all weights.

The libraries run in separate processes, row by row in turns. Before that, spike times, spike counts
and gradients of both are compared. Prints the tables of docs/performance.md: the median and, in
brackets, the minimum of wall-clock times, and the median processor time.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from protocol import Worker, serve
from records import AREA, INPUTS, NEURON_MODELS, OUTPUTS, NeuronWork

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # for neuron_models, which runs the code of a page
PEER = HERE.parent / ".venv-peers" / "eventax" / "bin" / "python"
HIDDEN, BATCH, SPIKES, T_END = 100, 64, 2.0, 6.0
#: Models that eventax runs, too -> its solver and step in units of tau_syn. Output spikes of QIF and
#: EIF are accurate to about 1e-3, those of the adaptive LIF to 1e-2. Neither was tuned for each row.
COMPARED = {
    "ThetaQIF": ("Heun", 0.03),
    "ExponentialLIF": ("Heun", 0.015),
    "AdaptiveLIF": ("Heun", 0.03),
}
LAYERS = ("hidden", "output")
ROWS = {"forward": "forward", "weights": "forward + backward"}
MOST_COMPILE_SECONDS = 300.0
#: Largest difference of output spike times, in units of tau_syn, beyond which nothing is timed.
MOST_APART = 0.05


# ---- the worker of this library


def network(work: NeuronWork):
    """Return the network of a piece of work."""
    import jax.numpy as jnp
    import neuron_models
    import ours

    from jaxsnn.network.network import Network, with_tau_facts
    from jaxsnn.network.structure import Population, Wire

    del neuron_models  # imported to register its models
    populations, parameters = {}, {}
    wires, before = [Wire(name="input", kind="input", sources=(), shape=(INPUTS,))], "input"
    for name in LAYERS:
        weight = getattr(work, f"{name}_weights")
        before = ours.dense(wires, parameters, f"{name}_weights", weight, before)
        size = weight.shape[1]
        values = NEURON_MODELS[work.model]
        parameters[name] = {key: jnp.full(size, x, jnp.float32) for key, x in values.items()}
        population = Population(name=name, kind=work.model, size=size, spike_area=AREA)
        populations[name] = with_tau_facts(population, parameters[name])
        wires.append(Wire(name=name, kind="neuron", sources=(before,), shape=(size,)))
        before = name
    return Network(parameters=parameters, wires=wires, populations=populations)


def simulation(work: NeuronWork) -> Callable:
    """Return a function of network and events: the sum of the outputs' first spike times, and
    these times, the hidden spikes and the result.
    """
    import jax.numpy as jnp

    import jaxsnn

    engine = jaxsnn.EventDriven(
        backend="native", first_spike_only=("output",), max_spikes={"hidden": work.max_spikes}
    )

    def value(net, times):
        index = jnp.broadcast_to(jnp.arange(INPUTS, dtype=jnp.int32), times.shape)
        events = jaxsnn.Events(time=times, index=index)
        solution = jaxsnn.simulate(net, events, work.t_end, engine=engine, throw=False)
        first, hidden = solution.first_spike("output"), solution.spikes["hidden"]
        total = jnp.where(jnp.isfinite(first), first, work.t_end).sum()
        return total, (first, hidden.time, hidden.count, solution.result)

    return value


def build(work: NeuronWork):
    import jax
    import jax.numpy as jnp
    import ours

    net, times = network(work), jnp.asarray(work.input_times, jnp.float32)
    names = [f"{name}_weights" for name in LAYERS]
    forward, by_weights, _ = ours.totals(net, names, simulation(work))

    def results():
        (_, (first, hidden, _, result)), gradient = by_weights(net, times)
        ours.succeeded(result)
        weights = {name: gradient[name]["weight"].T for name in names}
        return {"output_times": first, "hidden_times": hidden, **weights}

    rows = {
        "forward": lambda: jax.block_until_ready(forward(net, times)),
        "weights": lambda: jax.block_until_ready(by_weights(net, times)),
    }
    return rows, results


# ---- the work


def make_work(model: str) -> NeuronWork:
    """Return the work of a model, with weights that make the neurons fire."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    x, y = rng.random((2, BATCH, 1))
    times = np.concatenate([2 * x, 2 * y, 2 - 2 * x, 2 - 2 * y, np.zeros((BATCH, 1))], axis=1)
    shapes = rng.normal(1.0, 0.5, (INPUTS, HIDDEN)), rng.normal(1.0, 0.3, (HIDDEN, OUTPUTS))
    work = NeuronWork(
        model=model,
        input_times=times,
        hidden_weights=shapes[0],
        output_weights=shapes[1] / HIDDEN,
        max_spikes=24,
        t_end=T_END,
    )
    net, run = network(work), jax.jit(simulation(work))

    def spikes(hidden_scale: float, output_scale: float):
        scaled = {
            "hidden_weights": {"weight": jnp.asarray(hidden_scale * shapes[0].T, jnp.float32)},
            "output_weights": {
                "weight": jnp.asarray(output_scale * shapes[1].T / HIDDEN, jnp.float32)
            },
        }
        changed = net.with_parameters({**net.parameters, **scaled})
        first, _, count, _ = run(changed, jnp.asarray(times, jnp.float32))[1]
        return np.asarray(first), np.asarray(count)

    hidden = _bisect(lambda scale: bool(spikes(scale, 1.0)[1].mean() < SPIKES))
    output = 1.1 * _bisect(lambda scale: not np.isfinite(spikes(hidden, scale)[0]).all())
    count = spikes(hidden, output)[1]
    return dataclasses.replace(
        work,
        hidden_weights=hidden * shapes[0],
        output_weights=output * shapes[1] / HIDDEN,
        max_spikes=int(count.max()) + 1,
        hidden_events=int(count.sum(axis=1).max()),
    )


def _bisect(is_too_small: Callable[[float], bool]) -> float:
    """Return the smallest scale that is large enough, between 0.1 and 1,000."""
    low, high = 0.1, 1000.0
    for _ in range(20):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if is_too_small(middle) else (low, middle)
    return high


# ---- comparison


def differences(ours: dict[str, np.ndarray], peer: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the largest differences of spike times (tau_syn), the share of hidden neurons with
    another number of spikes, and the relative errors of gradients.
    """
    slots = max(ours["hidden_times"].shape[-1], peer["hidden_times"].shape[-1])
    hidden = [
        np.pad(
            np.sort(each["hidden_times"], axis=-1),
            ((0, 0), (0, 0), (0, slots - each["hidden_times"].shape[-1])),
            constant_values=np.inf,
        )
        for each in (ours, peer)
    ]
    counts = [np.isfinite(times).sum(axis=-1) for times in hidden]
    same = counts[0] == counts[1]
    shared = np.isfinite(hidden[0]) & same[..., None]
    apart = np.abs(np.where(shared, hidden[0], 0) - np.where(shared, hidden[1], 0))
    figures = {
        "hidden spikes": float(apart.max()),
        "hidden spikes, median": float(np.median(apart[shared])),
        "other counts": float(1 - same.mean()),
        "output spikes": float(np.abs(ours["output_times"] - peer["output_times"]).max()),
    }
    for name in ("hidden_weights", "output_weights"):
        error = np.linalg.norm(ours[name] - peer[name]) / np.linalg.norm(ours[name])
        figures[f"gradient of {name}"] = float(error)
    return figures


# ---- the harness


def launch(work: NeuronWork, folder: Path, library: str, command: list) -> Worker:
    """Start a process of a library and load the work.

    Raises:
        Unavailable: the process failed.
    """
    file = folder / f"{work.model}.npz"
    if not file.exists():
        work.save(file)
    worker = Worker(command, folder / f"{library} {work.model}.log", None)
    worker.ask(do="load", work=str(file), limit=MOST_COMPILE_SECONDS)
    return worker


def measure(
    workers: dict[Any, Worker], rounds: int, seconds: float
) -> dict[tuple[Any, str], dict[str, list[float]]]:
    """Time both rows of all workers in turn; the key is that of the worker and the row."""
    figures: dict[tuple[Any, str], dict[str, list[float]]] = {}
    for row in ROWS:
        for worker in workers.values():
            worker.ask(do="first", row=row, limit=MOST_COMPILE_SECONDS)
    for _ in range(rounds):
        for row in ROWS:
            for key, worker in workers.items():
                answer = worker.ask(do="time", row=row, seconds=seconds)
                lists = figures.setdefault((key, row), {"seconds": [], "processor": []})
                for name in lists:
                    lists[name] += answer[name]
    return figures


def arrays_of(worker: Worker, folder: Path) -> dict[str, np.ndarray]:
    """Return the results of a worker."""
    file = folder / "results.npz"
    worker.ask(do="results", file=str(file), limit=MOST_COMPILE_SECONDS)
    with np.load(file) as arrays:
        return dict(arrays)


def milliseconds(figures: dict[str, list[float]]) -> str:
    """Return median, minimum and processor time as the cell of a table."""
    wall, processor = figures["seconds"], statistics.median(figures["processor"])
    middle = statistics.median(wall)
    return f"{1e3 * middle:.3g} ({1e3 * min(wall):.3g}); {1e3 * processor:.3g}"


def ratio(first: dict[str, list[float]], second: dict[str, list[float]]) -> str:
    """Return how often the second goes into the first: by the clock and by processor time."""
    quotients = [
        statistics.median(first[name]) / statistics.median(second[name])
        for name in ("seconds", "processor")
    ]
    return " / ".join(f"{quotient:.3g}" for quotient in quotients)


def compare(models: list[str], folder: Path, rounds: int, seconds: float) -> None:
    """Print the table of this library and eventax."""
    print("| model, eventax's solver | row | jaxsnn | eventax | times faster |")
    print("|---|---|--:|--:|--:|", flush=True)
    notes = []
    for model in models:
        solver, step = COMPARED[model]
        work = make_work(model)
        peer: list = [PEER, HERE / "peer_eventax_models.py", solver, str(step)]
        workers = {
            "jaxsnn": launch(work, folder, "jaxsnn", [sys.executable, __file__, "--worker"]),
            "eventax": launch(work, folder, "eventax", peer),
        }
        ours, theirs = (arrays_of(worker, folder) for worker in workers.values())
        apart = differences(ours, theirs)
        if not apart["output spikes"] < MOST_APART:
            raise SystemExit(f"{model}: the libraries differ: {apart}")
        figures = measure(workers, rounds, seconds)
        for worker in workers.values():
            worker.stop()
        for row, title in ROWS.items():
            pair = figures["jaxsnn", row], figures["eventax", row]
            cells = [milliseconds(pair[0]), milliseconds(pair[1]), ratio(pair[1], pair[0])]
            print(f"| {model}, {solver} {step} | {title} | {' | '.join(cells)} |", flush=True)
        notes.append(f"{model}: { ({key: float(f'{x:.2g}') for key, x in apart.items()}) }")
    print("", *notes, sep="\n", flush=True)


def compare_models(folder: Path, rounds: int, seconds: float) -> None:
    """Print the table of all models in native kernels."""
    workers, spikes = {}, {}
    for model in NEURON_MODELS:
        work = make_work(model)
        workers[model] = launch(work, folder, "jaxsnn", [sys.executable, __file__, "--worker"])
        hidden = arrays_of(workers[model], folder)["hidden_times"]
        spikes[model] = np.isfinite(hidden).sum(axis=-1).mean()
    figures = measure(workers, rounds, seconds)
    for worker in workers.values():
        worker.stop()
    titles = [f"{title} | ratio" for title in ROWS.values()]
    print(f"\n| model | spikes per neuron | {' | '.join(titles)} |")
    print("|---|--:|--:|--:|--:|--:|")
    for model in NEURON_MODELS:
        cells = [f"{spikes[model]:.3g}"]
        for row in ROWS:
            cells.append(milliseconds(figures[model, row]))
            cells.append(ratio(figures[model, row], figures["CubaLIF", row]))
        print(f"| {model} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each library")
    parser.add_argument("--seconds", type=float, default=0.5, help="at least, for one turn")
    parser.add_argument("--models", nargs="*", default=list(COMPARED), help="compared with eventax")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(lambda: "jaxsnn", build)
        return
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}\n")
    with tempfile.TemporaryDirectory() as name:
        if options.models:
            compare(options.models, Path(name), options.rounds, options.seconds)
        compare_models(Path(name), options.rounds, options.seconds)


if __name__ == "__main__":
    main()
