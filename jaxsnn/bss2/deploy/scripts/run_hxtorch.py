"""Runs the network on the chip with hxtorch.spiking, placed and routed as the mapping says, one run
after the other.

For BrainScaleS OS 12: hxtorch from cd3bfdf (February 2026) to 3bfc7aa (March 2026), and a grenade
that still builds networks with NetworkBuilder (removed in 93eaf6d5, April 2026). Spikes that a
later run needs are played back at the cycles of the event clock at which they were recorded. The
calibrations that network.json names are made once, by calibrate.py, and used by all runs. The
recordings of each run are written when it ends; after an interruption the same command continues with
the next run.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from calibrate import calibrated, refuse_other_targets
from chip_modules import exact_modules
from common import (
    Trains,
    arguments,
    cadc_readings,
    missing,
    network,
    read_inputs,
    write_outputs,
)
from routing import routing_function
from run_results import RunResults

#: Pause between two samples, in multiples of the longest time constant.
REST = 10


def stack() -> tuple[Any, Any, Any]:
    """Import and return hxtorch, hxtorch.spiking and torch."""
    try:
        import hxtorch
        import hxtorch.spiking as hxsnn
        import torch
    except ImportError as error:
        missing("hxtorch", error)
    return hxtorch, hxsnn, torch


def refuse_other_releases() -> None:
    """Exit unless the installed release has the interfaces that this script is written for."""
    import pygrenade_vx.network as grenade

    _, hxsnn, _ = stack()
    parameters = set(inspect.signature(hxsnn.LIF).parameters)
    lacking = [
        f"pygrenade_vx.network.{name}"
        for name in ("NetworkBuilder", "RoutingResult")
        if not hasattr(grenade, name)
    ]
    lacking += [] if hasattr(hxsnn, "HXModuleWrapper") else ["hxtorch.spiking.HXModuleWrapper"]
    lacking += [
        f"hxtorch.spiking.LIF({name})"
        for name in ("placement_constraint", "neuron_structure")
        if name not in parameters
    ]
    if lacking:
        raise SystemExit(
            f"the installed software has no {lacking[0]}: use BrainScaleS OS 12, hxtorch"
            " cd3bfdf to 3bfc7aa with a grenade older than 93eaf6d5"
        )


def structure(shape: Sequence[tuple[int, int]]) -> Any:
    """Return a neuron of one compartment with circuits at (row, column) of a grid; the first one
    leaks and fires.
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
    net: dict[str, Any], run: dict[str, Any], experiment: Any
) -> tuple[list[Any], dict[tuple[int | None, int], Any]]:
    """Return the neurons of each group, and the synapses between connected groups (None: the
    sources).
    """
    _, hxsnn, torch = stack()
    modules = exact_modules(hxsnn, torch)
    neurons = [_neurons(net, group, experiment, modules, torch) for group in run["groups"]]
    synapses = {}
    for link in run["links"]:
        pre, post = link["pre"], link["post"]
        inputs = len(run["sources"]) if pre is None else len(run["groups"][pre]["indices"])
        outputs = len(run["groups"][post]["indices"])
        synapse = modules.Synapse(inputs, outputs, experiment=experiment, transform=unchanged)
        synapse.weight.data = torch.tensor(dense(link, inputs, outputs))
        synapses[pre, post] = synapse
    return neurons, synapses


def _neurons(
    net: dict[str, Any], group: dict[str, Any], experiment: Any, modules: Any, torch: Any
) -> Any:
    from dlens_vx_v3 import halco

    population, form = net["populations"][group["population"]], structure(group["shape"])
    anchors = [halco.AtomicNeuronOnDLS(halco.common.Enum(place)) for place in group["anchors"]]
    parameter_names = ["leak", "tau_mem", "tau_syn"]
    if population["fires"]:
        parameter_names += ["reset", "threshold", "refractory_time"]
    values = {name: value_of(population[name], group["indices"], torch) for name in parameter_names}
    module = (modules.Neurons if population["fires"] else modules.Readouts)(
        len(group["indices"]),
        experiment,
        placement_constraint=[
            halco.LogicalNeuronOnDLS(form.compartments, anchor) for anchor in anchors
        ],
        neuron_structure=form,
        enable_cadc_recording=not population["fires"],
        i_synin_gm=net["i_synin_gm"],
        synapse_dac_bias=net["synapse_dac_bias"],
        **values,
    )
    module.read_params_from_calibration = False  # they are what the calibration was made for
    return module


def unchanged(weight: Any) -> Any:
    """Return the weights unchanged, since they are integers already."""
    return weight


def value_of(value: Any, indices: Sequence[int], torch: Any) -> Any:
    """Return a number that holds for all neurons, or a tensor of the numbers of a group's neurons."""
    return torch.tensor([value[index] for index in indices]) if isinstance(value, list) else value


def dense(link: dict[str, Any], inputs: int, outputs: int) -> np.ndarray:
    """Return the dense float32 weights (outputs, inputs) of a link."""
    weight = np.zeros((outputs, inputs), np.float32)
    weight[link["target"], link["source"]] = link["weight"]
    return weight


def connect(net: dict[str, Any], run: dict[str, Any], trains: Trains, experiment: Any) -> list[Any]:
    """Connect the modules of a run in the experiment, and return those of its groups' neurons.

    All modules except the source are in one wrapper, so that hxtorch sees a chain of two modules even
    if the network has loops and branches. Neurons are connected before the synapses that they feed,
    since a synapse without a connected source would be treated as one that has an input as its
    source.
    """
    _, hxsnn, torch = stack()
    modules = exact_modules(hxsnn, torch)
    neurons, synapses = build_modules(net, run, experiment)
    source = modules.Source(max(len(run["sources"]), 1), experiment)
    source.cycles = cycles_of(net, run, trains)
    source.cycle = net["cycle"] / net["millisecond"]
    handles = {
        None: source(hxsnn.LIFObservables(spikes=torch.zeros((1, trains.samples, source.size))))
    }
    for number, module in enumerate(neurons):
        arriving = [
            synapse.pending for (_, post), synapse in synapses.items() if post == number
        ] or [handles[None]]
        handles[number] = module(*arriving)
    for (pre, _), synapse in synapses.items():
        synapse(handles[pre])
    inside = {f"neurons_{number}": module for number, module in enumerate(neurons)}
    inside |= {f"synapses_{number}": module for number, module in enumerate(synapses.values())}
    modules.Whole(experiment, **inside)()
    return neurons


def run_once(
    net: dict[str, Any],
    run: dict[str, Any],
    trains: Trains,
    duration: float,
    calibration: str,
) -> None:
    """Execute one run of `duration` seconds of the chip, and add its spikes to the trains."""
    _, hxsnn, _ = stack()
    experiment = hxsnn.Experiment(
        mock=False, dt=net["step"], hw_routing_func=routing_function(net, run)
    )
    experiment.inter_batch_entry_wait = rest(net)
    experiment.default_execution_instance.load_calib(calib_path=calibration)
    neurons = connect(net, run, trains, experiment)
    hxsnn.run(experiment, math.ceil(duration / net["step"]) + 1)
    for group, module in zip(run["groups"], neurons, strict=True):
        population = net["populations"][group["population"]]
        if not population["fires"]:
            leak = np.broadcast_to(population["leak"], population["size"])[group["indices"]]
            values = cadc_readings(module.recorded.detach().numpy(), leak, population["name"])
            trains.add_traces(group["population"], group["indices"], values)
            continue
        times = [[[] for _ in range(trains.samples)] for _ in group["indices"]]
        for cycle, sample, place in module.recorded:  # in any order
            if cycle * net["cycle"] < duration:
                times[place][sample].append(cycle * net["cycle"])
        for index, neuron_times in zip(group["indices"], times, strict=True):
            trains.add((group["population"], index), [sorted(sample) for sample in neuron_times])


def rest(net: dict[str, Any]) -> int:
    """Return the cycles between two samples, in which currents and membranes decay to rest."""
    longest = max(
        float(np.max(population[name]))
        for population in net["populations"]
        if not population["external"]
        for name in ("tau_mem", "tau_syn")
    )
    return math.ceil(REST * longest / net["cycle"])


def cycles_of(net: dict[str, Any], run: dict[str, Any], trains: Trains) -> list[list[list[int]]]:
    """Return the cycles of the event clock at which each source spikes, by sample and source."""
    keys = [(source["population"], source["index"]) for source in run["sources"]]
    cycles = [
        [
            np.rint(np.array(trains.of(key)[sample]) / net["cycle"]).astype(int).tolist()
            for key in keys
        ]
        for sample in range(trains.samples)
    ]
    return [
        source_cycles or [[]] for source_cycles in cycles
    ]  # a run without sources has a silent one


def main() -> None:
    """Execute all runs."""
    net = network()
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        nargs="+",
        help="results of calibrate.py or calix, in the order of network.json (default: calibrate "
        "the chip)",
    )
    options = parser.parse_args()
    hxtorch, _, _ = stack()
    refuse_other_releases()
    trains = read_inputs(options.input, net, options.duration)
    results = RunResults(options.output, net, trains, options.duration)
    results.start(options.force)
    if options.calibration:
        calibrations = [Path(path) for path in options.calibration]
    else:
        calibrations = calibrated(net)
    if len(calibrations) != len(net["calibrations"]):
        raise SystemExit(
            f"{len(calibrations)} calibrations are specified; the network needs"
            f" {len(net['calibrations'])}: pass that many, or none"
        )
    for number, path in enumerate(calibrations if options.calibration else ()):
        refuse_other_targets(path, number, net)
    hxtorch.init_hardware()
    try:
        for number, run in enumerate(net["runs"]):
            calibration = str(calibrations[run["calibration"]])
            if results.load(number, calibration):
                continue
            run_once(net, run, trains, options.duration / net["speedup"], calibration)
            results.save(number, run, calibration)
    finally:
        hxtorch.release_hardware()
    write_outputs(options.output, net, trains, options.duration)
    try:
        results.remove()
    except OSError as error:  # the recording is complete
        sys.stderr.write(
            f"files {options.output}.run* could not be removed ({error.strerror}): they are no"
            " longer needed\n"
        )


if __name__ == "__main__":
    main()
