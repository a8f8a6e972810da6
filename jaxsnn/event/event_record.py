"""Arrays that a simulation with the event engine returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from jaxsnn.event.forward.layer import LayerSpikes
from jaxsnn.event.forward.readout import Drive
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.wording import Text


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Budget:
    """Number of slots that a run needed and that it had."""

    needed: Int[Array, ""]
    room: Int[Array, ""]


#: Name of the option of `EventOptions` -> population -> `Budget`.
Budgets = dict[str, dict[str, Budget]]


def shortages(budgets: Budgets) -> dict[str, dict[str, int]]:
    """Map each option and population with an exhausted budget to the required number (outside jit
    only).
    """
    shortfalls = {}
    # Counts of populations after an exhausted budget are lower bounds: a repeated run may need
    # more.
    for option, by_population in budgets.items():
        short = {
            name: int(budget.needed)
            for name, budget in by_population.items()
            if int(budget.needed) > int(budget.room)
        }
        if short:
            shortfalls[option] = short
    return shortfalls


def shortage_text(budgets: Budgets, option: str, name: str) -> str:
    """Return a sentence about an exhausted budget."""
    budget = budgets[option][name]
    needed, room = int(budget.needed), int(budget.room)
    if option == "max_arrivals":
        return Text(
            "{count} spikes arrive at one position of '{population}', and the budget is {limit}",
            count=needed,
            population=name,
            limit=room,
        )
    if option == "max_events":
        return Text(
            "'{population}' fires {count} spikes in one sample, and the budget for postsynaptic "
            "populations is {limit}",
            population=name,
            count=needed,
            limit=room,
        )
    return Text(
        "a neuron of '{population}' fires {count} spikes, and the budget is {limit} for each "
        "neuron",
        population=name,
        count=needed,
        limit=room,
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """Results of a run, by NIR node name.

    Attributes:
        spikes: population -> `LayerSpikes`.
        times: population -> times of its spikes, of which none may be NaN.
        voltages: readout -> (batch, samples, neurons).
        drives: population -> its inputs, without its resets; missing for neurons that fire
            after a convolution or a pool.
        clipped: population -> number of spikes whose slope a gradient clips.
        degenerate: population -> number of spikes exactly at the time of an arrival that moved V.
        heights: population that fires -> v_threshold - v_reset, (neurons,) volts.
        numbers: population -> weights of its arrivals and sums of its neurons' numbers; all must be
            finite.
        budgets: option of `EventOptions` -> population -> `Budget`.
    """

    spikes: dict[str, LayerSpikes]
    times: dict[str, Float[Array, "..."]]
    voltages: dict[str, Float[Array, "batch samples neurons"]]
    drives: dict[str, Drive]
    # numbers of spikes whose gradients are not exact
    clipped: dict[str, Int[Array, ""]]
    degenerate: dict[str, Int[Array, ""]]
    heights: dict[str, Float[Array, "neurons"]]
    numbers: dict[str, Any]
    budgets: Budgets


def empty_record() -> EventRecord:
    """Return an empty record, which is filled while a network runs."""
    # All options, including those that do not apply to the network.
    budgets = {"max_spikes": {}, "max_events": {}, "max_arrivals": {}}
    return EventRecord(
        spikes={},
        times={},
        voltages={},
        drives={},
        clipped={},
        degenerate={},
        heights={},
        numbers={},
        budgets=budgets,
    )
