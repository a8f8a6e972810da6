"""calix: targets in the ranges in which it calibrates, as arrays with units or, since 115d099, as C++
records; the result is what was asked for. Each full calibration and each refinement is counted.
"""

import copy
import types
from contextlib import contextmanager

import numpy as np

from tests.bss2.stack.configuration import ChipConfiguration
from tests.bss2.stack.coordinates import AtomicNeuronOnDLS, SynapticInputOnNeuron, refuse_if

#: Hard limits of the fits, in seconds; other ranges only warn.
LIMITS = {"tau_mem": (0.1e-6, 2000e-6), "tau_syn": (0.1e-6, 100e-6)}


class Quantity(np.ndarray):
    """An array with a unit, kept in seconds."""

    def rescale(self, unit):
        return types.SimpleNamespace(magnitude=np.asarray(self) / unit.seconds)


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
        self.e_coba_reversal = np.repeat([[np.inf], [-np.inf]], 512, axis=1)


NeuronCalibTarget.DenseDefault = NeuronCalibTarget()


class TypedArray:
    """Values by coordinate, of one type, or of typed arrays."""

    def __init__(self, coordinate, make):
        self.coordinate, self.values = coordinate, [make() for _ in range(coordinate.size)]
        self.type = type(self.values[0])

    def _number(self, coordinate):
        refuse_if(type(coordinate) is not self.coordinate, TypeError, "another coordinate")
        return coordinate.number

    def __getitem__(self, coordinate):
        return self.values[self._number(coordinate)]

    def __setitem__(self, coordinate, value):
        refuse_if(
            self.type is TypedArray or not isinstance(value, int | self.type),
            TypeError,
            f"no {self.type.__name__}: {value}",
        )
        self.values[self._number(coordinate)] = self.type(value)

    def to_numpy(self):
        is_nested = self.type is TypedArray
        return np.array([value.to_numpy() if is_nested else value for value in self.values])

    def from_numpy(self, values):
        assert values.shape == (len(self.values),)
        self.values = [self.type(value) for value in values]

    def as_quantity(self):
        return np.asarray(self.to_numpy()).view(Quantity)


class Matching:
    """Synaptic inputs of both signs are calibrated to one strength."""

    def __init__(self):
        self.i_synin_gm = 500


class Separate:
    """Synaptic inputs of each sign are calibrated to the median of all neurons."""

    def __init__(self):
        self.i_synin_gm = TypedArray(SynapticInputOnNeuron, lambda: 500)


class RecordCalibTarget:
    """Targets as a C++ record, in CADC LSB and seconds."""

    CalibratedMatchingCubaSynapticInput, CalibratedCubaSynapticInput = Matching, Separate

    def __init__(self):
        circuits = AtomicNeuronOnDLS
        self.leak, self.reset, self.threshold, self.membrane_capacitance = (
            TypedArray(circuits, lambda value=value: value) for value in (80, 70, 125, 63)
        )
        self.tau_mem, self.refractory_time = (
            TypedArray(circuits, lambda value=value: value) for value in (10e-6, 2e-6)
        )
        self.tau_syn = TypedArray(
            circuits, lambda: TypedArray(SynapticInputOnNeuron, lambda: 10e-6)
        )
        self.cuba_synin, self.synapse_dac_bias = Matching(), 600

    def as_arrays(self):
        """The same as arrays with units."""
        target = NeuronCalibTarget()
        for name in ("leak", "reset", "threshold", "membrane_capacitance"):
            setattr(target, name, getattr(self, name).to_numpy())
        target.tau_mem, target.refractory_time = (
            self.tau_mem.as_quantity(),
            self.refractory_time.as_quantity(),
        )
        target.tau_syn = self.tau_syn.as_quantity().T
        strength = self.cuba_synin.i_synin_gm
        target.i_synin_gm = strength if isinstance(strength, int) else strength.to_numpy()
        target.synapse_dac_bias, target.e_coba_reversal = self.synapse_dac_bias, None
        return target


def as_arrays(target):
    """Neuron targets of either form as arrays with units."""
    return getattr(target, "as_arrays", lambda: target)()


class RecordSpikingCalibTarget:
    """What the chip is calibrated to, as a C++ record."""

    def __init__(self):
        self.neuron_target = RecordCalibTarget()


class SpikingCalibTarget:
    """What the chip is calibrated to."""

    def __init__(self, neuron_target=None):
        self.neuron_target = neuron_target or NeuronCalibTarget()


class SpikingCalibOptions:
    """How it is calibrated."""

    def __init__(self):
        self.refine_potentials = None


class SpikingCalibResult:
    """What a calibration came to."""

    def __init__(self, target):
        self.target, self.neuron_result = target, types.SimpleNamespace(target=None)

    def to_chip(self):
        return ChipConfiguration(as_arrays(self.target.neuron_target))

    def apply(self, builder):
        builder.append(self)


def refuse(target):
    """What calix refuses."""
    target = as_arrays(target)
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
        np.shape(target.i_synin_gm) not in ((), (2,))
        or not isinstance(target.synapse_dac_bias, int),
        ValueError,
        "synaptic inputs of all neurons are calibrated alike",
    )


def modules(counts, records=False):
    """calix and its parts.

    Args:
        counts: how often the chip was calibrated, calibrated with all potentials again at the end, and
            refined.
        records: targets are C++ records.
    """
    top_target = RecordSpikingCalibTarget if records else SpikingCalibTarget
    neuron_target = RecordCalibTarget if records else NeuronCalibTarget

    def calibrate(target, options=None, cache_paths=None):
        assert isinstance(target, top_target)
        options = options or SpikingCalibOptions()
        assert isinstance(options, SpikingCalibOptions)
        refuse(target.neuron_target)
        counts["calibrated"] += 1
        if options.refine_potentials or (
            options.refine_potentials is None
            and as_arrays(target.neuron_target).e_coba_reversal is None
        ):
            counts["potentials again"] += 1
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
        refine_potentials=refine_potentials, NeuronCalibTarget=neuron_target
    )
    spiking = types.SimpleNamespace(
        SpikingCalibTarget=top_target,
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
