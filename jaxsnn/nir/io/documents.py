"""Conversion of a nir.NIRGraph to the document that nir.write would store (see
`jaxsnn.nir.io.files`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.errors import GraphError
from jaxsnn.nir.io.files import Dataset, Group, text_dataset
from jaxsnn.wording import Text

#: Version of NIR whose format is written.
NIR_VERSION = "1.0.8"


def document_of(source: Any) -> Group:
    """Convert a nir.NIRGraph to the document that nir.write would store; the graph is not
    changed.
    """
    import nir

    if not isinstance(source, nir.NIRGraph):
        raise GraphError(
            Text("an object of type {type} is not a NIR graph", type=type(source).__name__),
            fix="pass a nir.NIRGraph, or read a file with jaxsnn.nir.read(path)",
        )
    return group_of(source.to_dict(), nir.version)


def group_of(tree: Mapping[str, Any], version: str) -> Group:
    """Convert the dict of a nir.NIRGraph to the document that nir.write would store."""
    return Group({"version": text_dataset(version), "node": _group(tree, "the graph")})


def _group(tree: Mapping[str, Any], location: str) -> Group:
    group = Group()
    for key, value in tree.items():
        name = str(key)
        if "/" in name or name in ("", "."):
            raise GraphError(
                Text(
                    "{location} has an entry named '{name}', which a NIR file cannot contain",
                    location=location,
                    name=name,
                ),
                fix="rename it",
            )
        if isinstance(value, Mapping):
            if value or name != "metadata":
                group[name] = _group(value, f"'{name}'" if location == "the graph" else location)
        elif value is not None:
            group[name] = _dataset(name, value, location)
    return group


def _dataset(name: str, value: Any, location: str) -> Dataset:
    if isinstance(value, str):
        return text_dataset(value)
    if name == "edges":
        pairs = [list(map(str, pair)) for pair in value]
        return text_dataset(pairs) if pairs else Dataset(value=np.zeros(0), dtype=np.dtype(float))
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.array(value)
    if array.dtype.kind in "US":
        return text_dataset(array.tolist())
    if array.dtype.kind not in "biufc":
        raise GraphError(
            Text(
                "{location}: '{name}' has the type {type}, which a NIR file cannot contain",
                location=location,
                name=name,
                type=type(value).__name__,
            ),
            fix="convert it to numbers",
        )
    array.setflags(write=False)
    return Dataset(value=array, dtype=array.dtype)
