"""Runs the network on the chip with hxtorch.spiking, placed and routed as the mapping says, one run
after the other.

Spikes that a later run needs are played back from the tensors that hxtorch records, on a grid of
--dt. Strengths of synaptic inputs are to be calibrated so that one LSB of a weight changes dV/dt by
`slope` of network.json (CADC LSB per microsecond): say --i-synin-gm and --synapse-dac-bias.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from common import Trains, arguments, missing, network, read_inputs, write_outputs
from routing import routing_function


def stack() -> tuple[Any, Any, Any]:
    """hxtorch and what belongs to it."""
    try:
        import hxtorch
        import hxtorch.spiking as hxsnn
        import torch
    except ImportError as error:
        missing("hxtorch", error)
    return hxtorch, hxsnn, torch


def structure(shape: Sequence[tuple[int, int]]) -> Any:
    """A neuron of one compartment with circuits at (row, column) of a grid; the first one leaks and
    fires.
    """
    from dlens_vx_v3 import halco, lola
    from hxtorch.spiking.morphology import SingleCompartmentNeuron

    class Placed(SingleCompartmentNeuron):
        def __init__(self) -> None:
            super().__init__(1)
            columns = halco.NeuronColumnOnLogicalNeuron.size
            circuits = [
                halco.AtomicNeuronOnLogicalNeuron(halco.common.Enum(columns * row + column))
                for row, column in shape
            ]
            morphology = lola.Morphology()
            morphology.create_compartment(circuits)
            self._compartments, self._logical_neuron = morphology.done()

    return Placed()


def build_modules(
    net: dict[str, Any], run: dict[str, Any], experiment: Any, options: argparse.Namespace
) -> tuple[list[Any], dict[tuple[int | None, int], Any]]:
    """The neurons of each group, and the synapses between groups (None: the sources) that have
    any.
    """
    _, hxsnn, torch = stack()
    from dlens_vx_v3 import halco

    neurons, synapses = [], {}
    for group in run["groups"]:
        population = net["populations"][group["population"]]
        form = structure(group["shape"])
        anchors = [halco.AtomicNeuronOnDLS(halco.common.Enum(place)) for place in group["anchors"]]
        names = ["leak", "tau_mem", "tau_syn"] + [
            "reset",
            "threshold",
            "refractory_time",
        ] * population["fires"]
        values = {name: value_of(population[name], group["indices"], torch) for name in names}
        kind = hxsnn.LIF if population["fires"] else hxsnn.LI
        neurons.append(
            kind(
                len(group["indices"]),
                experiment,
                placement_constraint=[
                    halco.LogicalNeuronOnDLS(form.compartments, anchor) for anchor in anchors
                ],
                neuron_structure=form,
                enable_cadc_recording=not population["fires"],
                i_synin_gm=options.i_synin_gm,
                synapse_dac_bias=options.synapse_dac_bias,
                **values,
            )
        )
    for link in run["links"]:
        pre, post = link["pre"], link["post"]
        size = len(run["sources"]) if pre is None else len(run["groups"][pre]["indices"])
        synapse = hxsnn.Synapse(
            size, len(run["groups"][post]["indices"]), experiment=experiment, transform=unchanged
        )
        synapse.weight.data = torch.tensor(dense(link, size, len(run["groups"][post]["indices"])))
        synapses[pre, post] = synapse
    return neurons, synapses


def unchanged(weight: Any) -> Any:
    """Weights are whole numbers already."""
    return weight


def value_of(value: Any, indices: Sequence[int], torch: Any) -> Any:
    """One number, or one for each neuron of a group."""
    return torch.tensor([value[one] for one in indices]) if isinstance(value, list) else value


def dense(link: dict[str, Any], inputs: int, outputs: int) -> np.ndarray:
    """(outputs, inputs) float32 weights."""
    weight = np.zeros((outputs, inputs), np.float32)
    weight[link["target"], link["source"]] = link["weight"]
    return weight


def run_once(
    net: dict[str, Any],
    run: dict[str, Any],
    trains: Trains,
    steps: int,
    options: argparse.Namespace,
) -> None:
    """One run: its spikes are added to the trains."""
    _, hxsnn, torch = stack()
    experiment = hxsnn.Experiment(
        mock=False, dt=options.dt, hw_routing_func=routing_function(net, run)
    )
    if options.calibration is not None:
        experiment.default_execution_instance.load_calib(calib_path=options.calibration)
    neurons, synapses = build_modules(net, run, experiment, options)
    source = hxsnn.InputNeuron(len(run["sources"]), experiment)
    handles = {
        None: source(
            hxsnn.LIFObservables(spikes=torch.tensor(on_grid(run, trains, steps, options.dt)))
        )
    }
    for number, neuron in enumerate(neurons):  # in the order of the signal
        handles[number] = neuron(
            *[one(handles[pre]) for (pre, post), one in synapses.items() if post == number]
        )
    hxsnn.run(experiment, steps)
    for number, group in enumerate(run["groups"]):
        if not net["populations"][group["population"]]["fires"]:
            trains.add_traces(
                group["population"],
                group["indices"],
                handles[number].membrane_cadc.detach().numpy(),
            )
            continue
        spikes = handles[number].spikes.detach().numpy()
        for place, index in enumerate(group["indices"]):
            times = [
                (np.flatnonzero(spikes[:, one, place]) * options.dt).tolist()
                for one in range(trains.samples)
            ]
            trains.add((group["population"], index), times)


def on_grid(run: dict[str, Any], trains: Trains, steps: int, dt: float) -> np.ndarray:
    """(steps, samples, sources) float32: 1 where a source spikes."""
    spikes = np.zeros((steps, trains.samples, len(run["sources"])), np.float32)
    for place, source in enumerate(run["sources"]):
        for sample, times in enumerate(trains.of((source["population"], source["index"]))):
            inside = np.rint(np.array(times) / dt).astype(int)
            if len(set(inside.tolist())) < len(times):
                message = (
                    f"source {place}, sample {sample}: spikes share a step of {dt} s, take a"
                    " smaller --dt"
                )
                warnings.warn(message, stacklevel=2)
            spikes[inside[inside < steps], sample, place] = 1
    return spikes


def main() -> None:
    """Run all runs."""
    net = network()
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument(
        "--dt", type=float, default=net["dt"], help=f"seconds of the chip (default {net['dt']})"
    )
    parser.add_argument(
        "--calibration", metavar="FILE", help="of the chip; without it the chip is calibrated"
    )
    parser.add_argument("--i-synin-gm", type=int, default=net["i_synin_gm"])
    parser.add_argument("--synapse-dac-bias", type=int, default=net["synapse_dac_bias"])
    options = parser.parse_args()
    hxtorch, _, _ = stack()
    inputs = read_inputs(options.input, net, options.duration)
    trains = Trains(inputs.samples)
    trains.times.update(inputs.times)
    hxtorch.init_hardware()
    try:
        for run in net["runs"]:
            run_once(
                net, run, trains, round(options.duration / net["speedup"] / options.dt), options
            )
    finally:
        hxtorch.release_hardware()
    write_outputs(options.output, net, trains)


if __name__ == "__main__":
    main()
