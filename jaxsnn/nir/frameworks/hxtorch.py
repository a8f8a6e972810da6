"""hxtorch.snn, the framework of BrainScaleS-2: continuous time, current-based neurons."""

from __future__ import annotations

from jaxsnn.nir.frameworks.decays import EXACT_SYNAPSE
from jaxsnn.nir.frameworks.framework import Conventions, Framework, Rule, rules

_CURRENT_BASED = Rule(arrival="jump", synapse_decay=EXACT_SYNAPSE, ones=("r", "w_in"))

FRAMEWORK = Framework(
    name="hxtorch",
    title="hxtorch",
    note=(
        "A spike of weight w makes the current jump by w. Its importer takes Linear, CubaLI and "
        "CubaLIF with one set of parameters a layer, time in ms, and ignores w_in."
    ),
    dialects=(
        Conventions(
            name="hxtorch",
            rules=rules(CubaLIF=_CURRENT_BASED, CubaLI=_CURRENT_BASED),
            reset="zero",
            reset_delay=False,
            constant_input="current",
            recurrent_delay=0,
        ),
    ),
)
