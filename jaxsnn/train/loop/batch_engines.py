"""How a batch is run while training."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxsnn.errors import UsageError
from jaxsnn.network.network import Network
from jaxsnn.simulation.solution import Engine, Found


def run_batch(engine: Engine[Found], network: Network, inputs: Any, t_end: float) -> Found:
    """Run one batch; nothing is raised, the result is looked at later.

    Args:
        inputs: Events or GradedEvents (batch, events), Currents (batch, pieces), or for the
            time-stepped engine an array (batch, time, *shape).
        t_end: seconds, end of the sample.
    """
    if hasattr(inputs, "time"):
        return engine.run(network, inputs, t_end, ())
    return engine.run(network, jnp.moveaxis(inputs, 1, 0), None)


def kind_of(engine: Any) -> str:
    """Its kind: "event", "grid", or "device" for one in the loop.

    Raises:
        UsageError: it is not an engine.
    """
    if isinstance(engine, type) or not hasattr(engine, "run") or not hasattr(engine, "kind"):
        raise UsageError(
            f"{engine!r} is not an engine",
            fix="pass EventDriven(...), TimeStepped(...) or InTheLoop(...)",
        )
    return engine.kind
