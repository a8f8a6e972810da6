"""Losses: functions of the results of a simulation (`Reading`) and labels.

A loss is a frozen record with the name of its population. Called, it returns one number for each
sample; `predict` returns the class of each sample. Times are divided by the time constant `tau`. `Loss`
is the interface of a user's loss, and `jaxsnn.train.register_loss` registers it by name. Installed
packages add losses by entry points.

Gradients on the event engine are exact, except those of spike counts, which have none. There the
gradient of each spike is that of a small jump of V at the spike (as for the costates of Nowotny et al.,
arXiv:2212.01232): dcount/dV = 1 / (v_threshold - v_reset) at the time of the spike. On the time-stepped engine all
gradients are those of the surrogate, and spike times have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UsageError, as_number, shown, suggestion
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.on_processor import in_numpy, module_for, on_processor, to_jax
from jaxsnn.simulation.solution import Reading as Reading
from jaxsnn.train.option_values import accept_former_fields
from jaxsnn.wording import Text

#: Quantities that a loss can read.
Reads = Literal["first spikes", "spikes", "voltages", "either"]


class Loss(Protocol):
    """Interface of a loss of `fit`: a frozen dataclass with these fields and methods.

    Its fields are numbers, names and tuples of them: the record of a run shows them, and it is a
    static argument of compiled code, so that it must be hashable and equal to another one with the
    same fields. A loss that is registered by name is created as
    `Class(population=..., tau=..., t_max=...)`, and if `reads` is "either" also with `fires=...`
    (whether the population fires), so that all other fields need defaults;
    `fit(..., loss_options={...})` sets those.

    JAX differentiates the loss through the arrays of `reading`. On the event engine their gradients
    are exact, except those of counts, which are those of a small jump of V. On the time-stepped engine
    they are those of the surrogate, and spike times have none. The first spike time of a silent neuron
    is `inf`: replace it by a finite number before any arithmetic,
    `jnp.where(jnp.isfinite(t), t, self.t_max)`, or gradients become NaN.

    Attributes:
        population: name of the output population, with one neuron for each class.
        tau: unit of time in seconds.
        t_max: end of a sample in seconds.
        reads: quantity that the loss reads: "first spikes" (their times; the population may stop
            after them during training), "spikes" (counts and sums), "voltages" of a readout, or
            "either".
    """

    reads: ClassVar[Any]

    @property
    def population(self) -> str:
        """Name of the output population."""
        ...

    @property
    def tau(self) -> float:
        """Unit of time of the loss in seconds."""
        ...

    @property
    def t_max(self) -> float:
        """End of a sample in seconds."""
        ...

    def __call__(self, reading: Reading, labels: jax.Array) -> jax.Array:
        """Return the loss of each sample; training minimises its mean over the batch.

        Args:
            reading: results of a batch; its methods take the name of a population and return arrays
                (batch, neurons): seconds, spike counts, or volts.
            labels: class of each sample, (batch,) int32.

        Returns:
            (batch,), without a unit.
        """
        ...

    def predict(self, reading: Reading) -> jax.Array:
        """Return the class of each sample, (batch,) int32; -1 where there is none. It needs no
        gradient.
        """
        ...


#: Field -> its lowest value, its exclusive upper limit, and these limits in words.
_RANGES = {
    **dict.fromkeys(
        ("tau", "t_max", "temperature", "late_tau", "decay", "gain"),
        (float(np.nextafter(0.0, 1.0)), np.inf, "above 0"),
    ),
    **dict.fromkeys(("late_weight", "separation"), (0.0, np.inf, "of at least 0")),
    "smoothing": (0.0, 1.0, "of at least 0 and below 1"),
}


class CheckedLoss:
    """Base class of losses that validate their numbers on construction.

    Raises:
        UsageError: a number out of its range.
    """

    def __post_init__(self) -> None:
        """Refuse invalid numbers."""
        for name, (lowest, limit, text) in _RANGES.items():
            value = getattr(self, name, None)
            if value is not None and not lowest <= as_number(value) < limit:
                message = Text(
                    "loss {loss}: {parameter} is {value}",
                    loss=type(self).__name__,
                    parameter=name,
                    value=shown(value),
                )
                raise UsageError(message, fix=f"pass a number {text}")


class FirstToFire(CheckedLoss):
    """Base class of losses of first spike times: the neuron that fires first is the predicted
    class.
    """

    reads: ClassVar[str] = "first spikes"

    def predict(self, reading: Reading) -> jax.Array:
        """Return the class of each sample, (batch,): the neuron that fires first, the lowest of
        several; -1 where none fires.
        """
        times = reading.first_spike(self.population)  # pyright: ignore[reportAttributeAccessIssue]
        kind, times = module_for(times), in_numpy(times)
        fires = kind.isfinite(kind.min(times, axis=1))
        first = kind.where(fires, kind.argmin(times, axis=1), -1).astype(np.int32)
        return first if kind is jnp else to_jax(first)


@suggests_keywords
@accept_former_fields(sharpness="temperature")
@dataclass(frozen=True, kw_only=True)
class FirstSpike(FirstToFire):
    """Cross-entropy of the first spike times, minimal when the neuron of the label fires first
    ("time to first spike", TTFS).

    With s = t / tau, and a silent neuron counted at t_max,

        L = -log softmax(-s / temperature)[label] + late_weight (exp(s[label] / late_tau) - 1),

    where with `smoothing` the first term is replaced by (1 - smoothing) times itself plus smoothing
    times its mean over all labels.

    A low `temperature` trains better: a wide softmax delays wrong outputs until they stop firing. The
    temperature also determines the margin between the first and the second output after training.

    Attributes:
        population: name of the output population, with one neuron for each class.
        tau: unit of time in seconds.
        t_max: time in seconds that counts as the spike time of a silent neuron.
        temperature: temperature (width) of the softmax, in units of tau.
        late_weight, late_tau: weight of the term that keeps the label's spike early, and its growth
            in units of tau.
        smoothing: fraction of the label that is shared by all classes.

    Source: Göltz et al., Nature Machine Intelligence 3, 2021 (softmax of spike times); Wunderlich
    and Pehle, Scientific Reports 11, 12829, 2021 (with the term on the label's time).
    """

    population: str
    tau: float
    t_max: float
    temperature: float = 0.01
    late_weight: float = 3e-3
    late_tau: float = 2.0
    smoothing: float = 0.0

    def __call__(self, reading: Reading, labels: jax.Array) -> jax.Array:
        """Return the loss of each sample, (batch,)."""
        scaled = _scaled_times(self, reading)
        label = _of_label(scaled, labels)
        entropy = _cross_entropy(-scaled / self.temperature, labels, self.smoothing)
        return self.late_weight * jnp.expm1(label / self.late_tau) + entropy


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class SpikeTimes(FirstToFire):
    """Shift-invariant mean squared error of the first spike times.

    The neuron of the label should fire `separation` before the others, at any time: with s = t / tau, a
    silent neuron counted at t_max, target s* = 0 for the label and `separation` for
    others, and r = s - s*,

        L = mean (r - mean r)^2, the mean squared error at the best common shift.

    Attributes:
        population, tau, t_max: as in `FirstSpike`.
        separation: target interval between the label and the others, in units of tau.
    """

    population: str
    tau: float
    t_max: float
    separation: float = 0.5

    def __call__(self, reading: Reading, labels: jax.Array) -> jax.Array:
        """Return the loss of each sample, (batch,)."""
        scaled = _scaled_times(self, reading)
        is_label = labels[:, None] == jnp.arange(scaled.shape[1])
        return jnp.var(scaled - jnp.where(is_label, 0.0, self.separation), axis=1)


def _scaled_times(loss: Any, reading: Reading) -> jax.Array:
    times = reading.first_spike(loss.population)
    return jnp.where(jnp.isfinite(times), times, loss.t_max) / loss.tau


def _of_label(values: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values, labels[:, None], axis=1)[:, 0]


def _cross_entropy(scores: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """Return the cross-entropy of each sample, (batch,), with labels smoothed over all classes.

    Source: Szegedy et al., "Rethinking the inception architecture", CVPR 2016.
    """
    log_softmax = jax.nn.log_softmax(scores, axis=1)
    entropy = -_of_label(log_softmax, labels)
    if not smoothing:
        return entropy
    return (1 - smoothing) * entropy - smoothing * jnp.mean(log_softmax, axis=1)


class CrossEntropy(CheckedLoss):
    """Base class of losses with one number for each class: L = -log softmax(scores)[label], where
    `smoothing` is a part of the label that all classes share; the largest score is the answer.
    """

    smoothing: float = 0.0

    def scores(self, reading: Reading) -> jax.Array:
        """Return the score of each class, (batch, neurons)."""
        raise NotImplementedError

    def __call__(self, reading: Reading, labels: jax.Array) -> jax.Array:
        """Return the loss of each sample, (batch,)."""
        return _cross_entropy(self.scores(reading), labels, self.smoothing)

    def predict(self, reading: Reading) -> jax.Array:
        """Return the class of each sample, (batch,): the largest score, the lowest class of
        several.
        """
        return jnp.argmax(self.scores(reading), axis=1)


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class MaxOverTime(CrossEntropy):
    """Cross-entropy of the largest membrane voltage of each neuron of a readout.

    Attributes:
        population: name of the readout, with one neuron for each class.
        t_max: end of a sample in seconds.
        tau: unit of time of encoders, in seconds.
        gain: factor of the voltages before the softmax, per volt.
        smoothing: fraction of the label that is shared by all classes.

    Source: Wunderlich and Pehle, Scientific Reports 11, 12829, 2021. Where the maximum is at an
    arrival, the gradient is that of V at the arrival's own time (see
    `jaxsnn.event.forward.functionals`).
    """

    population: str
    tau: float
    t_max: float
    gain: float = 1.0
    smoothing: float = 0.0
    reads: ClassVar[str] = "voltages"

    def scores(self, reading: Reading) -> jax.Array:
        """Return the largest voltages times the gain."""
        return self.gain * reading.maximum(self.population)


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class MeanOverTime(CrossEntropy):
    """Cross-entropy of the means over time of the membrane voltages of a readout.

    In time steps it also accepts the values of a node without neurons.

    Attributes:
        population, tau, t_max, gain, smoothing: as in `MaxOverTime`.
    """

    population: str
    tau: float
    t_max: float
    gain: float = 1.0
    smoothing: float = 0.0
    reads: ClassVar[str] = "voltages"

    def scores(self, reading: Reading) -> jax.Array:
        """Return the means times the gain."""
        return self.gain * reading.mean(self.population)


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class SpikeCount(CrossEntropy):
    """Cross-entropy of the number of spikes of each neuron.

    A spike count has no exact gradient. On the event engine the gradient of each spike is that of a
    small jump of V at the spike, on the time-stepped engine that of the surrogate.

    Attributes:
        population, tau, t_max, smoothing: as in `FirstSpike`.
        gain: factor of the counts before the softmax.
    """

    population: str
    tau: float
    t_max: float
    gain: float = 1.0
    smoothing: float = 0.0
    reads: ClassVar[str] = "spikes"

    def scores(self, reading: Reading) -> jax.Array:
        """Return the spike counts times the gain."""
        return self.gain * reading.count(self.population)

    def predict(self, reading: Reading) -> jax.Array:
        """Return the class of each sample, (batch,): the neuron that fires most often; -1 where
        none fires.
        """
        return _largest_above_0(reading.count(self.population))


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Integral(CrossEntropy):
    """Cross-entropy of the integrals of a readout's membrane potentials, divided by tau (volts).

    Attributes:
        population, tau, t_max, gain, smoothing: as in `MaxOverTime`.
    """

    population: str
    tau: float
    t_max: float
    gain: float = 1.0
    smoothing: float = 0.0
    reads: ClassVar[str] = "voltages"

    def scores(self, reading: Reading) -> jax.Array:
        """Return the integrals divided by tau, times the gain."""
        return self.gain / self.tau * reading.integral(self.population)


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class ExponentialSum(CrossEntropy):
    """Cross-entropy of sums in which early spikes or voltages have larger weights.

    For a readout this is the integral of V e^(-t / T) / T, for neurons that fire the sum of
    e^(-t / T) over their spikes, with T = decay tau.

    Attributes:
        population, tau, t_max, gain, smoothing: as in `MaxOverTime`.
        decay: T in units of tau.
        fires: whether the population fires.

    Source: Nowotny, Turner and Knight, arXiv:2212.01232 (on SHD this works, maxima and first spikes
    do not).
    """

    population: str
    tau: float
    t_max: float
    gain: float = 1.0
    decay: float = 4.0
    fires: bool = False
    smoothing: float = 0.0
    reads: ClassVar[str] = "either"

    def scores(self, reading: Reading) -> jax.Array:
        """Return the sums times the gain."""
        scale = self.decay * self.tau
        if self.fires:
            return self.gain * reading.spike_sum(self.population, scale)
        return self.gain / scale * reading.integral(self.population, scale)

    def predict(self, reading: Reading) -> jax.Array:
        """Return the class of each sample, (batch,): the largest sum; -1 where no neuron of a
        spiking population fires.
        """
        if not self.fires:
            return super().predict(reading)
        return _largest_above_0(self.scores(reading))


def _largest_above_0(values: jax.Array) -> jax.Array:
    """Return the neuron of the largest value in each sample, (batch,), the lowest of several; -1
    where all are 0.
    """
    return jnp.where(jnp.max(values, axis=1) > 0, jnp.argmax(values, axis=1), -1)


@suggests_keywords
def accuracy(predictions: jax.Array | np.ndarray, labels: jax.Array | np.ndarray) -> jax.Array:
    """Return the fraction of samples whose prediction is the label, both (samples,).

    Raises:
        UsageError: the shapes differ.

    >>> float(accuracy(jnp.array([0, 1, -1, 2]), jnp.array([0, 1, 2, 0])))
    0.5
    """
    if np.shape(predictions) != np.shape(labels):
        raise UsageError(
            Text(
                "the predictions have shape {shape}, and the labels {labels_shape}",
                shape=np.shape(predictions),
                labels_shape=np.shape(labels),
            ),
            fix="pass arrays of shape (samples,) for both",
        )
    if on_processor(predictions, labels):
        right = np.asarray(predictions) == np.asarray(labels)
        return to_jax(np.asarray(np.mean(right), jnp.result_type(float)))
    return jnp.mean(predictions == labels)


#: Group of the entry points of losses: `its-name = "package.module:Class"`.
GROUP = "jaxsnn.losses"

_LOSSES: dict[str, Any] = {
    "ttfs": FirstSpike,
    "mse": SpikeTimes,
    "max": MaxOverTime,
    "mean": MeanOverTime,
    "count": SpikeCount,
    "integral": Integral,
    "exp-sum": ExponentialSum,
}

#: Loaded losses by name, for `fit` and the command line.
LOSSES: Mapping[str, Any] = MappingProxyType(_LOSSES)

LossClass = TypeVar("LossClass", bound=type)


@suggests_keywords
def register_loss(cls: LossClass, name: str | None = None) -> LossClass:
    """Register a loss by name: for `fit(..., loss="its-name")`, and for `jaxsnn train --loss` where
    the module that calls this is imported.

    The command also loads losses of installed packages by the entry point group `jaxsnn.losses`. The
    pyproject.toml of such a package contains `[project.entry-points."jaxsnn.losses"]` with `its-name =
    "package.module:Class"`; its class need not be registered.

    Args:
        cls: class with the interface of `Loss`; `fit` calls it with the keyword arguments `population`,
            `tau` and `t_max`.
        name: name of the loss; None: the attribute `name` of the class.

    Returns:
        The class, so that this is a decorator.

    Raises:
        UsageError: an incomplete class, or a name that another loss has.

    >>> @register_loss
    ... class Earliest(FirstSpike):
    ...     name = "earliest"
    >>> LOSSES["earliest"] is Earliest
    True
    >>> del _LOSSES["earliest"]
    """
    chosen = name or getattr(cls, "name", None)
    if not isinstance(chosen, str) or not chosen:
        raise UsageError(
            Text("loss {loss} has no name", loss=cls.__name__),
            fix='add a field name = "its-name" to the class',
        )
    kinds = get_args(Reads)
    reads = getattr(cls, "reads", None)
    if reads not in kinds:
        raise UsageError(
            Text(
                "loss '{loss}' ({type}) has reads = {reads!r}",
                loss=chosen,
                type=cls.__name__,
                reads=reads,
            ),
            fix=f"use one of {', '.join(map(repr, kinds))}",
        )
    for method in ("__call__", "predict"):
        if not any(method in vars(base) for base in cls.__mro__):
            raise UsageError(
                Text(
                    "loss '{loss}' ({type}) has no method {method}",
                    loss=chosen,
                    type=cls.__name__,
                    method=method,
                ),
                fix="add the method; jaxsnn.train.Loss describes it",
            )
    registered = _LOSSES.get(chosen, cls)
    if registered is not cls and (registered.__module__, registered.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise UsageError(
            Text(
                "the name of loss '{loss}' is already registered for {module}.{type}",
                loss=chosen,
                module=registered.__module__,
                type=registered.__qualname__,
            ),
            fix="choose another name",
        )
    _LOSSES[chosen] = cls
    return cls


def loss_class(name: str) -> Any:
    """Return the class of a loss by name; load it if it is an entry point.

    Raises:
        UsageError: an unknown loss, or one that cannot be loaded.
    """
    if name in _LOSSES:
        return _LOSSES[name]
    entry = next((entry for entry in entry_points(group=GROUP) if entry.name == name), None)
    if entry is None:
        raise UsageError(
            Text("there is no loss '{loss}'", loss=name), fix=suggestion(name, loss_names())
        )
    try:
        loaded = entry.load()
    except (ImportError, AttributeError) as error:
        message = Text(
            "the loss '{loss}' cannot be loaded from {path}: {reason}",
            loss=name,
            path=entry.value,
            reason=str(error),
        )
        raise UsageError(message, fix="install its package again, or use another loss") from error
    return register_loss(loaded, name)


def loss_names() -> tuple[str, ...]:
    """Return the names of all losses, also those of installed packages, without loading them."""
    return tuple(dict.fromkeys([*_LOSSES, *(entry.name for entry in entry_points(group=GROUP))]))


def name_of(loss: Loss) -> str:
    """Return the name of a loss in `LOSSES`, or of its type."""
    return next((name for name, kind in LOSSES.items() if type(loss) is kind), type(loss).__name__)
