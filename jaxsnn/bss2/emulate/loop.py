"""The emulated chip as the device of training in the loop: weights are replaced, but routing and
calibration stay the same.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsnn.bss2.check.legality import members
from jaxsnn.bss2.chip import EXCITATORY, INHIBITORY, NOTHING_DEAD, ROWS_PER_DRIVER, Dead
from jaxsnn.bss2.emulate.connections import responding_pairs, stacked
from jaxsnn.bss2.emulate.emulated_chip import EmulatedChip
from jaxsnn.bss2.emulate.emulation import program_of
from jaxsnn.bss2.emulate.run_program import execute, late_inputs
from jaxsnn.bss2.examine import Examined, examine
from jaxsnn.bss2.mapping import Mapping as ChipMapping
from jaxsnn.bss2.mapping import to_json
from jaxsnn.bss2.netlist import LARGEST, Netlist, netlist
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import Quantized, QuantizeOptions, quantize, strength
from jaxsnn.bss2.search.rounding import HAIR
from jaxsnn.errors import MappingError, Problem, UsageError, as_number, shown, suggestion
from jaxsnn.event.event_options import EventOptions
from jaxsnn.network.network import Network
from jaxsnn.network.signals import signals
from jaxsnn.network.spikes import Events
from jaxsnn.nir.model.graph import Graph
from jaxsnn.options import BIAS, MAX_RUNS, SIGNS, SYNAPSES_PER_WEIGHT
from jaxsnn.wording import Text


class ChipInTheLoop:
    """Emulated chip as the device of training in the loop: pass it as
    `jaxsnn.train.InTheLoop(device=...)`.

    The graph is mapped once, with free signs and with all connections, including those of weight 0.
    Scales and potentials are fixed from then on, as on a calibrated chip. In each training step,
    the weights are multiplied by their scale, rounded half away from zero, clipped to 63 LSB and
    written into their synapses. The seed of the noise is derived from weights and inputs, so that a
    training run can be repeated and resumed.

    Biases shift leak potentials if `options` has `bias="leak"`, and are not trained. The gradient is
    that of the network, which starts in its initial state; the chip starts at rest.

    With several chips, each batch runs on one of them, sampled like the noise. The trained network
    then also works on other chips with the same spread.

    Args:
        graph: Graph to train, with its initial weights.
        chip: The chip, default `EmulatedChip()`, or several chips that differ only in their seeds.
        options: Options of quantisation; `scale` applies to the initial weights.
        headroom: Factor by which weights may grow in training before they saturate; scales are
            divided by it. One number, or a mapping from populations. The population with the
            largest scale has the highest threshold, in LSB; the potentials of populations with
            smaller scales are more sensitive to deviations.
        dead: Parts of the chip that must not be used.
        seed: Random seed of the mapping.
        max_runs: Maximum number of successive runs for a batch; None for no limit.

    Raises:
        MappingError: The chip cannot run the graph, or not with free signs.
        UsageError: An input channel replaces biases, a weight may take several synapses, the chips
            differ in more than their seeds, or an option is invalid.

    Attributes:
        chip: The first chip.
        chips: All chips.
        quantized: The graph, quantised with its initial weights.
        mapping: Mapping of `routed`.
        routed: Netlist with all connections.
        numbers: Arguments of compiled code: calibration, fixed pattern, and the key of the noise.
    """

    trainable: tuple[str, ...] = ("weight",)

    def __init__(
        self,
        graph: Graph,
        *,
        chip: EmulatedChip | Sequence[EmulatedChip] | None = None,
        options: QuantizeOptions | None = None,
        headroom: float | Mapping[str, float] = 2.0,
        dead: Dead = NOTHING_DEAD,
        seed: int = 0,
        max_runs: int | None = None,
    ):
        self.chips, options = _alike(chip), options or QuantizeOptions()
        self.chip = self.chips[0]
        first = quantize(graph, options)
        if first.bias_source is not None or options.synapses_per_weight != 1:
            raise UsageError(
                "training in the loop supports one synapse per weight, and no channel that replaces "
                "biases",
                fix=Text(
                    "pass {synapses_per_weight} and {bias}",
                    synapses_per_weight=SYNAPSES_PER_WEIGHT.set_to(1),
                    bias=BIAS.set_to("leak"),
                ),
            )
        self._scales = _scales(first, headroom)
        self.options = replace(options, scale=MappingProxyType(self._scales))
        self.quantized = quantize(graph, self.options)
        examined = examine(_without_zeros(graph))
        self.routed = _routed(self.quantized.netlist, examined)
        outcome = place_and_route(
            self.routed, dead=dead, signs="free", seed=seed, max_runs=max_runs
        )
        if outcome.mapping is None:
            problem = outcome.problem or Problem(message="no mapping was found")
            gave_up = outcome.stop_reason == "gave up"
            raise MappingError(
                "with free signs, which training requires: " + problem.message,
                fix=Text("make the layers smaller, or pass a larger {option}", option=MAX_RUNS)
                if gave_up
                else problem.fix,
                node=problem.node,
                code=problem.code,
                facts=problem.facts,
            )
        self.mapping: ChipMapping = outcome.mapping
        programs = [
            program_of(self.quantized, self.routed, self.mapping, emulated_chip)
            for emulated_chip in self.chips
        ]
        program = programs[0] if len(programs) == 1 else stacked(programs)
        self._structure = program.structure, len(programs)
        factors = _factors(examined, self.quantized, self._scales)
        self._parameters = {name: examined.parts[name].parameters for name in examined.neurons}
        biases = {name: part.wire.bias(part.parameters) for name, part in examined.parts.items()}
        self._biases = {name: np.asarray(bias) for name, bias in biases.items() if bias is not None}
        self.numbers: Any = (program, factors, jax.random.key(self.chip.seed))

    def __eq__(self, other: object) -> bool:
        """Return whether a device has the same connections on a chip of the same kind: runs with
        equal devices share compiled code. The `numbers`, which differ from chip to chip, are
        arguments of that code.
        """
        return isinstance(other, ChipInTheLoop) and self._structure == other._structure

    def __hash__(self) -> int:
        return hash(self._structure)

    @property
    def refractory(self) -> float:
        """Refractory period of all neurons, seconds of the network."""
        return self.quantized.refractory

    def with_numbers(self, numbers: Any) -> ChipInTheLoop:
        """Return the device with the numbers of another, equal chip; they may be traced."""
        other = copy.copy(self)
        other.numbers = numbers
        return other

    def refuse_other(self, network: Network) -> None:
        """Refuse a network whose neurons or biases differ from the mapped ones; only its weights are
        used.

        Args:
            network: Network with concrete parameters, no tracers.

        Raises:
            UsageError: A parameter differs; the message names population, parameter and values.
        """
        fix = "create the device, or on_chip(...), from this network"
        sizes = {part.name: part.size for part in self.routed.populations if not part.external}
        network_sizes = {name: population.size for name, population in network.populations.items()}
        if network_sizes != sizes:
            raise UsageError(
                Text(
                    "the network has populations of {actual} neurons; the chip's mapping has {expected}",
                    actual=network_sizes,
                    expected=sizes,
                ),
                fix=fix,
            )
        for name, size in sizes.items():
            for key, value in network.parameters[name].items():
                mapped = self._parameters[name].get(key, value)
                _refuse_different(name, key, "neuron", value, mapped, size, fix)
        for wire in network.wires:
            bias = wire.bias(network.parameters.get(wire.name, {}))
            bias = np.zeros(1) if bias is None else np.asarray(bias)
            mapped = self._biases.get(wire.name, np.zeros(1))
            size = max(bias.size, mapped.size)
            _refuse_different(wire.name, "bias", "channel", bias, mapped, size, fix)

    def forward_traced(
        self, network: Network, inputs: dict[str, Events], t_end: Any, options: EventOptions
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Return the spikes by population; see `jaxsnn.train.loop.in_the_loop.TracedDevice`."""
        program, factors, key = self.numbers
        weights = _rounded_weights(network, factors)
        key = jax.random.fold_in(key, _digest((weights, inputs)))
        if len(self.chips) > 1:
            drawn = jax.random.randint(key, (), 0, len(self.chips))
            program = jax.tree.map(lambda array: jnp.asarray(array)[drawn], program)
        recorded = execute(
            program, weights, inputs, t_end, jnp.zeros(1, network.dtype), key, options
        )
        return {name: (recorded.time[name], recorded.count[name]) for name in recorded.time}

    def late_inputs(self, inputs: Mapping[str, Events], t_end: float) -> int:
        """Return the number of events that the host, which sends one per cycle, sends at or after
        the end; it is larger in several runs, where the host also replays spikes.

        Args:
            inputs: Input node -> Events (batch, events), seconds of the file.
            t_end: seconds of the file.
        """
        return int(late_inputs(self.numbers[0], inputs, t_end))

    def with_weights(self, graph: Graph) -> tuple[Quantized, ChipMapping]:
        """Return the trained graph in LSB, and the mapping in which it was trained, with its
        weights.

        Raises:
            MappingError: the graph has other connections.
        """
        quantized = quantize(graph, self.options)
        return quantized, with_weights(self.mapping, self.routed, quantized.netlist)

    def as_dict(self) -> dict[str, Any]:
        """Return the device as a dict for JSON."""
        description = {
            "name": type(self).__name__,
            "chip": asdict(self.chip),
            "scales": self._scales,
            "mapping": hashlib.sha256(to_json(self.mapping).encode()).hexdigest(),
        }
        seeds = [emulated_chip.seed for emulated_chip in self.chips]
        return description if len(seeds) == 1 else description | {"chip_seeds": seeds}


def _refuse_different(
    node: str, parameter: str, part: str, value: Any, mapped: Any, size: int, fix: str
) -> None:
    """Refuse values of a parameter, (size,) or one number, that differ from the mapped ones."""
    actual, expected = (
        np.broadcast_to(np.ravel(values).astype(float), size) for values in (value, mapped)
    )
    differ = ~np.isclose(actual, expected, rtol=2**-16, atol=0)
    if differ.any():
        place = int(differ.argmax())
        raise UsageError(
            Text(
                "node '{node}': {parameter} of {part} {index} is {actual:g}; the chip was mapped for "
                "{expected:g}",
                node=node,
                parameter=parameter,
                part=part,
                index=place,
                actual=float(actual[place]),
                expected=float(expected[place]),
            ),
            fix=fix,
            node=node,
        )


def _rounded_weights(
    network: Network, factors: Mapping[str, Any]
) -> dict[tuple[str, str], jax.Array]:
    """Return the network's weights in LSB, rounded to integers."""
    rounded_weights = {}
    for target, signal in signals(network).items():
        for source, matrix in signal.matrices(network.dtype).items():
            exact = matrix * jnp.asarray(factors[target], network.dtype)
            rounded = jnp.sign(exact) * jnp.floor(jnp.abs(exact) * (1 + HAIR) + 0.5)
            rounded_weights[source, target] = jnp.clip(rounded, -LARGEST, LARGEST)
    return rounded_weights


def _alike(chip: EmulatedChip | Sequence[EmulatedChip] | None) -> tuple[EmulatedChip, ...]:
    """Return one or several chips as a tuple, checked to differ only by their seeds."""
    chips = (
        (chip or EmulatedChip(),) if chip is None or isinstance(chip, EmulatedChip) else tuple(chip)
    )
    if len({replace(emulated_chip, seed=0) for emulated_chip in chips}) != 1:
        raise UsageError(
            Text("the {count} chips of the loop may differ only in their seeds", count=len(chips)),
            fix="pass one chip, or chips that differ only in their seeds",
        )
    return chips


def _scales(quantized: Quantized, headroom: float | Mapping[str, float]) -> dict[str, float]:
    """Return the LSB of a weight of 1, by population, with headroom for weights to grow."""
    factors = (
        headroom if isinstance(headroom, Mapping) else dict.fromkeys(quantized.nodes, headroom)
    )
    for name in (*factors, *quantized.nodes):
        if name not in quantized.nodes:
            raise UsageError(
                Text(
                    "a headroom is specified for '{population}', which is not a population",
                    population=name,
                ),
                fix=suggestion(name, quantized.nodes),
            )
        if not 0 < as_number(factors.get(name)) < np.inf:
            value_text = shown(factors[name]) if name in factors else "not specified"
            raise UsageError(
                Text("the headroom of population '{node}' is {value}", node=name, value=value_text),
                fix="pass a positive number",
                node=name,
            )
    return {
        name: (report.scale or 1.0) / float(factors[name])
        for name, report in quantized.nodes.items()
    }


def _without_zeros(graph: Graph) -> Graph:
    """Return the graph with non-zero weights wherever training may set one."""
    nodes = []
    for node in graph.nodes.values():
        weight = np.asarray(node.parameters.get("weight", 1.0))
        if not weight.all():
            nodes.append(
                node.replace(weight=np.where(weight == 0, np.abs(weight).max() or 1.0, weight))
            )
    return graph.with_nodes(nodes)


def _routed(net: Netlist, examined: Examined) -> Netlist:
    """Return the net with all connections of the graph, including those whose first weights are
    zero.
    """
    begins = dict(zip((part.name for part in net.populations), net.offsets.tolist(), strict=False))
    pairs = [
        (begins[source] + links.source, begins[target] + links.target)
        for target in examined.neurons
        for source, links in examined.arriving[target].links.items()
    ]
    pre, post = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return netlist(net.populations, pre, post, np.ones(len(pre), int), net.quantization)


def _factors(
    examined: Examined, quantized: Quantized, scales: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Return the LSB of a weight of 1, (neurons,) by population."""
    factors = {}
    for name, examined_neurons in examined.neurons.items():
        factor = strength(examined_neurons, quantized.speedup)
        factors[name] = scales[name] * factor / factor.max()
    return factors


def _digest(tree: Any) -> jax.Array:
    """Return a hash of the arrays of a tree, uint32."""
    total = jnp.zeros((), jnp.uint32)
    for array in jax.tree.leaves(tree):
        bits = lax.bitcast_convert_type(array.astype(jnp.float32), jnp.uint32).reshape(-1)
        place = jnp.arange(bits.size, dtype=jnp.uint32)
        total = total * jnp.uint32(31) + jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)
    return total


def with_weights(mapping: ChipMapping, routed: Netlist, net: Netlist) -> ChipMapping:
    """Return a mapping with free signs whose synapses have the weights of another netlist.

    Args:
        mapping: Mapping of `routed`, without violations.
        routed: Netlist with all connections that `net` may have, one synapse each.
        net: Netlist with the weights; weights of zero take no synapse.

    Raises:
        MappingError: The signs are fixed, a weight takes several synapses, or a connection was not
            routed.
    """
    if mapping.signs != "free":
        raise MappingError(
            Text(
                "the mapping's signs are '{signs}'; weights can be replaced only with free signs",
                signs=mapping.signs,
            ),
            fix=Text("pass {signs} when mapping", signs=SIGNS.set_to("free")),
        )
    largest = int(np.abs(net.weight).max(initial=0))
    if largest > LARGEST:
        raise MappingError(
            Text(
                "a weight is {value}; the largest weight of one synapse is {maximum}",
                value=largest,
                maximum=LARGEST,
            ),
            fix="pass a smaller scale",
        )
    routed_pairs = routed.pre.astype(np.int64) * net.size + routed.post
    weighted_pairs = net.pre.astype(np.int64) * net.size + net.post
    missing = np.flatnonzero(~np.isin(weighted_pairs, routed_pairs))
    if missing.size:
        pair = f"{net.neuron(net.pre[missing[0]])} to {net.neuron(net.post[missing[0]])}"
        raise MappingError(
            Text(
                "connections that were not routed: {count}, the first from {source} to {target}",
                count=missing.size,
                source=net.neuron(net.pre[missing[0]]),
                target=net.neuron(net.post[missing[0]]),
            ),
            fix="map the network again",
        )
    order = np.argsort(weighted_pairs)
    keys, weights = weighted_pairs[order], net.weight[order].astype(np.int64)
    runs = []
    for run in mapping.runs:
        synapse, _, sender, neuron = responding_pairs(routed, mapping.chip, run)
        _, first = np.unique(synapse, return_index=True)
        pair = sender[first] * routed.size + members(routed, run).neurons[neuron[first]]
        place = np.minimum(np.searchsorted(keys, pair), max(len(keys) - 1, 0))
        value = np.zeros(len(pair), np.int64)
        if len(keys):
            value = np.where(keys[place] == pair, weights[place], 0)
        hemisphere, old_row, column, label, _ = run.synapses[synapse[first]].T
        # The row of the same driver that has the sign of the weight.
        rows = old_row[:, None] // ROWS_PER_DRIVER * ROWS_PER_DRIVER + np.arange(ROWS_PER_DRIVER)
        modes = run.row_modes[hemisphere[:, None], rows]
        is_right = modes == np.where(value > 0, EXCITATORY, INHIBITORY)[:, None]
        row = rows[np.arange(len(rows)), is_right.argmax(axis=1)]
        new = np.stack([hemisphere, row, column, label, np.abs(value)], axis=1)[value != 0]
        new = new[np.lexsort((new[:, 2], new[:, 1], new[:, 0]))]
        runs.append(replace(run, synapses=new.astype(np.int32)))
    return replace(
        mapping,
        fingerprint=net.fingerprint(quantization=net.quantization),
        quantization=net.quantization,
        scales=None,
        runs=tuple(runs),
    )
