"""Numbers of layers, as the frameworks define them, become numbers of nodes, and go back into layers.

The layers here have names and attributes of the frameworks' own alone, so that no framework is
imported.
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
#: The step that snnTorch and SpikingJelly write with, seconds.
DT = 1e-4


def module(kind: str, package="", **attributes: Any) -> Any:
    return type(kind, (SimpleNamespace,), {"__module__": package or "x"})(**attributes)


def call(layer: Any) -> Call:
    return Call(name="layer", module=layer, sources=("",), inward=(4,), outward=SHAPE)


def node(**values: Any) -> Any:
    return SimpleNamespace(name="weights", value=values.get, names=tuple(values))


def assert_entry(entry, kind, **wanted):
    assert entry["type"] == kind
    assert entry.keys() == {"type", *wanted}
    for name, value in wanted.items():
        assert entry[name].shape == SHAPE
        np.testing.assert_allclose(entry[name], np.broadcast_to(value, SHAPE), rtol=1e-5)


def set_values(found):
    """By the name of the attribute; of a layer's own, and of what it has."""
    return {one.name: one.value for one in found}


# ---- Norse: rates 1/tau in p, and dt


def reset_value(*given):
    raise NotImplementedError


def reset_subtract(*given):
    raise NotImplementedError


RATES = {"tau_mem_inv": 40.0, "tau_syn_inv": 80.0, "v_leak": 0.1, "v_th": 1.3, "v_reset": -0.2}


def cell(kind: str, *names: str, reset_method=None, **others: Any) -> Any:
    fields = {name: RATES[name] for name in names}
    fields |= {} if reset_method is None else {"reset_method": reset_method}
    return module(kind, p=namedtuple("P", fields)(**fields), dt=0.002, **others)


LEVELS = {"v_threshold": 1.3, "v_reset": -0.2}
CELLS = {
    "LIFBoxCell": ("LIF", ("tau_mem_inv", "v_leak", "v_th", "v_reset")),
    "LIFCell": ("CubaLIF", tuple(RATES)),
    "LIF": ("CubaLIF", tuple(RATES)),
    "IAFCell": ("IF", ("v_th", "v_reset")),
    "IAF": ("IF", ("v_th", "v_reset")),
    "LIBoxCell": ("LI", ("tau_mem_inv", "v_leak")),
    "LICell": ("CubaLI", ("tau_mem_inv", "tau_syn_inv", "v_leak")),
    "LI": ("CubaLI", ("tau_mem_inv", "tau_syn_inv", "v_leak")),
}
PARAMETERS = {
    "LIF": {"tau": 0.025, "v_leak": 0.1, "r": 1, **LEVELS},
    "LI": {"tau": 0.025, "v_leak": 0.1, "r": 1},
    "CubaLIF": {"tau_mem": 0.025, "tau_syn": 0.0125, "v_leak": 0.1, "r": 1, "w_in": 1, **LEVELS},
    "CubaLI": {"tau_mem": 0.025, "tau_syn": 0.0125, "v_leak": 0.1, "r": 1, "w_in": 1},
    "IF": {"r": 1, **LEVELS},
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_of_norse(name):
    kind, fields = CELLS[name]
    found = norse._LEAVES[name](call(cell(name, *fields, reset_method=reset_subtract)))
    assert_entry(found.nodes[""], kind, **PARAMETERS[kind])
    assert (found.framework, found.dt) == ("norse", 0.002)
    options = {} if kind in ("LI", "CubaLI") else {"reset": "subtract"}
    assert found.options == options | ({"initial": "v_reset"} if kind == "IF" else {})
    assert norse._in_time(cell(name)) is (name in ("LIF", "LI", "IAF"))


@pytest.mark.parametrize("name", ["LILinearCell", "LIFRecurrentCell", "LIFRecurrent"])
def test_a_cell_of_norse_with_weights(name):
    weights = {"input_weights": np.ones((3, 4)) * 0.3, "recurrent_weights": np.eye(3) * 0.7}
    found = norse._export_weighted(call(cell(name, *RATES, **weights)))
    kind = norse._WEIGHTED[name]
    assert_entry(found.nodes[""], kind, **PARAMETERS[kind])
    np.testing.assert_allclose(found.nodes["w_in"]["weight"], weights["input_weights"])
    if kind == "CubaLI":
        assert found.edges == (("w_in", ""),)
        assert found.nodes.keys() == {"w_in", ""}
    else:
        assert found.edges == (("w_in", ""), ("", "w_rec"), ("w_rec", ""))
        np.testing.assert_allclose(found.nodes["w_rec"]["weight"], weights["recurrent_weights"])
    assert (found.last, found.dt) == ("", 0.002)


def test_resets_of_norse():
    assert norse._reset_of("n", None) == "zero"
    assert norse._reset_of("n", reset_value) == "zero"
    assert norse._reset_of("n", reset_subtract) == "subtract"
    assert_refused(
        lambda: norse._reset_of("n", module),
        ConversionError,
        "'n' resets by module, which is not supported",
    )


def lift(layer):
    return module("Lift", package="norse.torch", lifted_module=layer)


def test_what_norse_lifts():
    inner = cell("LICell", "tau_mem_inv", "tau_syn_inv", "v_leak")
    inner.__class__.__module__ = "norse.torch"
    inner.children = lambda: iter(())
    found = leaves.exported(call(lift(inner)))
    assert_entry(found.nodes[""], "CubaLI", **PARAMETERS["CubaLI"])
    assert norse._in_time(module("Lift"))
    several = module("Sequential", children=lambda: iter([inner]))
    assert_refused(
        lambda: leaves.exported(call(lift(several))),
        ConversionError,
        "'layer' applies a Sequential of several layers",
    )


SOURCE = {"decay": [0.9, 0.8, 1.0], "drive": [0.02, 0.05, 0.0], "synapse_decay": [0.7, 0.6, 0.5]}


@pytest.mark.parametrize(
    ("reset", "threshold", "names"),
    [
        ("value", [1.5, 2, 2.5], {"p.v_th", "p.v_reset"}),
        ("subtract", [1.5, 2, 2.5], {"p.v_th"}),
        ("none", np.inf, set()),
    ],
)
@pytest.mark.parametrize("lifted", [False, True])
def test_numbers_go_into_a_cell_of_norse(reset, threshold, names, lifted):
    """V += dt tau_mem_inv (v_leak - V + I), I -= dt tau_syn_inv I."""
    numbers = SOURCE | {"v_threshold": threshold, "v_reset": -0.3, "reset": reset}
    layer = cell("LIFRecurrentCell", *RATES)
    layer.__class__.__module__ = "norse.torch"
    given = lift(layer) if lifted else layer
    setter = leaves.setter_of(given) if lifted else norse._set_cell
    weights = {"w_in": node(weight=np.eye(3)), "w_rec": node(weight=np.eye(3) * 2)}
    found = setter(call(given), weights, {"": step(current_based=True, **numbers)})
    values = set_values(found)
    rates = {"p.tau_mem_inv", "p.tau_syn_inv", "p.v_leak"}
    assert values.keys() == rates | names | {"input_weights", "recurrent_weights"}
    assert all(one.owner is layer for one in found)
    np.testing.assert_allclose(values["p.tau_mem_inv"], [50, 100, 0], atol=1e-9)
    np.testing.assert_allclose(values["p.tau_syn_inv"], [150, 200, 250])
    np.testing.assert_allclose(values["p.v_leak"], [0.2, 0.25, 0], atol=1e-9)
    np.testing.assert_array_equal(values["recurrent_weights"], np.eye(3) * 2)
    np.testing.assert_array_equal(values["input_weights"], np.eye(3))
    if "p.v_th" in names:
        np.testing.assert_array_equal(values["p.v_th"], threshold)
    if "p.v_reset" in names:
        np.testing.assert_allclose(values["p.v_reset"], -0.3)


def test_an_integrator_of_norse_has_levels_alone():
    found = set_values(
        norse._set_cell(call(cell("IAFCell", "v_th", "v_reset")), {}, {"": step(**SOURCE)})
    )
    assert found.keys() == {"p.v_th", "p.v_reset"}
    leaky = call(cell("LICell", "tau_mem_inv", "v_leak"))
    found = set_values(norse._set_cell(leaky, {}, {"": step(**SOURCE)}))
    assert found.keys() == {"p.tau_mem_inv", "p.v_leak"}
    unknown = lift(module("Other"))
    assert leaves.setter_of(unknown)(call(unknown), {}, {"": step()}) == []


# ---- snnTorch: decays beta and alpha of a step of 0.1 ms


def leaky(kind="Leaky", **others: Any) -> Any:
    plain: dict[str, Any] = {
        "beta": 0.75,
        "threshold": 1.3,
        "reset_mechanism": "subtract",
        "reset_delay": False,
    }
    plain |= {"inhibition": False, "state_quant": False, "graded_spikes_factor": 1.0}
    return module(kind, **plain | others)


NONE = {"v_leak": 0, "v_reset": 0}


def test_a_leaky_neuron_of_snntorch():
    found = snntorch._export_neuron(call(leaky(beta=np.array([0.75, 0.5, 1.2], np.float32))))
    tau, r = [4e-4, 2e-4, np.inf], [4, 2, np.inf]
    assert_entry(found.nodes[""], "LIF", tau=tau, r=r, v_threshold=1.3, **NONE)
    assert found.options == {"reset": "subtract", "reset_delay": False}
    below = snntorch._export_neuron(call(leaky(beta=-0.5, reset_delay=1, threshold=0.7)))
    assert_entry(below.nodes[""], "LIF", tau=DT, r=1, v_threshold=0.7, **NONE)
    assert below.options == {"reset": "subtract", "reset_delay": True}


def test_a_synaptic_neuron_of_snntorch():
    layer = leaky("Synaptic", alpha=np.array([0.9, 0.8, 1.5], np.float32), reset_mechanism="none")
    found = snntorch._export_neuron(call(layer))
    times = {"tau_mem": 4e-4, "tau_syn": [1e-3, 5e-4, np.inf]}
    numbers = {"r": 4, "w_in": [10, 5, np.inf], "v_threshold": 1.3}
    assert_entry(found.nodes[""], "CubaLIF", **times, **numbers, **NONE)
    assert found.options == {"reset": "none", "reset_delay": False, "readout": True}
    below = snntorch._export_neuron(call(leaky("Synaptic", alpha=-0.1)))
    np.testing.assert_allclose(below.nodes[""]["w_in"], 1)


@pytest.mark.parametrize("all_to_all", [True, False])
@pytest.mark.parametrize("alpha", [None, 0.9])
def test_a_neuron_of_snntorch_that_feeds_itself(all_to_all, alpha):
    """The reset of an RSynaptic comes later whatever it was told."""
    own = module("Linear", "torch.nn", weight=np.arange(9.0).reshape(3, 3), bias=None)
    recurrent = own if all_to_all else module("Own", V=np.array([0.1, 0.2, 0.3]))
    layer = leaky("RLeaky", recurrent=recurrent, all_to_all=all_to_all)
    if alpha is not None:
        layer.alpha = alpha
    found = snntorch._export_neuron(call(layer))
    assert found.options["reset_delay"] is (alpha is not None)
    assert found.edges == (("lif", "w_rec"), ("w_rec", "lif"))
    wanted = own.weight if all_to_all else np.diag([0.1, 0.2, 0.3])
    np.testing.assert_allclose(found.nodes["w_rec"]["weight"], wanted)
    if all_to_all:
        layer.recurrent = module("Bilinear")
        assert_refused(
            lambda: snntorch._export_neuron(call(layer)),
            ConversionError,
            "'layer' feeds itself through a Bilinear",
        )


@pytest.mark.parametrize("alpha", [0.9, 0.6])
def test_the_response_of_an_alpha_neuron_of_snntorch(alpha):
    """Its membrane is m (a^n - b^n), n steps after a spike; m = 1 + log a / (log b - log a)."""
    beta = 0.75
    found = snntorch._export_alpha(call(leaky("Alpha", alpha=alpha, reset_mechanism="none")))
    entry = found.nodes[""]
    a, b = 1 - DT / entry["tau_syn"], 1 - DT / entry["tau_mem"]
    np.testing.assert_allclose((a, b), [[alpha] * 3, [beta] * 3], rtol=1e-6)
    np.testing.assert_allclose((entry["r"], entry["w_in"]), [1 / (1 - b), 1 / (1 - a)])
    np.testing.assert_allclose(found.nodes["delay"]["delay"], DT)
    assert not np.any([entry["v_leak"], entry["v_reset"]])
    i, v, peak = 0.0, 0.0, 1 + np.log(alpha) / (np.log(beta) - np.log(alpha))
    for n in range(1, 6):
        i = a * i + (found.nodes["scale"]["scale"] if n == 1 else 0)
        v = b * v + i
        np.testing.assert_allclose(v, [peak * (alpha**n - beta**n)] * 3, rtol=1e-5)
    assert found.options == {"reset": "none", "reset_delay": True, "readout": True}
    assert (found.edges, found.last) == ((("scale", "delay"), ("delay", "")), "")


def test_an_alpha_neuron_of_snntorch_clamps_its_decays():
    found = snntorch._export_alpha(call(leaky("Alpha", alpha=1.5, reset_mechanism="none")))
    assert np.all(np.isposinf(found.nodes[""]["w_in"]))
    np.testing.assert_allclose(found.nodes["scale"]["scale"], 1 - 0.75)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"alpha": 0.75}, "has alpha 0.75 and beta 0.75"),
        ({"alpha": -0.3}, r"\(Alpha\) has alpha 0 and beta 0.75"),
        ({"alpha": 0.9, "reset_mechanism": "zero"}, "puts its currents to 0 with each spike"),
        ({"alpha": 0.9, "inhibition": True}, "has inhibition, which NIR cannot hold"),
        ({"alpha": 0.9, "state_quant": True}, "has state_quant, which NIR cannot hold"),
        ({"alpha": 0.9, "graded_spikes_factor": 0.0}, "has a graded_spikes_factor of 0"),
    ],
)
def test_alpha_neurons_that_no_file_holds(said, message):
    assert_refused(
        lambda: snntorch._export_alpha(call(leaky("Alpha", **{"reset_mechanism": "none"} | said))),
        ConversionError,
        message,
    )


@pytest.mark.parametrize("alpha", [None, 0.9])
@pytest.mark.parametrize("threshold", [1.5, np.inf])
def test_numbers_go_into_a_neuron_of_snntorch(alpha, threshold):
    layer, one = leaky(), step(current_based=True, **SOURCE | {"v_threshold": threshold})
    if alpha is not None:
        layer.alpha = alpha
    values = set_values(snntorch._set_neuron(call(layer), {}, {"": one}))
    np.testing.assert_allclose(values.pop("beta"), SOURCE["decay"])
    if alpha is not None:
        np.testing.assert_allclose(values.pop("alpha"), SOURCE["synapse_decay"])
    if np.isfinite(threshold):
        np.testing.assert_allclose(values.pop("threshold"), threshold)
    assert not values


@pytest.mark.parametrize("all_to_all", [True, False])
def test_recurrent_weights_go_into_a_neuron_of_snntorch(all_to_all):
    own = module("Linear", "torch.nn", bias=None)
    layer = leaky("RLeaky", recurrent=own, all_to_all=all_to_all)
    weight = np.arange(9.0).reshape(3, 3)
    nodes = {"lif": node(), "w_rec": node(weight=weight)}
    found = snntorch._set_neuron(call(layer), nodes, {"lif": step()})
    name = "weight" if all_to_all else "V"
    assert found[-1].owner is own
    wanted = weight if all_to_all else [0, 4, 8]
    np.testing.assert_array_equal(set_values(found)[name], wanted)


# ---- SpikingJelly: tau in steps


def jelly(kind, **others: Any) -> Any:
    return module(kind, **{"v_threshold": 1.3, "v_reset": -0.2, "v": -0.2} | others)


def sigmoid_of_a_quarter():
    return np.float32(0.25)


RESTS = {"v_leak": -0.2, **LEVELS}
NODES = {
    "IFNode": ({}, "IF", {"r": 1e4, **LEVELS}),
    "LIFNode": ({"tau": 4.0, "decay_input": False}, "LIF", {"tau": 4e-4, "r": 4, **RESTS}),
    "LIFNode, divided": ({"tau": 4.0, "decay_input": True}, "LIF", {"tau": 4e-4, "r": 1, **RESTS}),
    "ParametricLIFNode": (
        {"w": SimpleNamespace(sigmoid=sigmoid_of_a_quarter), "decay_input": False},
        "LIF",
        {"tau": 4e-4, "r": 4, **RESTS},
    ),
    "CUBALIFNode": (
        {"v_decay": 0.75, "c_decay": 0.9},
        "CubaLIF",
        {"tau_mem": 4e-4, "tau_syn": 1e-3, "r": 4, "w_in": 10, "v_leak": 0, **LEVELS},
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_a_node_of_spikingjelly(name):
    said, kind, wanted = NODES[name]
    found = spikingjelly._export_node(call(jelly(name.partition(",")[0], **said)))
    assert_entry(found.nodes[""], kind, **wanted)
    assert (found.options, found.dt) == ({"reset": "zero"}, None)
    soft = spikingjelly._export_node(
        call(jelly(name.partition(",")[0], **said | {"v_reset": None}))
    )
    assert soft.options == {"reset": "subtract"}
    assert not np.any(soft.nodes[""]["v_reset"])
    assert not np.any(soft.nodes[""].get("v_leak", 0))


@pytest.mark.parametrize("reset", ["value", "subtract"])
def test_numbers_go_into_nodes_of_spikingjelly(reset):
    one = step(decay=0.8, reset=reset, v_reset=-0.2, current_based=True, synapse_decay=0.6)
    levels = {"v_threshold": [1.5, 2, 2.5]}
    if reset == "value":  # where it starts, too
        levels |= dict.fromkeys(("v_reset", "_memories.v", "_memories_rv.v"), -0.2)
    wanted = {
        "IFNode": {},
        "LIFNode": {"tau": 5},
        "ParametricLIFNode": {"w": -np.log(4)},
        "CUBALIFNode": {"v_decay": 0.8, "c_decay": 0.6},
    }
    for kind, numbers in wanted.items():
        values = set_values(spikingjelly._set_node(call(jelly(kind)), {}, {"": one}))
        assert values.keys() == {*levels, *numbers}, kind
        for name, value in (levels | numbers).items():
            np.testing.assert_allclose(values[name], np.broadcast_to(value, SHAPE), err_msg=kind)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_a_leaky_node_of_spikingjelly_has_a_decay_between_0_and_1(decay):
    one = {"": step(decay=[0.5, decay, 0.5])}
    assert_refused(
        lambda: spikingjelly._set_node(call(jelly("LIFNode")), {}, one),
        ConversionError,
        r"'layer' \(LIFNode\) has a decay between 0 and 1",
    )
    assert spikingjelly._set_node(call(jelly("IFNode")), {}, one)
    assert spikingjelly._in_time(jelly("IFNode", step_mode="m"))
    assert not spikingjelly._in_time(jelly("IFNode", step_mode="s"))
    assert not spikingjelly._in_time(jelly("IFNode"))
