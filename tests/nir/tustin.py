"""A framework that this library does not have: LIF by the implicit Euler step, for the tests.

It writes r = 2 at all neurons, time constants in ticks of its own clock, and scales what arrives by
1 - k, or not.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from jaxsnn.nir.frameworks import (
    Conventions,
    Decay,
    Evidence,
    Framework,
    FrameworkOption,
    Importer,
    Rule,
)
from jaxsnn.nir.frameworks.neuron_writing import Setting, Written, filled, needs_start
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.frameworks.torch_layers import Call, Exported, numbers_of
from jaxsnn.nir.model.nodes import LIF


def implicit(parameters, dt, xp):
    return 1 / (1 + dt / parameters["tau"])


IMPLICIT = Decay(text="1/(1+dt/tau)", factor=implicit)


def recognises(nodes):
    neurons = [node for node in nodes.values() if isinstance(node, LIF)]
    has_tustin_gain = neurons and all(np.all(node.value("r") == 2) for node in neurons)
    return "r = 2 at all neurons, as only Tustin writes" if has_tustin_gain else ""


def refutes(nodes, dt_estimate):
    for name, node in nodes.items():
        if isinstance(node, LIF) and np.any(node.value("r") != 2):
            return name, f"tustin writes r = 2, but node '{name}' has {node.value('r').flat[0]:g}"
    return None


def write(step: Step, setting: Setting) -> Written:
    """Resets to v_reset at once, starts at 0."""
    if step.reset != "value" or step.current_based:
        setting.give_up(step.name, "it does not reset to a value", "that reset is written")
    needs_start(step, np.zeros(step.shape), setting)
    rest = 1 - step.decay
    entry = {
        "type": "LIF",
        "tau": setting.dt * step.decay / rest,
        "r": filled(step, 2),
        "v_leak": filled(step, 0),
        "v_threshold": step.v_threshold,
        "v_reset": step.v_reset,
    }
    why = "Tustin's importer takes k = 1/(1+dt/tau) and r = 2"
    return Written(entry=entry, factor=step.gain / rest, offset=step.drive / rest, why=why)


def load(path: str, setting: Setting) -> str:
    return f"import tustin_simulator; net = tustin_simulator.load({path!r}, dt={setting.dt!r})"


def export_cell(call: Call) -> Exported:
    cell, shape = call.module, call.outward
    entry = {
        "type": "LIF",
        "tau": numbers_of(cell.tau, shape),
        "r": np.full(shape, 2, np.float32),
        "v_leak": np.zeros(shape, np.float32),
        "v_threshold": np.ones(shape, np.float32),
        "v_reset": np.zeros(shape, np.float32),
    }
    return Exported(
        nodes={"": entry}, framework="tustin", options={"scaled": cell.scaled}, dt=cell.dt
    )


PLAIN = Rule(arrival="jump", kernel="box", membrane_decay=IMPLICIT, membrane="leak")
FRAMEWORK = Framework(
    name="tustin",
    title="Tustin",
    dialects=(
        Conventions(
            name="tustin",
            version="2",
            rules=MappingProxyType(
                {
                    "LIF": Rule(
                        arrival="jump",
                        kernel="box",
                        membrane_decay=IMPLICIT,
                        membrane="average",
                        option="scaled",
                        without=PLAIN,
                    )
                }
            ),
            evidence=Evidence(recognises=recognises, refutes=refutes),
            time_unit="s",
            reset="zero",
            reset_delay=False,
            options=(
                FrameworkOption(
                    name="tick",
                    kind="time",
                    help="Tustin: length of a tick of its clock",
                    missing="the length of a tick of Tustin's clock",
                    missing_reason="The length of a tick is not in the file: pass {option}.",
                    seconds=lambda tick: tick,
                ),
                FrameworkOption(
                    name="scaled",
                    kind="bool",
                    help="Tustin: true or false",
                    missing_reason="scaled is not in the file: pass {option}.",
                ),
            ),
        ),
    ),
    importers=(
        Importer(
            version="2",
            nodes=("Input", "Output", "Linear", "Affine", "LIF"),
            write=write,
            load=load,
            run="y = net(x)",
            dt=1e-3,
            reads=MappingProxyType(
                {
                    "tick": 1.0,
                    "scaled": True,
                    "reset": "zero",
                    "reset_delay": False,
                    "initial": "zero",
                }
            ),
        ),
    ),
    distribution="tustin",
    package="tustin_layers",
    rewind="start",
    leaves=MappingProxyType({"Cell": export_cell}),
    leaf_options=MappingProxyType({"tick": 1.0}),
    surrogate="boxcar",
    note="A framework for tests.",
)
