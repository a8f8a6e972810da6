"""Files of recordings in NIR's data format, nested or not."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import nir
import numpy as np

from jaxsnn.errors import FileError, GraphError, UsageError, listing
from jaxsnn.nir.io.files import Dataset, Group, save, text_dataset, text_of
from jaxsnn.nir.io.reading import read_hdf5
from jaxsnn.wording import Text

#: Version of the format that this module implements.
_NIR = "1.0.8"
Observable = nir.TimeGriddedData | nir.EventData
#: Tolerance of times with respect to t_max or a multiple of dt, relative: the rounding of float32.
TOLERANCE = 2**-20


def read_data(path: str | os.PathLike[str]) -> nir.NIRGraphData:
    """Read a file of NIR data.

    Raises:
        FileError: The file does not exist, or is not a file of NIR data.
    """
    document = read_hdf5(path, "a file of NIR data")
    kind = _type_of(document)
    if kind != "NIRGraphData":
        raise FileError(
            Text(
                "{path} is HDF5 but has no NIRGraphData (its __type__ is {type})",
                path=path,
                type=kind,
            ),
            fix="pass a file with recorded data; to read a NIR graph, call jaxsnn.nir.read",
        )
    try:
        return _read_graph(document)
    except _UnknownEntry as error:
        raise FileError(
            Text("{path}: {reason}", path=path, reason=str(error)),
            fix=f"write the file in the format of NIR {_NIR}",
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # The text of a KeyError is its argument as Python writes it, in quotes.
        reason = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        raise FileError(
            Text("{path} has invalid NIR data: {reason}", path=path, reason=reason),
            fix="write the file again",
        ) from error


def write_data(
    path: str | os.PathLike[str], data: nir.NIRGraphData, *, force: bool = False
) -> None:
    """Write NIR data, nested or not, as `nir.read_data` reads it.

    Raises:
        FileError: The file exists and `force` is not set, or it cannot be written.
        GraphError: A name is not allowed in a file, or an entry is not data.
    """
    save(path, _graph_group(data), force)


def _type_of(group: Group) -> str | None:
    entry = group.attributes.get("__type__")
    return None if entry is None else text_of(entry)


def _attributes(kind: str, **numbers: Any) -> dict[str, Dataset]:
    arrays = {name: np.asarray(number) for name, number in numbers.items()}
    return {"__type__": text_dataset(kind)} | {
        name: Dataset(value=array, dtype=array.dtype) for name, array in arrays.items()
    }


def _graph_group(data: nir.NIRGraphData) -> Group:
    nodes = Group()
    for name, entry in _named(data.nodes):
        nodes[name] = (
            _graph_group(entry) if isinstance(entry, nir.NIRGraphData) else _node_group(name, entry)
        )
    return Group({"nodes": nodes}, _attributes("NIRGraphData"))


def _node_group(name: str, data: Any) -> Group:
    if not isinstance(data, nir.NIRNodeData):
        raise GraphError(
            Text(
                "the data of node '{node}' have the type {type}",
                node=name,
                type=type(data).__name__,
            ),
            fix="use NIRNodeData or NIRGraphData",
            node=name,
        )
    observables = Group(
        {key: _observable_group(f"{name}.{key}", entry) for key, entry in _named(data.observables)}
    )
    return Group({"observables": observables}, _attributes("NIRNodeData"))


def _named(entries: Mapping[str, Any]) -> list[tuple[str, Any]]:
    for name in entries:
        if "/" in name or name in ("", "."):
            raise GraphError(
                Text("the name '{name}' is not allowed in a file", name=name),
                fix="rename it, or use a nested NIRGraphData",
            )
    return list(entries.items())


def _observable_group(name: str, data: Any) -> Group:
    if isinstance(data, nir.TimeGriddedData):
        refuse_broken(data, name)
        return Group({"data": _stored(data.data)}, _attributes("TimeGriddedData", dt=data.dt))
    if not isinstance(data, nir.EventData):
        raise GraphError(
            Text(
                "the data of observable '{observable}' have the type {type}",
                observable=name,
                type=type(data).__name__,
            ),
            fix="use TimeGriddedData or EventData",
        )
    refuse_broken(data, name)
    valued = isinstance(data, nir.ValuedEventData)
    arrays = {"idx": data.idx, "time": data.time} | ({"value": data.value} if valued else {})
    attributes = _attributes(type(data).__name__, n_neurons=data.n_neurons, t_max=data.t_max)
    return Group({key: _stored(array) for key, array in arrays.items()}, attributes)


def _stored(array: np.ndarray) -> Dataset:
    return Dataset(
        value=array, dtype=array.dtype, storage={"compression": "gzip"} if array.size else {}
    )


#: Entries of an observable by type: datasets, then attributes.
_HELD = {
    "TimeGriddedData": (("data",), ("dt",)),
    "EventData": (("idx", "time"), ("n_neurons", "t_max")),
    "ValuedEventData": (("idx", "time", "value"), ("n_neurons", "t_max")),
}
#: Largest number of neurons of an observable: neurons have 32-bit indices.
_MOST_NEURONS = 2**31 - 1
#: Attributes of later versions of the format, with the values that have no effect.
_WITHOUT_EFFECT = {"dynamic_before_transition": False}


class _UnknownEntry(ValueError):
    """Error for an entry that the known version of the format does not define."""


def _refuse_unknown(
    location: str, group: Group, datasets: tuple[str, ...], attributes: tuple[str, ...] = ()
) -> None:
    """Refuse entries that a later version of the format may have added, and that may change the
    meaning of the others.

    Raises:
        _UnknownEntry: There is such an entry; the message contains its name and value.
    """
    for name, entry in group.attributes.items():
        value = text_of(entry) if isinstance(entry, Dataset) else None
        if value is None:
            value = np.ravel(np.asarray(entry.value))[:4].tolist()
            value = value[0] if len(value) == 1 else value
        harmless = name in _WITHOUT_EFFECT and value == _WITHOUT_EFFECT[name]
        if name not in ("__type__", *attributes) and not harmless:
            raise _UnknownEntry(
                f"{location} has the attribute {name} = {value}, which NIR {_NIR} does not define and "
                "which may change the meaning of times or axes"
            )
    for name in group:
        if name not in datasets:
            raise _UnknownEntry(f"{location} contains '{name}', which NIR {_NIR} does not define")


def _read_graph(group: Group) -> nir.NIRGraphData:
    _refuse_unknown("a graph", group, ("nodes",))
    nodes: dict[str, Any] = {}
    for name, entry in group["nodes"].items():
        kind = _type_of(entry)
        if kind not in ("NIRGraphData", "NIRNodeData"):
            raise ValueError(
                f"node '{name}' has the __type__ {kind}, not NIRNodeData or NIRGraphData"
            )
        nodes[name] = _read_graph(entry) if kind == "NIRGraphData" else _read_node(entry)
    return nir.NIRGraphData(nodes=nodes)


def _read_node(group: Group) -> nir.NIRNodeData:
    _refuse_unknown("a node", group, ("observables",))
    return nir.NIRNodeData(
        observables={name: _read(name, entry) for name, entry in group["observables"].items()}
    )


def _read(name: str, group: Group) -> Observable:
    kind = _type_of(group)
    if kind not in _HELD:
        known_types = listing(_HELD)
        raise ValueError(
            f"observable '{name}' has the __type__ {kind}, which is not one of {known_types}"
        )
    _refuse_unknown(f"observable '{name}'", group, *_HELD[kind])
    for key in _HELD[kind][0]:
        if key not in group:
            raise KeyError(f"observable '{name}' has no '{key}'")
    arrays = {key: np.array(entry.value) for key, entry in group.items()}
    if kind == "TimeGriddedData":
        return nir.TimeGriddedData(data=arrays["data"], dt=_number(group, "dt"))
    values: dict[str, Any] = {"value": arrays["value"]} if kind == "ValuedEventData" else {}
    cls = nir.ValuedEventData if values else nir.EventData
    size, t_max = _number(group, "n_neurons"), _number(group, "t_max")
    if not (0 <= size <= _MOST_NEURONS and size == int(size)):
        raise ValueError(
            f"n_neurons of observable '{name}' is {size:g}, not an integer from 0 to {_MOST_NEURONS}"
        )
    return cls(idx=arrays["idx"], time=arrays["time"], n_neurons=int(size), t_max=t_max, **values)


def _number(group: Group, name: str) -> float:
    if name not in group.attributes:
        raise KeyError(f"the attribute {name} is missing")
    value = np.asarray(group.attributes[name].value)
    if value.size != 1 or value.dtype.kind not in "biuf":
        raise ValueError(
            f"the attribute {name} has dtype {value.dtype} and shape {value.shape}, and is not a number"
        )
    return float(value.reshape(-1)[0])


def refuse_broken(data: Observable, name: str) -> None:
    """Raise UsageError for inconsistent data: partly used slots, invalid neuron indices or times."""
    if isinstance(data, nir.TimeGriddedData):
        if not (math.isfinite(data.dt) and data.dt > 0):
            raise UsageError(
                Text("{node}: dt is {dt:g} s", node=name, dt=data.dt), fix="dt must be positive"
            )
        return
    if data.idx.ndim != 2 or data.idx.dtype.kind not in "iu" or data.time.dtype.kind not in "iuf":
        raise UsageError(
            Text(
                "{node}: idx has type {dtype} and shape {shape}, time has type {time_dtype}",
                node=name,
                dtype=data.idx.dtype,
                shape=data.idx.shape,
                time_dtype=data.time.dtype,
            ),
            fix="idx must be integers and time floats, both of shape (batch, events)",
        )
    if isinstance(data, nir.ValuedEventData) and data.value.dtype.kind not in "biuf":
        raise UsageError(
            Text("{node}: values have the type {dtype}", node=name, dtype=data.value.dtype),
            fix="values must be real numbers, one per event",
        )
    if not 0 <= data.t_max < math.inf:
        raise UsageError(
            Text("{node}: t_max is {t_max:g} s", node=name, t_max=data.t_max),
            fix="t_max must be the end of the recording, finite and at least 0",
        )
    used = data.idx != -1
    if (half := used != np.isfinite(data.time)).any():
        place = tuple(int(axis) for axis in np.argwhere(half)[0])
        raise UsageError(
            Text(
                "{node}: slot {slot} has idx {idx} and time {time:g}",
                node=name,
                slot=place,
                idx=data.idx[place],
                time=data.time[place],
            ),
            fix="an unused slot must have idx -1 and time inf, a used slot a valid index and a "
            "finite time",
        )
    if (bad := used & ((data.idx < 0) | (data.idx >= data.n_neurons))).any():
        raise UsageError(
            Text(
                "{node}: an event has the neuron index {index}, outside 0 to {maximum}",
                node=name,
                index=data.idx[bad][0],
                maximum=data.n_neurons - 1,
            ),
            fix="correct n_neurons or the events",
        )
    if (bad := used & ((data.time < 0) | (data.time > data.t_max * (1 + TOLERANCE)))).any():
        raise UsageError(
            Text(
                "{node}: events outside the recording, which is from 0 s to t_max = {t_max:g} s: "
                "{count}, the first at {time:g} s",
                node=name,
                count=int(bad.sum()),
                t_max=data.t_max,
                time=data.time[bad][0],
            ),
            fix="correct t_max or the events",
        )
