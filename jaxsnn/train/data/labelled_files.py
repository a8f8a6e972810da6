"""Labelled data by name, from files, and in NIR's data format."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import FileError, Note, UsageError, listing, suggestion
from jaxsnn.files.array_files import load_arrays, map_array
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.spikes import Events
from jaxsnn.network.valued_inputs import Currents, GradedEvents
from jaxsnn.nir.initializers import Seed
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.passes import shapes
from jaxsnn.options import DATA
from jaxsnn.train.data.datasets import (
    MOST_CLASSES,
    Data,
    Splits,
    as_splits,
    check_data,
    held_out,
    labelled,
    refuse_labels,
    yinyang_splits,
)
from jaxsnn.train.data.event_sets import EVENT_SETS, SAMPLE_ENDINGS, event_splits
from jaxsnn.train.data.images import digits_splits, fashion_mnist_splits, mnist_splits
from jaxsnn.train.data.utterances import japanese_vowels_splits, spoken_splits
from jaxsnn.train.option_values import seed_check
from jaxsnn.train.options import OPTIONS, TrainOptions
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from jaxsnn.nir.io.data_files import Observable

#: Built-in tasks by name; each accepts a seed, some further arguments.
DATASETS: Mapping[str, Callable[..., Splits]] = MappingProxyType(
    {
        "yinyang": yinyang_splits,
        "digits": digits_splits,
        "japanese-vowels": japanese_vowels_splits,
        "mnist": mnist_splits,
        "fashion-mnist": fashion_mnist_splits,
    }
)

_PARTS = ("train", "validation", "test")
#: Prefix of a folder of sounds.
_SOUND = "wav:"
#: Endings of the names of data files in a folder.
_ENDINGS = (
    *(".npy", ".npz", ".ts", ".wav", ".png", "-ubyte", "-ubyte.gz"),
    *(".h5", ".bin", ".aedat", ".aedat4", ".csv", ".txt"),
)
#: Kind of recordings -> patterns of files by which a folder of them is recognised.
_RECORDINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "shd": ("shd_train.h5",),
        "ssc": ("ssc_train.h5",),
        "dvsgesture": ("trials_to_train.txt",),
        "wav": ("*.wav", "*/*.wav"),
        "events": (
            "train.npz",
            *(f"{folders}*{ending}" for folders in ("*/", "*/*/") for ending in SAMPLE_ENDINGS),
        ),
    }
)
#: Number of values that are examined together.
_AT_ONCE = 2**22


def load_splits(
    source: str | os.PathLike[str],
    seed: Seed = 0,
    *,
    folder: str | None = None,
    copies: int = 1,
    side: int | None = None,
    outputs: int = MOST_CLASSES,
    shape: tuple[int, ...] | None = None,
) -> tuple[Splits, tuple[str, ...]]:
    """Load a task by name, or from an .npz file, and return it with notes on default choices.

    The file has x_train, y_train, x_test, y_test, and may have x_validation, y_validation: values
    from 0 to 1 (samples, ...) and labels (samples,). Instead of x_* there may be time_* and
    index_*, (samples, events), in seconds, inf where there is no event, and value_* of events with
    a size. A folder with the same arrays as .npy files is also accepted: they are memory-mapped.
    Recordings of events in other formats have a prefix of `jaxsnn.train.data.event_sets.EVENT_SETS`.

    Args:
        source: name of a task, or path of the file or folder.
        seed: random seed: an integer from 0 to 4294967295, or a `jax.random` key.
        folder: folder of MNIST, Fashion-MNIST, or JapaneseVowels if aeon is not installed.
        copies: number of copies of each training sample of digits and JapaneseVowels.
        side: side of resized images of MNIST and Fashion-MNIST, in pixels.
        outputs: number of outputs of the network, which exceeds all labels in a file.
        shape: shape of the network's input, for recordings that do not specify their sensor.

    Raises:
        FileError, UsageError: no such task or file, an invalid seed, or arrays that are missing,
            inconsistent, or contain NaN.
    """
    seed_check("seed", seed)
    name = os.fspath(source)
    option_values = (("folder", folder, None), ("copies", copies, 1), ("side", side, None))
    options = {key: value for key, value, default in option_values if value != default}
    if name in DATASETS:
        accepted = inspect.signature(DATASETS[name]).parameters
        if unknown := [key for key in options if key not in accepted]:
            raise UsageError(_no_effect(unknown[0], name), fix="leave it out")
        return DATASETS[name](seed, **options), ()
    if name.startswith(_SOUND) and not options:
        return spoken_splits(seed, folder=name.removeprefix(_SOUND))
    kind, _, location = name.partition(":")
    if kind in EVENT_SETS and location and not options:
        return event_splits(kind, location, seed, shape=shape, outputs=outputs)
    if options:
        raise UsageError(
            _no_effect(next(iter(options)), name),
            fix="leave it out: only tasks that are selected by name support it",
        )
    if not name.endswith(".npz") and not os.path.isdir(name):
        raise UsageError(
            Text("'{data}' is neither a task nor an .npz file", data=name),
            fix=suggestion(name, [*DATASETS, *(f"{kind}:PATH" for kind in (*EVENT_SETS, "wav"))]),
        )
    return _of_file(name, seed, outputs)


def _refuse_recordings(name: str, arrays: Mapping[str, Any]) -> None:
    """Refuse recordings of events or sounds that were passed without their prefix.

    Raises:
        FileError: an .npz file of events, or a folder that contains recordings and no arrays.
    """
    kinds = ["events"] if "t" in arrays and "y_train" not in arrays else []
    if os.path.isdir(name) and not arrays:
        kinds = [
            kind
            for kind, patterns in _RECORDINGS.items()
            if any(any(Path(name).glob(pattern)) for pattern in patterns)
        ]
    if kinds:
        raise FileError(
            Text("{data} contains recordings, and not the arrays x_train and y_train", data=name),
            fix=Text("pass {option}", option=DATA.set_to(f"{kinds[0]}:{name}")),
        )


def _no_effect(key: str, source: str) -> Text:
    option = OPTIONS["data_folder" if key == "folder" else key]
    return Text("{option} has no effect on {source}", option=option, source=source)


def data_files(source: str, folder: str | None = None) -> list[Path]:
    """Return the files that `load_splits` may read; for a folder, all files in it with the ending
    of a data file.

    Args:
        source, folder: as in `load_splits`.
    """
    prefixes = (_SOUND, *(f"{kind}:" for kind in EVENT_SETS))
    prefix = next((prefix for prefix in prefixes if source.startswith(prefix)), "")
    places = [Path(source.removeprefix(prefix)), *([] if folder is None else [Path(folder)])]
    files = [
        file
        for place in places
        if place.is_dir()
        for file in place.rglob("*")
        if file.name.endswith(_ENDINGS)
    ]
    return [*(place for place in places if not place.is_dir()), *sorted(files)]


def _of_file(name: str, seed: Seed, outputs: int) -> tuple[Splits, tuple[str, ...]]:
    """Return the parts of an .npz file; validation defaults to a fifth of the training samples."""
    arrays = _on_disk(name) if os.path.isdir(name) else load_arrays(name)
    _refuse_recordings(name, arrays)
    classes = _classes(name, arrays, outputs)
    _refuse_two_kinds(name, arrays)
    kinds = ("x", "y", "time", "index", "value")
    unread = sorted(set(arrays) - {f"{kind}_{part}" for part in _PARTS for kind in kinds})
    notes: tuple[str, ...] = ()
    if unread:  # their names may be misspelt
        text = Text(
            "{data} contains arrays that are not used: {unread}", data=name, unread=listing(unread)
        )
        notes = (Note(text, kind="dropped", code="not-read"),)
    train, test = (_data(name, arrays, part, classes) for part in ("train", "test"))
    if any(f"{kind}_validation" in arrays for kind in ("x", "y", "time", "index")):
        validation = _data(name, arrays, "validation", classes)
        return Splits(name=name, train=train, validation=validation, test=test), notes
    training, validation, note = held_out(train, name, seed)
    return Splits(name=name, train=training, validation=validation, test=test), (*notes, note)


def _refuse_two_kinds(name: str, arrays: Mapping[str, Any]) -> None:
    """Refuse parts that have values beside events, or whose events alone have sizes."""
    there = [part for part in _PARTS if f"y_{part}" in arrays]
    for part in there:
        events = [key for key in ("time", "index", "value") if f"{key}_{part}" in arrays]
        if f"x_{part}" in arrays and events:
            raise UsageError(
                Text(
                    "{data} has both x_{part} and {array}_{part}",
                    data=name,
                    part=part,
                    array=events[0],
                ),
                fix="remove one of the two",
            )
    sized = [part for part in there if f"value_{part}" in arrays]
    if sized and sized != there:
        unsized = next(part for part in there if part not in sized)
        raise UsageError(
            Text(
                "{data} has value_{part} and no value_{missing_part}",
                data=name,
                part=sized[0],
                missing_part=unsized,
            ),
            fix="save values of the events for all parts, or for none",
        )


def _on_disk(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a folder of .npy files, memory-mapped."""
    arrays, budget = {}, ByteBudget(name)
    for file in sorted(Path(name).glob("*.npy")):
        budget.refuse_late()
        array = arrays[file.stem] = map_array(file)
        if file.stem.startswith("y_"):  # labels are copied into memory
            budget.take(f"'{file.stem}'", array.nbytes + 4 * array.size)
    return arrays


def _classes(name: str, arrays: dict[str, np.ndarray], outputs: int) -> tuple[str, ...]:
    """Return as many class names as the labels of all parts need."""
    labels = {key: array for key, array in arrays.items() if key.startswith("y_")}
    for key in ("y_train", "y_test"):
        if key not in arrays:
            raise FileError(
                Text("{data} has no array '{array}'", data=name, array=key),
                fix=f"add the array; the file contains {listing(arrays)}",
            )
    largest = 0
    for key, array in labels.items():
        refuse_labels(array, name)
        largest = max(largest, int(array.max(initial=0)))
        if largest >= outputs:
            raise UsageError(
                Text(
                    "{data}: {array} has the label {value}, and with {outputs} outputs labels range from "
                    "0 to {maximum}",
                    data=name,
                    array=key,
                    value=largest,
                    outputs=outputs,
                    maximum=outputs - 1,
                ),
                fix="number the classes from 0, or use a network with one output per class",
            )
        if (least := int(array.min(initial=0))) < 0:
            raise UsageError(
                Text(
                    "{data}: {array} has the label {value}, and labels begin with 0",
                    data=name,
                    array=key,
                    value=least,
                ),
                fix="number the classes from 0",
            )
    return tuple(map(str, range(largest + 1)))


def _data(name: str, arrays: dict[str, np.ndarray], part: str, classes: tuple[str, ...]) -> Data:
    """Return one part of a file, checked before it is split or encoded."""
    time, index = f"time_{part}", f"index_{part}"
    if f"y_{part}" not in arrays:
        raise FileError(
            Text("{data} has samples for {part} and no array 'y_{part}'", data=name, part=part),
            fix=f"add the array; the file contains {listing(arrays)}",
        )
    x: Any
    if f"x_{part}" in arrays:
        x = _numbers(
            name,
            arrays,
            f"x_{part}",
            f"replace them by numbers, or save {time} and {index} instead",
        )
    elif time in arrays and index in arrays:
        times = _numbers(name, arrays, time, "use inf for unused events")
        indices = arrays[index]
        if times.shape != indices.shape or indices.dtype.kind not in "biuf":
            raise UsageError(
                Text(
                    "{data}: {time} has shape {time_shape}, and {index} is {dtype} of shape "
                    "{index_shape}",
                    data=name,
                    time=time,
                    time_shape=times.shape,
                    index=index,
                    dtype=indices.dtype,
                    index_shape=indices.shape,
                ),
                fix="save numbers of shape (samples, events) for both",
            )
        if not isinstance(times, np.memmap):
            times, indices = jnp.asarray(times), jnp.asarray(indices)
        x = Events(time=times, index=indices)
        if (value := f"value_{part}") in arrays:
            size = _numbers(name, arrays, value, "save a value for each event")
            x = GradedEvents(time=x.time, index=x.index, value=size)
    else:
        raise FileError(
            Text(
                "{data} has neither 'x_{part}' nor 'time_{part}' and 'index_{part}'",
                data=name,
                part=part,
            ),
            fix=f"add the arrays; the file contains {listing(arrays)}",
        )
    data = Data(x=x, y=arrays[f"y_{part}"].astype(np.int32), classes=classes)
    check_data(data, f"{name}, {part}")
    return data


def _numbers(name: str, arrays: dict[str, np.ndarray], key: str, instead: str) -> np.ndarray:
    """Return an array of numbers, checked to have no NaN, no number beyond the range of float32, and
    no infinity but for times.
    """
    array = arrays[key]
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise UsageError(
            Text(
                "{data}: {array} is {dtype} of shape {shape}",
                data=name,
                array=key,
                dtype=array.dtype,
                shape=array.shape,
            ),
            fix="save numbers of shape (samples, ...)",
        )
    if array.dtype.kind != "f" or array.size == 0:
        return array
    invalid = _not_a_time if key.startswith("time_") else _not_finite
    # In pieces, because the array may be memory-mapped.
    step = max(_AT_ONCE // (array.size // len(array)), 1)
    count, first = 0, ()
    for start in range(0, len(array), step):
        mask = invalid(array[start : start + step])
        if count == 0 and mask.any():
            place = np.unravel_index(int(mask.argmax()), mask.shape)
            first = (start + int(place[0]), *(int(axis) for axis in place[1:]))
        count += int(mask.sum())
    if count:
        kind = (
            "NaN"
            if np.isnan(array[first])
            else "infinities"
            if np.isinf(array[first])
            else "numbers beyond the range of float32"
        )
        raise UsageError(
            Text(
                "{data}: {array} contains {count} {kind} among {size} values, the first at {index}",
                data=name,
                array=key,
                count=count,
                kind=kind,
                size=array.size,
                index=first,
            ),
            fix=instead,
        )
    return array


def _not_finite(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return ~np.isfinite(array.astype(np.float32))


def _not_a_time(array: np.ndarray) -> np.ndarray:
    # A finite time that becomes inf in float32 would mark an unused slot.
    return _not_finite(array) & (array != np.inf)


def with_data(graph: Graph, options: TrainOptions) -> tuple[TrainOptions, tuple[str, ...]]:
    """Return the options with their data loaded and split, and notes on default choices.

    Args:
        graph: graph whose outputs determine the valid labels.
        options: `data` is the name of a task or of a file, `Splits`, `Data`, or (x, y).

    Returns:
        The options with `Splits` as data, and with `data_folder`, `copies` and `side` at their defaults.

    Raises:
        FileError, UsageError: no data are specified, or they cannot be loaded or split.
    """
    data = options.data
    if data is None:
        fix = Text("pass {data}, or arrays (x, y), or Splits", data=DATA.set_to("yinyang"))
        raise UsageError("the training data are missing", fix=fix)
    if isinstance(data, str | os.PathLike):
        leaving = [shapes(graph)[name][0] for name in graph.outputs]
        sizes = [math.prod(shape) for shape in leaving if shape is not None]
        splits, notes = load_splits(
            data,
            options.seed,
            folder=options.data_folder,
            copies=options.copies,
            side=options.side,
            outputs=max(sizes, default=MOST_CLASSES),
            shape=_shape_of_input(graph),
        )
    else:
        for name, is_default in (
            ("copies", options.copies == 1),
            ("data_folder", not options.data_folder),
            ("side", options.side is None),
        ):
            if not is_default:
                message = Text(
                    "{option} is only for tasks that are selected by name, but the data are arrays",
                    option=OPTIONS[name],
                )
                raise UsageError(message, fix="leave it out")
        splits, notes = as_splits(data, options.seed)
    notes = (*notes, *_first_class_notes(splits))
    return replace(options, data=splits, data_folder=None, copies=1, side=None), notes


def _first_class_notes(splits: Splits) -> list[str]:
    """Return a note if class 0 does not occur in the training samples, as if labels were counted from 1."""
    labels = splits.train.y
    if (smallest := int(np.min(labels))) == 0:
        return []
    text = Text(
        "{data}: no training sample has the label 0, the labels are {smallest} to {largest}. If they are "
        "counted from 1, subtract 1: one output of the network is never the answer",
        data=splits.name,
        smallest=smallest,
        largest=int(np.max(labels)),
    )
    return [Note(text, kind="assumed", code="no-first-class")]


def _shape_of_input(graph: Graph) -> tuple[int, ...] | None:
    """Return the shape of the only input of a graph; None if it has several."""
    if len(graph.inputs) != 1:
        return None
    entering = shapes(graph)[graph.inputs[0]][0]
    return None if entering is None else tuple(map(int, entering))


@suggests_keywords
def data_of_nir(
    observable: Observable, labels: Any, *, classes: Sequence[str] | None = None, name: str = "data"
) -> Data:
    """Return labelled samples of an Input node's data in NIR's data format
    (`jaxsnn.nir.io.data_files.read_data`).

    Args:
        observable: EventData; ValuedEventData, whose events are `GradedEvents` where they carry
            other values than 1; or TimeGriddedData, which are spikes if they are integers, else
            currents that are held for each step.
        labels: (samples,) integers from 0.
        classes: names of the classes; None: their indices.

    Raises:
        UsageError: the data are broken, the labels are not integers, or their number is not that of
            the samples.
    """
    from jaxsnn.simulation.recordings import to_events, to_input

    x: Any = to_input(observable, name=name)
    if isinstance(x, np.ndarray):
        are_counts = ((x >= 0) & (x == np.rint(x))).all()
        step = cast(Any, observable).dt
        x = to_events(observable, name=name) if are_counts else Currents.held(x, step)
    channels = int(cast(Any, observable).n_neurons)
    return replace(labelled(x, labels, classes=classes, name=name), channels=channels)
