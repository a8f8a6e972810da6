"""Calibrates the chip for the network with calix, once for all its runs.

Each entry of `calibrations` in network.json names a file of targets: lists of 512, one value for
each circuit, potentials in CADC LSB and times in microseconds. An entry that refines another reuses
its synaptic inputs and time constants, and only the potentials are calibrated again; this happens
where a circuit is part of different neurons in different runs. Results are stored beside this script
as `calibration.N.HASH.pkl`, and reused while the targets are the same.

Works with calix whose targets are NumPy arrays (25f7e96, May 2025, to 8801980) and with calix whose
targets are C++ records (115d099, June 2026, to e573081).
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, missing, network

#: Names of the potentials and of the times in a file of targets.
POTENTIALS = ("leak", "reset", "threshold")
TIMES = ("tau_mem", "tau_syn", "refractory_time")
#: Synaptic inputs of a circuit; circuits of the chip, and of one of its two rows.
INPUTS, CIRCUITS, COLUMNS = 2, 512, 256
#: Relative difference of times that counts as rounding.
TIME_TOLERANCE = 0.01


def stack() -> Any:
    """Import and return calix."""
    try:
        import calix
        import calix.spiking
    except ImportError as error:
        missing("calix", error)
    return calix


def refuse_other_releases() -> None:
    """Exit unless the installed calix has the interfaces that this script is written for."""
    from calix.spiking import SpikingCalibOptions, neuron

    lacking = []
    if not hasattr(SpikingCalibOptions(), "refine_potentials"):
        lacking.append("SpikingCalibOptions.refine_potentials")
    if not hasattr(neuron, "refine_potentials"):
        lacking.append("neuron.refine_potentials")
    if not has_numpy_targets() and not hasattr(
        neuron.NeuronCalibTarget, "CalibratedMatchingCubaSynapticInput"
    ):
        lacking.append("NeuronCalibTarget.DenseDefault or .CalibratedMatchingCubaSynapticInput")
    if lacking:
        raise SystemExit(
            f"the installed calix has no calix.spiking.{lacking[0]}: use calix 25f7e96 (May 2025) to"
            " e573081 (June 2026)"
        )


def has_numpy_targets() -> bool:
    """Return whether targets are NumPy arrays with units, as before calix 115d099."""
    from calix.spiking.neuron import NeuronCalibTarget

    return hasattr(NeuronCalibTarget, "DenseDefault")


def refining_options() -> Any:
    """Return options with which potentials are calibrated again after all else: the threshold is
    calibrated early, and later settings shift it by crosstalk.

    It must be requested: calix skips it for targets of `DenseDefault`, whose reversal potentials are
    set, although infinite.
    """
    from calix.spiking import SpikingCalibOptions

    options = SpikingCalibOptions()
    options.refine_potentials = True
    return options


def target_of(name: str, **changes: Any) -> Any:
    """Return the calix target that a file of targets describes.

    Args:
        changes: values that replace those of the file.
    """
    from calix.spiking import SpikingCalibTarget

    targets = json.loads((HERE / name).read_text(encoding="utf-8")) | changes
    if has_numpy_targets():
        return SpikingCalibTarget(neuron_target=numpy_target(targets))
    target = SpikingCalibTarget()
    target.neuron_target = record_target(targets)
    return target


def numpy_target(targets: dict[str, Any]) -> Any:
    """Return neuron targets before calix 115d099."""
    import quantities
    from calix.spiking.neuron import NeuronCalibTarget

    target = copy.deepcopy(NeuronCalibTarget.DenseDefault)
    for parameter in POTENTIALS:
        setattr(target, parameter, np.array(targets[parameter]))
    for parameter in TIMES:
        setattr(target, parameter, np.array(targets[parameter]) * quantities.us)
    excitatory, inhibitory = targets["i_synin_gm"]
    # One number: both inputs are calibrated to the same strength; two: each to its own median.
    target.i_synin_gm = (
        excitatory if excitatory == inhibitory else np.array([excitatory, inhibitory])
    )
    target.synapse_dac_bias = int(targets["synapse_dac_bias"])
    target.membrane_capacitance = np.array(targets["membrane_capacitance"])
    return target


def record_target(targets: dict[str, Any]) -> Any:
    """Return neuron targets since calix 115d099, whose times are in seconds."""
    import quantities
    from calix.spiking.neuron import NeuronCalibTarget
    from dlens_vx_v3 import halco

    target = NeuronCalibTarget()
    capacitance = target.membrane_capacitance.to_numpy()
    seconds = {
        name: (np.array(targets[name]) * quantities.us).rescale(quantities.s).magnitude.tolist()
        for name in TIMES
    }
    for number in range(len(targets["leak"])):
        circuit = halco.AtomicNeuronOnDLS(halco.common.Enum(number))
        for parameter in POTENTIALS:
            getattr(target, parameter)[circuit] = targets[parameter][number]
        for parameter in ("tau_mem", "refractory_time"):
            getattr(target, parameter)[circuit] = seconds[parameter][number]
        for synaptic_input, values in enumerate(seconds["tau_syn"]):
            place = halco.SynapticInputOnNeuron(synaptic_input)
            target.tau_syn[circuit][place] = values[number]
        if targets["membrane_capacitance"][number] != capacitance[number]:
            target.membrane_capacitance[circuit] = targets["membrane_capacitance"][number]
    excitatory, inhibitory = targets["i_synin_gm"]
    if excitatory == inhibitory:
        synaptic_inputs = NeuronCalibTarget.CalibratedMatchingCubaSynapticInput()
        synaptic_inputs.i_synin_gm = excitatory
    else:
        synaptic_inputs = NeuronCalibTarget.CalibratedCubaSynapticInput()
        synaptic_inputs.i_synin_gm.from_numpy(np.array([excitatory, inhibitory]))
    target.cuba_synin = synaptic_inputs
    target.synapse_dac_bias = int(targets["synapse_dac_bias"])
    return target


def calibrated(net: dict[str, Any], again: bool = False) -> list[Path]:
    """Calibrate each entry that has no result file yet, or all with `again`, and return the paths
    of the results.
    """
    calix = stack()
    refuse_other_releases()
    paths = [path_of(number, net["calibrations"]) for number in range(len(net["calibrations"]))]
    for entry, path in zip(net["calibrations"], paths, strict=True):
        if path.exists() and not again:
            continue
        target = target_of(entry["targets"])
        if entry["refines"] is None:
            result = calix.calibrate(target, refining_options())
        else:
            result = refined(pickle.loads(paths[entry["refines"]].read_bytes()), target)
        path.write_bytes(pickle.dumps(result))
    return paths


def path_of(number: int, entries: list[dict[str, Any]]) -> Path:
    """Return the path of a result: its name changes with its targets, with those of the calibration
    it refines, and with the options.
    """
    entry = entries[number]
    every = [entry] if entry["refines"] is None else [entries[entry["refines"]], entry]
    content = b"refine_potentials" + b"".join(
        (HERE / calibration["targets"]).read_bytes() for calibration in every
    )
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


def refuse_other_targets(path: Path, number: int, net: dict[str, Any]) -> None:
    """Exit if a result of calix was made for other targets than those of a calibration of
    network.json, in a circuit that the network uses. A .pbin file, which has no targets, is accepted
    with a message.
    """
    if path.suffix == ".pbin":
        sys.stderr.write(f"{path}: a .pbin file has no targets, so that they are not compared\n")
        return
    try:
        actual = values_of(pickle.loads(path.read_bytes()).target.neuron_target)
    except (AttributeError, EOFError, ImportError, OSError, pickle.UnpicklingError) as error:
        raise SystemExit(
            f"{path}: the targets of the calibration cannot be read ({error}): pass a result of"
            " calibrate.py or calix"
        ) from error
    name = net["calibrations"][number]["targets"]
    targets = json.loads((HERE / name).read_text(encoding="utf-8"))
    is_used, is_firing = circuits_of(number, net)
    for parameter, values in actual.items():
        mask = is_firing if parameter in ("reset", "threshold", "refractory_time") else is_used
        expected = per_circuit(targets[parameter])
        tolerance = TIME_TOLERANCE if parameter in TIMES else 0.0
        differs = mask & ~np.isclose(values, expected, rtol=tolerance, atol=0.0)
        if differs.any():
            place = tuple(np.argwhere(differs)[0].tolist())
            raise SystemExit(
                f"{path}: {parameter} of circuit {place[1]} is {values[place]:g}; {name} has"
                f" {expected[place]:g}: calibrate with calibrate.py, or pass the results in the order"
                " of network.json"
            )


def values_of(target: Any) -> dict[str, np.ndarray]:
    """Return neuron targets of either form as numbers, (inputs, circuits): CADC LSB, settings of the
    chip, and microseconds.
    """
    import quantities

    def microseconds(times: Any) -> np.ndarray:
        quantity = times if has_numpy_targets() else times.as_quantity()
        return np.asarray(quantity.rescale(quantities.us).magnitude)

    values = {name: getattr(target, name) for name in (*POTENTIALS, "membrane_capacitance")}
    values |= {name: microseconds(getattr(target, name)) for name in TIMES}
    bias = target.synapse_dac_bias
    if has_numpy_targets():
        values |= {"i_synin_gm": target.i_synin_gm, "synapse_dac_bias": bias}
    else:
        strength = target.cuba_synin.i_synin_gm
        for name in (*POTENTIALS, "membrane_capacitance"):
            values[name] = values[name].to_numpy()
        values["i_synin_gm"] = strength.to_numpy().T if hasattr(strength, "to_numpy") else strength
        values["tau_syn"] = values["tau_syn"].T
        values["synapse_dac_bias"] = bias
    return {name: per_circuit(value) for name, value in values.items()}


def per_circuit(values: Any) -> np.ndarray:
    """Return values of all circuits, (2,) of both synaptic inputs, or (512,) or (2, 512) of each
    circuit, as (2, 512).
    """
    array = np.asarray(getattr(values, "value", lambda: values)(), float)
    return np.broadcast_to(
        array[:, None] if array.shape == (INPUTS,) else array, (INPUTS, CIRCUITS)
    )


def circuits_of(number: int, net: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the circuits that the runs of a calibration use, and those in neurons that fire."""
    is_used, is_firing = np.zeros(CIRCUITS, bool), np.zeros(CIRCUITS, bool)
    for run in net["runs"]:
        for group in run["groups"] if run["calibration"] == number else ():
            for anchor in group["anchors"]:
                circuits = [anchor + COLUMNS * row + column for row, column in group["shape"]]
                is_used[circuits] = True
                is_firing[circuits] |= net["populations"][group["population"]]["fires"]
    return is_used, is_firing


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
