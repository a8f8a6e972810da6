"""The commands and functions that read hostile files, by name."""

import json

from jaxsnn.files.array_files import load_arrays
from jaxsnn.nir import read
from jaxsnn.train.data.images import mnist_splits
from jaxsnn.train.data.labelled_files import load_splits
from jaxsnn.train.data.utterances import japanese_vowels_splits, spoken_splits
from jaxsnn.train.loop.checkpoint import Folder
from tests.faults.hostile_files.checkpoints import PRINT, SETTINGS, state


def _stream(path):
    from jaxsnn.event.native.stream_state import read_state

    read_state(path, bytes(32))


def _checkpoint(path):
    folder = Folder(path, SETTINGS, PRINT, alone=True)
    checkpoint = folder.begin(resume=True, state=state(), overwrite=False)
    assert checkpoint is None or checkpoint.history
    json.dumps([vars(record) for record in checkpoint.history], allow_nan=False)


#: Name -> function of the path of a file or folder.
FUNCTIONS = {
    "arrays": load_arrays,
    "network": read,
    "labelled": lambda path: load_splits(path, 0, outputs=2),
    "images": lambda path: mnist_splits(0, folder=path),
    "sounds": lambda path: spoken_splits(0, folder=path),
    "camera events": lambda path: load_splits(f"events:{path}", shape=(2, 34, 34)),
    "spike trains": lambda path: load_splits(f"shd:{path}"),
    "ragged events": lambda path: load_splits(f"events:{path}", outputs=2),
    "utterances": lambda path: japanese_vowels_splits(0, folder=path),
    "checkpoint": _checkpoint,
    "stream": _stream,
}


#: Name -> arguments of a command; {file} is the hostile file, {companions} the folder of sound ones.
COMMANDS = {
    "info": "info {file}",
    "check": "check {file} --for event",
    "convert": "convert {file} out.nir --to norse",
    "run": "run {companions}/net.nir --input {file} -o out.npz --t-end 10ms",
    "run in steps": "run {companions}/net.nir --input {file} -o out.npz --dt 1ms",
    "verify": "verify {companions}/steps.nir --recording {file}",
    "emulate": "emulate {companions}/net.nir {companions}/mapping.json --input {file} -o out.npz "
    "--t-end 10ms",
    "fidelity": "fidelity {companions}/steps.nir --input {file}",
    "compare": "compare {companions}/net.nir {file} --input {companions}/inputs.npz --t-end 10ms",
    "plot": "plot {file} -o out.svg",
    "plot history": "plot {file} -o out.svg",
    "map": "map {companions}/net.nir --verify {file}",
    "deploy": "deploy {companions}/net.nir {file} -o out",
    "slopes": "map {companions}/net.nir -o out.json --slope {file}",
    "config": "train --config {file} -o out.nir",
    "train": "train {companions}/net.nir --data {file} -o out.nir --epochs 1",
}
