"""Rockpool: LIFTorch, LIFNeuron and ExpSynTorch, with several spikes in a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from jaxsnn.errors import Problem
from jaxsnn.nir.dialects import Dialect
from jaxsnn.nir.evidence import Estimate
from jaxsnn.nir.frameworks.decays import EXACT_SYNAPSE
from jaxsnn.nir.frameworks.framework import (
    Conventions,
    Evidence,
    Framework,
    Importer,
    Rule,
    StepLength,
    rules,
)
from jaxsnn.nir.nodes import CubaLIF, Node

_BOX = Rule(arrival="jump", kernel="box", membrane="leak")


def lambert_w(z: np.ndarray) -> np.ndarray:
    """The principal branch of Lambert's W (w exp(w) = z) for z >= 0, by Newton's method in log
    form.
    """
    w = np.log1p(z)
    for _ in range(32):
        w = w * (1 + np.log(np.where(z > 0, z, 1) / np.where(w > 0, w, 1))) / (1 + w)
    return np.where(z > 0, w, 0.0)


def _dt(tau: np.ndarray, r: np.ndarray) -> np.ndarray:
    """It writes r = (tau/dt) exp(-dt/tau)."""
    return tau * lambert_w(1 / r)


def _refutes(nodes: Mapping[str, Node], found: Estimate) -> tuple[str, str] | None:
    if not found.pair.endswith("r = 1"):
        return None
    reason = f"rockpool writes r = (tau/dt) exp(-dt/tau), but node '{found.node}' has r = 1"
    return found.node, reason


def _remarks(node: Node, dialect: Dialect) -> Iterator[Problem]:
    """Its importer takes another dt than its exporter writes."""
    if not isinstance(node, CubaLIF) or dialect.dt is None:
        return
    taken = np.ravel(node.numbers("tau_mem") / (1 + np.asarray(node.value("r"), float)))[0]
    if abs(taken - dialect.dt) > dialect.dt / 100:
        message = (
            f"node '{node.name}' (CubaLIF): Rockpool's importer takes "
            f"dt = tau_mem/(1+r) = {taken:g} s, not {dialect.dt:g} s"
        )
        yield Problem(
            node=node.name,
            code="other-dt",
            severity="warning",
            message=message,
            fix="expect the decays of that step there",
        )


FRAMEWORK = Framework(
    name="rockpool",
    title="Rockpool",
    dialects=(
        Conventions(
            name="rockpool",
            rules=rules(
                LIF=_BOX,
                LI=_BOX,
                CubaLIF=Rule(
                    arrival="jump",
                    synapse_decay=EXACT_SYNAPSE,
                    membrane="leak",
                    synapse="add first",
                    ones=("w_in",),
                ),
            ),
            evidence=Evidence(
                dt_from=StepLength(text="tau W(1/r)", of=_dt), proves=True, refutes=_refutes
            ),
            time_unit="s",
            reset="subtract",
            reset_delay=False,
            threshold=">=",
            spikes_per_step="several",
        ),
    ),
    importers=(
        Importer(
            version="3.1",
            nodes=("Input", "Output", "Affine", "Linear", "CubaLIF"),
            remarks=_remarks,
        ),
    ),
    distribution="rockpool",
    surrogate="step with a piecewise linear gradient",
    note="Its exporter drops recurrent weights, and its importer takes current-based neurons only.",
)
