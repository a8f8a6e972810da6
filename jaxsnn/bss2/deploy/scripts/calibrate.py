"""Calibrates the chip for the network with calix, once for all its runs.

Each entry of `calibrations` in network.json names a file of targets: lists of 512, one value for
each circuit, potentials in CADC LSB and times in microseconds. An entry that refines another reuses
its synaptic inputs and time constants, and only the potentials are calibrated again; this happens
where a circuit is part of different neurons in different runs. Results are stored beside this script
as `calibration.N.HASH.pkl`, and reused while the targets are the same.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, missing, network

#: Names of the potentials and of the times in a file of targets.
POTENTIALS = ("leak", "reset", "threshold")
TIMES = ("tau_mem", "tau_syn", "refractory_time")


def stack() -> Any:
    """Import and return calix."""
    try:
        import calix
        import calix.spiking
    except ImportError as error:
        missing("calix", error)
    return calix


def target_of(name: str) -> Any:
    """Return the calix target that a file of targets describes."""
    import quantities
    from calix.spiking import SpikingCalibTarget
    from calix.spiking.neuron import NeuronCalibTarget

    targets = json.loads((HERE / name).read_text(encoding="utf-8"))
    target = copy.deepcopy(NeuronCalibTarget.DenseDefault)
    for parameter in POTENTIALS:
        setattr(target, parameter, np.array(targets[parameter]))
    for parameter in TIMES:
        setattr(target, parameter, np.array(targets[parameter]) * quantities.us)
    target.i_synin_gm = np.array(targets["i_synin_gm"])
    target.synapse_dac_bias = int(targets["synapse_dac_bias"])
    target.membrane_capacitance = np.array(targets["membrane_capacitance"])
    return SpikingCalibTarget(neuron_target=target)


def calibrated(net: dict[str, Any], again: bool = False) -> list[Path]:
    """Calibrate each entry that has no result file yet, or all with `again`, and return the paths
    of the results.
    """
    calix = stack()
    from calix.spiking import SpikingCalibOptions

    paths = [path_of(number, net["calibrations"]) for number in range(len(net["calibrations"]))]
    for entry, path in zip(net["calibrations"], paths, strict=True):
        if path.exists() and not again:
            continue
        target = target_of(entry["targets"])
        if entry["refines"] is None:
            result = calix.calibrate(target, SpikingCalibOptions())
        else:
            result = refined(pickle.loads(paths[entry["refines"]].read_bytes()), target)
        path.write_bytes(pickle.dumps(result))
    return paths


def path_of(number: int, entries: list[dict[str, Any]]) -> Path:
    """Return the path of a result: its name changes with its targets, and those of the calibration
    it refines.
    """
    entry = entries[number]
    every = [entry] if entry["refines"] is None else [entries[entry["refines"]], entry]
    content = b"".join((HERE / calibration["targets"]).read_bytes() for calibration in every)
    return HERE / f"calibration.{number}.{hashlib.sha256(content).hexdigest()[:12]}.pkl"


def refined(result: Any, target: Any) -> Any:
    """Calibrate the potentials of a result again, for another target, and return the result."""
    from calix.common import base
    from calix.spiking import neuron
    from dlens_vx_v3 import hxcomm

    with hxcomm.ManagedConnection() as connection:
        held = base.StatefulConnection(connection)
        builder = base.WriteRecordingPlaybackProgramBuilder()
        result.apply(builder)
        base.run(held, builder)
        neuron.refine_potentials(held, result.neuron_result, target.neuron_target)
    result.target = target
    return result


def main() -> None:
    """Run the calibrations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--again", action="store_true", help="calibrate again, even if a result exists"
    )
    options = parser.parse_args()
    for path in calibrated(network(), options.again):
        print(path)  # noqa: T201


if __name__ == "__main__":
    main()
