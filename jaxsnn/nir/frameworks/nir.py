"""NIR itself: the literal equations, no matter which framework wrote the file."""

from __future__ import annotations

from jaxsnn.nir.frameworks.framework import Framework
from jaxsnn.nir.model.decays import NO_DECAY
from jaxsnn.nir.model.dialect import Conventions, FrameworkOption, Rule, rules

_SPIKE_AREA = FrameworkOption(
    name="spike_area",
    kind="time",
    help="NIR itself: time integral of the current of a spike of weight 1. The current lasts dt; "
    "if dt is unknown, it has an amplitude of 1 and lasts as long as its area. Default: a delta "
    "with an area of one unit of the file's time",
)
_LITERAL = Rule(arrival="unit")
_LITERAL_WITHOUT_LEAK = Rule(arrival="unit", membrane_decay=NO_DECAY)
FRAMEWORK = Framework(
    name="nir",
    title="NIR",
    note="The literal equations of NIR: a spike is a current of area 1 in the file's unit of "
    "time, or of the specified `spike_area`.",
    dialects=(
        Conventions(
            name="nir",
            rules=rules(
                CubaLIF=_LITERAL,
                CubaLI=_LITERAL,
                LIF=_LITERAL,
                LI=_LITERAL,
                IF=_LITERAL_WITHOUT_LEAK,
                I=_LITERAL_WITHOUT_LEAK,
            ),
            others=_LITERAL,
            options=(_SPIKE_AREA,),
            reset="zero",
            reset_delay=False,
            constant_input="current",
            recurrent_delay=0,
        ),
    ),
)
