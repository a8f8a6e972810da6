"""One pass over the data, compiled as a whole: a scan over shuffled minibatches; and the evaluation
of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from functools import cache, partial, reduce
from types import FunctionType
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh

from jaxsnn.errors import UsageError
from jaxsnn.event.event_record import Budgets
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.network.array_types import Array, Bool, Float, Int, Num
from jaxsnn.network.compiling import A_LITTLE, known_options, loops_in, unset_flags
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.nir.initializers import Seed, seed_words
from jaxsnn.simulation.solution import Engine, Solution, SolutionType
from jaxsnn.train.data.augment import Augment
from jaxsnn.train.data.batches import Batch
from jaxsnn.train.loop.constraints import Parameters, Trained, with_trained
from jaxsnn.train.loop.parallel import over_devices, shared_out
from jaxsnn.train.losses.losses import Loss
from jaxsnn.train.losses.regularizers import (
    Feeding,
    Noise,
    WeightBumping,
    bumped,
    by_channel,
    noisy,
)
from jaxsnn.train.options import TrainOptions
from jaxsnn.wording import Text

Tree = TypeVar("Tree")
Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

#: Larger than any number of a sample in a batch, so that the noise of parameters shares no key with
#: the noise of samples.
_PARAMETERS = 2**31


class Summary(NamedTuple):
    """Statistics of a pass over samples, as sums; divided by `samples` outside.

    Attributes:
        loss, correct: sums over samples.
        undecided: number of samples in which no neuron of the output population fired.
        silent: population -> sum over samples of the fraction of its neurons that did not fire.
        spikes: population -> sum over samples of spikes per neuron.
        budgets: option of `EventDriven` -> population -> largest need of a batch, and the budget.
        clipped: number of recorded spikes so close to tangency that their gradient was clipped.
        recorded: number of recorded spikes of all neurons.
        lost: number of spikes that a device in the loop fired and did not record.
        result: the worst `jaxsnn.simulation.simulate.Result`.
        samples: number of samples.
        gradient: largest norm of a batch's gradient, in loss per step of 1.
    """

    loss: jax.Array
    correct: jax.Array
    undecided: jax.Array
    silent: dict[str, jax.Array]
    spikes: dict[str, jax.Array]
    budgets: Budgets
    clipped: jax.Array
    recorded: jax.Array
    lost: jax.Array
    result: jax.Array
    samples: jax.Array
    gradient: jax.Array


def run_batch(
    engine: Engine[SolutionType], network: Network, inputs: Any, t_end: float
) -> SolutionType:
    """Run one batch without raising errors; the caller checks the result later.

    Args:
        inputs: Events or GradedEvents (batch, events), Currents (batch, pieces), or for the
            time-stepped engine an array (batch, time, *shape).
        t_end: seconds, end of the sample.
    """
    if hasattr(inputs, "time"):
        return engine.run(network, inputs, t_end, ())
    return engine.run(network, jnp.moveaxis(inputs, 1, 0), None)


def summarise(
    setup: Setup, solution: Solution, values: jax.Array, labels: jax.Array, used: jax.Array
) -> Summary:
    """Return the summary of one batch, or of one device's part of it; `used` (batch,) is False for
    samples that only pad it.
    """
    predictions = refuse_no_classes(setup.loss, setup.loss.predict(solution), labels)

    def summed(per_sample: Num[Array, "batch"] | Bool[Array, "batch"]) -> Num[Array, ""]:
        return jnp.sum(jnp.where(used, per_sample, 0))

    lost = solution.lost if isinstance(solution, EventSolution) else {}
    sums = Summary(
        loss=summed(values),
        correct=summed(predictions == labels),
        undecided=summed(predictions < 0),
        silent={
            name: summed(jnp.mean(count == 0, axis=1)) for name, count in solution.counts.items()
        },
        spikes={name: summed(jnp.mean(count, axis=1)) for name, count in solution.counts.items()},
        budgets={},
        clipped=sum(solution.clipped_slopes.values(), jnp.zeros(())),
        recorded=solution.spikes_recorded,
        lost=sum(map(summed, lost.values()), jnp.int32(0)),
        result=jnp.int32(0),
        samples=jnp.sum(used),
        gradient=jnp.zeros(()),
    )
    finite = jnp.all(jnp.isfinite(jnp.where(used, values, 0.0)))
    result = jnp.where(finite, solution.result, jnp.int32(Result.NOT_FINITE))
    return sums._replace(budgets=cast(Budgets, solution.budgets), result=result)


def _per_sample(term: Any, values: jax.Array, labels: jax.Array, or_one: bool = False) -> jax.Array:
    """Return the values of a loss or a regulariser, after checking that there is one number for
    each sample; with `or_one`, one number for all is accepted, too.
    """
    shape = jnp.shape(values)
    if shape != labels.shape and not (or_one and shape == ()):
        raise UsageError(
            Text(
                "{term} returns an array of shape {shape}, and the number of samples is {count}",
                term=type(term).__name__,
                shape=shape,
                count=len(labels),
            ),
            fix="return one number per sample, (batch,)",
        )
    return values


def refuse_no_classes(loss: Any, predictions: jax.Array, labels: Any) -> jax.Array:
    """Return the predictions of a loss, after checking that each sample has a class.

    Raises:
        UsageError: the predictions have another shape or type.
    """
    shape_and_type = jnp.shape(predictions), jnp.result_type(predictions)
    is_integer = any(jnp.issubdtype(shape_and_type[1], kind) for kind in (jnp.integer, jnp.bool_))
    if shape_and_type[0] != labels.shape or not is_integer:
        raise UsageError(
            Text(
                "{loss}.predict returns {dtype} of shape {shape}, and the number of samples is {count}",
                loss=type(loss).__name__,
                dtype=shape_and_type[1],
                shape=shape_and_type[0],
                count=len(labels),
            ),
            fix="return one integer class per sample, (batch,)",
        )
    return predictions


def together(setup: Setup, sums: Tree, summary: Summary) -> tuple[Tree, Summary]:
    """Return sums over the devices, and their common summary, in one exchange."""
    maxima = (summary.budgets, summary.result)
    added = summary._replace(budgets={}, result=jnp.int32(0))
    (sums, added), (budgets, result) = over_devices((sums, added), maxima, setup.mesh)
    return sums, added._replace(budgets=budgets, result=result)


def joined(summaries: Summary) -> Summary:
    """Merge summaries that are stacked along the first axis, inside `jax.jit`; see also `merged`."""
    sums = jax.tree.map(lambda array: jnp.sum(array, axis=0), summaries)
    return sums._replace(
        gradient=jnp.max(summaries.gradient),  # NaN if any is NaN
        budgets=jax.tree.map(jnp.max, summaries.budgets),
        # Codes increase with what is lost; NOT_FINITE is the highest.
        result=jnp.max(summaries.result),
    )


def merged(summaries: Sequence[Summary]) -> Summary:
    """Merge computed summaries with NumPy; a single summary is returned unchanged."""
    if len(summaries) == 1:
        return summaries[0]
    sums, greatest = (
        jax.tree.map(lambda *values, by=by: reduce(by, map(np.asarray, values)), *summaries)
        for by in (np.add, np.maximum)
    )
    return sums._replace(
        gradient=greatest.gradient, budgets=greatest.budgets, result=greatest.result
    )


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Static settings that a pass over samples is compiled for, except the numbers of a device in
    the loop; equal where runs can share the compiled code.

    Attributes:
        loss: loss and prediction of each sample.
        engine: engine with its options.
        t_end: end of each sample in seconds.
        trained: trained parameters and their constraints.
        feeding: population -> nodes whose weights feed it, with signs (see
            `jaxsnn.train.losses.regularizers`).
        channels: population -> number of channels whose neurons share weights.
        optimiser: optimiser that turns gradients into directions of descent; with `complete`, into
            complete updates, which are added.
        options: options that the compiled code depends on (`TrainOptions.compiled_only`).
        complete: whether the optimiser is an optax object of the user, with its learning rate.
        mesh: devices that share the samples; None: one device.
        run_identity: unique object of this run, if an object of the user may change; None: runs with
            equal settings share compiled code.
    """

    loss: Loss
    engine: Engine
    t_end: float
    trained: Trained
    feeding: Feeding
    channels: tuple[tuple[str, int], ...]
    optimiser: optax.GradientTransformation
    options: TrainOptions
    complete: bool = False
    mesh: Mesh | None = None
    run_identity: object | None = None

    def run(self, network: Network, inputs: Any) -> Solution:
        """Run one batch."""
        return run_batch(self.engine, network, inputs, self.t_end)


def _unflatten(setup: Setup, numbers: tuple[Any, ...]) -> Setup:
    if not hasattr(setup.engine, "with_numbers"):
        return setup
    engine = cast(Any, setup.engine).with_numbers(*numbers)
    return replace(setup, engine=engine)


# Compiled code takes the numbers of a device in the loop as arguments; all other fields are static.
jax.tree_util.register_pytree_node(
    Setup, lambda setup: ((getattr(setup.engine, "numbers", ()),), setup), _unflatten
)


class TrainState(NamedTuple):
    """Mutable state of a training run: parameters, optimiser state, moving average.

    Attributes:
        raw: unconstrained parameters that the optimiser updates (`jaxsnn.train.loop.constraints`).
        memory: state of the optimiser.
        average: exponential moving average of `raw`; None: no average is computed.
    """

    raw: Parameters
    memory: optax.OptState
    average: Parameters | None

    @property
    def best(self) -> Parameters:
        """Raw numbers that are evaluated and kept: the moving average, if there is one."""
        return self.raw if self.average is None else self.average


@jax.jit  # eagerly, JAX would compile each array of zeros
def begin(setup: Setup, raw: Parameters, scales: Parameters) -> TrainState:
    """Return the state before the first step; scales as in `run_epoch`."""
    return TrainState(
        raw=raw,
        memory=setup.optimiser.init(_in_steps(raw, scales)),
        average=raw if setup.options.ema_decay else None,
    )


def _in_steps(raw: Parameters, scales: Parameters) -> Parameters:
    """Return raw numbers in units of the step scales, as the optimiser uses them."""
    return jax.tree.map(lambda raw, scale: raw / jnp.where(scale == 0, 1.0, scale), raw, scales)


class Pace(NamedTuple):
    """Step sizes and random numbers of the batches of an epoch.

    Attributes:
        rates: learning rates, (batches,).
        factor: factor of all step sizes, below 1 after a failure.
        key: random key of the epoch.
        first: index of the first batch in its epoch.
    """

    rates: jax.Array | np.ndarray
    factor: jax.Array | np.ndarray
    key: jax.Array
    first: jax.Array | np.int32


class TrainingProgram(Generic[Arguments, Returned]):
    """Function that is compiled in one of two ways.

    Attributes:
        optimised: function compiled with the default options of XLA.
        quick: function compiled quickly, for a short run; results differ in their last digits
            (`A_LITTLE`).
        function: function to compile.
        own_loops: number of XLA loops of the function if native kernels run the network.
    """

    def __init__(self, function: Callable[Arguments, Returned], own_loops: int = 0) -> None:
        self.optimised = jax.jit(function)
        self.function = function
        self.own_loops = own_loops

    @property
    def quick(self) -> Callable[Arguments, Returned]:
        """Function compiled quickly."""
        options = known_options(unset_flags(A_LITTLE))
        return _compiled_with(tuple(options.items()), self.function)

    def has_kernels(self, *arguments: Arguments.args, **named: Arguments.kwargs) -> bool:
        """Return whether native kernels run the entire network."""
        return loops_in(self.optimised.trace(*arguments, **named).jaxpr) <= self.own_loops


@cache
def _compiled_with(
    options: tuple[tuple[str, Any], ...], function: Callable[Arguments, Returned]
) -> Callable[Arguments, Returned]:
    return jax.jit(function, compiler_options=dict(options))


@partial(TrainingProgram, own_loops=1)
def run_epoch(
    setup: Setup,
    network: Network,
    scales: Parameters,
    bumping: WeightBumping,
    state: TrainState,
    data: Batch,
    order: jax.Array,
    pace: Pace,
) -> tuple[TrainState, Summary]:
    """Take one step of the optimiser for each minibatch.

    Args:
        scales: raw change for a step of 1 (see `jaxsnn.train.loop.optimisers`).
        bumping: remedy for silent neurons.
        order: indices of samples, (batches, batch).
    """

    options = setup.options
    own_rates = {
        node: {name: constraint.rate for name, constraint in constraints}
        for node, constraints in setup.trained
    }
    gradient_of = shared_out(partial(_gradient, setup), setup.mesh, 2)

    def step(
        state: TrainState,
        inputs: tuple[Int[Array, ""], Int[Array, "batch"], Float[Array, ""]],
    ) -> tuple[TrainState, Summary]:
        number, index, rate = inputs
        key = jax.random.fold_in(pace.key, number)
        positions = jnp.arange(len(index), dtype=jnp.int32)
        gradient, bumps, summary = gradient_of(
            network, bumping, state.raw, data, key, index, positions
        )
        gradient = jax.tree.map(jnp.multiply, gradient, scales)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(part)) for part in jax.tree.leaves(gradient)))
        summary = summary._replace(gradient=norm)
        if options.clip is not None:
            shorter = jnp.minimum(1.0, options.clip / norm)
            gradient = jax.tree.map(lambda part: part * shorter, gradient)
        in_steps = _in_steps(state.raw, scales)
        updates, memory = setup.optimiser.update(gradient, state.memory, in_steps)
        direction = jax.tree.map(
            lambda update: -update if setup.complete else rate * update, updates
        )
        direction = bumped(cast(Parameters, direction), bumps, setup.feeding, rate)
        raw = jax.tree.map(
            lambda raw, direction, scale, rate: raw - pace.factor * direction * scale * rate,
            state.raw,
            direction,
            scales,
            own_rates,
        )
        average = state.average
        if average is not None:
            average = jax.tree.map(
                lambda old, new: old + (1 - options.ema_decay) * (new - old), average, raw
            )
        return TrainState(raw=raw, memory=memory, average=average), summary

    numbers = pace.first + jnp.arange(len(order), dtype=jnp.int32)
    state, summaries = lax.scan(step, state, (numbers, order, cast(jax.Array, pace.rates)))
    return state, joined(summaries)


def _gradient(
    setup: Setup,
    network: Network,
    bumping: WeightBumping,
    raw: Parameters,
    data: Batch,
    key: jax.Array,
    index: Int[Array, "batch"],
    positions: Int[Array, "batch"],
) -> tuple[Parameters, dict[str, Float[Array, "neurons"]], Summary]:
    """Return the gradient of the mean loss of a batch, the statistics of silent neurons for weight
    bumping, and a summary; over all devices.
    """
    batch = data.take(index)
    devices = 1 if setup.mesh is None else setup.mesh.size
    if setup.options.augment is not None:
        keys = jax.vmap(partial(jax.random.fold_in, key))(positions)
        augment = cast(Augment, setup.options.augment)
        changed = jax.vmap(augment)(keys, batch.inputs)
        if jax.tree.structure(changed) != jax.tree.structure(batch.inputs):
            raise UsageError(
                Text(
                    "augment returns {actual}, and the sample is {expected}",
                    expected=type(batch.inputs).__name__,
                    actual=type(changed).__name__,
                ),
                fix="return a sample of the same type",
            )
        batch = batch._replace(inputs=changed)

    noise_key = jax.random.fold_in(key, _PARAMETERS)

    def objective(raw: Parameters) -> tuple[Float[Array, ""], tuple[Solution, jax.Array]]:
        changed = with_trained(network, setup.trained, raw)
        if setup.options.noise is not None:
            changed = noisy(changed, cast(Noise, setup.options.noise), noise_key)
        solution = setup.run(changed, batch.inputs)
        values = _per_sample(setup.loss, setup.loss(solution, batch.labels), batch.labels)
        for regulariser in setup.options.regularisers:
            values += _per_sample(
                regulariser, regulariser(changed, cast(Any, solution)), batch.labels, or_one=True
            )
        return jnp.mean(values) / devices, (solution, values)

    gradient, (solution, values) = jax.grad(objective, has_aux=True)(raw)
    population = setup.loss.population
    cases = bumping.cases(solution.counts, batch.labels, population)
    fractions = {name: jnp.mean(case, axis=0) / devices for name, case in cases.items()}
    summary = summarise(setup, solution, values, batch.labels, jnp.ones_like(batch.labels, bool))
    (gradient, fractions), summary = together(setup, (gradient, fractions), summary)
    bumps = bumping.wanted(by_channel(fractions, setup.channels, population), population)
    return gradient, bumps, summary


@TrainingProgram
def run_evaluation(
    setup: Setup,
    network: Network,
    raw: Parameters,
    batch: Batch,
    used: jax.Array | np.ndarray,
    key: jax.Array | None = None,
) -> Summary:
    """Evaluate one batch without training; `used` (batch,) is False for samples that are padding.
    With a key, the noise of training is applied.
    """
    trained = with_trained(network, setup.trained, raw)
    if key is not None and setup.options.noise is not None:
        trained = noisy(trained, cast(Noise, setup.options.noise), key)

    def evaluate(network: Network, batch: Batch, used: Bool[Array, "batch"]) -> Summary:
        solution = setup.run(network, batch.inputs)
        values = _per_sample(setup.loss, setup.loss(solution, batch.labels), batch.labels)
        return together(setup, (), summarise(setup, solution, values, batch.labels, used))[1]

    return shared_out(evaluate, setup.mesh, 2)(trained, batch, used)


def by_value(value: Any) -> bool:
    """Return whether objects that compare equal to this one also behave equally.

    >>> by_value(("weight", 0.1)), by_value(object())
    (True, False)
    """
    if isinstance(value, tuple | frozenset):
        return all(map(by_value, value))
    if isinstance(value, FunctionType):
        return value.__closure__ is None
    if is_dataclass(value) and not isinstance(value, type):
        return all(by_value(getattr(value, field.name)) for field in fields(value))
    if value is None or isinstance(value, type | Enum):
        return True
    return type(value).__eq__ is not object.__eq__


def of_one_run(*objects: Any) -> object | None:
    """Return a unique object where runs cannot share compiled code; None where they can."""
    return None if by_value(objects) else object()


def key_of(seed: Seed) -> jax.Array:
    """Return the `jax.random` key of a seed; if the seed is a key, the result depends on all of its
    numbers.
    """
    words = seed_words(seed)
    if max(words) < 2**32:
        # Eagerly, JAX would compile each operation on its own.
        return _key_of_words(np.asarray(words, np.uint32))
    return _folded(words)


def _folded(words: Any) -> jax.Array:
    """Return the key of several integers, folded in one after the other."""
    key = jax.random.key(words[0])
    for word in words[1:]:
        key = jax.random.fold_in(key, word)
    return key


_key_of_words = jax.jit(_folded)
