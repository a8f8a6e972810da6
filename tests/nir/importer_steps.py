"""One step of what importers make of a file, as their sources state it, in plain NumPy, and of the
neurons that are written for them: numbers that are neither 0 nor 1 where others are possible.
"""

from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.neuron_writing import Setting
from jaxsnn.nir.frameworks.source_step import Step

DT, SIZE, STEPS = 2e-3, 3, 48


def step(**changes: Any) -> Step:
    """Three neurons that leak, start and reset at different levels, and spike above 1.5 to 2.5."""
    numbers: dict[str, Any] = {
        "decay": 0.8,
        "gain": [0.7, 1.3, 0.4],
        "drive": 0.0,
        "synapse_decay": 0.6,
        "synapse_gain": [1.7, 0.6, 2.3],
        "bias_ratio": 1.0,
        "v_threshold": [1.5, 2.0, 2.5],
        "v_reset": 0.0,
        "v_start": 0.0,
        "i_start": 0.0,
        "level": 1.0,
    }
    flags: dict[str, Any] = {"reset": "value", "several": False, "at_equality": False}
    flags |= {"current_based": False, "late": False, "floor": None, "name": "n", "type": "LIF"}
    flags |= {key: value for key, value in changes.items() if key not in numbers}
    numbers |= {key: value for key, value in changes.items() if key in numbers}
    shape = flags.pop("shape", (SIZE,))
    if not flags["current_based"]:
        numbers |= {"synapse_decay": 0.0, "synapse_gain": 1.0}
    arrays = {name: np.broadcast_to(value, shape).astype(float) for name, value in numbers.items()}
    return Step(shape=shape, **arrays, **flags)


def resting(levels: Any, **changes: Any) -> Step:
    """Neurons that start and reset at a level, and are driven so that they rest at it."""
    decay = np.asarray(changes.get("decay", 0.8))
    reset = np.asarray(levels)
    threshold = np.array([1.5, 2.0, 2.5]) + reset
    levels_and_threshold = {"v_reset": reset, "v_start": reset, "v_threshold": threshold}
    return step(**(levels_and_threshold | {"drive": (1 - decay) * reset} | changes))


def refused(node: str, message: str, instead: str) -> None:
    raise ConversionError(f"{message}; {instead}", fix="-", node=node)


def setting(option: Any = None) -> Setting:
    return Setting(dt=DT, importer_setting=option, give_up=refused)


# -- constants of one time step that importers compute from an entry; `subtracted` is the amount
# that a reset subtracts


def of_snntorch(entry, written, w_in=None):
    """Leaky, Synaptic: beta = 1 - 1/r, one threshold, and no leak or reset potential."""
    r, tau = entry["r"], entry.get("tau", entry.get("tau_mem"))
    if entry["type"] == "IF":
        assert np.all(r == 1)
        constants = {"decay": 1.0}
    else:
        np.testing.assert_allclose(r, tau / DT)
        constants = {"decay": 1 - DT / tau}
        assert not np.any(entry["v_leak"])
    if entry["type"] == "CubaLIF":
        constants["synapse_decay"] = 1 - DT / entry["tau_syn"]
        expected = entry["tau_syn"] / DT if w_in is None else w_in
        np.testing.assert_allclose(entry["w_in"], expected)
    assert not np.any(entry["v_reset"])
    assert np.ptp(entry["v_threshold"]) == 0
    return constants


def of_snntorch_main(entry, written):
    return of_snntorch(entry, written, w_in=1.0)


def of_norse(entry, written):
    """Its boxes ignore r; currents and membranes start at v_leak, and currents go to it."""
    assert not np.any(entry["v_reset"])
    size = written.means.get("reset_size", "v_threshold")
    if entry["type"] == "IF":
        assert np.all(entry["r"] == 1)
        return {}
    leak, tau = entry["v_leak"], entry.get("tau", entry.get("tau_mem"))
    rate, constants = DT / tau, {"v_start": leak}
    constants |= {"decay": 1 - rate, "drive": rate * leak, "gain": rate}
    if entry["type"] == "LIF":
        assert np.all(entry["r"] == 1)
        return constants
    share, reset = (
        DT / entry["tau_syn"],
        "value" if written.means["reset"] == "zero" else "subtract",
    )
    constants |= {"gain": rate * entry["r"], "synapse_decay": 1 - share, "i_start": leak}
    constants |= {"synapse_gain": share * entry["w_in"], "into_current": share * leak}
    return constants | {"reset": reset} | ({} if size == "v_threshold" else {"subtracted": 1.0})


def norse_from_rest(entry: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """Return the membrane of Norse's importer after one step of an input x from rest at 0, in float32:
    `dv = dt * tau_mem_inv * (v_leak - v + x)`.
    """
    single = {key: np.asarray(value, np.float32) for key, value in entry.items() if key != "type"}
    v, dt = np.asarray(x, np.float32), np.float32(DT)
    if entry["type"] == "IF":
        return v
    if entry["type"] == "CubaLIF":
        v = single["r"] * (dt * (1 / single["tau_syn"]) * (single["w_in"] * v))
    return dt * (1 / single["tau" if "tau" in single else "tau_mem"]) * v


def of_rockpool(entry, written):
    """It takes dt = tau_mem/(1+r), and a current decays with what arrives."""
    np.testing.assert_allclose(entry["tau_mem"] / (1 + entry["r"]), DT)
    assert np.all(entry["w_in"] == 1)
    assert not np.any(entry["v_leak"])
    assert not np.any(entry["v_reset"])
    synapse = np.exp(-DT / entry["tau_syn"])
    return {
        "decay": np.exp(-DT / entry["tau_mem"]),
        "synapse_decay": synapse,
        "synapse_gain": synapse,
    }


def of_spyx(entry, written):
    """Decays 1 - dt/tau, which r holds too; what it ignores is 1."""
    assert not np.any(entry["v_reset"])
    if entry["type"] == "IF":
        assert np.all(entry["r"] == 1)
        return {}
    assert not np.any(entry["v_leak"])
    constants = {"decay": 1 - DT / entry.get("tau", entry.get("tau_mem"))}
    np.testing.assert_allclose(entry["r"], constants["decay"])
    if entry["type"] == "CubaLIF":
        assert np.all(entry["w_in"] == 1)
        constants["synapse_decay"] = 1 - DT / entry["tau_syn"]
    return constants


def of_spikingjelly(entry, written):
    """r = 1: what arrives is divided by tau, too. Membranes leak to, and start at, v_reset."""
    for value in entry.values():
        if isinstance(value, np.ndarray):
            assert np.ptp(value) == 0
    if entry["type"] == "IF":
        np.testing.assert_allclose(entry["r"], 1 / DT)
        return {"v_reset": entry["v_reset"], "v_start": entry["v_reset"]}
    rate = DT / entry.get("tau", entry.get("tau_mem"))
    constants = {"decay": 1 - rate, "v_reset": entry["v_reset"], "v_start": entry["v_reset"]}
    if entry["type"] == "CubaLIF":
        np.testing.assert_allclose(entry["r"], 1 / rate)
        np.testing.assert_allclose(entry["w_in"], entry["tau_syn"] / DT)
        assert not np.any(entry["v_leak"])
        return constants | {"synapse_decay": 1 - DT / entry["tau_syn"]}
    np.testing.assert_array_equal(entry["v_leak"], entry["v_reset"])
    if not np.all(entry["r"] == 1):
        np.testing.assert_allclose(entry["r"], 1 / rate)
        return constants | {"drive": rate * entry["v_reset"]}
    return constants | {"gain": rate, "drive": rate * entry["v_reset"]}


def of_sinabs(entry, written):
    """Time in steps, decays exp(-1/tau), nothing else; in float32."""
    assert all(v.dtype == np.float32 for v in entry.values() if isinstance(v, np.ndarray))
    assert np.all(entry["r"] == 1)
    assert not np.any(entry.get("v_reset", 0))
    if entry["type"] == "IF":
        return {"floor": -entry["v_threshold"]}
    assert not np.any(entry["v_leak"])
    constants = {"decay": np.exp(-1 / entry["tau"].astype(float))}
    if "tau_syn" in entry:
        constants["synapse_decay"] = np.exp(-1 / entry["tau_syn"].astype(float))
    return constants


def of_snn_mlir(entry, written):
    """r = tau/dt, w_in = tau_syn/dt, resets to 0, one number of each for all neurons."""
    for value in entry.values():
        if isinstance(value, np.ndarray):
            assert np.ptp(value) == 0
    assert not np.any(entry.get("v_reset", 0))
    if entry["type"] == "IF":
        assert np.all(entry["r"] == 1)
        return {}
    rate = DT / entry.get("tau", entry.get("tau_mem"))
    np.testing.assert_allclose(entry["r"], 1 / rate)
    assert not np.any(entry["v_leak"])
    constants = {"decay": 1 - rate}
    if "tau_syn" in entry:
        np.testing.assert_allclose(entry["w_in"], entry["tau_syn"] / DT)
        constants["synapse_decay"] = 1 - DT / entry["tau_syn"]
    return constants


# -- step by step


def run(numbers, inputs):
    """Membranes before each reset, and spikes: of a source's numbers or a target's."""
    n = {key: np.asarray(value) for key, value in numbers.items() if key != "reset"}
    v, i, fired = n["v_start"] + np.zeros(SIZE), n["i_start"] + np.zeros(SIZE), np.zeros(SIZE)
    membranes, spikes, reset = [], [], numbers["reset"]
    subtracted = n.get("subtracted", n["v_threshold"])
    for x in inputs:
        i = n["synapse_decay"] * i + n["synapse_gain"] * x + n["into_current"]
        late = subtracted * fired if reset == "subtract later" else 0.0
        v = n["decay"] * v + n["gain"] * i + n["drive"] - late
        if reset == "skip":
            v = np.where(fired > 0, n["v_reset"], v)
        membranes.append(v)
        passed = v >= n["v_threshold"] if n["at_equality"] else v > n["v_threshold"]
        fired = passed.astype(float)
        if reset == "none":
            fired = 0 * fired
        if n["several"]:
            level = n["v_threshold"] / n["level"] if "subtracted" not in n else subtracted
            v = v - np.maximum(np.floor(v / level), 0) * level
        elif reset in ("subtract", "subtract unless above"):
            v = v - subtracted * fired
        elif reset == "value":
            v = np.where(passed, n["v_reset"], v)
        if n.get("floor") is not None and n["floor"].dtype != object:
            v = np.maximum(v, n["floor"])
        spikes.append(fired)
    return np.array(membranes), np.array(spikes)


def inputs_of(source: Step) -> np.ndarray:
    """Spikes of weights that take a membrane over its threshold once in a few steps."""
    rng = np.random.default_rng(3)
    x = np.where(rng.random((STEPS, SIZE)) < 0.5, rng.normal(0.8, 0.6, (STEPS, SIZE)), 0.0)
    height = np.where(np.isfinite(source.v_threshold), source.v_threshold - source.v_reset, 2.0)
    through = 1 / (1 - source.synapse_decay) if source.current_based else 1.0
    return x * height / (source.gain * source.synapse_gain * through)


FIELDS = (
    *("decay", "gain", "drive", "synapse_decay", "synapse_gain", "v_threshold", "v_reset"),
    *("v_start", "i_start", "at_equality", "several", "level", "floor", "reset"),
)
#: Values of numbers that an entry of a target does not have.
DEFAULTS = {
    **{"gain": 1.0, "drive": 0.0, "synapse_decay": 0.0, "synapse_gain": 1.0, "i_start": 0.0},
    **{"decay": 1.0, "v_reset": 0.0, "v_start": 0.0, "into_current": 0.0, "level": 1.0},
}


def assert_does_the_same(source: Step, written, of_entry):
    """The same spikes, and a scaled membrane: V' = V'_start + s (V - V_start), with the s that
    takes one threshold to the other.
    """
    entry, inputs = written.entry, inputs_of(source)
    numbers = {name: getattr(source, name) for name in FIELDS}
    flags = {name: numbers[name] for name in ("at_equality", "several", "reset")}
    target = DEFAULTS | flags | {"v_threshold": entry.get("v_threshold", np.inf)}
    target |= of_entry(entry, written)
    ours, spikes = run(numbers | {"into_current": 0.0}, inputs)
    theirs, target_spikes = run(target, written.factor * inputs + written.offset)
    assert np.all(spikes.sum(0) > 4) or source.reset == "none"
    np.testing.assert_array_equal(target_spikes, spikes)
    scale = np.ones(SIZE)
    if source.reset != "none":
        height = source.v_threshold - source.v_start
        scale = (target["v_threshold"] - target["v_start"]) / height
    moved = target["v_start"] + scale * (ours - source.v_start)
    np.testing.assert_allclose(theirs, moved, rtol=1e-5, atol=1e-6 * np.max(np.abs(moved)))
