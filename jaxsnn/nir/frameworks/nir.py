"""NIR itself: the literal equations, whoever wrote the file."""

from __future__ import annotations

from jaxsnn.nir.frameworks.decays import NO_DECAY
from jaxsnn.nir.frameworks.framework import Conventions, Framework, Rule, rules

FRAMEWORK = Framework(
    name="nir",
    title="NIR",
    note="The literal equations of NIR: a spike is a current of area 1 in the file's unit of time.",
    dialects=(
        Conventions(
            name="nir",
            rules=rules(
                CubaLIF=Rule(),
                CubaLI=Rule(),
                LIF=Rule(),
                LI=Rule(),
                IF=Rule(membrane_decay=NO_DECAY),
                I=Rule(membrane_decay=NO_DECAY),
            ),
            others=Rule(),
            area="unit",
            reset="zero",
            reset_delay=False,
            constant_input="current",
            recurrent_delay=0,
        ),
    ),
)
