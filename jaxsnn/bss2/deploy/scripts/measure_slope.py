"""Measures the strength of the synaptic inputs: by how many CADC LSB per microsecond one LSB of a
weight changes dV/dt. Writes a table that `jaxsnn map --slope slopes.json` takes.

In the first run of the network all neurons become readouts, and in each sample one input channel
spikes once. The membrane of a neuron with weight w and time constants tau_m and tau_s follows

    V(t) = leak + w * slope * k(t)
    k(t) = tau_m tau_s / (tau_m - tau_s) * (exp(-t / tau_m) - exp(-t / tau_s))

from which the slope of each neuron is fitted by least squares; the table has their median. One delay
between event and membrane is fitted for all. Was never run on a chip.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import itertools
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
from calibrate import refining_options, target_of
from calibrate import refuse_other_releases as refuse_other_calix
from calibrate import stack as calix_stack
from common import HERE, Trains, network
from run_hxtorch import refuse_other_releases, run_once, stack

#: Steps of the CADC before the spike, from which the leak potential is measured.
STEPS_BEFORE = 10
#: Duration after the spike, in multiples of the longest time constant.
RESPONSE = 6
#: Delays of the membrane that are tried, in steps of the CADC.
DELAYS = np.arange(-3, 5.01, 0.25)
#: Range of the CADC without its ends, where it saturates.
UNSATURATED = 1.0, 254.0
#: Relative difference of excitatory and inhibitory slopes that is reported.
IMBALANCE = 0.1


def of_readouts(net: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the network and its first run with readouts in place of spiking neurons, without the
    synapses between them.
    """
    net = copy.deepcopy(net)
    run = net["runs"][0]
    for population in net["populations"]:
        if not population["external"]:
            population["fires"] = False
    for group in run["groups"]:
        group["addresses"] = [None] * len(group["addresses"])
    run["links"] = [link for link in run["links"] if link["pre"] is None]
    table = run["synapses"]
    is_kept = np.array(table["pre"]) < len(run["sources"])
    run["synapses"] = {name: np.array(values)[is_kept].tolist() for name, values in table.items()}
    return net, run


def weights_of(run: dict[str, Any]) -> dict[tuple[int, int], np.ndarray]:
    """Return the weights of each neuron, (population, index) -> (sources,) LSB."""
    weights: dict[tuple[int, int], np.ndarray] = {}
    for link in run["links"]:
        group = run["groups"][link["post"]]
        for source, target, weight in zip(
            link["source"], link["target"], link["weight"], strict=True
        ):
            neuron = group["population"], group["indices"][target]
            weights.setdefault(neuron, np.zeros(len(run["sources"])))[source] = weight
    return weights


def response(time: np.ndarray, tau_mem: float, tau_syn: float) -> np.ndarray:
    """Return k(t) of the module's text, in the unit of the arguments; 0 before the spike."""
    if np.isclose(tau_mem, tau_syn):
        values = time * np.exp(-time / tau_mem)
    else:
        factor = tau_mem * tau_syn / (tau_mem - tau_syn)
        values = factor * (np.exp(-time / tau_mem) - np.exp(-time / tau_syn))
    return np.where(time > 0, values, 0.0)


def value_at(value: Any, index: int) -> float:
    """Return the value of one neuron: a list has one for each neuron, a number holds for all."""
    return float(value[index] if isinstance(value, list) else value)


def fitted(
    net: dict[str, Any],
    weights: dict[tuple[int, int], np.ndarray],
    sources: np.ndarray,
    traces: dict[tuple[int, int], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the slopes of excitatory and of inhibitory inputs, CADC LSB per microsecond, one for each
    neuron that has such inputs, and the delay of the membranes in microseconds.

    Args:
        sources: source that spikes in each sample.
        traces: (steps, samples) of each neuron, CADC LSB.
    """
    responses = []  # neuron, weight, time constants, membrane without leak
    for neuron, ((population, index), neuron_weights) in enumerate(weights.items()):
        parameters = net["populations"][population]
        taus = [
            value_at(parameters[name], index) / net["microsecond"]
            for name in ("tau_mem", "tau_syn")
        ]
        for sample, source in enumerate(sources.tolist()):
            trace = traces[population, index][:, sample]
            is_unsaturated = trace.min() >= UNSATURATED[0] and trace.max() <= UNSATURATED[1]
            if neuron_weights[source] and is_unsaturated:
                leak = np.median(trace[:STEPS_BEFORE])
                responses.append((neuron, neuron_weights[source], *taus, trace - leak))
    if not responses:
        raise SystemExit("no membrane responded within the range of the CADC")
    neuron, weight = np.array([entry[:2] for entry in responses]).T
    measured = np.array([entry[4] for entry in responses])
    # synaptic inputs: excitatory ones of all neurons, then inhibitory ones
    pair = neuron.astype(int) + len(weights) * (weight < 0)
    step = net["step"] / net["microsecond"]
    time = (np.arange(measured.shape[1]) - STEPS_BEFORE) * step
    best: tuple[float, np.ndarray, float] = np.inf, np.zeros(0), 0.0
    for delay in DELAYS * step:
        model = np.array([entry[1] * response(time - delay, *entry[2:4]) for entry in responses])
        products, squares = (
            np.bincount(pair, (model * signal).sum(axis=1), 2 * len(weights))
            for signal in (measured, model)
        )
        slopes = products / np.where(squares > 0, squares, np.nan)
        error = float(((measured - slopes[pair, None] * model) ** 2).sum())
        if error < best[0]:
            best = error, slopes, float(delay)
    excitatory, inhibitory = (part[np.isfinite(part)] for part in np.split(best[1], 2))
    return excitatory, inhibitory, best[2]


def measure(
    net: dict[str, Any], strength: int, bias: int, sources: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Calibrate the chip at one setting, execute the samples, and return what `fitted` does.

    Args:
        strength, bias: i_synin_gm and synapse_dac_bias.
        sources: number of input channels, those with the largest weights.
    """
    net, run = of_readouts(net)
    net |= {"i_synin_gm": strength, "synapse_dac_bias": bias}
    weights = weights_of(run)
    if not weights:
        raise SystemExit("no input of the first run has a weight")
    total = np.abs(list(weights.values())).sum(axis=0)
    chosen = np.argsort(-total, kind="stable")[:sources]
    chosen = chosen[total[chosen] > 0]
    trains = Trains(len(chosen))
    start = STEPS_BEFORE * net["step"]
    for sample, source in enumerate(chosen.tolist()):
        entry = run["sources"][source]
        times = [[start] if sample == place else [] for place in range(len(chosen))]
        trains.add((entry["population"], entry["index"]), times)
    longest = max(
        float(np.max(population[name]))
        for population in net["populations"]
        if not population["external"]
        for name in ("tau_mem", "tau_syn")
    )
    calibration = calibration_at(net, run, strength, bias)
    run_once(net, run, trains, start + RESPONSE * longest, str(calibration))
    return fitted(net, weights, chosen, trains.traces)


def calibration_at(net: dict[str, Any], run: dict[str, Any], strength: int, bias: int) -> Path:
    """Return the result of a calibration for a run at one setting, calibrating if there is none."""
    name = net["calibrations"][run["calibration"]]["targets"]
    content = (HERE / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:12]
    path = HERE / f"calibration.slope.{strength}.{bias}.{digest}.pkl"
    if not path.exists():
        target = target_of(name, i_synin_gm=[strength] * 2, synapse_dac_bias=bias)
        result = calix_stack().calibrate(target, refining_options())
        path.write_bytes(pickle.dumps(result))
    return path


def main() -> None:
    """Measure the slope at each setting, and write the table."""
    net = network()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", metavar="slopes.json", default="slopes.json", help="the table")
    parser.add_argument("--force", action="store_true", help="overwrite the table")
    parser.add_argument(
        "--i-synin-gm",
        metavar="N",
        type=int,
        nargs="+",
        default=[net["i_synin_gm"]],
        help="settings of the synaptic inputs, 30 to 800 (default: that of network.json)",
    )
    parser.add_argument(
        "--synapse-dac-bias",
        metavar="N",
        type=int,
        nargs="+",
        default=[net["synapse_dac_bias"]],
        help="settings of the synapses, 30 to 1022 (default: that of network.json)",
    )
    parser.add_argument(
        "--sources", metavar="N", type=int, default=16, help="input channels to use (default 16)"
    )
    options = parser.parse_args()
    output = Path(options.output)
    if output.exists() and not options.force:
        raise SystemExit(f"{output} exists: pass --force to overwrite it")
    hxtorch, _, _ = stack()
    refuse_other_releases()
    calix_stack()
    refuse_other_calix()
    table = []
    hxtorch.init_hardware()
    try:
        for strength, bias in itertools.product(options.i_synin_gm, options.synapse_dac_bias):
            excitatory, inhibitory, delay = measure(net, strength, bias, options.sources)
            slopes = np.concatenate([excitatory, inhibitory])
            slope = float(np.median(slopes))
            setting = f"i_synin_gm {strength}, synapse_dac_bias {bias}"
            if not slope > 0:
                raise SystemExit(f"{setting}: the membranes do not follow the weights")
            medians = [float(np.median(part)) for part in (excitatory, inhibitory) if part.size]
            print(  # noqa: T201
                f"{setting}: {slope:.4g} CADC LSB per microsecond and LSB of a weight (std"
                f" {slopes.std():.2g} of {slopes.size} synaptic inputs), delay"
                f" {delay:.2f} us"
            )
            if max(medians) - min(medians) > IMBALANCE * slope:
                sys.stderr.write(
                    f"{setting}: excitatory inputs have {medians[0]:.4g}, inhibitory ones"
                    f" {medians[1]:.4g}\n"
                )
            table.append(
                {
                    "slope": float(f"{slope:.6g}"),
                    "i_synin_gm": strength,
                    "synapse_dac_bias": bias,
                }
            )
        output.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    finally:
        hxtorch.release_hardware()


if __name__ == "__main__":
    main()
