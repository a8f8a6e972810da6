"""The stack refuses what the chip's software refuses: what deployed scripts are there to avoid."""

import numpy as np
import pytest

from tests.bss2.deployment import Deployment
from tests.bss2.stack import calibration, configuration, network
from tests.bss2.stack.coordinates import halco
from tests.bss2.test_deployed_nets import mapped

HALCO = halco()


def calibrated(**changes):
    """Ask for a calibration that differs from the usual one."""
    target = calibration.NeuronCalibTarget()
    vars(target).update(changes)
    calibration.refuse(target)


def share_an_address(run):
    """Two neurons behind one event output."""
    group = run["groups"][0]
    group["heads"][1] = group["anchors"][1] = (group["heads"][0] + 1) ^ 256
    group["addresses"][1] = group["addresses"][0]


BROKEN = {
    "another column": (
        lambda run: run["synapses"]["column"].__setitem__(0, 255),
        "target atomic neuron|not present",
    ),
    "another label": (
        lambda run: run["synapses"]["label"].__setitem__(0, run["synapses"]["label"][0] ^ 63),
        "connectum differs",
    ),
    "a closed crossbar": (
        lambda run: [node.__setitem__(slice(2, 4), [0, 1]) for node in run["crossbar"]],
        "connectum differs",
    ),
    "equal addresses": (share_an_address, "not unique"),
    "rows of both signs": (
        lambda run: [row.__setitem__(slice(None), [3] * len(row)) for row in run["row_modes"]],
        "both|excitatory_and_inhibitory|sign",
    ),
    "a neuron over the border": (
        lambda run: run["groups"][0].update(
            anchors=[127, *run["groups"][0]["anchors"][1:]], shape=[[0, 0], [0, 1]]
        ),
        "outside of neuron grid",
    ),
    "circuits that do not touch": (
        lambda run: run["groups"][0].update(shape=[[0, 0], [0, 2]]),
        "contiguous",
    ),
    "an address of 9 bit": (
        lambda run: run["groups"][0]["addresses"].__setitem__(0, 256),
        "8 bit",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_refused(name, tmp_path, monkeypatch):
    deployed = Deployment(tmp_path, monkeypatch, *mapped("two layers"))
    change, message = BROKEN[name]
    change(deployed.net["runs"][0])
    with pytest.raises((RuntimeError, OverflowError), match=message):
        deployed.run_once()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        *(
            (make, OverflowError, None)
            for make in (
                lambda: HALCO.SynapseRowOnDLS(HALCO.common.Enum(512)),
                lambda: HALCO.SpikeLabel(1 << 16),
                lambda: HALCO.NeuronLabel(1 << 14),
                lambda: HALCO.AtomicNeuronOnDLS(HALCO.common.Enum(-1)),
                lambda: HALCO.CrossbarNodeOnDLS(
                    HALCO.CrossbarOutputOnDLS(1), HALCO.CrossbarInputOnDLS(0)
                ),
                lambda: setattr(network.PlacedConnection(), "weight", 64),
                lambda: setattr(network.PlacedConnection(), "label", 64),
            )
        ),
        (lambda: HALCO.SpikeLabel(1.0), TypeError, None),
        (
            lambda: setattr(configuration.CrossbarNode(HALCO.NeuronLabel), "mask", 3),
            TypeError,
            "not a int",
        ),
        (lambda: calibrated(tau_syn=np.full((2, 512), 10e-6)), TypeError, "tau_syn has no unit"),
        (
            lambda: calibrated(tau_mem=np.full(512, 3.0) * calibration.Unit(1.0)),
            ValueError,
            "tau_mem is out of allowed range",
        ),
    ],
)
def test_coordinates_numbers_and_calibrations_have_types_and_ranges(make, error, message):
    calibrated()
    with pytest.raises(error, match=message):
        make()
