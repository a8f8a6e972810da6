"""calix: targets with units, in the ranges in which it calibrates; the result is what was asked
for. Each full calibration and each refinement is counted.
"""

import copy
import types
from contextlib import contextmanager

import numpy as np

from tests.bss2.stack.configuration import ChipConfiguration
from tests.bss2.stack.coordinates import refuse_if

#: Hard limits of the fits, in seconds; other ranges only warn.
LIMITS = {"tau_mem": (0.1e-6, 2000e-6), "tau_syn": (0.1e-6, 100e-6)}


class Quantity(np.ndarray):
    """An array with a unit, kept in seconds."""


class Unit:
    """Makes quantities of arrays that it multiplies."""

    __array_ufunc__ = None

    def __init__(self, seconds):
        self.seconds = seconds

    def __rmul__(self, values):
        return (np.asarray(values, float) * self.seconds).view(Quantity)


class NeuronCalibTarget:
    """What all circuits are calibrated to."""

    DenseDefault = None

    def __init__(self):
        self.leak, self.reset, self.threshold = (np.full(512, level) for level in (80, 70, 125))
        microsecond = Unit(1e-6)
        self.tau_mem, self.refractory_time, self.holdoff_time = (
            np.full(512, duration) * microsecond for duration in (10.0, 2.0, 0.0)
        )
        self.tau_syn = np.full((2, 512), 10.0) * microsecond
        self.i_synin_gm, self.synapse_dac_bias = np.full(2, 500), 600
        self.membrane_capacitance = np.full(512, 63)


NeuronCalibTarget.DenseDefault = NeuronCalibTarget()


class SpikingCalibTarget:
    """What the chip is calibrated to."""

    def __init__(self, neuron_target=None):
        self.neuron_target = neuron_target or NeuronCalibTarget()


class SpikingCalibOptions:
    """How it is calibrated."""


class SpikingCalibResult:
    """What a calibration came to."""

    def __init__(self, target):
        self.target, self.neuron_result = target, types.SimpleNamespace(target=None)

    def to_chip(self):
        return ChipConfiguration(self.target.neuron_target)

    def apply(self, builder):
        builder.append(self)


def refuse(target):
    """What calix refuses."""
    for name in ("leak", "reset", "threshold"):
        value = getattr(target, name)
        refuse_if(
            value.shape != (512,)
            or value.dtype.kind != "i"
            or not ((value >= 0) & (value <= 255)).all(),
            ValueError,
            f"{name} is not 512 readings of the CADC",
        )
    for name, shape in (("tau_mem", (512,)), ("refractory_time", (512,)), ("tau_syn", (2, 512))):
        value = getattr(target, name)
        refuse_if(not isinstance(value, Quantity), TypeError, f"{name} has no unit")
        refuse_if(value.shape != shape, ValueError, f"{name} has the shape {value.shape}")
        low, high = LIMITS.get(name, (40e-9 * 0.999, 32e-6))
        refuse_if(
            value.min() < low or value.max() > high,
            ValueError,
            f"{name} is out of allowed range in the respective fit function.",
        )
    refuse_if(
        len(target.i_synin_gm) != 2 or not isinstance(target.synapse_dac_bias, int),
        ValueError,
        "synaptic inputs of all neurons are calibrated alike",
    )


def modules(counts):
    """calix and its parts; `counts` says how often the chip was calibrated, and refined."""

    def calibrate(target, options=None, cache_paths=None):
        assert isinstance(target, SpikingCalibTarget)
        assert options is None or isinstance(options, SpikingCalibOptions)
        refuse(target.neuron_target)
        counts["calibrated"] += 1
        return SpikingCalibResult(copy.deepcopy(target))

    def refine_potentials(connection, result, target=None):
        assert connection.ran, "the result is applied first"
        refuse(target)
        counts["refined"] += 1

    @contextmanager
    def connected():
        counts["connections"] += 1
        yield "connection"

    class StatefulConnection:
        def __init__(self, connection):
            self.ran = []

    def run(connection, builder):
        connection.ran.append(list(builder))

    base = types.SimpleNamespace(
        StatefulConnection=StatefulConnection,
        WriteRecordingPlaybackProgramBuilder=list,
        run=run,
    )
    neuron = types.SimpleNamespace(
        refine_potentials=refine_potentials, NeuronCalibTarget=NeuronCalibTarget
    )
    spiking = types.SimpleNamespace(
        SpikingCalibTarget=SpikingCalibTarget,
        SpikingCalibOptions=SpikingCalibOptions,
        neuron=neuron,
    )
    return {
        "quantities": types.SimpleNamespace(us=Unit(1e-6), s=Unit(1.0)),
        "calix": types.SimpleNamespace(calibrate=calibrate, spiking=spiking),
        "calix.spiking": spiking,
        "calix.spiking.neuron": neuron,
        "calix.common": types.SimpleNamespace(base=base),
        "hxcomm": types.SimpleNamespace(ManagedConnection=connected),
    }
