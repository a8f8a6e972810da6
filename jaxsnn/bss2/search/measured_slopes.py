"""Measured strength of a chip's synaptic inputs: the change of dV/dt for one LSB of a weight, in CADC
LSB per microsecond, at settings of the chip.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxsnn.bss2.chip import PARAMETERS
from jaxsnn.bss2.json_entries import Entry
from jaxsnn.errors import MappingError, Note, UsageError, as_number, shown
from jaxsnn.files.structured_text import parse_json, read_parsable_text, reason_of
from jaxsnn.options import SLOPE
from jaxsnn.wording import Text

#: Slope of the vendor's example at i_synin_gm 500 and synapse_dac_bias 1000: weight_scale 58, a
#: threshold 70 LSB above the leak, and a membrane time constant of 12 us (70 / 58 / 12).
VENDORS_EXAMPLE = 0.10
#: Largest slope of a public setting: about 0.15 at i_synin_gm 550 and synapse_dac_bias 1000, which
#: follows from the settings of DelGrad (Nat. Commun. 16, 2025, doi:10.1038/s41467-025-63120-y).
STRONGEST_PUBLIC = 0.15


@dataclass(frozen=True, kw_only=True)
class MeasuredSlope:
    """Measured slope, and the settings of the chip at which it was measured.

    Attributes:
        slope: CADC LSB per microsecond and LSB of a weight.
        i_synin_gm, synapse_dac_bias: the settings of the chip at which it was measured.
    """

    slope: float
    i_synin_gm: int = int(PARAMETERS["i_synin_gm"].default)
    synapse_dac_bias: int = int(PARAMETERS["synapse_dac_bias"].default)


#: Fields of an entry of a table.
_FIELDS = ("slope", "i_synin_gm", "synapse_dac_bias")
#: A slope, or the slopes at several settings.
Slopes = float | Sequence[MeasuredSlope]


def slopes_of(text: str) -> Slopes:
    """Return a slope, or the measured slopes of a JSON file: a list of {"slope", "i_synin_gm",
    "synapse_dac_bias"}.

    Raises:
        FileError: The file does not exist.
        MappingError: The file does not contain such a list.
        UsageError: The text is neither a number nor the name of a JSON file.
    """
    try:
        return float(text)
    except ValueError:
        pass
    if not text.endswith(".json"):
        raise UsageError(
            Text("the slope is '{value}'", value=text),
            fix="pass a number, or a .json file of measured slopes",
        )
    return read_slopes(text)


def read_slopes(path: str | os.PathLike[str]) -> tuple[MeasuredSlope, ...]:
    """Read the measured slopes of a JSON file; see `slopes_of`."""
    try:
        content = parse_json(read_parsable_text(path, "a table of measured slopes"))
    except ValueError as error:
        raise MappingError(
            Text("{path} is not JSON ({error})", path=path, error=reason_of(error)),
            fix="correct the file",
        ) from error
    if not isinstance(content, list) or not content:
        raise MappingError(
            Text("{path} has no list of measured slopes", path=path),
            fix="write a list of at least one slope",
        )
    measured = []
    for number, item in enumerate(content):
        entry = Entry(item, f"{path}[{number}]", fix="correct the file", keys=_FIELDS)
        slope = entry.value("slope")
        if type(slope) not in (int, float):
            raise MappingError(
                Text("{path}[{index}]: 'slope' is not a number", path=path, index=number),
                fix="correct the file",
            )
        settings = {name: entry.integer(name) for name in _FIELDS[1:] if name in item}
        measured.append(MeasuredSlope(slope=as_number(slope), **settings))
    return tuple(measured)


def chosen_slope(slopes: Slopes, minimum: float) -> MeasuredSlope:
    """Return the weakest setting with at least the required slope, or else the strongest.

    Raises:
        UsageError: A slope is not positive, the argument is neither a number nor a table, the
            calibration does not support a setting, or a setting has several slopes.

    >>> table = [MeasuredSlope(slope=0.1, i_synin_gm=500), MeasuredSlope(slope=0.2, i_synin_gm=800)]
    >>> [chosen_slope(table, wanted).i_synin_gm for wanted in (0.05, 0.15, 0.3)]
    [500, 800, 800]
    """
    table = slope_table(slopes)
    for measured in table:
        if not (math.isfinite(as_number(measured.slope)) and measured.slope > 0):
            raise UsageError(
                Text("the slope is {value}", value=shown(measured.slope)),
                fix="use a positive, finite number",
            )
        for name in ("i_synin_gm", "synapse_dac_bias"):
            reach, value = PARAMETERS[name], getattr(measured, name)
            if not reach.low <= value <= reach.high:
                raise UsageError(
                    Text(
                        "{parameter} is {value}; the calibration supports {minimum:g} to {maximum:g}",
                        parameter=name,
                        value=value,
                        minimum=reach.low,
                        maximum=reach.high,
                    ),
                    fix="measure at a setting in this range",
                )
    settings = Counter((measured.i_synin_gm, measured.synapse_dac_bias) for measured in table)
    for (gain, bias), count in settings.items():
        if count > 1:
            raise UsageError(
                Text(
                    "there are {count} slopes for i_synin_gm {i_synin_gm} and synapse_dac_bias "
                    "{synapse_dac_bias}",
                    count=count,
                    i_synin_gm=gain,
                    synapse_dac_bias=bias,
                ),
                fix="keep one of them, or their mean",
            )
    strong = [measured for measured in table if measured.slope >= minimum]
    return (
        min(strong, key=lambda measured: measured.slope)
        if strong
        else max(table, key=lambda measured: measured.slope)
    )


def strength_notes(slope: float | None, measured: MeasuredSlope | None) -> Iterator[str]:
    """Yield a warning if a network needs a larger slope than any public setting of the chip has.

    Args:
        slope: slope that the network needs, CADC LSB per microsecond; None if it has no weights.
        measured: measured slope, which the chip has; None if it was not measured.
    """
    if slope is not None and measured is None and slope > STRONGEST_PUBLIC:
        text = Text(
            "one LSB of a weight must change dV/dt by {slope:.3g} CADC LSB per microsecond; no public "
            "setting of the chip reaches more than {strongest:g}. Pass {option} for thresholds that "
            "the chip reaches, or a slope that you measured",
            slope=slope,
            strongest=STRONGEST_PUBLIC,
            option=SLOPE.set_to(STRONGEST_PUBLIC),
        )
        yield Note(text, kind="assumed", code="strong-synapses")


def slope_table(slopes: Slopes) -> Sequence[MeasuredSlope]:
    """Return measured slopes as a table; a number is one at the default settings.

    Raises:
        UsageError: The argument is neither a number nor a table.
    """
    if isinstance(slopes, float) or not math.isnan(as_number(slopes)):
        return [MeasuredSlope(slope=as_number(slopes))]
    table = list(slopes) if isinstance(slopes, Sequence) else []
    if not table or not all(isinstance(measured, MeasuredSlope) for measured in table):
        raise UsageError(
            Text("the slope is {value}", value=shown(slopes)),
            fix="pass a number, or a list of MeasuredSlope",
        )
    return table
