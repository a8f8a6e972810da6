"""Runs the network on the chip with PyNN.brainscales, its neurons placed as the mapping says, one
run after the other.

PyNN routes by itself: a network that its router cannot route needs run_hxtorch.py. Strengths of
synaptic inputs are to be calibrated so that one LSB of a weight changes dV/dt by `slope` of
network.json (CADC LSB per microsecond).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Neuron, Trains, arguments, missing, network, read_inputs, write_outputs


def stack() -> Any:
    """PyNN.brainscales."""
    try:
        import pynn_brainscales.brainscales2 as pynn
    except ImportError as error:
        missing("pynn_brainscales", error)
    return pynn


def build(
    pynn: Any, net: dict[str, Any], run: dict[str, Any], trains: Trains, sample: int
) -> list[Any]:
    """The populations of a run by group; None are the sources, one population for each."""
    sources = []
    for source in run["sources"]:
        times = (
            np.array(trains.of((source["population"], source["index"]))[sample])
            / net["millisecond"]
        )
        sources.append(pynn.Population(1, pynn.cells.SpikeSourceArray(spike_times=times.tolist())))
    groups = []
    for group in run["groups"]:
        population = net["populations"][group["population"]]
        names = {"v_rest": "leak", "v_reset": "reset", "v_thresh": "threshold"}
        values = {key: of_group(population[name], group) for key, name in names.items()}
        names = {
            "tau_m": "tau_mem",
            "tau_syn_E": "tau_syn",
            "tau_syn_I": "tau_syn",
            "tau_refrac": "refractory_time",
        }
        for key, name in names.items():
            values[key] = (
                np.array(of_group(population[name], group)) / net["microsecond"]
            ).tolist()
        cells = pynn.Population(len(group["indices"]), pynn.cells.CalibHXNeuronCuba(**values))
        cells.record(["spikes"])
        groups.append(cells)
    for link in run["links"]:
        connect(
            pynn,
            link,
            sources if link["pre"] is None else groups[link["pre"]],
            groups[link["post"]],
        )
    return groups


def of_group(value: Any, group: dict[str, Any]) -> Any:
    """One number, or one for each neuron of a group."""
    return [value[one] for one in group["indices"]] if isinstance(value, list) else value


def connect(pynn: Any, link: dict[str, Any], sources: Any, targets: Any) -> None:
    """Projections of both signs; inhibiting weights are negative. `sources` is a population, or a
    list of populations of one neuron each.
    """
    pairs = list(zip(link["source"], link["target"], link["weight"], strict=True))
    for receptor, chosen in (
        ("excitatory", [pair for pair in pairs if pair[2] > 0]),
        ("inhibitory", [pair for pair in pairs if pair[2] < 0]),
    ):
        if isinstance(sources, list):
            lists = [
                (sources[one], [(0, post, weight) for pre, post, weight in chosen if pre == one])
                for one in sorted({pre for pre, _, _ in chosen})
            ]
        else:
            lists = [(sources, chosen)] if chosen else []
        for population, rows in lists:
            pynn.Projection(
                population,
                targets,
                pynn.FromListConnector(rows, column_names=["weight"]),
                synapse_type=pynn.standardmodels.synapses.StaticSynapse(weight=0),
                receptor_type=receptor,
            )


def run_once(
    pynn: Any,
    net: dict[str, Any],
    run: dict[str, Any],
    trains: Trains,
    sample: int,
    duration: float,
) -> dict[Neuron, list[float]]:
    """One run of one sample: the spike times of each group's neurons, seconds of the chip."""
    pynn.setup(neuronPermutation=[head for group in run["groups"] for head in group["heads"]])
    groups = build(pynn, net, run, trains, sample)
    pynn.run(duration / net["millisecond"])
    found = {}
    for group, cells in zip(run["groups"], groups, strict=True):
        spiketrains = cells.get_data("spikes").segments[0].spiketrains
        for index, train in zip(group["indices"], spiketrains, strict=True):
            found[group["population"], index] = (
                np.asarray(train, float) * net["millisecond"]
            ).tolist()
    pynn.end()
    return found


def main() -> None:
    """Run all samples."""
    net = network()
    options = arguments(__doc__.splitlines()[0]).parse_args()
    pynn = stack()
    trains = read_inputs(options.input, net, options.duration)
    results = Trains(trains.samples)
    results.times.update(trains.times)
    for run in net["runs"]:
        samples = [
            run_once(pynn, net, run, results, sample, options.duration / net["speedup"])
            for sample in range(results.samples)
        ]
        for key in samples[0]:
            results.add(key, [one[key] for one in samples])
    write_outputs(options.output, net, results)


if __name__ == "__main__":
    main()
