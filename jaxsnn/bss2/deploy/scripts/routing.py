"""The routing of network.json as pygrenade's RoutingResult, for
`hxtorch.spiking.Experiment(hw_routing_func=...)`.

Written for BrainScaleS OS 12, where networks are built with NetworkBuilder. The weight of a
connection with one synapse may change without a new mapping; its sign may change only if the
mapping's signs are free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

EXCITES, INHIBITS = 1, 2

#: A part of network.json.
Content = dict[str, Any]
#: Key of a population of the network -> its group of the run, None for the sources.
Owners = dict[Any, int | None]
#: Ends of a connection: group (None: the sources) and index of the source, then of the target.
Ends = tuple[int | None, int, int | None, int]


def routing_function(net: Content, run: Content) -> Callable[[Any], Any]:
    """Return the function that routes the network of a run; `net`, `run` are of network.json."""

    def route(network: Any) -> Any:
        import pygrenade_vx.network as grenade

        ((identifier, instance),) = dict(network.execution_instances).items()
        result, routed = grenade.RoutingResult(), grenade.RoutingResult.ExecutionInstance()
        set_chip(routed, run)
        owners = populations(instance, run, grenade)
        routed.external_spike_labels = labels_of_sources(owners, run)
        routed.internal_neuron_labels = labels_of_neurons(owners, run)
        routed.connections, routed.connection_routing_result = connections(
            instance, owners, net, run, grenade
        )
        result.execution_instances = {identifier: routed}
        return result

    return route


def set_chip(routed: Any, run: Content) -> None:
    """Set crossbar nodes, compare masks and row modes."""
    from dlens_vx_v3 import hal, halco

    modes = hal.SynapseDriverConfig.RowMode
    named = [modes.disabled, modes.excitatory, modes.inhibitory, modes.excitatory_and_inhibitory]
    rows = [mode for side in run["row_modes"] for mode in side]
    masks = [mask for side in run["compare_masks"] for mask in side]
    routed.synapse_row_modes = {
        halco.SynapseRowOnDLS(halco.common.Enum(place)): named[mode]
        for place, mode in enumerate(rows)
    }
    routed.synapse_driver_compare_masks = {
        halco.SynapseDriverOnDLS(halco.common.Enum(place)): mask for place, mask in enumerate(masks)
    }
    nodes = {}
    for entry, output, mask, target in run["crossbar"]:
        node = hal.CrossbarNode()
        node.mask, node.target = halco.NeuronLabel(mask), halco.NeuronLabel(target)
        place = halco.CrossbarNodeOnDLS(
            halco.CrossbarOutputOnDLS(output), halco.CrossbarInputOnDLS(entry)
        )
        nodes[place] = node
    routed.crossbar_nodes = nodes


def populations(instance: Any, run: Content, grenade: Any) -> Owners:
    """Map each population of the network to its group in the run; None for the sources."""
    heads = {tuple(group["heads"]): number for number, group in enumerate(run["groups"])}
    owners = {}
    for key, population in dict(instance.populations).items():
        if isinstance(population, grenade.ExternalSourcePopulation):
            if len(population.neurons) != max(len(run["sources"]), 1):
                raise RuntimeError(
                    f"the network has {len(population.neurons)} sources; the mapping has"
                    f" {len(run['sources'])}: use the modules that run_hxtorch.py builds"
                )
            owners[key] = None
            continue
        circuits = tuple(
            neuron.coordinate.get_atomic_neurons()[0].toEnum().value()
            for neuron in population.neurons
        )
        if circuits not in heads:
            raise RuntimeError(
                f"a population of {len(circuits)} neurons is not placed as in the mapping: pass"
                " placement_constraint"
            )
        owners[key] = heads[circuits]
    return owners


def labels_of_sources(owners: Owners, run: Content) -> dict[Any, list[list[Any]]]:
    """Return the events that the host sends for each source; without sources, those of one silent
    source.
    """
    from dlens_vx_v3 import halco

    labels = [[halco.SpikeLabel(event) for event in source["events"]] for source in run["sources"]]
    labels = labels or [[]]
    return {key: labels for key, group in owners.items() if group is None}


def labels_of_neurons(owners: Owners, run: Content) -> dict[Any, list[dict[Any, list[Any]]]]:
    """Return the address of each neuron; only the first circuit of a neuron has one."""
    from dlens_vx_v3 import halco

    labels = {}
    for key, number in owners.items():
        if number is not None:
            group = run["groups"][number]
            rest = [None] * (len(group["shape"]) - 1)
            labels[key] = [
                {halco.CompartmentOnLogicalNeuron(): [address, *rest]}
                for address in group["addresses"]
            ]
    return labels


def connections(
    instance: Any, owners: Owners, net: Content, run: Content, grenade: Any
) -> tuple[dict[Any, list[Any]], dict[Any, list[Any]]]:
    """Return the placed synapses of each connection, and the circuits that they end at."""
    synapses = by_connection(run)
    placed, routes = {}, {}
    for key, projection in dict(instance.projections).items():
        pre = owners[projection.population_pre]
        post = owners[projection.population_post]
        sign = INHIBITS if projection.receptor.type == grenade.Receptor.Type.inhibitory else EXCITES
        placed[key], routes[key] = [], []
        for connection in projection.connections:
            ends = (pre, connection.index_pre[0], post, connection.index_post[0])
            connection_synapses = synapses_for(
                synapses.get(ends, []), connection.weight.value(), sign, net, run, ends
            )
            placed[key].append(
                [placed_connection(synapse, grenade) for synapse in connection_synapses]
            )
            route = grenade.ConnectionToHardwareRoutes()
            route.atomic_neurons_on_target_compartment = [
                synapse["circuit"] for synapse in connection_synapses
            ]
            routes[key].append(route)
    return placed, routes


def by_connection(run: Content) -> dict[Ends, list[Content]]:
    """Map each connection (group or None, place in it, group, place in it) to its synapses."""
    places = {number: (None, number) for number in range(len(run["sources"]))}
    for number, group in enumerate(run["groups"]):
        for place, neuron in enumerate(group["neurons"]):
            places[len(run["sources"]) + neuron] = (number, place)
    synapses = {}
    keys = ("side", "row", "column", "label", "weight", "circuit")
    table = run["synapses"]
    for pre, post, *values in zip(
        table["pre"], table["post"], *(table[key] for key in keys), strict=True
    ):
        ends = (*places[pre], *places[len(run["sources"]) + post])
        synapses.setdefault(ends, []).append(dict(zip(keys, values, strict=True)))
    return synapses


def synapses_for(
    synapses: Sequence[Content], weight: int, sign: int, net: Content, run: Content, ends: Ends
) -> Sequence[Content]:
    """Return the synapses of a connection in a projection of one sign, with the current weight."""
    if weight == 0:
        return []
    if not synapses:
        raise RuntimeError(
            f"connection {ends} has weight {weight}, but no synapse, as its weight was 0 when it was"
            " mapped: map again"
        )
    if sum(synapse["weight"] for synapse in synapses) != weight:
        if len(synapses) > 1 or weight > net["largest_weight"]:
            raise RuntimeError(
                f"connection {ends} has weight {weight}, but {len(synapses)} synapses for another weight: map"
                " again"
            )
        synapses = [{**synapses[0], "weight": weight}]
    if run["row_modes"][synapses[0]["side"]][synapses[0]["row"]] == sign:
        return synapses
    if net["signs"] != "free":
        raise RuntimeError(
            f"connection {ends} changed its sign after it was mapped: map again, if needed with free"
            " signs"
        )
    return [
        {**synapse, "row": synapse["row"] ^ 1} for synapse in synapses
    ]  # the driver's other row


def placed_connection(synapse: Content, grenade: Any) -> Any:
    """Return a synapse as a placed connection of grenade."""
    from dlens_vx_v3 import halco

    placed = grenade.RoutingResult.ExecutionInstance.PlacedConnection()
    placed.weight, placed.label = synapse["weight"], synapse["label"]
    placed.synapse_row = halco.SynapseRowOnDLS(
        halco.common.Enum(halco.SynapseRowOnSynram.size * synapse["side"] + synapse["row"])
    )
    placed.synapse_on_row = halco.SynapseOnSynapseRow(synapse["column"])
    return placed
