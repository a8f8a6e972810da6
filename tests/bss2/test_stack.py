"""The stack refuses what the chip's software refuses: what deployed scripts are there to avoid."""

import numpy as np
import pytest

from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import quantize
from tests.bss2.deployment import Deployment, random_events
from tests.bss2.stack import calibration, configuration, network
from tests.bss2.stack.coordinates import halco
from tests.bss2.test_deployed_nets import NETS

HALCO = halco()


@pytest.fixture
def ready(tmp_path, monkeypatch):
    """`ready(name)`: a network of the 24, deployed."""

    def make(name):
        quantized = quantize(NETS[name]())
        mapping = place_and_route(quantized.netlist).mapping
        return Deployment(tmp_path, monkeypatch, quantized, mapping)

    return make


def run_once(ready):
    """Send one run of a deployed network to the stack."""
    run, trains = ready.script("run_hxtorch"), ready.script("common").Trains(1)
    (calibrated,) = ready.script("calibrate").calibrated(ready.net)
    ready.stack.modules["hxtorch"].init_hardware()
    run.run_once(ready.net, ready.net["runs"][0], trains, 1e-5, str(calibrated))


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
def test_what_is_broken_is_refused(name, ready):
    deployed = ready("two layers")
    change, message = BROKEN[name]
    change(deployed.net["runs"][0])
    with pytest.raises((RuntimeError, OverflowError), match=message):
        run_once(deployed)


def test_coordinates_and_numbers_have_ranges():
    for make in (
        lambda: HALCO.SynapseRowOnDLS(HALCO.common.Enum(512)),
        lambda: HALCO.SpikeLabel(1 << 16),
        lambda: HALCO.NeuronLabel(1 << 14),
        lambda: HALCO.AtomicNeuronOnDLS(HALCO.common.Enum(-1)),
        lambda: HALCO.CrossbarNodeOnDLS(HALCO.CrossbarOutputOnDLS(1), HALCO.CrossbarInputOnDLS(0)),
        lambda: setattr(network.PlacedConnection(), "weight", 64),
        lambda: setattr(network.PlacedConnection(), "label", 64),
    ):
        with pytest.raises(OverflowError):
            make()
    with pytest.raises(TypeError):
        HALCO.SpikeLabel(1.0)
    with pytest.raises(TypeError, match="not a int"):
        configuration.CrossbarNode(HALCO.NeuronLabel).mask = 3


def test_calibrations_are_in_range_and_have_units():
    target = calibration.NeuronCalibTarget()
    calibration.refuse(target)
    target.tau_syn = np.full((2, 512), 10e-6)
    with pytest.raises(TypeError, match="tau_syn has no unit"):
        calibration.refuse(target)
    target = calibration.NeuronCalibTarget()
    target.tau_mem = np.full(512, 3.0) * calibration.Unit(1.0)
    with pytest.raises(ValueError, match="tau_mem is out of allowed range"):
        calibration.refuse(target)


def test_events_of_sources_that_feed_nothing_are_not_sent(ready):
    deployed = ready("sparse")
    deployed.run(random_events(deployed.net, 1, 1, 0.01), 0.01)
    (experiment,) = deployed.stack.experiments
    used = {
        connection.index_pre[0]
        for connection in experiment.network.execution_instances["0"]
        .projections[network.ProjectionOnNetwork(0)]
        .connections
    }
    assert used <= set(range(40))
