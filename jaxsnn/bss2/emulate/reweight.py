"""Other weights in the same places: routing is done once, training moves weights, and signs where
they are free.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsnn.bss2.check.order import members
from jaxsnn.bss2.chip import EXCITATORY, INHIBITORY, ROWS_PER_DRIVER, Chip
from jaxsnn.bss2.emulate.connections import responding_pairs
from jaxsnn.bss2.mapping import Mapping, Run
from jaxsnn.bss2.netlist import LARGEST, Netlist, netlist
from jaxsnn.errors import MappingError


def every_connection(net: Netlist, pre: np.ndarray, post: np.ndarray) -> Netlist:
    """The net with a weight of 1 for each of some pairs of neurons (global indices): what is routed
    for training.
    """
    return netlist(net.populations, pre, post, np.ones(len(pre), int))


def with_weights(mapping: Mapping, routed: Netlist, net: Netlist) -> Mapping:
    """A mapping with free signs, its synapses refilled with a net's weights.

    Args:
        mapping: of `routed`, without violations.
        routed: a net with all connections that `net` may have, one synapse each.
        net: the weights; those that are zero take no synapse.

    Raises:
        MappingError: signs are fixed, a weight takes several synapses, or a connection was not
            routed.
    """
    if mapping.signs != "free":
        raise MappingError(
            f"the mapping's signs are '{mapping.signs}', weights change in place under free signs",
            fix='map with signs="free"',
        )
    largest = int(np.abs(net.weight).max(initial=0))
    if largest > LARGEST:
        raise MappingError(
            f"a weight is {largest}, one synapse carries {LARGEST}", fix="choose a smaller scale"
        )
    known = routed.pre.astype(np.int64) * net.size + routed.post
    wanted = net.pre.astype(np.int64) * net.size + net.post
    missing = np.flatnonzero(~np.isin(wanted, known))
    if missing.size:
        pair = f"{net.neuron(net.pre[missing[0]])} to {net.neuron(net.post[missing[0]])}"
        raise MappingError(
            f"{missing.size} connections were not routed, the first from {pair}",
            fix="map the network again",
        )
    order = np.argsort(wanted)
    keys, weights = wanted[order], net.weight[order].astype(np.int64)
    runs = tuple(_refilled(mapping.chip, run, routed, keys, weights) for run in mapping.runs)
    return dataclasses.replace(mapping, fingerprint=net.fingerprint(), runs=runs)


def _refilled(chip: Chip, run: Run, routed: Netlist, keys: np.ndarray, weights: np.ndarray) -> Run:
    synapse, _, sender, neuron = responding_pairs(routed, chip, run)
    _, first = np.unique(synapse, return_index=True)
    pair = sender[first] * routed.size + members(routed, run).neurons[neuron[first]]
    place = np.minimum(np.searchsorted(keys, pair), max(len(keys) - 1, 0))
    value = (
        np.where(keys[place] == pair, weights[place], 0)
        if len(keys)
        else np.zeros(len(pair), np.int64)
    )
    old = run.synapses[synapse[first]]
    hemisphere, driver = old[:, 0], old[:, 1] // ROWS_PER_DRIVER
    rows = ROWS_PER_DRIVER * driver[:, None] + np.arange(ROWS_PER_DRIVER)
    modes = run.row_modes[hemisphere[:, None], rows]
    right = modes == np.where(value > 0, EXCITATORY, INHIBITORY)[:, None]
    row = rows[np.arange(len(rows)), right.argmax(axis=1)]
    new = np.stack([hemisphere, row, old[:, 2], old[:, 3], np.abs(value)], axis=1)[value != 0]
    new = new[np.lexsort((new[:, 2], new[:, 1], new[:, 0]))]
    return dataclasses.replace(run, synapses=new.astype(np.int32))
