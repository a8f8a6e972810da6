"""The options of quantisation that a mapping stores, since the chip's numbers depend on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from types import MappingProxyType
from typing import Any

from jaxsnn.bss2.json_entries import Entry
from jaxsnn.units import format_time
from jaxsnn.wording import Shown

_NUMBERS = ("speedup", "refractory_time", "bias_period", "percentile", "slope")
_INTEGERS = ("synapses_per_weight", "v_leak", "v_threshold", "i_synin_gm", "synapse_dac_bias")
#: Fields of which other values give another netlist, which its fingerprint reveals, and a permission.
_NOT_OF_NEURONS = ("scale", "percentile", "synapses_per_weight", "approximate")


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Options with which a network was quantised, as `jaxsnn.bss2.search.quantize.QuantizeOptions`,
    where each value is the one that was used.

    Attributes:
        speedup: Speed of the chip relative to the file.
        refractory_time: Refractory period of all neurons, seconds of the chip.
        bias: "refuse", "leak" or "source".
        bias_period: Interval of the spikes that replace biases, seconds of the chip; None unless
            `bias` is "source".
        v_leak, v_threshold: Requested leak, and the limit of thresholds, CADC LSB.
        scale: Method that chose the scales, or LSB of a weight of 1 by population.
        percentile: Percentile of the scale "percentile"; None for other scales.
        synapses_per_weight: Maximum number of synapses of a weight.
        slope: Measured slope, CADC LSB per microsecond and LSB of a weight; None if it was not
            specified.
        i_synin_gm, synapse_dac_bias: Settings of the chip with that slope; None without one.
        approximate: Whether neurons whose reset subtracts v_threshold reset to v_reset.
    """

    speedup: float
    refractory_time: float
    bias: str
    bias_period: float | None = None
    v_leak: int
    v_threshold: int
    scale: str | Mapping[str, float]
    percentile: float | None = None
    synapses_per_weight: int = 1
    slope: float | None = None
    i_synin_gm: int | None = None
    synapse_dac_bias: int | None = None
    approximate: bool = False

    @property
    def refractory(self) -> float:
        """Refractory period of all neurons, seconds of the file, as in `EventDriven(refractory=)`."""
        return self.speedup * self.refractory_time

    def as_dict(self) -> dict[str, Any]:
        """Return the options as a dict for JSON, without those that are None."""
        content = {name: getattr(self, name) for name in FIELDS}
        if isinstance(self.scale, Mapping):
            content["scale"] = dict(self.scale)
        return {name: value for name, value in content.items() if value is not None}

    def differences(self, reference: Quantization) -> Iterator[tuple[str, Any, Any]]:
        """Yield the name, the value here and the value there of each option by which the chip's
        neurons differ although the netlist may be the same.
        """
        for name in FIELDS:
            actual, expected = getattr(self, name), getattr(reference, name)
            if name not in _NOT_OF_NEURONS and not is_same(actual, expected):
                yield name, actual, expected


FIELDS = tuple(field.name for field in dataclass_fields(Quantization))


def is_same(first: Any, second: Any) -> bool:
    """Return whether two values of an option are equal; numbers may differ by rounding."""
    numbers = all(type(value) in (int, float) for value in (first, second))
    return math.isclose(first, second, rel_tol=1e-9) if numbers else first == second


def shown_option(name: str, value: Any) -> Any:
    """Return the value of an option for a message.

    >>> shown_option("refractory_time", 1e-6), shown_option("speedup", 1000.0)
    ('1 us', '1000')
    """
    if value is None:
        return "none"
    if name in ("refractory_time", "bias_period"):
        return format_time(value)
    return Shown(f"{value:.6g}", value) if isinstance(value, float) else value


def read_quantization(entry: Entry) -> Quantization:
    """Return the options of an entry of a mapping.

    Raises:
        MappingError: An option is missing, or has another type.
    """
    content: dict[str, Any] = {
        "bias": entry.text("bias"),
        "approximate": entry.flag("approximate"),
        "scale": MappingProxyType(entry.entry("scale").positive_numbers())
        if isinstance(entry.value("scale"), dict)
        else entry.text("scale"),
    }
    required = ("speedup", "refractory_time", "v_leak", "v_threshold", "synapses_per_weight")
    present = [name for name in FIELDS if name in required or name in entry.content]
    content |= {name: entry.positive_number(name) for name in present if name in _NUMBERS}
    content |= {name: entry.integer(name) for name in present if name in _INTEGERS}
    return Quantization(**content)
