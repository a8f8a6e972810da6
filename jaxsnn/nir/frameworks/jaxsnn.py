"""This library, and the one of the Electronic Vision(s) group: continuous time, exact spikes.

Their files differ in the unit of time only: seconds here, milliseconds there. Without this
library's tag in the metadata the unit must be told.
"""

from __future__ import annotations

from jaxsnn.nir.frameworks.decays import EXACT_SYNAPSE, NO_DECAY
from jaxsnn.nir.frameworks.framework import Conventions, Framework, Rule, rules

FRAMEWORK = Framework(
    name="jaxsnn",
    title="jaxsnn",
    note=(
        "A spike of weight w makes the current (LIF and IF: the membrane) jump by w. Files of the "
        "library of the Electronic Vision(s) group have time in ms, those of this one in seconds."
    ),
    dialects=(
        Conventions(
            name="jaxsnn",
            rules=rules(
                CubaLIF=Rule(arrival="jump", synapse_decay=EXACT_SYNAPSE),
                CubaLI=Rule(arrival="jump", synapse_decay=EXACT_SYNAPSE),
                LIF=Rule(arrival="jump"),
                LI=Rule(arrival="jump"),
                IF=Rule(arrival="jump", membrane_decay=NO_DECAY),
                I=Rule(arrival="jump", membrane_decay=NO_DECAY),
            ),
            others=Rule(arrival="jump"),
            own_unit="s",
            reset="zero",
            reset_delay=False,
            constant_input="current",
            recurrent_delay=0,
        ),
    ),
)
