"""What is known of the real files in tests/data, and what their frameworks recorded; the files
themselves are in the fixtures `zoo`, `recordings` and `recorded`.
"""

import json
import tarfile
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "data"
FACTS = json.loads((DATA / "zoo.json").read_text())
#: Files that have a recording.
RECORDED = tuple(name for name in FACTS if "spikes" in FACTS[name])
OPTIONS = ("dt", "dt_export", "time_unit", "reset", "reset_delay", "readout")


def options_of(name):
    """The options that tell a reader what the file does not say."""
    facts = FACTS[name]
    options = {key: facts[key] for key in OPTIONS if key in facts}
    if "norm_input" in facts:
        readout = facts.get("norm_input_readout")
        options["norm_input"] = (
            facts["norm_input"] if readout is None else [facts["norm_input"], f"3:{readout}"]
        )
    return options


def unpacked(folder):
    """The files by name, in a folder."""
    with tarfile.open(DATA / "zoo.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return {path.stem: path for path in sorted(folder.glob("*.nir"))}


def recordings():
    """Recordings by name: what went in (time, batch, *shape) and what came out."""
    with np.load(DATA / "recordings.npz") as file:
        packed = {key: file[key] for key in file.files}
    recorded = {}
    for name in RECORDED:
        key = f"x{packed[f'{name}.x']}"
        shape = tuple(packed[f"{key}.shape"])
        x = np.unpackbits(packed[key], count=int(np.prod(shape))).reshape(shape).astype(bool)
        recorded[name] = (x, packed[f"{name}.y"].astype(np.float32))
    return recorded


#: Files of networks that were once read wrongly or refused; each has a recording.
MORE = json.loads((DATA / "more.json").read_text())


def unpacked_more(folder):
    """The files of `MORE` by name, in a folder, and their recordings: what went in and what came
    out, (time, batch, *shape).
    """
    with tarfile.open(DATA / "more.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    with np.load(folder / "recordings.npz") as file:
        arrays = {key: file[key] for key in file.files}

    def array(key):
        if f"{key}.shape" not in arrays:
            return arrays[key].astype(np.float32)
        shape = tuple(arrays[f"{key}.shape"])
        return np.unpackbits(arrays[key], count=int(np.prod(shape))).reshape(shape).astype(float)

    paths = {path.stem: path for path in sorted(folder.glob("*.nir"))}
    return paths, {name: (array(f"{name}.x"), array(f"{name}.y")) for name in MORE}
