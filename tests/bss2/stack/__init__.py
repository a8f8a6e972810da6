"""A stand-in for the chip's software of BrainScaleS OS 12, as far as deployed scripts use it.

Written from the public behaviour of halco, haldls, grenade (d1d8ee10), hxtorch (cd3bfdf) and calix:
names, arguments, ranges, and the checks that these libraries make before anything reaches a chip.
Behind it are circuits that do exactly what they were calibrated to.
"""

import collections
import types

import numpy as np

from tests.bss2.stack import calibration, configuration, network, spiking
from tests.bss2.stack.coordinates import halco


def module(name, members):
    new_module = types.ModuleType(name)
    vars(new_module).update(members)
    return new_module


class Stack:
    """The modules by name, and what was done with them.

    Attributes:
        slope: CADC LSB per second of the chip by which one LSB of a weight changes dV/dt.
        experiments: in the order in which they were made.
        counts: "calibrated", "potentials again", "refined": how often the chip was.
        int8: whether samples of the CADC arrive as int8, 128 lower.
    """

    def __init__(self, slope=0.0, records=False):
        self.slope, self.experiments, self.calls = slope, [], []
        self.initialised, self.counts, self.int8 = False, collections.Counter(), False
        coordinates = halco()
        calix = calibration.modules(self.counts, records)
        hxcomm = calix.pop("hxcomm")
        grenade = module("pygrenade_vx.network", vars(network.module()))
        hxsnn = self._spiking()
        dlens = {
            "hal": configuration.hal(coordinates),
            "halco": coordinates,
            "hxcomm": hxcomm,
            "lola": configuration.lola(),
        }
        self.modules = {
            "_hxtorch_core": module(
                "_hxtorch_core", {"weight_to_connection": network.weight_to_connection}
            ),
            "dlens_vx_v3": module("dlens_vx_v3", dlens),
            "hxtorch": module(
                "hxtorch",
                {
                    "spiking": hxsnn,
                    "init_hardware": lambda: self._initialise(True),
                    "release_hardware": lambda: self._initialise(False),
                },
            ),
            "hxtorch.spiking": hxsnn,
            "hxtorch.spiking.morphology": module(
                "morphology", {"SingleCompartmentNeuron": spiking.SingleCompartmentNeuron}
            ),
            "pygrenade_vx": module("pygrenade_vx", {"network": grenade}),
            "pygrenade_vx.network": grenade,
            "torch": module(
                "torch",
                {
                    "tensor": spiking.tensor,
                    "clone": lambda array: array.copy(),
                    "zeros": lambda shape: spiking.tensor(np.zeros(shape)),
                },
            ),
        }
        self.modules |= {name: module(name, vars(namespace)) for name, namespace in calix.items()}

    def _initialise(self, now):
        assert self.initialised != now
        self.initialised = now
        self.calls.append("init" if now else "release")

    def _spiking(self):
        class_names = ("InputNeuron", "AELIF", "LIF", "LI", "Synapse", "HXModuleWrapper", "run")
        members = {name: getattr(spiking, name) for name in class_names}
        experiment = type("Experiment", (spiking.Experiment,), {"stack": self})
        return module(
            "hxtorch.spiking",
            members | {"Experiment": experiment, "LIFObservables": spiking.Observables},
        )
