"""Shared code of the writers of all targets.

A writer takes one `Step` of the source. It may scale a membrane (v' = s (v - o)), choose another
node type, and request a factor and an offset for the input, which `convert` puts into the weights.
It rejects features that its importer does not support.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import gcd, lcm
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.source_step import Reset, Step
from jaxsnn.nir.model.draft import spelt
from jaxsnn.nir.model.node import nothing
from jaxsnn.wording import Text

#: 1 - decay of a membrane without a leak: small enough to vanish in float32, large enough to divide
#: by.
NO_LEAK = 2.0**-40


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """A neuron for the target.

    Attributes:
        entry: Type and parameters of the neuron.
        factor, offset: The input is multiplied by `factor`, then `offset` is added; arrays of the
            neuron's shape.
        why: Reason for the changed parameters.
        says: Settings that files cannot contain and the loading line must set, as fields of a
            `Dialect`.
        means: Settings that the importer assumes and files cannot contain, as fields of a
            `Dialect`.
        rounding: Difference between the float32 arithmetic of the importer and the source
            framework, by which a sum of weights that equals v_threshold may be rounded differently;
            "" for none.
    """

    entry: dict[str, Any]
    factor: np.ndarray
    offset: np.ndarray
    why: str
    says: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    means: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    rounding: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Settings that hold for all neurons of one conversion.

    Attributes:
        dt: Time step of the target in seconds.
        importer_setting: Result of `Importer.setting` for the steps of all neurons; None without one.
        give_up: Function of a node and a reason, called if only an approximation is possible;
            raises an error unless approximations are allowed.
        dialect_fields: `Written.says` and `means` of each written neuron, by name.
        ties: Names of neurons for which sums of weights may be equal to v_threshold.
    """

    dt: float
    importer_setting: Any
    give_up: Callable[[str, str, str], None]
    dialect_fields: dict[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    ties: set[str] = dataclasses.field(default_factory=set)

    def neurons_with(self, **fields: Any) -> list[str]:
        """Return the names of the neurons that were written with all these fields."""
        required_items = fields.items()
        return [
            name
            for name, explicit_fields in self.dialect_fields.items()
            if required_items <= explicit_fields.items()
        ]

    def renamed(self, new_names: Mapping[str, str]) -> Setting:
        """Return a copy whose entries in `dialect_fields` are under the new names of nodes."""
        fields_by_name = {
            new_names.get(name, name): fields for name, fields in self.dialect_fields.items()
        }
        return dataclasses.replace(self, dialect_fields=fields_by_name)


def filled(step: Step, value: Any) -> np.ndarray:
    return np.broadcast_to(np.asarray(value, float), step.shape).copy()


#: Descriptions of the source's resets, for messages.
_RESET_TEXTS: Mapping[Reset, str] = MappingProxyType(
    {
        "value": "sets the membrane potential to a value",
        "subtract": "subtracts v_threshold",
        "subtract later": "subtracts v_threshold one time step later",
        "subtract unless above": "subtracts v_threshold and may leave the membrane potential above it",
        "skip": "sets the membrane potential to 0 at the end of the time step after a spike, "
        "whatever the input",
    }
)


def needs_value_reset(step: Step, setting: Setting, title: str) -> None:
    """Require a reset to a value in the time step of the spike; any other is an approximation, see
    `Setting.give_up`.
    """
    if step.reset != "value":
        reason = ", and {framework}'s importer resets to a value in the time step of the spike"
        reason = Text("its reset " + _RESET_TEXTS[step.reset] + reason, framework=title)
        setting.give_up(step.name, reason, "it is written with that reset")


def needs_subtraction(step: Step, setting: Setting, title: str) -> None:
    """Require a reset that subtracts v_threshold in the time step of the spike; any other is an
    approximation, see `Setting.give_up`.
    """
    if step.reset != "subtract":
        reason = ", and {framework}'s importer subtracts v_threshold in the time step of the spike"
        reason = Text("its reset " + _RESET_TEXTS[step.reset] + reason, framework=title)
        nearest = (
            "it is written with that reset; alternatively, train the network with reset subtract "
            "and no delay"
        )
        setting.give_up(step.name, reason, nearest)


def needs_one_axis(step: Step, title: str) -> None:
    """Reject populations of several axes.

    Raises:
        ConversionError: The population has several axes.
    """
    if len(step.shape) != 1:
        raise ConversionError(
            Text(
                "{framework}'s layers have one axis, and node '{node}' has the shape {shape}",
                node=step.name,
                shape=step.shape,
                framework=title,
            ),
            fix="add a Flatten before it",
            node=step.name,
        )


def attribute_lines(
    setting: Setting, module: str, settings: Mapping[str, Sequence[tuple[str, str]]]
) -> str:
    """Return a line of Python that sets attributes of the modules of `net` after loading; "" for
    none.

    Args:
        setting: Settings, with the fields of each written neuron.
        module: Condition, as code, for modules `m` that have the attributes.
        settings: Pairs of attribute and value, as code, by names of neurons joined with commas.

    Returns:
        Code that sets the attributes of the modules with these names, or of all modules if the
        settings are equal for all neurons.
    """
    parts = []
    for neuron_names, attributes in settings.items():
        if not neuron_names:
            continue
        inner = ", ".join(f"setattr(m, {name!r}, {value})" for name, value in attributes)
        chosen = tuple(spelt(name) for name in neuron_names.split(","))
        all_of_them = len(chosen) == len(setting.dialect_fields)
        condition = module if all_of_them else f"n.partition('.')[0] in {chosen!r} and {module}"
        modules = "m in net.modules()" if all_of_them else "n, m in net.named_modules()"
        parts.append(f"; [({inner}) for {modules} if {condition}]")
    return "".join(parts)


def refuse_drive(step: Step, drive: np.ndarray, setting: Setting) -> None:
    """Reject a constant input of the membrane potential, or drop it if approximations are allowed: a
    bias cannot replace it, because it would pass through the synaptic current.
    """
    if np.any(np.abs(drive) > 1e-9 * np.abs(step.v_threshold)):
        place = int(np.argmax(np.abs(drive)))
        setting.give_up(
            step.name,
            Text(
                "neuron {neuron} has a constant input of {value:g} per time step from v_leak, so it "
                "does not rest at v_reset; a bias cannot replace it, because it would pass through "
                "the synaptic current",
                neuron=place,
                value=drive.flat[place],
            ),
            "it rests at v_reset",
        )


def needs_start(step: Step, start: np.ndarray, setting: Setting) -> None:
    """Require membrane potentials that start at `start`, the initial value of the importer in units
    of the source framework. Any other start is an approximation; see `Setting.give_up`.
    """
    off = np.abs(step.v_start - start) > 1e-9 * np.abs(step.v_threshold)
    if np.any(off):
        place = int(np.argmax(off))
        setting.give_up(
            step.name,
            Text(
                "the membrane potential of neuron {neuron} starts at {value:g}, in the importer at "
                "{expected:g}",
                neuron=place,
                value=step.v_start.flat[place],
                expected=start.flat[place],
            ),
            "its first spikes may differ",
        )


def one_for_all(step: Step, setting: Setting, quantity: str, values: np.ndarray) -> float:
    """Return the single value that an importer uses for all neurons; differing values are an
    approximation, see `Setting.give_up`.
    """
    if np.ptp(values) > 1e-9 * np.abs(values).max():
        setting.give_up(
            step.name,
            Text(
                "its neurons differ in {parameter} ({minimum:g} to {maximum:g}), and the importer "
                "supports one value for all",
                parameter=quantity,
                minimum=values.min(),
                maximum=values.max(),
            ),
            "all are written with the mean",
        )
        return float(values.mean())
    return float(values.flat[0])


def moved_threshold(
    step: Step, threshold: np.ndarray, at_equality: bool, slack: np.ndarray | float = 0.0
) -> np.ndarray:
    """Return a threshold so that a membrane potential equal to v_threshold spikes in the target if and
    only if it spikes in the source framework.

    Args:
        step: Time step of the source framework.
        threshold: v_threshold in units of the target.
        at_equality: Whether a membrane potential equal to v_threshold spikes in the target.
        slack: Relative rounding error of membrane potentials in the target, which must not affect
            whether a neuron spikes.
    """
    height = threshold.astype(np.float32)
    direction = np.float32(-np.inf if step.at_equality else np.inf)
    if step.at_equality != at_equality:
        height = np.nextafter(height, direction)
    elif not np.any(slack):
        return threshold
    farther = np.maximum if direction > 0 else np.minimum
    sign = 1.0 if direction > 0 else -1.0
    return farther(height, (threshold * (1 + sign * slack)).astype(np.float32)).astype(float)


#: Maximum factor by which a threshold is scaled to reach the common one.
_MOST_SCALED = 2**20


def has_few_digits(values: np.ndarray) -> np.ndarray:
    """Return a mask of the values whose products with small integers are exact in float32."""
    digits = np.frexp(values)[0] * _MOST_SCALED
    return digits == np.round(digits)


def common_level(height: np.ndarray) -> float:
    """Return one threshold for several neurons: the least common multiple of their thresholds, or
    the first threshold if the multiple is too large.

    Weights are then scaled by integers. Sums of weights that equal a threshold do so without
    rounding.
    """
    top, bottom = 1, 0
    for fraction in map(Fraction, np.unique(height).tolist()):
        top, bottom = lcm(top, fraction.numerator), gcd(bottom, fraction.denominator)
        if top > _MOST_SCALED * bottom * height.min():
            return float(height.flat[0])
    return top / bottom


def one_level(height: np.ndarray) -> tuple[float, np.ndarray]:
    """Return one threshold for several neurons, and the factors that scale the input of each
    neuron.
    """
    level = common_level(height)
    return level, np.where(height == level, 1.0, level / height)


def negligible(offset: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.where(np.abs(offset) < 1e-9 * np.abs(scale), 0.0, offset)
