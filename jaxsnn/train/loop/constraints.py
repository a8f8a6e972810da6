"""Trainable parameters and their constraints, which no step of the optimiser can violate.

The optimiser moves a raw number without limits; the parameter is a smooth function of it. A
constraint is a frozen record. `low` may be the NIR name of another parameter of the same node: a
threshold above `v_reset`. `Constraint` is the interface of a user's constraint.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import Note, UsageError, as_number, listing, shown, suggestion, warn_of
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.network.neuron_models import STEPPED_KINDS, is_registered
from jaxsnn.network.structure import OPERATORS, TiedGain
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import CONSTANT_KEY
from jaxsnn.nir.model.nodes import class_of
from jaxsnn.units import parse_time
from jaxsnn.wording import Text

Parameters = dict[str, dict[str, jax.Array]]
NodeParameters = Mapping[str, jax.Array]
#: A parameter as an array, or its raw (unconstrained) values, of the same shape.
Numbers = Float[Array, "*shape"]


class Constraint(Protocol):
    """Constraint on a parameter: a frozen dataclass, hashable, because compiled code depends on it.

    Attributes:
        shared: whether one number is used for the entire array.
        rate: step size of the optimiser, as a multiple of the learning rate.
    """

    @property
    def shared(self) -> bool:
        """Return whether one number is used for the entire array."""
        ...

    @property
    def rate(self) -> float:
        """Step of the optimiser, as a multiple of the learning rate."""
        ...

    def to_raw(self, value: Numbers, node_parameters: NodeParameters, /) -> Numbers:
        """Return the raw number of a value, elementwise; `node_parameters` has all parameters of the node,
        times in seconds.
        """
        ...

    def to_value(self, raw: Numbers, node_parameters: NodeParameters, /) -> Numbers:
        """Return the value of a raw number, elementwise: differentiable inverse of `to_raw`."""
        ...


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Free:
    """Constraint to any number; the optimiser moves the parameter itself.

    Attributes:
        shared: whether one number is used for the entire array, whose initial values must be equal.
        rate: step size of the optimiser, as a multiple of the learning rate.
    """

    shared: bool = False
    rate: float = 1.0

    def to_raw(self, value: Numbers, node_parameters: NodeParameters) -> Numbers:
        """Return the raw number of a value."""
        return value

    def to_value(self, raw: Numbers, node_parameters: NodeParameters) -> Numbers:
        """Return the value of a raw number."""
        return raw


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Positive:
    """Constraint to values above `low`: low + e^raw. A step of 0.01 changes the distance from `low`
    by 1 %.

    Attributes:
        low: a number, or the name of a parameter of the same node.
        shared, rate: as in `Free`.
    """

    low: float | str = 0.0
    shared: bool = False
    rate: float = 1.0

    def to_raw(self, value: Numbers, node_parameters: NodeParameters) -> Numbers:
        """Return the raw number of a value."""
        return jnp.log(value - _number(self.low, node_parameters))

    def to_value(self, raw: Numbers, node_parameters: NodeParameters) -> Numbers:
        """Return the value of a raw number."""
        return _number(self.low, node_parameters) + jnp.exp(raw)


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Bounded:
    """Constraint to values between `low` and `high`: low + (high - low) sigmoid(raw).

    An initial value at a bound, where the sigmoid has no slope, is moved inside by a hundredth of the
    range, with a note.

    Attributes:
        low, high: numbers, for times in seconds.
        shared, rate: as in `Free`.
    """

    low: float
    high: float
    shared: bool = False
    rate: float = 1.0

    def to_raw(self, value: Numbers, node_parameters: NodeParameters) -> Numbers:
        """Return the raw number of a value."""
        share = jnp.clip((value - self.low) / (self.high - self.low), _EDGE, 1 - _EDGE)
        return jnp.log(share / (1 - share))

    def to_value(self, raw: Numbers, node_parameters: NodeParameters) -> Numbers:
        """Return the value of a raw number."""
        return self.low + (self.high - self.low) * jax.nn.sigmoid(raw)


_EDGE = 0.01

#: Constraints by their names in configuration files.
KINDS: Mapping[str, Any] = MappingProxyType(
    {"free": Free, "positive": Positive, "bounded": Bounded}
)

#: NIR parameters that can be trained, and their default limits; None: depends on the network.
TRAINABLE: Mapping[str, Constraint | None] = MappingProxyType(
    {
        "weight": Free(),
        "bias": Free(),
        "tau_mem": Positive(),
        "tau_syn": Positive(),
        "tau": Positive(),
        "v_threshold": Positive(low="v_reset"),
        "v_leak": Free(),
        "delay": None,
    }
)


@suggests_keywords
def unconstrain(
    network: Network | Graph,
    trainable: Iterable[str] | Mapping[str, Constraint | Mapping[str, Any]] = ("weight", "bias"),
) -> tuple[Parameters, Callable[[Parameters], Network]]:
    """Return numbers that an optimiser may change without limits, and the function that returns the
    network for such numbers: for your own training loop, with the constraints of `jaxsnn.fit`.

    Time constants are trained in log space: a step of 0.01 changes them by 1 %, and they stay positive,
    in a time-stepped framework above its time step. Only the parameters in `trainable` are in
    the numbers, all others are constant. Gains that the framework derives from a time constant follow
    it. Steps of weights are in their own units, not in PSP amplitudes as in `fit`. Initial values that
    are moved off a limit, and names that no node has, are reported in an `ApproximationWarning`.

    Args:
        network: network, or graph, of which weights that PyTorch does not train are then left out as in
            `fit`.
        trainable: names of parameters, or constraints by name, as the option of `fit`. A delay needs
            a constraint, because its default upper limit depends on the loss.

    Returns:
        Node name -> parameter name -> array; and a differentiable function of this pytree, the inverse.

    Raises:
        UsageError: a parameter that cannot be trained or that no node has, a delay without limits, an
            initial value outside the limits, or a constraint with another `rate` than 1.

    >>> import jaxsnn
    >>> from jaxsnn.nir import build
    >>> neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    >>> graph = build.sequential(build.input(2), build.linear(1), neurons, seed=0)
    >>> raw, network_of = unconstrain(jaxsnn.lower(graph), ("weight", "tau_mem"))
    >>> raw["2"]["tau_mem"] += 0.01
    >>> print(network_of(raw).parameters["2"]["tau_mem"])
    [0.020201]
    """
    fixed = ()
    if isinstance(network, Graph):
        fixed, network = constant_nodes(network), lower(network)
    requested = as_constraints(trainable)
    constraints = requested if isinstance(requested, Mapping) else {}
    for name in requested:
        if name.rpartition(".")[2] == "delay" and name not in constraints:
            raise UsageError(
                Text("{parameter} has no limits", parameter=name),
                fix=f'pass constraints, such as {{"{name}": Bounded(low=0.0, high=0.01)}}',
            )
    for name, constraint in constraints.items():
        if constraint.rate != 1:
            raise UsageError(
                Text(
                    "the rate of {parameter} is {rate}, and your own loop sets the steps",
                    parameter=name,
                    rate=shown(constraint.rate),
                ),
                fix="leave the rate out, and use optax.multi_transform",
            )
    trained, notes = find_trainables(network, requested, longest_delay=np.nan, constant_nodes=fixed)
    # There is no result that could hold notes.
    warn_of(Note(note, kind="approximated") for note in notes)
    return to_raw(network, trained), lambda raw: with_trained(network, trained, raw)


def constant_nodes(graph: Graph) -> tuple[str, ...]:
    """Return the names of the nodes whose weights are not weights of a layer of the PyTorch module."""
    return tuple(name for name, node in graph.nodes.items() if CONSTANT_KEY in node.metadata)


# Node and parameter -> constraint, hashable.
Trained = tuple[tuple[str, tuple[tuple[str, Constraint], ...]], ...]


def _number(low: float | str, parameters: NodeParameters):
    return parameters.get(low, 0.0) if isinstance(low, str) else low


def as_constraints(
    trainable: Iterable[str] | Mapping[str, Constraint | Mapping[str, Any]],
) -> tuple[str, ...] | dict[str, Constraint]:
    """Return names, or constraints by name; tables such as {"kind": "positive", "low": "1ms"} are
    converted to constraints.

    Raises:
        UsageError: an invalid table.
    """
    if isinstance(trainable, str):
        return tuple(name.strip() for name in trainable.split(",") if name.strip())
    if not isinstance(trainable, Mapping):
        return tuple(trainable)
    constraints = {
        name: _of_table(name, constraint) if isinstance(constraint, Mapping) else constraint
        for name, constraint in trainable.items()
    }
    for name, constraint in constraints.items():
        if isinstance(constraint, type) or not hasattr(constraint, "to_raw"):
            raise UsageError(
                Text("trainable.{parameter} is {value}", parameter=name, value=shown(constraint)),
                fix="pass a constraint: Free(), Positive() or Bounded(low=..., high=...)",
            )
    return constraints


def _of_table(name: str, table: Mapping[str, Any]) -> Constraint:
    arguments = dict(table)
    kind = arguments.pop("kind", "free")
    if kind not in KINDS:
        raise UsageError(
            Text("trainable.{parameter}: unknown kind '{kind}'", parameter=name, kind=kind),
            fix=suggestion(kind, KINDS),
        )
    for bound in ("low", "high"):  # of times, with a unit; another parameter's name stays text
        if isinstance(arguments.get(bound), str) and not arguments[bound].isidentifier():
            arguments[bound] = parse_time(arguments[bound])
    try:
        return KINDS[kind](**arguments)
    except TypeError as error:
        fix = f"see jaxsnn.train.{KINDS[kind].__name__}"
        raise UsageError(
            Text("trainable.{parameter}: {reason}", parameter=name, reason=str(error)), fix=fix
        ) from error


def find_trainables(
    network: Network,
    requested: Iterable[str] | Mapping[str, Constraint],
    *,
    longest_delay: float,
    constant_nodes: Collection[str] = (),
) -> tuple[Trained, tuple[str, ...]]:
    """Return the constraints of the requested parameters, in the network's order, and notes on values
    that are moved.

    Args:
        requested: NIR names, some of which the network need not have, or names with constraints, all of
            which it must have. "NODE.NAME" is the parameter of one node, and overrides "NAME".
        longest_delay: default upper limit of delays in seconds; the lower limit is 0.
        constant_nodes: nodes whose parameters are only trained if requested as "NODE.NAME".

    Raises:
        UsageError: a parameter that cannot be trained or that no node has, or an initial value
            outside the limits.
    """
    outside = _from_outside(network)
    known_names = {name: limits for (_, name), limits in outside.items()} | dict(TRAINABLE)
    by_key = dict(requested) if isinstance(requested, Mapping) else dict[str, Constraint]()
    for key in () if isinstance(requested, Mapping) else requested:
        name = key.rpartition(".")[2]
        _check_name(name, key, known_names)
        by_key[key] = known_names[name] or Bounded(low=0.0, high=longest_delay)
    trained, notes, used = [], [], dict.fromkeys(by_key, False)
    for node, parameters in network.parameters.items():
        of_node = []
        for name, value in parameters.items():
            keys = (f"{node}.{name}",) if node in constant_nodes else (f"{node}.{name}", name)
            key = next((key for key in keys if key in by_key), None)
            limits = outside.get((node, name))
            trainable_names = TRAINABLE if limits is None else known_names
            if key is None or (key == name and name in known_names and name not in trainable_names):
                continue  # only nodes outside of NIR can train a parameter of this name
            if name == "v_leak" and _leaks_to_zero(network, node):
                continue  # the source framework has no such leak
            used[key] = True
            _check_name(name, key, trainable_names)
            constraint = by_key[key]
            if not isinstance(requested, Mapping) and name not in TRAINABLE and limits is not None:
                constraint = limits  # of this node; other nodes may have a parameter of this name
            elif not isinstance(requested, Mapping) and isinstance(constraint, Positive):
                # Smaller time constants than the framework's time step make no sense.
                steps = [
                    tie.dt for tie in _ties(network, node) if tie.tau == name and tie.step.above_dt
                ]
                constraint = Positive(low=max(steps)) if any(steps) else constraint
            notes += _check_start(node, name, value, constraint, parameters)
            of_node.append((name, constraint))
        if of_node:
            trained.append((node, _bounds_first(of_node)))
    for key, is_used in used.items():
        _check_name(key.rpartition(".")[2], key, known_names)
        if not is_used and _is_unused(network, key):
            notes.append(
                Text(
                    "{parameter} is not trained, because the source framework does not use it",
                    parameter=key,
                )
            )
        elif not is_used and not isinstance(requested, Mapping) and key not in ("weight", "bias"):
            notes.append(Text("{parameter} is not trained, because no node has it", parameter=key))
        if not is_used and (isinstance(requested, Mapping) or "." in key):
            is_unknown = _is_unused(network, key)
            raise UsageError(
                Text("the source framework does not use {parameter}", parameter=key)
                if is_unknown
                else Text("the network has no parameter {parameter}", parameter=key),
                fix="leave it out"
                if is_unknown
                else f"nodes with parameters: {listing(network.parameters)}",
            )
    if not trained:
        raise UsageError(
            Text("the network has no parameter {parameter}", parameter=listing(by_key))
            if by_key
            else "trainable is empty",
            fix=f"nodes with parameters: {listing(network.parameters)}",
        )
    return tuple(trained), tuple(notes)


def _bounds_first(
    constraints: Iterable[tuple[str, Constraint]],
) -> tuple[tuple[str, Constraint], ...]:
    """Return the parameters of a node in an order in which each follows its lower bound."""
    waiting, ordered = dict(constraints), dict[str, Constraint]()
    while waiting:
        ready = [
            name
            for name, constraint in waiting.items()
            if getattr(constraint, "low", None) not in waiting
        ]
        # Parameters whose user-defined constraints bound each other have no order.
        ordered |= {name: waiting.pop(name) for name in ready or tuple(waiting)}
    return tuple(ordered.items())


def _is_unused(network: Network, key: str) -> bool:
    """Return whether a name is that of a v_leak that the source framework does not have."""
    node, _, name = key.rpartition(".")
    nodes = [node] if node else network.populations
    return name == "v_leak" and any(_leaks_to_zero(network, population) for population in nodes)


def _leaks_to_zero(network: Network, node: str) -> bool:
    return node in network.populations and network.populations[node].leaks_to_zero


def _ties(network: Network, node: str) -> tuple[TiedGain, ...]:
    return network.populations[node].ties if node in network.populations else ()


def _from_outside(network: Network) -> dict[tuple[str, str], Constraint]:
    """Return the limits of the parameters of nodes and neurons that are not in NIR, by node and name;
    integer parameters have none.
    """
    kinds = {wire.name: wire.kind for wire in network.wires if wire.linear or wire.function}
    kinds = {name: kind for name, kind in kinds.items() if kind not in OPERATORS}
    populations = network.populations.values()
    kinds |= {
        population.name: population.kind
        for population in populations
        if is_registered(population.kind) or population.kind in STEPPED_KINDS
    }
    limits_of: dict[tuple[str, str], Constraint] = {}
    for node, kind in kinds.items():
        for name in network.parameters.get(node, {}):
            parameter = class_of(kind).traits.parameter(name)
            if parameter is None:
                limits_of[node, name] = Free()
            elif parameter.whole:
                continue
            elif parameter.positive or parameter.least is not None:
                limits = Positive(low=parameter.least or 0.0, shared=parameter.single)
                limits_of[node, name] = limits
            else:
                limits_of[node, name] = Free(shared=parameter.single)
    return limits_of


def _check_name(name: str, key: str, known_names: Iterable[str]) -> None:
    if name not in known_names:
        raise UsageError(
            Text("'{parameter}' cannot be trained", parameter=key),
            fix=suggestion(name, known_names),
        )


def _check_start(
    node: str, name: str, value: Numbers, constraint: Constraint, parameters: NodeParameters
) -> list[str]:
    """Refuse initial values outside the limits; return notes on those at a bound, which are moved
    inside.
    """
    numbers = np.asarray(value, float)
    if constraint.shared and (numbers != numbers.flat[0]).any():
        raise UsageError(
            Text(
                "node '{node}': {parameter} is shared, and its initial values range from {minimum:g} "
                "to {maximum:g}",
                node=node,
                parameter=name,
                minimum=numbers.min(),
                maximum=numbers.max(),
            ),
            fix="use equal initial values",
            node=node,
        )
    _check_bounds(node, name, constraint, parameters)
    low = getattr(constraint, "low", None)
    if low is None:
        return []
    least = np.broadcast_to(np.asarray(_number(low, parameters), float), numbers.shape)
    most = np.full(numbers.shape, getattr(constraint, "high", np.inf))
    open_below = isinstance(constraint, Positive)
    outside = (numbers > most) | ((numbers <= least) if open_below else (numbers < least))
    if outside.any():
        place = int(outside.reshape(-1).argmax())
        raise UsageError(
            Text(
                "node '{node}': the initial value of {parameter} is {value:g}, outside its limits "
                "{minimum:g} and {maximum:g}",
                node=node,
                parameter=name,
                value=numbers.flat[place],
                minimum=least.flat[place],
                maximum=most.flat[place],
            ),
            fix="use an initial value inside the limits, or pass other limits",
            node=node,
        )
    if open_below:
        return []
    share = (numbers - least) / (most - least)
    moved = int(((share < _EDGE) | (share > 1 - _EDGE)).sum())
    if not moved:
        return []
    return [
        Text(
            "node '{node}': initial values of {parameter} that are moved away from a limit, to a hundredth "
            "of the range: {count} of {size}",
            node=node,
            count=moved,
            size=numbers.size,
            parameter=name,
        )
    ]


def _check_bounds(node: str, name: str, constraint: Constraint, parameters: NodeParameters) -> None:
    """Refuse a bound that is neither a finite number nor a parameter that a neuron may have, bounds
    without values in between, and a rate below 0.
    """
    if not 0 <= as_number(constraint.rate) < np.inf:
        raise UsageError(
            Text(
                "node '{node}': the rate of {parameter} is {rate}",
                node=node,
                parameter=name,
                rate=shown(constraint.rate),
            ),
            fix="pass a number of at least 0",
            node=node,
        )
    for bound in ("low", "high") if isinstance(constraint, Positive | Bounded) else ():
        value = getattr(constraint, bound, 0.0)
        if isinstance(value, str) and isinstance(constraint, Positive):
            # A parameter that the node lacks is 0, such as v_reset.
            parameter_names = {*parameters, *TRAINABLE, "v_reset", "r", "w_in"}
            wrong, fix = value not in parameter_names, suggestion(value, sorted(parameter_names))
        else:
            wrong = not np.isfinite(as_number(value))
            fix = "pass a finite number; times are in seconds"
        if wrong:
            raise UsageError(
                Text(
                    "node '{node}': {bound} of {parameter} is {value}",
                    node=node,
                    bound=bound,
                    parameter=name,
                    value=shown(value),
                ),
                fix=fix,
                node=node,
            )
    if isinstance(constraint, Bounded) and not constraint.low < constraint.high:
        raise UsageError(
            Text(
                "node '{node}': the limits of {parameter} are {minimum:g} and {maximum:g}",
                node=node,
                parameter=name,
                minimum=constraint.low,
                maximum=constraint.high,
            ),
            fix="pass low < high",
            node=node,
        )


def to_raw(network: Network, trained: Trained) -> Parameters:
    """Return the initial raw numbers of the optimiser."""
    raw = {}
    for node, constraints in trained:
        parameters = network.parameters[node]
        raw[node] = {
            name: constraint.to_raw(
                jnp.mean(parameters[name]) if constraint.shared else parameters[name],
                _means(parameters, constraint),
            )
            for name, constraint in constraints
        }
    return raw


def to_values(network: Network, trained: Trained, raw: Parameters) -> Parameters:
    """Return the parameters for raw numbers, in the network's shapes, with the gains that the
    source framework ties to them.
    """
    values: Parameters = {}
    for node, constraints in trained:
        parameters, values[node] = network.parameters[node], {}
        for name, constraint in constraints:  # trained bounds come first
            bounds = _means({**parameters, **values[node]}, constraint)
            value = constraint.to_value(raw[node][name], bounds)
            values[node][name] = jnp.broadcast_to(value, parameters[name].shape)
        for tie in _ties(network, node):
            if tie.tau in values[node] and tie.gain not in values[node]:
                values[node] |= _tied(tie, values[node][tie.tau], parameters[tie.gain])
    return values


def _tied(tie: TiedGain, tau: Numbers, before: Numbers) -> dict[str, Numbers]:
    """Return a trained time constant and the gain that the source framework derives from it; where
    the framework rounds the time constant, the rounded one.
    """
    dt = jnp.asarray(tie.dt, tau.dtype)
    gain = jnp.where(jnp.isfinite(tau), tie.step.gain(tau, dt, jnp), before)
    tied_tau = tau if tie.step.tau is None else tie.step.tau(gain, dt)
    return {tie.tau: jnp.where(jnp.isfinite(tied_tau), tied_tau, tau), tie.gain: gain}


def raw_is_particular(network: Network, trained: Trained) -> bool:
    """Return whether the meaning or the step size of raw numbers depends on more than the settings:
    trained bounds, gains tied to time constants, rates.
    """
    return any(
        constraint.rate != 1
        or getattr(constraint, "low", None) in dict(constraints)
        or any(tie.tau == name for tie in _ties(network, node))
        for node, constraints in trained
        for name, constraint in constraints
    )


def _means(parameters: NodeParameters, constraint: Constraint) -> NodeParameters:
    """Return the parameters with the bound of a shared constraint reduced to one number."""
    low = getattr(constraint, "low", None)
    if constraint.shared and isinstance(low, str) and low in parameters:
        return {low: jnp.max(parameters[low])}
    return parameters


def with_trained(network: Network, trained: Trained, raw: Parameters) -> Network:
    """Return the network with its trained parameters replaced."""
    values = to_values(network, trained, raw)
    return network.with_parameters(
        {
            node: {**parameters, **values.get(node, {})}
            for node, parameters in network.parameters.items()
        }
    )
