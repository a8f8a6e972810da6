"""Calibration targets of a population, as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxsnn.bss2.search.measured_slopes import VENDORS_EXAMPLE
from jaxsnn.units import SECONDS

if TYPE_CHECKING:
    import numpy as np

    from jaxsnn.bss2.search.quantize import ChipPopulation, Quantized


def targets_of(population: ChipPopulation) -> dict[str, Any]:
    """Return the lowest and the highest value among the neurons of a population: potentials in CADC
    LSB, times in microseconds of the chip; a readout has no reset, threshold or refractory time.
    """
    values = {"leak": population.v_leak}
    if population.fires:
        values |= {"reset": population.v_reset, "threshold": population.v_threshold}
    values |= {name: getattr(population, name) / SECONDS["us"] for name in ("tau_mem", "tau_syn")}
    targets: dict[str, Any] = {
        name: [float(value.min()), float(value.max())] for name, value in values.items()
    }
    if population.fires:
        targets["refractory_time"] = population.refractory_time / SECONDS["us"]
    return targets


def target_cells(population: ChipPopulation) -> list[str]:
    """Return the targets as cells of a table; a range where neurons differ, "-" where there is
    none.
    """
    values = [
        population.v_leak,
        population.v_reset,
        population.v_threshold,
        population.tau_mem,
        population.tau_syn,
    ]
    units = [1.0, 1.0, 1.0, SECONDS["us"], SECONDS["us"]]
    cells = [_range(value / unit) for value, unit in zip(values, units, strict=True)]
    if not population.fires:
        cells[1:3] = ["-", "-"]
    return [
        *cells,
        f"{population.refractory_time / SECONDS['us']:.3g}" if population.fires else "-",
    ]


def _range(values: np.ndarray) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def slope_cells(quantized: Quantized) -> tuple[str, str] | None:
    """Return the name and the value of the slope that a network needs, or that was measured; None if
    it has no weights.
    """
    if quantized.slope is None:
        return None
    value = f"{quantized.slope:.4g} CADC LSB per us and LSB of a weight"
    if (measured := quantized.measured) is None:
        return "slope, needed", f"{value}; {VENDORS_EXAMPLE:.2f} in the vendor's example"
    settings = f"i_synin_gm {measured.i_synin_gm} and synapse_dac_bias {measured.synapse_dac_bias}"
    return "slope, measured", f"{value}, at {settings}"
