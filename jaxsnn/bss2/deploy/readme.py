"""README.md of a folder that `deploy` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxsnn.bss2.search.quantize import Quantized
from jaxsnn.bss2.target_cells import target_cells

_TEXT = Path(__file__).parent / "scripts" / "README.md"


def readme(content: dict[str, Any], quantized: Quantized) -> str:
    """The text, from network.json."""
    inputs = [
        one
        for one in content["populations"]
        if one["external"] and one["name"] != content["bias_source"]
    ]
    count = len(content["runs"])
    longest = max(float(one.tau_mem.max()) for one in quantized.populations.values())
    return _TEXT.read_text(encoding="utf-8").format(
        fingerprint=content["fingerprint"][:12],
        duration=f"{10 * longest * content['speedup']:.3g}",
        targets="\n".join(_target_lines(content)),
        runs="the one run" if count == 1 else f"{count} runs, one after the other",
        speedup=content["speedup"],
        inputs="\n".join(
            f"- `{one['name']}.time`, `{one['name']}.index`: channels 0 to {one['size'] - 1}"
            for one in inputs
        ),
        populations="\n".join(
            f"| {name} | {' | '.join(target_cells(one))} |"
            for name, one in quantized.populations.items()
        ),
        strength=_strength(quantized),
    )


def _strength(quantized: Quantized) -> str:
    if quantized.slope is None:
        return ""
    slope, measured = f"{quantized.slope:.4g} CADC LSB per microsecond", quantized.measured
    if measured is None:
        return (
            f"One LSB of a weight is to change dV/dt by {slope}: choose i_synin_gm and "
            "synapse_dac_bias in the targets such that it does, and measure it."
        )
    return (
        f"One LSB of a weight changes dV/dt by {slope} at i_synin_gm {measured.i_synin_gm} and "
        f"synapse_dac_bias {measured.synapse_dac_bias}, as it was measured."
    )


def _target_lines(content: dict[str, Any]) -> list[str]:
    lines = []
    for one in content["calibrations"]:
        what = (
            "targets for calix, circuit by circuit"
            if one["refines"] is None
            else f"other potentials, calibration {one['refines']} is refined for them"
        )
        lines.append(f"| {one['targets']} | {what} |")
    return lines
