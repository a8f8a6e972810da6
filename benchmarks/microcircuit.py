"""The cortical microcircuit of examples/microcircuit.py in jaxsnn and in Brian 2, alternately:

    make .venv-peers/brian2/.installed
    python benchmarks/microcircuit.py --repetitions 3

Both simulate the same synapses, each with Poisson input of its own, which is part of the time. A run
is a process: Brian 2 compiles its code in a short run, jaxsnn in a run of full length, before the
run that counts. Prints seconds of wall and processor time, the peak of memory, and rates from 100 ms on.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from protocol import peak_bytes

ROOT = Path(__file__).parents[1]
BRIAN = ROOT / ".venv-peers" / "brian2" / "bin" / "python"
BEGIN = 0.1  # seconds, from which on rates are measured


def example(scale: float, t_end: float) -> dict:
    """Return the names that the example defines before it simulates."""
    sys.path.insert(0, str(ROOT / "docs"))
    from example_runs import cells_of, with_constants  # pyright: ignore[reportMissingImports]

    source = (ROOT / "examples" / "microcircuit.py").read_text()
    cells = cells_of(with_constants(source, {"SCALE": scale, "T_END": t_end}))
    names: dict = {}
    for kind, text in cells:
        if "EventDriven(" in text:
            break
        if kind == "python":
            exec(text, names)
    return names


def run_jaxsnn(scale: float, t_end: float, threads: int, exported: Path) -> dict:
    """Simulate in jaxsnn, and write the network for Brian 2."""
    import jax

    import jaxsnn

    names = example(scale, t_end)
    rates, network = names["rates"], names["network"]
    engine = jaxsnn.EventDriven(
        backend="native",
        threads=threads,
        refractory=names["REFRACTORY"],
        max_spikes=int(20 + 60 * t_end),
        max_events=int(2000 + 10 * len(rates) * t_end),
    )

    def simulate(seed: int) -> dict:
        events = jaxsnn.poisson_events(rates, t_end, seed=seed)
        solution = jaxsnn.simulate(network, events, t_end, engine=engine)
        return jax.block_until_ready({name: solution.spikes[name].time for name in populations})

    populations = names["POPULATIONS"]
    simulate(1)
    wall, processor = time.perf_counter(), time.process_time()
    spikes = simulate(2)
    figures = {
        "wall": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "bytes": peak_bytes(),
        "rates": {
            name: float(np.sum((np.asarray(times) >= BEGIN) & (np.asarray(times) < t_end)))
            / (times.shape[1] * (t_end - BEGIN))
            for name, times in spikes.items()
        },
    }
    if not exported.exists():
        export(names, exported)
    return figures


def export(names: dict, path: Path) -> None:
    """Write the synapses and currents of the network, in mV and seconds."""
    populations, graph = names["POPULATIONS"], names["graph"]
    sizes = [int(np.size(graph.nodes[name].parameters["v_leak"])) for name in populations]
    first = dict(zip(populations, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    pre, post, weight, delay = [], [], [], []
    for name in graph.order():
        source, _, target = name.partition(" to ")
        if source in first and target:
            node = graph.nodes[name].parameters
            pre.append(node["source"] + first[source])
            post.append(node["target"] + first[target])
            weight.append(node["weight"])
            delay.append(node["delay"])
    np.savez(
        path,
        sizes=sizes,
        pre=np.concatenate(pre),
        post=np.concatenate(post),
        weight=np.concatenate(weight),
        delay=np.concatenate(delay),
        v_leak=np.concatenate(
            [
                np.broadcast_to(graph.nodes[p].parameters["v_leak"], n)
                for p, n in zip(populations, sizes, strict=True)
            ]
        ),
        inputs=np.round(names["EXTERNAL"] * names["SCALE"]).astype(int),
        input_weight=names["WEIGHT"] / np.sqrt(names["SCALE"]),
        input_rate=names["EXTERNAL_RATE"],
        populations=populations,
    )


BRIAN_WORKER = '''
import json, sys, time, resource
import numpy as np
import brian2 as b
from brian2 import Hz, ms, second
path, t_end, begin = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
net = np.load(path)
b.prefs.codegen.target = "cython"
b.defaultclock.dt = 0.1 * ms
equations = """
dv/dt = (v_leak - v + I) / (10 * ms) : 1 (unless refractory)
dI/dt = -I / (0.5 * ms) : 1
v_leak : 1
"""
group = b.NeuronGroup(len(net["v_leak"]), equations, threshold="v > 15", reset="v = 0",
                      refractory=2 * ms, method="exact")
group.v_leak = net["v_leak"]
synapses = b.Synapses(group, group, "w : 1", on_pre="I += w")
synapses.connect(i=net["pre"], j=net["post"])
synapses.w = net["weight"]
synapses.delay = net["delay"] * second
first = np.concatenate([[0], np.cumsum(net["sizes"])])
inputs = [
    b.PoissonInput(group[first[k]:first[k + 1]], "I", int(count), float(net["input_rate"]) * Hz,
                   weight=float(net["input_weight"]))
    for k, count in enumerate(net["inputs"])
]
monitor = b.SpikeMonitor(group)
network = b.Network(group, synapses, monitor, inputs)
network.run(0.1 * ms)
wall, processor = time.perf_counter(), time.process_time()
network.run(t_end * second)
wall, processor = time.perf_counter() - wall, time.process_time() - processor
times, neurons = np.asarray(monitor.t / second), np.asarray(monitor.i)
counts = np.histogram(neurons[(times >= begin) & (times < t_end)], first)[0]
rates = dict(zip(net["populations"].tolist(), (counts / net["sizes"] / (t_end - begin)).tolist()))
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"wall": wall, "processor": processor, "bytes": memory, "rates": rates}))
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--scale", type=float, default=0.2)
    parser.add_argument("--t-end", type=float, default=1.1)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        figures = run_jaxsnn(options.scale, options.t_end, options.threads, options.worker)
        print(json.dumps(figures))
        return
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / "network.npz"
        sizes = ["--scale", str(options.scale), "--t-end", str(options.t_end)]
        ours = [sys.executable, __file__, *sizes, "--worker", str(network), "--threads"]
        commands = {
            "jaxsnn, 1 thread": [*ours, "1"],
            "jaxsnn, 2 threads": [*ours, "2"],
            "Brian 2": [
                *(str(BRIAN), "-c", BRIAN_WORKER, str(network)),
                *(str(options.t_end), str(BEGIN)),
            ],
        }
        results: dict[str, list[dict]] = {name: [] for name in commands}
        for _ in range(options.repetitions):
            for name, command in commands.items():
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                results[name].append(json.loads(done.stdout.splitlines()[-1]))
    for name, runs in results.items():
        middle = {
            key: statistics.median(run[key] for run in runs)
            for key in ("wall", "processor", "bytes")
        }
        print(
            f"{name}: {middle['wall']:.2f} s, processor {middle['processor']:.2f} s, "
            f"{middle['bytes'] / 1e9:.2f} GB"
        )
        print("  ", {key: round(value, 3) for key, value in runs[0]["rates"].items()})


if __name__ == "__main__":
    main()
