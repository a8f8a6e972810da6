"""README.md of a folder that `deploy` writes."""

from __future__ import annotations

from typing import Any

from jaxsnn.bss2.search.quantize import Quantized

_TEXT = """# A network for BrainScaleS-2

Made by jaxsnn from a mapping of the network {fingerprint}. On a host with the chip's own software
(BrainScaleS OS 12: hxtorch cd3bfdf to 3bfc7aa, a grenade older than 93eaf6d5):

    python calibrate.py
    python run_hxtorch.py --input X.npz --output OUT.npz --duration {duration}

| file | is |
|---|---|
| network.json | populations, and run by run placement, routing and weights |
{targets}
| calibrate.py | calibrates the chip with calix, once; run_hxtorch.py does so by itself where it was not done |
| run_hxtorch.py | runs all {runs} |
| chip_modules.py, routing.py, common.py | what it needs |

Inputs, one line of `X.npz` for each sample, in seconds of the network (the chip is {speedup:g} times
faster), padded with inf; `jaxsnn chip inputs` writes such files:

{inputs}

`OUT.npz` has `NAME.time` and `NAME.index` for each population that fires, `NAME.membrane` (steps of 1
us of the chip, samples, neurons) in CADC LSB for each that does not.

What the neurons are calibrated to, on the chip:

| population | leak | reset | threshold | tau_mem | tau_syn | refractory time |
|---|---|---|---|---|---|---|
{populations}

Potentials are CADC LSB, times microseconds. {strength}
"""


def readme(content: dict[str, Any], quantized: Quantized) -> str:
    """The text, from network.json."""
    inputs = [
        one
        for one in content["populations"]
        if one["external"] and one["name"] != content["bias_source"]
    ]
    count = len(content["runs"])
    longest = max(float(one.tau_mem.max()) for one in quantized.populations.values())
    return _TEXT.format(
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
        strength=""
        if quantized.slope is None
        else f"One LSB of a weight is to change dV/dt by {quantized.slope:.4g} CADC LSB per "
        "microsecond; say i_synin_gm and synapse_dac_bias in the targets.",
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


def target_cells(one: Any) -> list[str]:
    """What a population is calibrated to: leak, reset, threshold in CADC LSB, tau_mem, tau_syn and
    refractory time in microseconds of the chip; a range where its neurons differ.
    """
    from jaxsnn.units import SECONDS

    values = [one.v_leak, one.v_reset, one.v_threshold, one.tau_mem, one.tau_syn]
    units = [1.0, 1.0, 1.0, SECONDS["us"], SECONDS["us"]]
    cells = [_range(value / unit) for value, unit in zip(values, units, strict=True)]
    if not one.fires:
        cells[1:3] = ["-", "-"]
    return [*cells, f"{one.refractory_time / SECONDS['us']:.3g}" if one.fires else "-"]


def _range(values: Any) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
