"""Optimisers and learning-rate schedules, by name or as optax objects, and steps with the same effect
in every dialect.

The unit of weights depends on the dialect: a weight of snnTorch, for example, is about dt / tau_mem
times the jump of the synaptic current that it causes. The optimiser therefore uses units of the effect
of a weight, its PSP amplitude ("kick"). This is the jump of R I in the target population after a spike
(for LIF and IF, the jump of V), divided by v_threshold - v_reset (in a readout, which has no threshold,
by 1). For weights from a readout, it is the effect of a voltage of 1.
The effect of a bias ("lift") is the shift of the resting voltage (for IF, which has none, the change of
V during a sample), divided by the same difference. A step of 0.01 changes kicks and lifts by 0.01.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax

from jaxsnn.errors import UsageError, as_number, first_line, shown, suggestion
from jaxsnn.event.dynamics.kinds import neuron_of
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.network.network import Network
from jaxsnn.network.neuron_models import STEPPED_KINDS
from jaxsnn.network.on_processor import in_numpy, to_jax
from jaxsnn.network.operators import identity, through
from jaxsnn.network.structure import OPERATORS, Wire, carried
from jaxsnn.options import OPTIMISER, WEIGHT_DECAY
from jaxsnn.train.loop.constraints import Free, Parameters, Trained
from jaxsnn.wording import Text

Schedule = Callable[[Any], Any]


#: Name -> function that returns the optimiser, which turns gradients into the direction of a step; the
#: schedule determines its length.
OPTIMISERS: Mapping[str, Callable[[], optax.GradientTransformation]] = MappingProxyType(
    {
        "adam": optax.scale_by_adam,
        "adamw": optax.scale_by_adam,
        "adamax": optax.scale_by_adamax,
        "nadam": lambda: optax.scale_by_adam(nesterov=True),
        "lion": optax.scale_by_lion,
        "rmsprop": optax.scale_by_rms,
        "momentum": lambda: optax.trace(decay=0.9),
        "sgd": optax.identity,
    }
)

#: Default weight decay of AdamW, as a fraction of each weight per step.
ADAMW_DECAY = 0.01
_WARM_UP, _HALVINGS = 0.05, 6
#: Sizes of gradients for tests that distinguish optimisers; several sizes, as some optimisers
#: accumulate gradients over steps.
_PROBES = (1.0, -0.25, 3.0, 30.0, 300.0, -1e-2, 1e-4, 10.0, 1.0)


def _cosine(phase: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.cos(np.pi * phase))


#: Name -> learning rate as a fraction of the largest, by the phase of the run from 0 to 1.
SCHEDULES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {
        "cosine": _cosine,
        "constant": np.ones_like,
        "linear": lambda phase: 1 - phase,
        "exponential": lambda phase: 2.0 ** (-_HALVINGS * phase),
        "warm-up": lambda phase: np.where(
            phase < _WARM_UP, phase / _WARM_UP, _cosine((phase - _WARM_UP) / (1 - _WARM_UP))
        ),
    }
)


def optimiser_of(
    choice: str | optax.GradientTransformation, weight_decay: float | None = None
) -> optax.GradientTransformation:
    """Return the optimiser of a name, or the specified optimiser itself.

    Args:
        weight_decay: decay of weights, decoupled from the gradient: the fraction, times the learning
            rate, that is subtracted from each weight per step. None: the default of the optimiser.

    Raises:
        UsageError: an unknown optimiser, an object that is not an optimiser, or an optimiser object
            with `weight_decay`.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """
    if isinstance(choice, str):
        usual = ADAMW_DECAY if choice == "adamw" else 0.0
        return _named(choice, usual if weight_decay is None else weight_decay)
    if weight_decay:
        raise UsageError(
            Text(
                "{option} is {weight_decay:g}, and the optimiser is an object",
                option=WEIGHT_DECAY,
                weight_decay=weight_decay,
            ),
            fix="add optax.add_decayed_weights to the optimiser, or pass the name of an optimiser",
        )
    if isinstance(choice, type) or not all(hasattr(choice, name) for name in ("init", "update")):
        raise UsageError(
            Text(
                "{optimiser} is {choice}, which has no methods init and update",
                optimiser=OPTIMISER,
                choice=shown(choice),
            ),
            fix="pass a name, or an optax optimiser, such as optax.adam(1e-3)",
        )
    return choice


@cache
def _named(name: str, weight_decay: float) -> optax.GradientTransformation:
    """Return the optimiser of a name: always the same object, so that runs share compiled code."""
    if name not in OPTIMISERS:
        raise UsageError(
            Text("there is no optimiser '{optimiser}'", optimiser=name),
            fix=suggestion(name, OPTIMISERS),
        )
    if not weight_decay:
        return OPTIMISERS[name]()
    return optax.chain(
        OPTIMISERS[name](), optax.add_decayed_weights(weight_decay, mask=_only_weights)
    )


def _only_weights(raw: Any) -> Any:
    """Return a mask of the parameters that decay: weights, not biases, delays or constants of
    neurons.
    """
    return {
        node: {name: name == "weight" for name in parameters} for node, parameters in raw.items()
    }


def refuse_decay(
    choice: Any, weight_decay: float | None, raw: Parameters, network: Network
) -> None:
    """Refuse to decay weights whose raw number differs from the weight, such as those with limits.

    Args:
        raw: initial raw parameters.

    Raises:
        UsageError: a weight with limits would decay.
    """
    decays = weight_decay if weight_decay is not None else choice == "adamw"
    for node, parameters in raw.items() if decays else ():
        weight = parameters.get("weight")
        if weight is not None and not np.allclose(weight, network.parameters[node]["weight"]):
            raise UsageError(
                Text(
                    "node '{node}': its weight has limits, and weight decay supports only weights "
                    "without limits",
                    node=node,
                ),
                fix=Text(
                    'pass {weight_decay}, or replace "adamw" by "adam"',
                    weight_decay=WEIGHT_DECAY.set_to(0),
                ),
                node=node,
            )


def refuse_unfit_optimiser(choice: Any, raw: Parameters) -> None:
    """Refuse an optimiser that requires more than a gradient and parameters, such as a line search,
    or parameters with a structure that networks do not have.

    Args:
        raw: raw parameters.

    Raises:
        UsageError: the optimiser requires other arguments, or fails.
    """
    if isinstance(choice, str):
        return
    try:
        jax.eval_shape(lambda raw: choice.update(raw, choice.init(raw), raw), raw)
    except Exception as error:
        looks = isinstance(error, jax.errors.JAXTypeError)  # a subclass of TypeError
        more = isinstance(error, TypeError) and not looks
        problem = "needs more than" if more else f"fails with {type(error).__name__} on"
        raise UsageError(
            f"the optimiser {problem} a gradient and parameters: {first_line(error)}",
            fix="compute with jax.numpy, because the arguments are traced"
            if looks
            else "pass an optimiser of gradients and parameters, such as optax.adam(1e-3)",
        ) from error


def optimiser_notes(choice: Any, raw: Parameters) -> list[str]:
    """Return notes on requirements of an optimiser that training does not meet; refuse an unusable
    optimiser.

    Args:
        raw: raw parameters.

    Raises:
        UsageError: as in `refuse_unfit_optimiser`.
    """
    refuse_unfit_optimiser(choice, raw)
    if isinstance(choice, str):
        return []
    memory = jax.eval_shape(choice.init, raw)
    # The same test as in `optax.contrib.schedule_free_eval_params`.
    parts = jax.tree.leaves(memory, is_leaf=_is_schedule_free)
    if not any(map(_is_schedule_free, parts)):
        return []
    return [
        "the optimiser is schedule-free, and training does not use schedule_free_eval_params: use a"
        " moving average of the parameters instead"
    ]


def _is_schedule_free(memory: Any) -> bool:
    return hasattr(memory, "b1") and hasattr(memory, "z")


def optimiser_identity(choice: Any, raw: Parameters) -> tuple[np.ndarray, ...]:
    """Return a fingerprint of a user's optimiser: the norms of its steps for some probe gradients,
    to a few digits. It is empty for an optimiser by name, whose settings are recorded, and for one
    that raises.

    Args:
        raw: raw parameters.
    """
    if isinstance(choice, str):
        return ()
    try:
        state, update, norms = choice.init(raw), jax.jit(choice.update), []
        for size in _PROBES:
            gradient = jax.tree.map(lambda value, size=size: size * (value + 0.1), raw)
            steps, state = update(gradient, state, raw)
            norms += [f"{float(np.linalg.norm(leaf)):.3g}" for leaf in jax.tree.leaves(steps)]
    except Exception:  # an optimiser of the user that fails here fails in training, too
        return ()
    return (np.frombuffer(" ".join(norms).encode(), np.uint8),)


def learning_rates(
    schedule: str | Schedule, learning_rate: float, epochs: int, batches: int
) -> np.ndarray:
    """Return the learning rate of each step, (epochs, batches).

    Args:
        schedule: name in `SCHEDULES`, or an optax schedule: a function of the number of the step,
            whose values are used unchanged.

    Raises:
        UsageError: an unknown schedule, or one that returns a value that is not a rate.
    """
    steps = np.arange(epochs * batches)
    if callable(schedule):
        scheduled = [schedule(int(step)) for step in steps]
        rates = np.asarray([as_number(rate) for rate in scheduled])
        if (bad := np.flatnonzero(~((rates >= 0) & (rates < np.inf)))).size:
            raise UsageError(
                Text(
                    "the schedule returns {value} at step {step}",
                    value=shown(scheduled[bad[0]]),
                    step=bad[0],
                ),
                fix="return a finite learning rate of at least 0 at each step",
            )
        return rates.reshape(epochs, batches)
    if schedule not in SCHEDULES:
        raise UsageError(
            Text("there is no schedule '{schedule}'", schedule=schedule),
            fix=suggestion(schedule, SCHEDULES),
        )
    return (learning_rate * SCHEDULES[schedule](steps / len(steps))).reshape(epochs, batches)


#: Function from a neuron model, the parameters of its population, and whether its inputs are
#: voltages, to the effect of an arrival of weight 1 on each neuron, (neurons,) >= 0.
EffectOf = Callable[[Neuron, dict[str, jax.Array], bool], np.ndarray]


def step_scales(network: Network, trained: Trained, t_end: float) -> Parameters:
    """Return the change of raw numbers in a step of 1, for each trained array; 0 for nodes that feed no
    population.

    Steps of free weights and biases are in units of their effects (kicks and lifts, see above): for
    each row of a weight, shape (outputs, 1, ...), and each entry of a bias. Steps of other free
    parameters are relative to their values; steps of bounded parameters are steps of the raw number.
    If a node feeds several populations, or a population through further linear nodes, its largest
    kick counts. `t_end` (seconds) is the length of a sample.
    """

    def kick(neuron: Neuron, parameters: dict[str, jax.Array], under_voltages: bool) -> np.ndarray:
        # A voltage lasts, like a constant current.
        effect = neuron.current_factor if under_voltages else neuron.kick
        return np.abs(np.asarray(effect(parameters)))

    def lift(neuron: Neuron, parameters: dict[str, jax.Array], under_voltages: bool) -> np.ndarray:
        del under_voltages  # next to voltages, a bias is the same constant current
        ones: Any = np.ones_like(next(iter(parameters.values())))
        return np.abs(np.asarray(neuron.lift(parameters, ones, t_end)))

    effects = {"weight": _reach(network, kick), "bias": _reach(network, lift)}
    # Outside of NIR, the meaning of "weight" is unknown: steps are relative to its value.
    linear = {wire.name for wire in network.wires if wire.kind in OPERATORS}
    scales: Parameters = {}
    for node, constraints in trained:
        scales[node] = {}
        for name, constraint in constraints:
            value = network.parameters[node][name]
            scale = np.ones(())
            if isinstance(constraint, Free):
                effect = effects[name][node] if name in effects and node in linear else None
                scale = _scale(np.asarray(value), effect)
                scale = np.mean(scale) if constraint.shared else scale
            scales[node][name] = to_jax(np.asarray(scale, value.dtype))
    return scales


def _scale(value: np.ndarray, effect: np.ndarray | None) -> np.ndarray:
    """Return the inverse of the effect of an arrival of weight 1, as a factor of the parameter."""
    if effect is None:
        largest = float(np.max(np.abs(value), initial=0.0))
        return np.asarray(largest or 1.0)
    per_channel = effect.reshape(len(value), -1).max(axis=1)
    scale = np.where(per_channel > 0, 1 / np.where(per_channel > 0, per_channel, 1.0), 0.0)
    return scale.reshape(-1, *[1] * (value.ndim - 1))


def _reach(network: Network, effect_of: EffectOf) -> dict[str, np.ndarray]:
    """Return for each node the largest effect of an output of 1, by channel, traced backwards through
    linear nodes.
    """
    leaving = {wire.name: np.zeros(wire.size) for wire in network.wires}
    readouts = [name for name, population in network.populations.items() if not population.fires]
    voltages = carried(network.wires, readouts)
    # With rectangular spike kernels, a voltage counts as a spike that lasts for one step.
    under_voltages = {
        name
        for name, population in network.populations.items()
        if voltages[name]
        and population.kind in ("LIF", "LI")
        and population.spike_kernel == "delta"
    }
    for _ in network.wires:  # repeat: edges of a cycle may run against the order
        before = {name: effect.copy() for name, effect in leaving.items()}
        for wire in reversed(network.wires):
            entering = _entering(network, wire, leaving[wire.name], effect_of, under_voltages)
            for source in wire.sources:
                if entering.size == leaving[source].size:
                    leaving[source] = np.maximum(leaving[source], entering)
                else:  # a window: use the largest effect everywhere
                    leaving[source] = np.maximum(leaving[source], entering.max(initial=0.0))
        if all(np.array_equal(before[name], leaving[name]) for name in leaving):
            break
    return leaving


def _entering(
    network: Network,
    wire: Wire,
    leaving: np.ndarray,
    effect_of: EffectOf,
    under_voltages: Container[str],
) -> np.ndarray:
    """Return the largest effect of an input of 1 of a node, by channel, or for all channels."""
    # In NumPy, because JAX would compile each operation on its own.
    parameters = in_numpy(network.parameters.get(wire.name, {}))
    if wire.kind == "neuron":
        population = network.populations[wire.name]
        if population.kind in STEPPED_KINDS:
            # They have no equations: assume that an input of 1 moves the membrane by 1.
            return 1 / np.abs(parameters["v_threshold"])
        neuron = neuron_of(population)
        effect = effect_of(neuron, parameters, wire.name in under_voltages)
        if not population.fires:
            return np.where(leaving > 0, effect * leaving, effect)
        return effect / np.asarray(neuron.height(parameters))
    if wire.kind == "output":
        return np.zeros(wire.size)
    if wire.function:
        return np.asarray([leaving.max(initial=0.0)])
    if wire.linear and wire.kind not in OPERATORS:
        return np.max(_absolute(network, wire) * leaving, axis=1, initial=0.0)
    if wire.kind == "Scale":
        return leaving * np.abs(np.asarray(parameters["scale"]))
    if "weight" in parameters:
        weight = np.abs(np.asarray(parameters["weight"]))
        if weight.ndim > 2:
            return np.asarray([leaving.max(initial=0.0) * weight.max(initial=0.0)])
        return np.max(leaving[:, None] * weight, axis=0)
    return leaving


def _absolute(network: Network, wire: Wire) -> np.ndarray:
    """Return the absolute matrix (inputs, outputs) of a linear node that is not built in."""
    sources = [source for source in network.wires if source.name in wire.sources]
    inward = sources[0].shape if sources else wire.shape
    parameters = network.parameters.get(wire.name, {})
    start = identity(int(np.prod(inward)))
    joined = through(wire, inward, parameters, start, network.dtype)
    return np.abs(np.asarray(joined.dense(network.dtype)))
