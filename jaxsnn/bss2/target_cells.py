"""What a population's neurons are calibrated to, for people and for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxsnn.units import SECONDS

if TYPE_CHECKING:
    import numpy as np

    from jaxsnn.bss2.search.quantize import ChipPopulation

#: Heads of `target_cells`.
HEADS = ("leak", "reset", "threshold", "tau_mem", "tau_syn", "refractory time")


def targets_of(one: ChipPopulation) -> dict[str, Any]:
    """Lowest and highest value among its neurons: potentials in CADC LSB, times in microseconds of
    the chip; a readout has no reset, threshold or refractory time.
    """
    values = {"leak": one.v_leak}
    if one.fires:
        values |= {"reset": one.v_reset, "threshold": one.v_threshold}
    values |= {name: getattr(one, name) / SECONDS["us"] for name in ("tau_mem", "tau_syn")}
    found: dict[str, Any] = {
        name: [float(value.min()), float(value.max())] for name, value in values.items()
    }
    if one.fires:
        found["refractory_time"] = one.refractory_time / SECONDS["us"]
    return found


def target_cells(one: ChipPopulation) -> list[str]:
    """The same as cells of a table; a range where neurons differ, "-" where there is nothing."""
    values = [one.v_leak, one.v_reset, one.v_threshold, one.tau_mem, one.tau_syn]
    units = [1.0, 1.0, 1.0, SECONDS["us"], SECONDS["us"]]
    cells = [_range(value / unit) for value, unit in zip(values, units, strict=True)]
    if not one.fires:
        cells[1:3] = ["-", "-"]
    return [*cells, f"{one.refractory_time / SECONDS['us']:.3g}" if one.fires else "-"]


def _range(values: np.ndarray) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
