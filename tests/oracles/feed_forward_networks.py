"""Spikes of feed-forward networks: every channel of every source, and every bias once, is followed
along the edges to the neurons that it reaches.

A network is nodes, name -> (NIR's type, its parameters as arrays), and edges, pairs of names.
"""

from graphlib import TopologicalSorter

import numpy as np

from tests.oracles import cubalif_series


def spikes(nodes, edges, inputs, t_end, *, area=None, limit=100):
    """Spikes of every population of Input, Output, Linear, Affine, Scale and CubaLIF nodes: name ->
    (samples, neurons, limit).

    Args:
        inputs: name -> (times, channels), arrays (samples, events).
        area: spike area in seconds; None: tau_syn, so that a spike of weight w moves I by w_in w.
    """
    followers = {name: [end for start, end in edges if start == name] for name in nodes}
    before = {name: [start for start, end in edges if end == name] for name in nodes}
    trains, found = dict(inputs), {}
    currents = _currents(nodes, followers)
    sizes = {name: int(nodes[name][1]["shape"][0]) for name in inputs}
    for name in TopologicalSorter(before).static_order():
        kind, parameters = nodes[name]
        if kind != "CubaLIF":
            continue
        size = sizes[name] = len(parameters["tau_mem"])
        weights, times, rows = _arrivals(nodes, followers, trains, sizes, name)
        found[name] = cubalif_series.population(
            {key: np.asarray(value, float) for key, value in parameters.items()},
            weights,
            times,
            rows,
            t_end,
            current=currents.get(name, 0.0),
            area=parameters["tau_syn"] if area is None else area,
            limit=limit,
        )
        channels = np.broadcast_to(np.arange(size)[:, None], found[name].shape)
        trains[name] = tuple(part.reshape(len(times), -1) for part in (found[name], channels))
    return found


def _arrivals(nodes, followers, trains, sizes, name):
    """What reaches a population: weights (rows, neurons), times and rows (samples, arrivals)."""
    samples = len(next(iter(trains.values()))[0])
    nothing = np.zeros(sizes[name])
    weights, times, rows = [], [np.zeros((samples, 0))], [np.zeros((samples, 0), int)]
    for source, (when, channel) in trains.items():
        times.append(when)
        rows.append(channel + len(weights))
        for row in np.eye(sizes[source]):
            weights.append(_reached(nodes, followers, source, row, {}).get(name, nothing))
    weights = np.array(weights).reshape(-1, sizes[name])
    return weights, np.concatenate(times, axis=1), np.concatenate(rows, axis=1)


def _currents(nodes, followers):
    """The constant currents that biases make: name of a population -> (neurons,)."""
    currents = {}
    for name, (kind, parameters) in nodes.items():
        if kind == "Affine":
            for target, vector in _reached(nodes, followers, name, parameters["bias"], {}).items():
                currents[target] = currents.get(target, 0.0) + vector
    return currents


def _reached(nodes, followers, name, vector, found):
    """Follows what leaves a node along the edges, through linear nodes, and adds it up at the
    neurons.
    """
    for target in followers[name]:
        kind, parameters = nodes[target]
        if kind in ("Linear", "Affine"):
            _reached(nodes, followers, target, parameters["weight"] @ vector, found)
        elif kind == "Scale":
            _reached(nodes, followers, target, parameters["scale"] * vector, found)
        elif kind == "CubaLIF":
            found[target] = found.get(target, 0.0) + vector
        else:
            assert kind == "Output", kind
    return found
