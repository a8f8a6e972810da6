"""A mapping as a folder of scripts for the chip's own software, which they need and this library
does not.

run_hxtorch.py runs the mapping as it is, with its routing; run_pynn.py places as the mapping says
and lets PyNN.brainscales route. Neither has been run on a chip: they are tested against recorded
names and arguments.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxsnn.bss2.check import refuse_wrong
from jaxsnn.bss2.chip import HICANN_X
from jaxsnn.bss2.deploy.content import content_of
from jaxsnn.bss2.mapping import Mapping
from jaxsnn.bss2.search.quantize import Quantized
from jaxsnn.errors import FileError, MappingError
from jaxsnn.output import refuse_unwritable, write_whole

_SCRIPTS, _CONTENT = Path(__file__).parent / "scripts", "network.json"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What `deploy` wrote: the paths, and what there was to say."""

    files: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": 1, "files": list(self.files), "notes": list(self.notes)}

    def as_text(self) -> str:
        """For people."""
        return "\n".join(self.files)


def deployed(folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """All files that `deploy` may write into a folder."""
    return tuple(
        Path(folder) / name
        for name in (_CONTENT, *sorted(path.name for path in _SCRIPTS.glob("*.py")))
    )


def deploy(
    mapping: Mapping, quantized: Quantized, folder: str | os.PathLike[str], *, force: bool = False
) -> Deployment:
    """Write network.json and the scripts that run it.

    Raises:
        MappingError: the mapping is not of the network, or has violations, or is of another chip.
        FileError: a file exists and `force` is false, or the folder cannot be written.
    """
    if mapping.chip != HICANN_X:
        raise MappingError(
            f"the mapping is of the chip '{mapping.chip.name}', scripts are for '{HICANN_X.name}'",
            fix=f"map the network onto '{HICANN_X.name}'",
        )
    refuse_wrong(mapping, quantized.netlist)
    content = content_of(mapping, quantized)
    folder = Path(folder)
    names, notes = _scripts(mapping, quantized, content)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"{folder} cannot be made ({error.strerror or error})", fix="name another folder"
        ) from error
    texts = {
        _CONTENT: json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        + "\n"
    }
    texts |= {name: (_SCRIPTS / name).read_text(encoding="utf-8") for name in names}
    for name in texts:
        refuse_unwritable(folder / name, force)
    for name, text in texts.items():
        _write(folder / name, text, force)
    return Deployment(files=tuple(os.fspath(folder / name) for name in texts), notes=notes)


def _write(path: Path, text: str, force: bool) -> None:
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), force)


def _scripts(
    mapping: Mapping, quantized: Quantized, content: dict[str, Any]
) -> tuple[list[str], tuple[str, ...]]:
    """The scripts that can run the network, and why others cannot."""
    names, notes = ["common.py"], []
    recurrent = any(
        link["pre"] is not None and link["pre"] >= link["post"]
        for run in content["runs"]
        for link in run["links"]
    )
    if recurrent:
        notes.append(
            "no run_hxtorch.py: hxtorch wants the modules of recurrent connections in a wrapper "
            "with a function of its own, use routing.py in it"
        )
    names += ["routing.py"] if recurrent else ["routing.py", "run_hxtorch.py"]
    several = (
        max(len(one.circuits) for run in mapping.runs for one in run.neurons) if mapping.runs else 0
    )
    silent = [one.name for one in quantized.populations.values() if not one.fires]
    if several > 1:
        notes.append(
            "no run_pynn.py: PyNN's calibrated cells have one circuit, the mapping has neurons of "
            f"{several}"
        )
    elif silent:
        notes.append(f"no run_pynn.py: PyNN's calibrated cells fire, '{silent[0]}' is a readout")
    else:
        names.append("run_pynn.py")
    if quantized.slope is not None:
        notes.append(
            f"one LSB of a weight must change dV/dt by {quantized.slope:.4g} CADC LSB per "
            "microsecond: calibrate synaptic inputs to that (i_synin_gm, synapse_dac_bias)"
        )
    notes.append(
        "the scripts were never run on a chip, only against the recorded names and arguments of "
        "its software"
    )
    return names, tuple(notes)
