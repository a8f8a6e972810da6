"""Labelled data by name, or from an .npz file."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import FileError, Note, UsageError, listing, suggestion
from jaxsnn.network.spikes import Events
from jaxsnn.network.valued_inputs import GradedEvents
from jaxsnn.nir.initializers import Seed, generator_of, seed_words
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.passes import shapes
from jaxsnn.options import DATA
from jaxsnn.output import refuse_unreadable
from jaxsnn.simulation.recordings import load_arrays
from jaxsnn.train.data.datasets import (
    MOST_CLASSES,
    Data,
    Splits,
    check_data,
    refuse_labels,
    taken,
    yinyang_splits,
)
from jaxsnn.train.data.digits import digits_splits
from jaxsnn.train.data.images import fashion_mnist_splits, mnist_splits
from jaxsnn.train.data.speech import spoken_splits
from jaxsnn.train.data.splitting import as_splits
from jaxsnn.train.data.vowels import japanese_vowels_splits
from jaxsnn.train.option_values import seed_check
from jaxsnn.train.options import OPTIONS, TrainOptions
from jaxsnn.wording import Text

#: Tasks that are known by name; each takes a seed, some more.
DATASETS: Mapping[str, Callable[..., Splits]] = MappingProxyType(
    {
        "yinyang": yinyang_splits,
        "digits": digits_splits,
        "japanese-vowels": japanese_vowels_splits,
        "mnist": mnist_splits,
        "fashion-mnist": fashion_mnist_splits,
    }
)

#: Part of the training samples that is held out for validation where a file has none for it.
_HELD_OUT = 0.2
_PARTS = ("train", "validation", "test")
#: What comes before the folder of sounds.
_SOUND = "wav:"
#: How the names of files in a folder of data end.
_ENDINGS = (".npy", ".ts", ".wav", ".png", "-ubyte", "-ubyte.gz")
#: Samples that are looked at together.
_AT_ONCE = 4096


def load_splits(
    source: str | os.PathLike[str],
    seed: Seed = 0,
    *,
    folder: str | None = None,
    copies: int = 1,
    side: int | None = None,
    outputs: int = MOST_CLASSES,
) -> tuple[Splits, tuple[str, ...]]:
    """A task by name, or from an .npz file, and notes on what was decided.

    The file has x_train, y_train, x_test, y_test, and may have x_validation, y_validation: values
    from 0 to 1 (samples, ...) and labels (samples,). Instead of x_* there may be time_* and
    index_*, (samples, events), in seconds, inf where there is no event, and value_* of events with
    a size. A folder with the same arrays as .npy files will do: they are memory-mapped.

    Args:
        source: name of a task, or path of the file or folder.
        seed: a whole number from 0 to 4294967295, or a `jax.random` key.
        folder: of JapaneseVowels, if aeon is not installed; of MNIST and Fashion-MNIST.
        copies: of each training sample of digits and JapaneseVowels.
        side: of the images of MNIST and Fashion-MNIST, where they shall be smaller.
        outputs: of the network: no label in a file is as large.

    Raises:
        FileError, UsageError: no such task or file, no seed, or arrays that are missing, do not
            fit, or hold NaN.
    """
    seed_check("seed", seed)
    name = os.fspath(source)
    given = (("folder", folder, None), ("copies", copies, 1), ("side", side, None))
    options = {key: value for key, value, default in given if value != default}
    if name in DATASETS:
        known = inspect.signature(DATASETS[name]).parameters
        if unknown := [key for key in options if key not in known]:
            raise UsageError(_no_effect(unknown[0], name), fix="leave it out")
        return DATASETS[name](seed, **options), ()
    if name.startswith(_SOUND) and not options:
        return spoken_splits(seed, folder=name.removeprefix(_SOUND))
    if options:
        raise UsageError(
            _no_effect(next(iter(options)), name),
            fix="leave it out, it is for data by name",
        )
    if not name.endswith(".npz") and not os.path.isdir(name):
        raise UsageError(
            f"there is no task '{name}', and it is no .npz file", fix=suggestion(name, DATASETS)
        )
    return _of_file(name, seed, outputs)


def _no_effect(key: str, source: str) -> Text:
    option = OPTIONS["data_folder" if key == "folder" else key]
    return Text("{option} has no effect on {source}", option=option, source=source)


def data_files(source: str, folder: str | None = None) -> list[Path]:
    """The files that `load_splits` may read: of folders all that may hold data.

    Args:
        source, folder: as of `load_splits`.
    """
    places = [Path(source.removeprefix(_SOUND)), *([] if folder is None else [Path(folder)])]
    found = [
        file
        for place in places
        if place.is_dir()
        for file in place.rglob("*")
        if file.name.endswith(_ENDINGS)
    ]
    return [*(place for place in places if not place.is_dir()), *sorted(found)]


def _of_file(name: str, seed: Seed, outputs: int) -> tuple[Splits, tuple[str, ...]]:
    """The parts of an .npz file; without one for validation a fifth of the training samples."""
    arrays = _on_disk(name) if os.path.isdir(name) else load_arrays(name)
    classes = _classes(name, arrays, outputs)
    _refuse_two_kinds(name, arrays)
    notes = _unread(name, arrays)
    train, test = (_data(name, arrays, part, classes) for part in ("train", "test"))
    if any(f"{kind}_validation" in arrays for kind in ("x", "y", "time", "index")):
        validation = _data(name, arrays, "validation", classes)
        return Splits(name=name, train=train, validation=validation, test=test), notes
    held = max(int(len(train) * _HELD_OUT), 1)
    if held >= len(train):
        raise UsageError(
            f"{name} has {len(train)} training samples, too few to hold one out for validation",
            fix="give more, or x_validation and y_validation",
        )
    order = generator_of([*seed_words(seed), len(train)]).permutation(len(train))
    validation, kept = taken(train, order[:held]), taken(train, order[held:])
    note = (
        f"{held} of {len(train)} training samples, chosen by the seed, are held out for validation"
    )
    return Splits(name=name, train=kept, validation=validation, test=test), (*notes, note)


def _refuse_two_kinds(name: str, arrays: Mapping[str, Any]) -> None:
    """Refuse parts that have values beside events, or whose events alone have sizes."""
    there = [part for part in _PARTS if f"y_{part}" in arrays]
    for part in there:
        events = [key for key in ("time", "index", "value") if f"{key}_{part}" in arrays]
        if f"x_{part}" in arrays and events:
            raise UsageError(
                f"{name} has both x_{part} and {events[0]}_{part}", fix="keep one of them"
            )
    sized = [part for part in there if f"value_{part}" in arrays]
    if sized and sized != there:
        other = next(part for part in there if part not in sized)
        raise UsageError(
            f"{name} has value_{sized[0]}, and no value_{other}",
            fix="give the events of all parts a size, or of none",
        )


def _unread(name: str, arrays: Mapping[str, Any]) -> tuple[str, ...]:
    """A note on arrays that nothing is known of, which may be misspelt."""
    kinds = ("x", "y", "time", "index", "value")
    known = {f"{kind}_{part}" for part in _PARTS for kind in kinds}
    others = sorted(set(arrays) - known)
    text = f"{name}: {listing(others)} are not read"
    return (Note(text, kind="dropped", code="not-read"),) if others else ()


def _on_disk(name: str) -> dict[str, np.ndarray]:
    """The arrays of a folder of .npy files, which stay on the disk."""
    found = {}
    for file in sorted(Path(name).glob("*.npy")):
        refuse_unreadable(file, "a .npy file")
        try:  # not by np.load, which goes by the content: .npz archives are other objects
            found[file.stem] = np.lib.format.open_memmap(file, mode="r")
        except OSError as error:
            raise FileError(f"{file} cannot be read ({error.strerror or error})") from error
        except (ValueError, EOFError) as error:
            fix = "save it with numpy.save"
            raise FileError(f"{file} is no array of numbers", fix=fix) from error
    return found


def _classes(name: str, arrays: dict[str, np.ndarray], outputs: int) -> tuple[str, ...]:
    """As many classes as the labels of all parts name."""
    labels = {key: array for key, array in arrays.items() if key.startswith("y_")}
    for key in ("y_train", "y_test"):
        if key not in arrays:
            raise FileError(f"{name} has no array '{key}'", fix=f"there are {listing(arrays)}")
    largest = 0
    for key, array in labels.items():
        refuse_labels(array, name)
        largest = max(largest, int(array.max(initial=0)))
        if largest >= outputs:
            raise UsageError(
                f"{name}: {key} has the label {largest}, for {outputs} outputs labels run from 0 to"
                f" {outputs - 1}",
                fix="number the classes from 0, or give the network an output for each",
            )
        if (least := int(array.min(initial=0))) < 0:
            raise UsageError(
                f"{name}: {key} has the label {least}, labels begin with 0",
                fix="number the classes from 0",
            )
    return tuple(map(str, range(largest + 1)))


def _data(name: str, arrays: dict[str, np.ndarray], part: str, classes: tuple[str, ...]) -> Data:
    """One part of a file, checked before it is divided or encoded."""
    time, index = f"time_{part}", f"index_{part}"
    if f"y_{part}" not in arrays:
        raise FileError(
            f"{name} has samples for {part}, and no array 'y_{part}'",
            fix=f"add it: there are {listing(arrays)}",
        )
    x: Any
    if f"x_{part}" in arrays:
        x = _numbers(name, arrays, f"x_{part}", f"fill them in, or give {time} and {index}")
    elif time in arrays and index in arrays:
        when, where = _numbers(name, arrays, time, "inf says that there is no event"), arrays[index]
        if when.shape != where.shape or where.dtype.kind not in "biuf":
            raise UsageError(
                f"{name}: {time} has shape {when.shape}, {index} is {where.dtype} of shape"
                f" {where.shape}",
                fix="give numbers for both, (samples, events)",
            )
        if not isinstance(when, np.memmap):
            when, where = jnp.asarray(when), jnp.asarray(where)
        x = Events(time=when, index=where)
        if (value := f"value_{part}") in arrays:
            size = _numbers(name, arrays, value, "give each event a value")
            x = GradedEvents(time=x.time, index=x.index, value=size)
    else:
        raise FileError(
            f"{name} has no array 'x_{part}', nor 'time_{part}' and 'index_{part}'",
            fix=f"add them: there are {listing(arrays)}",
        )
    data = Data(x=x, y=arrays[f"y_{part}"].astype(np.int32), classes=classes)
    check_data(data, f"{name}, {part}")
    return data


def _numbers(name: str, arrays: dict[str, np.ndarray], key: str, instead: str) -> np.ndarray:
    """An array of numbers, none of them NaN."""
    array = arrays[key]
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise UsageError(
            f"{name}: {key} is {array.dtype} of shape {array.shape}",
            fix="give numbers, (samples, ...)",
        )
    # a piece at a time, for it may lie on the disk
    missing = sum(
        int(np.isnan(part).sum()) for part in np.array_split(array, len(array) // _AT_ONCE + 1)
    )
    if missing:
        raise UsageError(
            f"{name}: {key} has {missing} NaN among its {array.size} values", fix=instead
        )
    return array


def with_data(graph: Graph, options: TrainOptions) -> tuple[TrainOptions, tuple[str, ...]]:
    """The options with their data loaded and split, and notes on what was decided.

    Args:
        graph: its outputs say which labels there may be.
        options: `data` is the name of a task or of a file, `Splits`, `Data`, or (x, y).

    Returns:
        The options with `Splits`, and with nothing left to do of `data_folder`, `copies` and `side`.

    Raises:
        FileError, UsageError: there are no data, or they cannot be loaded or split.
    """
    data = options.data
    if data is None:
        fix = Text("pass {data}, arrays (x, y), or Splits", data=DATA.set_to("yinyang"))
        raise UsageError("the training data are missing", fix=fix)
    if isinstance(data, str | os.PathLike):
        splits, notes = load_splits(
            data,
            options.seed,
            folder=options.data_folder,
            copies=options.copies,
            side=options.side,
            outputs=_outputs(graph),
        )
    else:
        for name, done in (
            ("copies", options.copies == 1),
            ("data_folder", not options.data_folder),
            ("side", options.side is None),
        ):
            if not done:
                message = Text(
                    "{option} is for data by name, and arrays are given", option=OPTIONS[name]
                )
                raise UsageError(message, fix="leave it out")
        splits, notes = as_splits(data, options.seed)
    return replace(options, data=splits, data_folder=None, copies=1, side=None), notes


def _outputs(graph: Graph) -> int:
    """Size of the widest Output."""
    known = shapes(graph)
    sizes = [math.prod(shape) for name in graph.outputs if (shape := known[name][0]) is not None]
    return max(sizes, default=MOST_CLASSES)
