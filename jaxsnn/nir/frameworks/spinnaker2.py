"""SpiNNaker2: the files that its reader of NIR supports.

`spinnaker2/s2_nir.py` of py-spinnaker2 was read. It folds r, w_in and v_leak into thresholds and
offsets, decays by exp(-dt/tau) or 1 - dt/tau as its configuration says, and scales weights to whole
numbers of 8 bits. The programs of its chip were not found: whether a membrane at threshold fires,
and in which order a step goes, is unknown, so there is no simulation with its rules.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxsnn.errors import Problem
from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.model.dialect import Conventions, Dialect, rules
from jaxsnn.nir.model.node import Node
from jaxsnn.wording import Text


def _remarks(node: Node, dialect: Dialect) -> Iterator[Problem]:
    """Yield a remark for weights that are not 8-bit integers."""
    if "weight" not in node.names:
        return
    weight = np.asarray(node.value("weight"), float)
    off = np.abs(weight - np.round(weight))
    worst = float(weight.flat[int(np.argmax(off))]) if weight.size else 0.0
    if np.any(off):
        yield Problem(
            node=node.name,
            code="rounded",
            message=Text(
                "node '{node}' ({type}) has the weight {value:g}, and SpiNNaker2's weights are "
                "integers",
                node=node.name,
                type=node.type,
                value=worst,
            ),
            fix="multiply weights and thresholds by the same factor, or set scale_weights, and "
            "expect rounding",
            severity="warning",
        )


FRAMEWORK = Framework(
    name="spinnaker2",
    title="SpiNNaker2",
    dialects=(Conventions(name="spinnaker2", ran=False, reads_only=True, rules=rules()),),
    importers=(
        Importer(
            version="main",
            ran=False,
            nodes=(
                *("Input", "Output", "Linear", "Affine", "Conv2d", "SumPool2d", "AvgPool2d"),
                *("Flatten", "IF", "LIF", "CubaLIF"),
            ),
            remarks=_remarks,
            dt=1.0,
        ),
    ),
    note=(
        "It does not write NIR files, and there is no simulation: the source code of its "
        "reader is available, the programs of the chip are not. `check` reports unsupported "
        "and rounded parameters: weights become integers of 8 bits."
    ),
)
