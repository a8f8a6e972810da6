"""What Spyx's importer needs: one chain, its names, nested loops, biases that start when the
layer's input does.
"""

from __future__ import annotations

from typing import Any

import networkx
import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.convert.draft import NEURON_TYPES, WEIGHTED, Draft, as_node, identity
from jaxsnn.nir.graph import Edge
from jaxsnn.nir.passes import window

#: What must arrive in each step at an additional neuron so that it fires in each step, by type; its
#: v_threshold is 1 and half of its membrane stays from step to step.
_DRIVE = {"LIF": 2.0, "CubaLIF": 2.0, "IF": 1.5}


def chain_for_spyx(draft: Draft, recurrent: list[Edge], late: bool, dt: float) -> None:
    """Names and nesting for Spyx, which walks from a node named `input` along first edges to
    `output`.

    Args:
        draft: Edited in place.
        recurrent: Edges from the weights of a loop to its neuron.
        late: The source's layers take no step, Spyx's take one each.
        dt: Step of the file in seconds.
    """
    if late:
        _constant_neurons(draft, recurrent, dt)
    for weights, neuron in recurrent:
        _nest(draft, weights, neuron)
    for kind, name in (("Input", "input"), ("Output", "output")):
        _rename(draft, draft.of_type(kind)[0], name)


def _nest(draft: Draft, weights: str, neuron: str) -> None:
    """The neuron and its weights as the nested graph that Spyx writes for a recurrent layer."""
    name = neuron.removesuffix(".lif")
    while name != neuron and name in draft.nodes:
        name += "_"
    shape = np.array(draft.shapes[neuron][1])
    lif, w_rec, start, end = (f"{name}.{part}" for part in ("lif", "w_rec", "input", "output"))
    inner: dict[str, Any] = {
        lif: draft.nodes.pop(neuron),
        w_rec: draft.nodes.pop(weights),
        start: {"type": "Input", "shape": shape},
        end: {"type": "Output", "shape": shape},
    }
    edges = [(start, w_rec), (w_rec, lif), (lif, w_rec), (lif, end)]
    loop = {(weights, neuron), (neuron, weights)}
    draft.edges = [
        (name if source == neuron else source, name if target == neuron else target)
        for source, target in draft.edges
        if (source, target) not in loop
    ]
    draft.nodes[name] = {"type": "NIRGraph", "nodes": inner, "edges": edges}
    draft.changed(
        name,
        f"'{neuron}' and '{weights}' are nested in it",
        "Spyx takes a recurrent layer as a nested graph",
    )


def _rename(draft: Draft, old: str, new: str) -> None:
    if old == new:
        return
    if new in draft.nodes:
        _rename(draft, new, f"{new}_")
    draft.nodes = {new if name == old else name: entry for name, entry in draft.nodes.items()}
    draft.edges = [(new if a == old else a, new if b == old else b) for a, b in draft.edges]
    draft.changed(new, f"'{old}' is renamed", "Spyx's importer walks from 'input' to 'output'")


def _constant_neurons(draft: Draft, recurrent: list[Edge], dt: float) -> None:
    """Replace each bias behind a layer of neurons by a neuron of that layer that fires in each
    step.

    In Spyx layer n sees its input n - 1 steps late, but its bias at once. A neuron that fires in
    each step from its layer's first one on is late by as much as the input.
    """
    chain = list(
        networkx.topological_sort(
            networkx.DiGraph([edge for edge in draft.edges if edge not in set(recurrent)])
        )
    )
    loops = {neuron: weights for weights, neuron in recurrent}
    chain = [name for name in chain if name not in loops.values()]
    layers = (
        number for number, name in enumerate(chain) if draft.nodes[name]["type"] in NEURON_TYPES
    )
    first = next(layers, len(chain))
    biased = [n for n in range(first, len(chain)) if np.any(draft.nodes[chain[n]].get("bias", 0))]
    if not biased:
        return
    if not any(draft.nodes[name]["type"] in WEIGHTED for name in chain[:first]):
        entry = identity(draft.shapes[chain[first]][0])
        chain.insert(
            first, draft.insert((chain[first - 1], chain[first]), f"{chain[first]}_weights", entry)
        )
        biased = [number + 1 for number in biased]
    amplitude, space = None, None
    for number, name in enumerate(chain[: biased[-1] + 1]):
        entry = draft.nodes[name]
        if entry["type"] in WEIGHTED:
            ends = [draft.nodes[after]["type"] for after in chain[number + 1 :]]
            after = next((kind for kind in ends if kind in (*NEURON_TYPES, *WEIGHTED)), "")
            wanted = _DRIVE.get(after, 1.0) if number < biased[-1] else None
            draft.nodes[name] = _widened(name, entry, amplitude, wanted, space)
            amplitude, space = wanted, None
        elif entry["type"] in NEURON_TYPES and amplitude is not None:
            draft.nodes[name] = _with_constant_neuron(entry, dt)
            size, *space_shape = draft.shapes[name][1]
            draft.shapes[name] = ((size + 1, *space_shape), (size + 1, *space_shape))
            why = (
                "a bias behind it starts with its layer, "
                "which Spyx's input reaches a step later for each layer before"
            )
            draft.changed(
                name, "a neuron that fires in each step is added, in place of the next bias", why
            )
            amplitude = 1.0
            if name in loops:
                weights = draft.nodes[loops[name]]
                draft.nodes[loops[name]] = weights | {
                    "weight": np.pad(weights["weight"], ((0, 1), (0, 1)))
                }
        elif amplitude is not None:
            if entry["type"] == "SumPool2d":
                amplitude *= float(np.prod(window(as_node(name, entry)).kernel))
            if entry["type"] == "Flatten":
                shape = draft.shapes[name][0]
                space = shape[1:]
                draft.nodes[name] = entry | {"input_type": np.array((shape[0] + 1, *shape[1:]))}


def _widened(
    name: str,
    entry: dict[str, Any],
    amplitude: float | None,
    wanted: float | None,
    space: tuple[int, ...] | None,
) -> dict[str, Any]:
    """Weights with a constant input of `amplitude` in place of the bias, and with a constant output
    of `wanted`.

    `space`: height and width of a Flatten before it, whose order is height, width, channel.
    """
    weight, bias = (
        np.asarray(entry["weight"]),
        np.asarray(entry.get("bias", np.zeros(len(entry["weight"])))),
    )
    rows = 0 if wanted is None else 1
    if entry["type"] == "Conv2d":
        tap = tuple(int(before) for before, _ in window(as_node(name, entry)).padding or ())
        if len(tap) != 2 or any(
            place >= size for place, size in zip(tap, weight.shape[2:], strict=True)
        ):
            raise ConversionError(
                f"node '{name}' pads by more than its kernel, "
                "whose weights must hold its bias for Spyx",
                fix="pad by less, or leave its bias out",
                node=name,
            )
        wide = np.pad(weight, ((0, rows), (0, int(amplitude is not None)), (0, 0), (0, 0)))
        source, place = -1, tap
    elif space is None or amplitude is None:
        wide = np.pad(weight, ((0, rows), (0, int(amplitude is not None))))
        source, place = -1, ()
    else:
        by_place = weight.reshape(len(weight), *space, -1)
        wide = np.pad(by_place, ((0, rows), *((0, 0) for _ in space), (0, 1))).reshape(
            len(weight) + rows, -1
        )
        source, place = by_place.shape[-1], ()
    new_bias = np.pad(bias, (0, rows))
    if rows:
        new_bias[-1] = wanted
    if amplitude is not None:
        wide[(slice(None), source, *place)] = new_bias / amplitude
        new_bias = np.zeros_like(new_bias)
    made = entry | {"weight": wide, "bias": new_bias}
    return made if entry["type"] != "Linear" else made | {"type": "Affine"}


def _with_constant_neuron(entry: dict[str, Any], dt: float) -> dict[str, Any]:
    half, one = 0.5, 1.0
    values = {
        "tau": dt / half,
        "tau_mem": dt / half,
        "tau_syn": dt,
        "r": half,
        "w_in": one,
        "v_leak": 0.0,
    }
    values |= {"v_threshold": one, "v_reset": 0.0}
    if entry["type"] == "IF":
        values["r"] = one
    return {
        key: np.concatenate([value, np.full((1, *value.shape[1:]), values[key])])
        if key in values
        else value
        for key, value in entry.items()
    }
