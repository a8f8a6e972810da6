"""A mapping as a folder of scripts for the chip's own software. Only the scripts need that software.

run_hxtorch.py runs the mapping as it is, with its placement and routing; calibrate.py calibrates the
chip for it; measure_slope.py measures the strength of its synaptic inputs. There is no script for
PyNN.brainscales, which routes by itself and does not accept a routing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.bss2.check import refuse_wrong
from jaxsnn.bss2.chip import BOTH, HICANN_X
from jaxsnn.bss2.deploy.content import (
    Calibration,
    calibrations_of,
    content_of,
    target_content,
)
from jaxsnn.bss2.mapping import Mapping
from jaxsnn.bss2.search.measured_slopes import VENDORS_EXAMPLE
from jaxsnn.bss2.search.quantize import Quantized
from jaxsnn.bss2.target_cells import target_cells
from jaxsnn.errors import MappingError
from jaxsnn.options import SLOPE
from jaxsnn.output import write_folder
from jaxsnn.wording import Text

_SCRIPTS, _CONTENT, _README = Path(__file__).parent / "scripts", "network.json", "README.md"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Result of `deploy`: paths of the written files, and notes."""

    files: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dict for JSON."""
        return {"schema": 1, "files": list(self.files), "notes": list(self.notes)}

    def as_text(self) -> str:
        """Return the paths as text, one line each."""
        return "\n".join(self.files)


def deployed(folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return the paths of all files that `deploy` may write into a folder."""
    return tuple(
        Path(folder) / name
        for name in (_CONTENT, _README, *sorted(path.name for path in _SCRIPTS.glob("*.py")))
    )


def deploy(
    mapping: Mapping, quantized: Quantized, folder: str | os.PathLike[str], *, force: bool = False
) -> Deployment:
    """Write network.json, targets of its calibrations, and the scripts that run it.

    Raises:
        MappingError: the mapping is not of the network, or has violations, or is of another chip.
        FileError: a file exists and `force` is false, or the folder cannot be written.
    """
    if mapping.chip != HICANN_X:
        raise MappingError(
            Text(
                "the mapping is for the chip '{actual}'; the scripts are for '{expected}'",
                actual=mapping.chip.name,
                expected=HICANN_X.name,
            ),
            fix=f"map the network onto '{HICANN_X.name}'",
        )
    refuse_wrong(mapping, quantized.netlist)
    for number, run in enumerate(mapping.runs):
        for hemisphere, row in np.argwhere(run.row_modes == BOTH)[:1].tolist():
            raise MappingError(
                Text(
                    "synapse row ({hemisphere}, {row}) excites and inhibits; the chip's software "
                    "supports only rows of one sign",
                    hemisphere=hemisphere,
                    row=row,
                ),
                fix="map again with a router whose rows have one sign",
                node=f"run {number}",
            )
    calibrations = calibrations_of(mapping, quantized)
    content = content_of(mapping, quantized, calibrations)
    texts = {
        _README: readme(content, quantized),
        _CONTENT: json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        + "\n",
    }
    for number, calibration in enumerate(calibrations):
        targets = target_content(mapping, quantized, calibration)
        texts[calibration.file(number)] = json.dumps(targets, allow_nan=False) + "\n"
    texts |= {path.name: path.read_text(encoding="utf-8") for path in sorted(_SCRIPTS.glob("*.py"))}
    folder = Path(folder)
    # what the scripts read counts, so it comes last
    ordered = sorted(texts, key=lambda name: (name == _CONTENT, name))
    write_folder(folder, {name: texts[name] for name in ordered}, force)
    return Deployment(
        files=tuple(os.fspath(folder / name) for name in texts),
        notes=tuple(_notes(quantized, calibrations)),
    )


def _notes(quantized: Quantized, calibrations: tuple[Calibration, ...]) -> Iterator[str]:
    """Yield a sentence on each thing to know before a run on the chip."""
    if quantized.slope is not None and quantized.measured is None:
        yield (
            Text(
                "one LSB of a weight must change dV/dt by {slope:.3g} CADC LSB per microsecond; in "
                "the vendor's example, at i_synin_gm 500, it changes by {vendors_example:.2f}: "
                "measure the slope of your chip with measure_slope.py and pass {option} when "
                "mapping, or calibrate the synaptic inputs to {slope:.3g}",
                slope=quantized.slope,
                vendors_example=VENDORS_EXAMPLE,
                option=SLOPE.set_to("S"),
            )
        )
    for number, calibration in enumerate(calibrations):
        runs = ", ".join(map(str, calibration.runs))
        if calibration.refines is not None:
            yield (
                Text(
                    "runs {runs}: circuits need other potentials than in earlier runs; calibration "
                    "{calibration} is refined for them",
                    runs=runs,
                    calibration=calibration.refines,
                )
            )
        elif number:
            yield (
                Text(
                    "runs {runs}: circuits need other time constants than in earlier runs; the chip is "
                    "calibrated again for them",
                    runs=runs,
                )
            )
    yield (
        "the scripts were tested against the published rules of the vendor's software, and "
        "never run on a chip"
    )


def readme(content: dict[str, Any], quantized: Quantized) -> str:
    """Return the text of README.md for the content of network.json."""
    inputs = [
        population
        for population in content["populations"]
        if population["external"] and population["name"] != content["bias_source"]
    ]
    count = len(content["runs"])
    longest = max(float(population.tau_mem.max()) for population in quantized.populations.values())
    targets = [
        f"| {calibration['targets']} | calibration targets of each circuit, for calix |"
        if calibration["refines"] is None
        else f"| {calibration['targets']} | other potentials; calibration {calibration['refines']}"
        " is refined for them |"
        for calibration in content["calibrations"]
    ]
    return (
        (_SCRIPTS / "README.md")
        .read_text(encoding="utf-8")
        .format(
            fingerprint=content["fingerprint"][:12],
            mapping=content["mapping"],
            duration=f"{10 * longest * content['speedup']:.3g}",
            targets="\n".join(targets),
            runs="the only run" if count == 1 else f"{count} runs, one after the other",
            speedup=content["speedup"],
            inputs="\n".join(
                f"- `{entry['name']}.time`, `{entry['name']}.index`: channels 0 to {entry['size'] - 1}"
                for entry in inputs
            ),
            populations="\n".join(
                f"| {name} | {' | '.join(target_cells(population))} |"
                for name, population in quantized.populations.items()
            ),
            strength=_strength(quantized),
        )
    )


def _strength(quantized: Quantized) -> str:
    if quantized.slope is None:
        return ""
    slope, measured = f"{quantized.slope:.4g} CADC LSB per microsecond", quantized.measured
    if measured is None:
        return (
            f"One LSB of a weight must change dV/dt by {slope}. Set i_synin_gm and "
            "synapse_dac_bias in the targets accordingly, and measure the slope with measure_slope.py."
        )
    return (
        f"One LSB of a weight changes dV/dt by {slope} at i_synin_gm {measured.i_synin_gm} and "
        f"synapse_dac_bias {measured.synapse_dac_bias} (measured)."
    )
