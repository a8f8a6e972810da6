"""Numbers of a step go into layers of the frameworks, by the names of their attributes.

No framework is imported: the layers here have names and attributes of the frameworks' own alone. What
becomes of the frameworks' layers themselves is in tests/interop/test_module_neurons.py and test_torch_bridge.py.
"""

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks import norse, snntorch, spikingjelly
from jaxsnn.nir.frameworks.torch_layers import Call
from jaxsnn.nir.torch import leaves
from tests.helpers.refusals import assert_refused
from tests.nir.importer_steps import step

SHAPE = (3,)


def module(kind: str, package="", **attributes: Any) -> Any:
    return type(kind, (SimpleNamespace,), {"__module__": package or "x"})(**attributes)


def call(layer: Any) -> Call:
    return Call(name="layer", module=layer, sources=("",), inward=(4,), outward=SHAPE)


def node(**values: Any) -> Any:
    return SimpleNamespace(name="weights", value=values.get, names=tuple(values))


def set_values(numbers):
    """By the name of the attribute; of a layer's own, and of what it has."""
    return {entry.name: entry.value for entry in numbers}


# -- Norse: rates 1/tau in p, and dt


RATES = {"tau_mem_inv": 40.0, "tau_syn_inv": 80.0, "v_leak": 0.1, "v_th": 1.3, "v_reset": -0.2}


def cell(kind: str, *fields_of_p: str, **others: Any) -> Any:
    fields = {name: RATES[name] for name in fields_of_p}
    return module(kind, p=namedtuple("P", fields)(**fields), dt=0.002, **others)


def lift(layer):
    return module("Lift", package="norse.torch", lifted_module=layer)


SOURCE = {"decay": [0.9, 0.8, 1.0], "drive": [0.02, 0.05, 0.0], "synapse_decay": [0.7, 0.6, 0.5]}


@pytest.mark.parametrize(
    ("reset", "threshold", "levels"),
    [
        ("value", [1.5, 2, 2.5], {"p.v_th", "p.v_reset"}),
        ("subtract", [1.5, 2, 2.5], {"p.v_th"}),
        ("none", np.inf, set()),
    ],
)
@pytest.mark.parametrize("lifted", [False, True])
def test_numbers_go_into_a_cell_of_norse(reset, threshold, levels, lifted):
    """V += dt tau_mem_inv (v_leak - V + I), I -= dt tau_syn_inv I."""
    numbers = SOURCE | {"v_threshold": threshold, "v_reset": -0.3, "reset": reset}
    layer = cell("LIFRecurrentCell", *RATES)
    layer.__class__.__module__ = "norse.torch"
    module_with_p = lift(layer) if lifted else layer
    setter = leaves.setter_of(module_with_p) if lifted else norse._set_cell
    weights = {"w_in": node(weight=np.eye(3)), "w_rec": node(weight=np.eye(3) * 2)}
    written = setter(call(module_with_p), weights, {"": step(current_based=True, **numbers)})
    values = set_values(written)
    rates = {"p.tau_mem_inv", "p.tau_syn_inv", "p.v_leak"}
    assert values.keys() == rates | levels | {"input_weights", "recurrent_weights"}
    assert all(entry.owner is layer for entry in written)
    np.testing.assert_allclose(values["p.tau_mem_inv"], [50, 100, 0], atol=1e-9)
    np.testing.assert_allclose(values["p.tau_syn_inv"], [150, 200, 250])
    np.testing.assert_allclose(values["p.v_leak"], [0.2, 0.25, 0], atol=1e-9)
    np.testing.assert_array_equal(values["recurrent_weights"], np.eye(3) * 2)
    np.testing.assert_array_equal(values["input_weights"], np.eye(3))
    if "p.v_th" in levels:
        np.testing.assert_array_equal(values["p.v_th"], threshold)
    if "p.v_reset" in levels:
        np.testing.assert_allclose(values["p.v_reset"], -0.3)


def test_an_integrator_of_norse_has_levels_alone():
    written = set_values(
        norse._set_cell(call(cell("IAFCell", "v_th", "v_reset")), {}, {"": step(**SOURCE)})
    )
    assert written.keys() == {"p.v_th", "p.v_reset"}
    leaky = call(cell("LICell", "tau_mem_inv", "v_leak"))
    written = set_values(norse._set_cell(leaky, {}, {"": step(**SOURCE)}))
    assert written.keys() == {"p.tau_mem_inv", "p.v_leak"}
    unknown = lift(module("Other"))
    assert leaves.setter_of(unknown)(call(unknown), {}, {"": step()}) == []


# -- snnTorch: decays beta and alpha of a step of 0.1 ms


def leaky(kind="Leaky", **others: Any) -> Any:
    plain: dict[str, Any] = {
        "beta": 0.75,
        "threshold": 1.3,
        "reset_mechanism": "subtract",
        "reset_delay": False,
    }
    plain |= {"inhibition": False, "state_quant": False, "graded_spikes_factor": 1.0}
    return module(kind, **plain | others)


@pytest.mark.parametrize("alpha", [None, 0.9])
@pytest.mark.parametrize("threshold", [1.5, np.inf])
def test_numbers_go_into_a_neuron_of_snntorch(alpha, threshold):
    layer, rule = leaky(), step(current_based=True, **SOURCE | {"v_threshold": threshold})
    if alpha is not None:
        layer.alpha = alpha
    values = set_values(snntorch._set_neuron(call(layer), {}, {"": rule}))
    np.testing.assert_allclose(values.pop("beta"), SOURCE["decay"])
    if alpha is not None:
        np.testing.assert_allclose(values.pop("alpha"), SOURCE["synapse_decay"])
    if np.isfinite(threshold):
        np.testing.assert_allclose(values.pop("threshold"), threshold)
    assert not values


@pytest.mark.parametrize("all_to_all", [True, False])
def test_recurrent_weights_go_into_a_neuron_of_snntorch(all_to_all):
    recurrent = module("Linear", "torch.nn", bias=None)
    layer = leaky("RLeaky", recurrent=recurrent, all_to_all=all_to_all)
    weight = np.arange(9.0).reshape(3, 3)
    nodes = {"lif": node(), "w_rec": node(weight=weight)}
    written = snntorch._set_neuron(call(layer), nodes, {"lif": step()})
    name = "weight" if all_to_all else "V"
    assert written[-1].owner is recurrent
    expected = weight if all_to_all else [0, 4, 8]
    np.testing.assert_array_equal(set_values(written)[name], expected)


# -- SpikingJelly: tau in steps


def jelly(kind, **others: Any) -> Any:
    return module(kind, **{"v_threshold": 1.3, "v_reset": -0.2, "v": -0.2} | others)


@pytest.mark.parametrize("reset", ["value", "subtract"])
def test_numbers_go_into_nodes_of_spikingjelly(reset):
    rule = step(decay=0.8, reset=reset, v_reset=-0.2, current_based=True, synapse_decay=0.6)
    levels = {"v_threshold": [1.5, 2, 2.5]}
    if reset == "value":  # v_reset is also the start
        levels |= dict.fromkeys(("v_reset", "_memories.v", "_memories_rv.v"), -0.2)
    expected = {
        "IFNode": {},
        "LIFNode": {"tau": 5},
        "ParametricLIFNode": {"w": -np.log(4)},
        "CUBALIFNode": {"v_decay": 0.8, "c_decay": 0.6},
    }
    for kind, numbers in expected.items():
        values = set_values(spikingjelly._set_node(call(jelly(kind)), {}, {"": rule}))
        assert values.keys() == {*levels, *numbers}, kind
        for name, value in (levels | numbers).items():
            np.testing.assert_allclose(values[name], np.broadcast_to(value, SHAPE), err_msg=kind)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_a_leaky_node_of_spikingjelly_has_a_decay_between_0_and_1(decay):
    rules = {"": step(decay=[0.5, decay, 0.5])}
    assert_refused(
        lambda: spikingjelly._set_node(call(jelly("LIFNode")), {}, rules),
        ConversionError,
        r"'layer' \(LIFNode\) needs a decay between 0 and 1",
    )
    assert spikingjelly._set_node(call(jelly("IFNode")), {}, rules)
    assert spikingjelly._in_time(jelly("IFNode", step_mode="m"))
    assert not spikingjelly._in_time(jelly("IFNode", step_mode="s"))
    assert not spikingjelly._in_time(jelly("IFNode"))
