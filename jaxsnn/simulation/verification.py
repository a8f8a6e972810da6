"""Simulations against recordings: whether the source's input gives its output, with which options
of a dialect it does, and how far recorded spikes are from expected ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

import numpy as np

from jaxsnn.errors import JaxsnnError, UsageError, suggestion, warn_of
from jaxsnn.grid.stepped_solution import SteppedSolution
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import Network
from jaxsnn.nir.frameworks.registry import file_options
from jaxsnn.nir.model.dialect import Dialect, FrameworkOption
from jaxsnn.nir.model.graph import Graph
from jaxsnn.simulation.simulate import simulate
from jaxsnn.simulation.spike_alignment import align, distance
from jaxsnn.simulation.torch_modules import run_to_compare
from jaxsnn.wording import Text

#: Tolerance of membranes: rms of the difference, as a fraction of the rms of the recording.
MEMBRANE_TOLERANCE = 1e-4
#: Minimum scale of a neuron's membrane, as a fraction of the largest of its population, in the
#: comparison.
_LEAST_SHARE = 2.0**-10


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Difference in the first step that differs: the lowest sample, then the lowest neuron of that
    step.

    Attributes:
        node: name of the Output.
        neuron: index in the flattened shape of the output.
        batch, step: indices of the sample and of the time step.
        expected: value of the recording.
        got: value of the simulation.
    """

    node: str
    neuron: int
    batch: int
    step: int
    expected: float
    got: float


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Comparison of a recording with a simulation. A train is the output of one neuron in one
    sample.

    Attributes:
        trains: spike trains compared.
        active: trains with a spike in the recording.
        identical: trains that are equal in every step.
        identical_active: trains that are both.
        relative_rmse: largest relative root mean square error of a neuron's membrane potential;
            None if no output is a membrane.
        spikes_expected, spikes_got: numbers of spikes.
        first_difference: the first difference in time, or None. Membrane potentials of an Output
            count only if their relative root mean square error exceeds the tolerance.
    """

    trains: int
    active: int
    identical: int
    identical_active: int
    relative_rmse: float | None
    spikes_expected: int
    spikes_got: int
    first_difference: Difference | None

    @property
    def identical_fraction(self) -> float | None:
        """Fraction of all trains that are identical; None if there are none."""
        return self.identical / self.trains if self.trains else None

    @property
    def identical_active_fraction(self) -> float | None:
        """Fraction of the active trains that are identical; None if there are none."""
        return self.identical_active / self.active if self.active else None

    @property
    def ok(self) -> bool:
        """Whether every train is identical and membranes are within the tolerance."""
        close = self.relative_rmse is None or self.relative_rmse <= MEMBRANE_TOLERANCE
        return self.identical == self.trains and close

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        return {
            "ok": self.ok,
            **dataclasses.asdict(self),
            "identical_fraction": self.identical_fraction,
            "identical_active_fraction": self.identical_active_fraction,
        }


@suggests_keywords
def verify(
    source: Graph | Network, x: Any, y: Any, *, engine: TimeStepped | None = None
) -> Verification:
    """Compare a graph with its source framework, in float32: `verify(graph, x, y)` with a recorded
    input and output, `verify(graph, module, sample)` with all layers of a PyTorch module.

    Args:
        source: Graph that was read with its dialect, or a network.
        x: Recorded input of the source framework, (time, batch, *shape); for several inputs a mapping
            from the names of the Input nodes. Or the torch.nn.Module from which
            `jaxsnn.from_torch` created the graph.
        y: Recorded output, (time, batch, *shape): spikes of spiking populations, membrane
            potentials of readouts; for several outputs a mapping, and outputs that it omits are not
            compared. For a module its sample, as in `jaxsnn.from_torch`, or (time, batch, *shape)
            if its forward computes one time step.
        engine: options of the time-stepped engine.

    Raises:
        UsageError: a recording that does not fit the network.
        DialectError, LoweringError: the file does not contain required information.
        SimulationError: a membrane became NaN or infinite.
    """
    network = source if isinstance(source, Network) else lower(source, dtype=np.float32)
    if not callable(getattr(x, "named_children", None)):
        solution = simulate(network, x, engine=engine or TimeStepped())
        warn_of(solution.notes)
        return compare(solution, y)
    if isinstance(source, Network):
        raise UsageError(
            "a module is compared with a graph, and this is a network",
            fix="pass the graph that jaxsnn.from_torch created from the module",
        )
    x, recorded = run_to_compare(x, source, y)
    solution = simulate(
        network, x, engine=dataclasses.replace(engine or TimeStepped(), record=True)
    )
    warn_of(solution.notes)
    return _compared(solution, recorded)


def compare(solution: SteppedSolution, y: Any) -> Verification:
    """Compare a time-stepped run with a recording of its outputs; see `verify`."""
    return _compared(solution, _by_output(solution, y))


def _compared(solution: SteppedSolution, recorded: Mapping[str, Any]) -> Verification:
    """Compare a time-stepped run with recordings of outputs and of the spikes of populations."""
    signals = {**{name: solution.spikes.get(name) for name in recorded}, **solution.y}
    expected = {
        name: _fitted(name, array, np.shape(signals[name])) for name, array in recorded.items()
    }
    got = {name: np.asarray(signals[name]) for name in expected}
    counts = np.zeros(4, int)
    spikes_expected = spikes_got = 0
    errors: list[float] = []
    differences: list[Difference | None] = []
    for name in expected:
        if name in solution.spiking or name not in solution.y:
            same = (expected[name] == got[name]).all(axis=0)
            is_active = (expected[name] != 0).any(axis=0)
            counts += [same.size, is_active.sum(), same.sum(), (same & is_active).sum()]
            spikes_expected += round(float(expected[name].sum()))
            spikes_got += round(float(got[name].sum()))
            differences.append(_first(name, expected[name], got[name], 0.0))
        else:
            scale = _scales(expected[name])
            error = _rms(got[name] - expected[name])
            with np.errstate(divide="ignore", invalid="ignore"):
                relative = np.where(error == 0, 0.0, error / scale)
            errors.append(float(relative.max(initial=0.0)))
            if errors[-1] > MEMBRANE_TOLERANCE:
                differences.append(
                    _first(name, expected[name], got[name], MEMBRANE_TOLERANCE * scale)
                )
    places = [difference for difference in differences if difference is not None]
    trains, active, identical, identical_active = (int(count) for count in counts)
    return Verification(
        trains=trains,
        active=active,
        identical=identical,
        identical_active=identical_active,
        relative_rmse=max(errors) if errors else None,
        spikes_expected=spikes_expected,
        spikes_got=spikes_got,
        first_difference=min(places, key=lambda difference: difference.step) if places else None,
    )


def _by_output(solution: SteppedSolution, y: Any) -> dict[str, Any]:
    if isinstance(y, Mapping):
        for name in y:
            if name not in solution.y:
                raise UsageError(
                    Text("the network has no output '{node}'", node=name),
                    fix=suggestion(name, solution.y),
                    node=name,
                )
        if not y:
            raise UsageError(
                "the recording contains no outputs",
                fix=f"pass at least one of {', '.join(solution.y)}",
            )
        return dict(y)
    if len(solution.y) != 1:
        raise UsageError(
            Text(
                "the network has {count} outputs ({outputs})",
                count=len(solution.y),
                outputs=", ".join(solution.y),
            ),
            fix="pass a mapping from output names to recordings",
        )
    return {next(iter(solution.y)): y}


def _fitted(name: str, array: Any, shape: tuple[int, ...]) -> np.ndarray:
    recorded = np.asarray(array, float)
    if recorded.shape != shape:
        raise UsageError(
            Text(
                "output '{node}': the recording has shape {actual}, but the simulation has shape "
                "{expected}",
                node=name,
                actual=recorded.shape,
                expected=shape,
            ),
            fix="record the same number of time steps and samples of the output as of the input, "
            "(time, batch, ...)",
            node=name,
        )
    with np.errstate(over="ignore"):
        finite = np.isfinite(recorded.astype(np.float32))
    if not finite.all():
        place = tuple(int(index) for index in np.argwhere(~finite)[0])
        raise UsageError(
            Text(
                "output '{node}': the recording has {value} at {index}",
                node=name,
                value=float(recorded[place]),
                index=place,
            ),
            fix="record finite values in the range of float32",
            node=name,
        )
    return recorded


def _rms(array: np.ndarray) -> np.ndarray:
    """Return the root mean square of each neuron, (*shape) of (time, batch, *shape)."""
    return np.sqrt(np.mean(np.square(array), axis=(0, 1)))


def _scales(array: np.ndarray) -> np.ndarray:
    """Return the scale of each neuron's errors: its root mean square, or a fraction of the largest
    in the population for a neuron whose membrane hardly changes, since it may be the difference of
    large numbers.
    """
    rms = _rms(array)
    return np.maximum(rms, _LEAST_SHARE * rms.max(initial=0.0))


def _first(
    name: str, expected: np.ndarray, got: np.ndarray, tolerance: float | np.ndarray
) -> Difference | None:
    """Return the first place where two recordings (time, batch, *shape) differ by more than a
    tolerance, one for all or (*shape).
    """
    steps, batch = expected.shape[:2]
    apart = ~(np.abs(expected - got) <= tolerance)
    if not apart.any():
        return None
    step, sample, neuron = (int(place) for place in np.argwhere(apart.reshape(steps, batch, -1))[0])
    pair = (
        float(array.reshape(steps, batch, -1)[step, sample, neuron]) for array in (expected, got)
    )
    expected_value, got_value = pair
    return Difference(
        node=name, neuron=neuron, batch=sample, step=step, expected=expected_value, got=got_value
    )


#: Maximum number of runs.
MOST = 32


@dataclass(frozen=True, kw_only=True)
class FittingOptions:
    """Options of `jaxsnn.read` with which a file reproduces a recording.

    Attributes:
        options: Values by option name; "NODE:VALUE" for single nodes.
    """

    options: Mapping[str, Any]

    @property
    def text(self) -> Text:
        """Text of the options for a message.

        >>> print(FittingOptions(options={"reset": "zero", "reset_delay": False}))
        reset="zero" and reset_delay=False
        """
        options = file_options()
        settings = ((options[name], value) for name, value in self.options.items())
        texts = (Text("{option}", option=option.set_to(value)) for option, value in settings)
        return Text.joined(" and ", texts)

    def __str__(self) -> str:
        return str(self.text)


def fitting_options(
    graph: Graph, x: Any, y: Any, *, most: int = MOST
) -> tuple[FittingOptions, ...]:
    """Find values of the options that a file leaves open that reproduce the source's output.

    Resets, reset delays if the framework has both, and the framework's own options
    (`FrameworkOption.tries`) are tried for all nodes; then resets, delays and boolean options for
    one node at a time.

    Args:
        graph: Read with its dialect, with any options for resets.
        x, y: See `jaxsnn.verify`.
        most: Maximum number of runs.

    Returns:
        The options that fit, shortest first; empty if none does.
    """
    fitting = []
    for reading, dialect in islice(_candidates(graph), most):
        try:
            network = lower(graph.with_dialect(dialect), dtype=np.float32)
            fits = compare(simulate(network, x, engine=TimeStepped()), y).ok
        except JaxsnnError:  # this framework has no such option, or it contradicts the file
            continue
        if fits:
            fitting.append(reading)
    return tuple(sorted(fitting, key=lambda reading: len(str(reading))))


def _candidates(graph: Graph) -> Iterator[tuple[FittingOptions, Dialect]]:
    """Yield candidate options, and the dialects that they produce."""
    conventions = graph.dialect.conventions
    if conventions is None:
        return
    # A reset delay that the framework defines need not be tried.
    delays = (False, True) if conventions.reset_delay is None else (conventions.reset_delay,)
    options = [option for option in conventions.options if option.tries]
    for values in _ways(delays, options):
        choice = _explicit_options(values, graph.dialect)
        yield FittingOptions(options=choice), _with_options(graph.dialect, choice)
    ways = list(_ways(delays, [option for option in options if option.kind == "bool"]))
    firing = [
        name
        for name in graph.neurons
        if graph.nodes[name].traits.fires and not graph.dialect.at(name).readout
    ]
    for name, values in product(firing if len(firing) > 1 else (), ways):
        choice = {option: f"{name}:{_text(value)}" for option, value in values.items()}
        nodes = {**graph.dialect.nodes, name: {**graph.dialect.nodes.get(name, {}), **values}}
        yield FittingOptions(options=choice), replace(graph.dialect, nodes=nodes)


def _ways(
    delays: tuple[bool, ...], framework_options: list[FrameworkOption]
) -> Iterator[dict[str, Any]]:
    """Yield the values of the options, in all combinations."""
    choices: dict[str, tuple[Any, ...]] = {"reset": ("zero", "subtract"), "reset_delay": delays}
    choices |= {option.name: option.tries for option in framework_options}
    for values in product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def _explicit_options(option_values: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Return the options without those that equal the framework's default and are not
    overridden.
    """
    conventions = dialect.conventions
    if conventions is None:
        return dict(option_values)
    usual: dict[str, Any] = {
        option.name: option.tries[0] for option in conventions.options if option.tries
    }
    usual["reset_delay"] = conventions.reset_delay
    omittable = {option.name for option in conventions.options if option.kind != "bool"}
    omittable |= {"reset_delay"} if conventions.reset_delay is not None else set()

    def holds(name: str, value: Any) -> bool:
        if any(name in node_options for node_options in dialect.nodes.values()):
            return False
        now = dialect.framework_options.get(name, getattr(dialect, name, None))
        return value == (usual[name] if now is None else now)

    return {
        name: value
        for name, value in option_values.items()
        if name not in omittable or not holds(name, value)
    }


def _with_options(dialect: Dialect, option_values: Mapping[str, Any]) -> Dialect:
    """Return a dialect with options for all nodes except readouts, which do not reset."""
    nodes = {
        name: {
            key: value
            for key, value in node_options.items()
            if node_options.get("readout") or key not in option_values
        }
        for name, node_options in dialect.nodes.items()
    }
    dialect_fields = {field.name for field in dataclasses.fields(Dialect)}
    fields = {key: value for key, value in option_values.items() if key in dialect_fields}
    rest = {key: value for key, value in option_values.items() if key not in dialect_fields}
    return replace(
        dialect, nodes=nodes, framework_options={**dialect.framework_options, **rest}, **fields
    )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


#: Ratio of the standard deviation and the median absolute deviation of a normal distribution.
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True, kw_only=True)
class SpikeResiduals:
    """Spike residuals of one population. `jaxsnn.simulation.spike_alignment` pairs recorded with
    expected spikes of a neuron, in order; spikes more than 2 `tau` apart are not paired.

    Attributes:
        expected, recorded: numbers of spikes.
        missing, extra: numbers of expected spikes, and of recorded spikes, without a pair.
        mean: mean of recorded minus expected times, in units of `tau`; None without pairs.
        deviation: their standard deviation.
        sigma: their median absolute deviation, scaled to the standard deviation of a normal
            distribution.
        tau: unit of the three, seconds.
    """

    expected: int
    recorded: int
    missing: int
    extra: int
    mean: float | None
    deviation: float | None
    sigma: float | None
    tau: float

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        return dict(vars(self))

    def as_text(self) -> str:
        """Return human-readable text."""
        text = (
            f"spikes: {self.expected} expected, {self.recorded} recorded, {self.missing} missing, "
            f"{self.extra} additional"
        )
        if self.mean is None:
            return text
        return (
            f"{text}; recorded - expected times, in units of tau: mean {self.mean:+.3f}, std "
            f"{self.deviation:.3f}, MAD sigma {self.sigma:.3f}"
        )


def residuals(expected: np.ndarray, recorded: np.ndarray, tau: float) -> SpikeResiduals:
    """Compare sorted spike times (samples, neurons, spikes) in seconds; unused slots are inf.

    >>> inf = float("inf")
    >>> report = residuals(np.array([[[1.0, 2.0]]]), np.array([[[1.25, inf]]]), tau=0.5)
    >>> report.missing, report.extra, report.mean
    (1, 0, 0.5)
    """
    expected, recorded = _by_train(expected), _by_train(recorded)
    paired = align(expected, recorded, tau)
    late = (paired - expected)[np.isfinite(paired)] / tau
    counts = [int(np.isfinite(times).sum()) for times in (expected, recorded)]
    centre = np.median(late) if late.size else 0.0
    return SpikeResiduals(
        expected=counts[0],
        recorded=counts[1],
        missing=counts[0] - late.size,
        extra=counts[1] - late.size,
        mean=float(late.mean()) if late.size else None,
        deviation=float(late.std()) if late.size else None,
        sigma=float(MAD_TO_SIGMA * np.median(np.abs(late - centre))) if late.size else None,
        tau=tau,
    )


def _by_train(times: np.ndarray) -> np.ndarray:
    """Return (samples, neurons, spikes) as (trains, spikes)."""
    samples, neurons, slots = times.shape
    return times.reshape(samples * neurons, slots)


#: Ratio of simulated and recorded times from which the recording may be in another unit.
_UNIT_RATIO = 10.0
#: Fraction of the distance to the simulation that remains if recorded times are in another unit.
_UNIT_DISTANCE = 0.5


def refuse_other_unit(
    expected: Mapping[str, np.ndarray], recorded: Mapping[str, np.ndarray], tau: Mapping[str, float]
) -> None:
    """Refuse recorded times that match the simulation only after a multiplication, such as seconds
    of the chip, which runs faster than the network.

    Args:
        expected, recorded: population -> sorted spike times, (samples, neurons, spikes) seconds.
        tau: population -> unit of its residuals, seconds.

    Raises:
        UsageError: the times are at least 10 times too small or too large, and multiplied they
            have less than half the distance to the simulation.
    """
    medians = []
    for trains in (expected, recorded):
        times = np.concatenate([trains[name].ravel() for name in recorded])
        medians.append(
            float(np.median(times[np.isfinite(times)])) if np.isfinite(times).any() else 0
        )
    if min(medians) <= 0:
        return
    ratio = medians[0] / medians[1]
    if 1 / _UNIT_RATIO < ratio < _UNIT_RATIO:
        return

    def total(factor: float) -> float:
        return sum(
            distance(_by_train(expected[name]), factor * _by_train(times), tau[name])
            for name, times in recorded.items()
        )

    # A speedup is usually a power of ten. The ratio of medians is inexact if spikes are missing.
    factor = min((10.0 ** round(np.log10(ratio)), ratio), key=total)
    if total(factor) < _UNIT_DISTANCE * total(1.0):
        raise UsageError(
            Text(
                "the recorded times are in another unit: multiplied by {factor:.4g}, they match the "
                "simulation",
                factor=factor,
            ),
            fix="save times in seconds of the network, which are seconds of the chip times its speedup "
            "(1,000 by default)",
        )


def first_spike_accuracy(times: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of samples in which the neuron of the label fires before all others of a
    population (samples, neurons, spikes); a sample without a spike counts as wrong.

    Args:
        labels: (samples,) integers, indices of neurons.

    Raises:
        UsageError: a label that is not the index of a neuron, or a wrong number of labels.
    """
    samples, neurons = times.shape[:2]
    if labels.shape != (samples,) or labels.dtype.kind not in "iu":
        raise UsageError(
            Text(
                "label has dtype {dtype} and shape {shape}, and the recording has {samples} "
                "samples",
                dtype=labels.dtype,
                shape=labels.shape,
                samples=samples,
            ),
            fix="save one integer label for each sample, shape (samples,)",
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < neurons):
        raise UsageError(
            Text(
                "labels range from {minimum} to {maximum}, but there are {neurons} output neurons",
                minimum=int(labels.min()),
                maximum=int(labels.max()),
                neurons=neurons,
            ),
            fix=f"number the classes from 0 to {neurons - 1}",
        )
    first = times[..., 0] if times.shape[2] else np.full(times.shape[:2], np.inf)
    answered = np.isfinite(first.min(axis=1))
    return float(np.mean(answered & (first.argmin(axis=1) == labels)))
