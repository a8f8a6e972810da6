"""Verdicts: does a convention explain what a framework computed for a graph?"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import linecache
import logging
import re
import signal
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxsnn.conformance.adapter import Adapter
from jaxsnn.conformance.reference import (
    MEANINGS,
    Convention,
    ReferenceRun,
    conventions,
    run_reference,
)
from jaxsnn.errors import JaxsnnError, first_line
from jaxsnn.nir.graphs.parse import parse
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.passes import shapes

VerdictName = Literal["pass", "wrong", "refused", "crash", "not applicable"]
VERDICTS: tuple[VerdictName, ...] = ("pass", "wrong", "refused", "crash", "not applicable")
#: Largest relative root mean square error of a readout.
MEMBRANE_TOLERANCE = 1e-4
#: Numbers, lists of numbers and shapes in messages.
_NUMBERS = re.compile(r"\d[\d., x]*")
#: Smallest share of time steps and samples that rounding in float32 leaves decided.
_DECIDED = 0.5
#: Time steps after which a convention that explains no spikes so far is left out.
_FIRST_STEPS = 10
#: Values that an importer assumes for a parameter that it does not read.
_IGNORED: Mapping[str, float] = {
    "r": 1,
    "w_in": 1,
    "v_leak": 0,
    "v_reset": 0,
    "bias": 0,
    "padding": 0,
    "dilation": 1,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What the suite concludes of one network.

    Attributes:
        verdict: "pass": a convention explains every spike; "wrong": none does, or the file is not what
            NIR allows; "refused": the framework raises an error on purpose; "crash": any other error;
            "not applicable": the framework has nothing like it.
        reason: why, in one sentence.
        convention: the convention that explains the outputs, the closest to the literal reading.
        exported: of a round trip, the convention that explains the module and its file, if the
            importer follows another.
        diagnosis: change of the file that explains wrong outputs.
        warning: what the framework printed or logged.
        stage: the method of the adapter that fails, or whose result is wrong: "build", "run", "export"
            or "import".
        file: nir.NIRGraph that the exporter wrote or that the importer read.
        expected: outputs that the file has under the closest convention, (time, batch, *shape).
        actual: outputs of the framework.
    """

    verdict: VerdictName
    reason: str = ""
    convention: Convention | None = None
    exported: Convention | None = None
    diagnosis: Diagnosis | None = None
    warning: str = ""
    stage: str = ""
    file: Any = None
    expected: np.ndarray | None = None
    actual: np.ndarray | None = None

    @property
    def cause(self) -> str:
        """The reason without the numbers of this network: failures with equal causes are the same fault."""
        reason = self.reason if self.diagnosis is None else self.diagnosis.cause
        return f"{self.stage}: {re.sub(_NUMBERS, 'N', reason)}"


class FrameworkError(Exception):
    """An error of the framework, with the answer that follows from it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.reason)
        self.answer = answer

    @classmethod
    def of(cls, error: Exception, stage: str, adapter: Adapter) -> FrameworkError:
        """Return the failure for an exception.

        It is a refusal if a `raise` or `assert` in the framework's own code, or in nirtorch, raised it;
        else a crash.
        """
        frame = traceback.extract_tb(error.__traceback__)[-1]
        packages = {adapter.distribution.replace("-", "_"), "nirtorch"}
        is_own = not packages.isdisjoint(Path(frame.filename).parts)
        on_purpose = isinstance(error, NotImplementedError) or (is_own and _raises(frame))
        reason = f"{stage}: {type(error).__name__}: {first_line(error)}"
        verdict = "refused" if on_purpose else "crash"
        return cls(Answer(verdict=verdict, reason=reason, stage=stage))


def _raises(frame: traceback.FrameSummary) -> bool:
    """Return whether the statement of a frame is a `raise` or an `assert`."""
    try:
        tree = ast.parse("".join(linecache.getlines(frame.filename)))
    except SyntaxError:
        return False
    line = frame.lineno or 0
    return any(
        isinstance(node, ast.Raise | ast.Assert) and node.lineno <= line <= (node.end_lineno or 0)
        for node in ast.walk(tree)
    )


class CallLog:
    """What a framework prints and logs while it is called."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def with_warning(self, answer: Answer) -> Answer:
        """Return an answer with the first warning of the log."""
        lines = [line.strip() for line in self.stream.getvalue().splitlines()]
        warning = next((line for line in lines if "warning" in line.lower()), "")
        return replace(answer, warning=warning)


@contextlib.contextmanager
def capture_output() -> Iterator[CallLog]:
    """Collect what a framework prints, warns and logs while the context lasts."""
    log = CallLog()
    handler = logging.StreamHandler(log.stream)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with (
            contextlib.redirect_stdout(log.stream),
            contextlib.redirect_stderr(log.stream),
            warnings.catch_warnings(),
            np.errstate(all="ignore"),
        ):
            warnings.simplefilter("ignore")
            yield log
    finally:
        root.removeHandler(handler)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError if the context uses more processor time.

    Processor time does not depend on what else the machine does. Only the main thread can be
    interrupted, and not on Windows; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGPROF"):
        yield
        return

    def interrupt(*_: object) -> None:
        raise TimeoutError(f"no result after {seconds:g} s of processor time")

    previous = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def parse_exported(written: Any) -> Graph:
    """Return what an exporter wrote as a graph.

    Raises:
        FrameworkError: the graph is invalid, the shape of a population differs from that of its input, or nir
            cannot write or read the file.
    """
    try:
        write_and_read(written)
    except Exception as error:
        reason = f"file: {type(error).__name__}: {first_line(error)}"
        raise FrameworkError(Answer(verdict="wrong", reason=reason, stage="export")) from error
    try:
        graph = parse(written, dialect="nir", time_unit="s")
    except JaxsnnError as error:
        raise FrameworkError(
            Answer(verdict="wrong", reason=f"file: {error.problem.message}", stage="export")
        ) from error
    for name, (inward, _) in shapes(graph).items():
        node = graph.nodes[name]
        for parameter in node.traits.parameters if node.traits.state else ():
            value = node.parameters.get(parameter.name)
            if value is None or parameter.per != "element" or np.shape(value) == inward:
                continue
            reason = (
                f"file: {parameter.name} of '{name}' ({node.type}) has shape {np.shape(value)}, and "
                f"the input of the node has shape {inward}"
            )
            raise FrameworkError(Answer(verdict="wrong", reason=reason, stage="export"))
    return graph


def write_and_read(graph: Any, *, reverse: bool = False) -> Any:
    """Return a nir.NIRGraph as nir reads it from the file that nir writes for it.

    Args:
        graph: the graph.
        reverse: whether its edges, whose order has no meaning, are in descending order of their names
            instead of ascending order.
    """
    import nir

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.nir"
        nir.write(path, graph)
        graph = nir.read(path)
    sort_edges(graph, reverse=reverse)
    return graph


def file_bytes(graph: Any) -> bytes | None:
    """Return the NIR file of a graph; None without a graph, or if nir cannot write it."""
    import nir

    if graph is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.nir"
        try:
            nir.write(path, graph)
        except Exception:  # the fault may be that nir cannot write the file
            return None
        return path.read_bytes()


def sort_edges(graph: Any, *, reverse: bool) -> None:
    """Sort the edges of a nir.NIRGraph, and of graphs in it, by names."""
    graph.edges = sorted(graph.edges, reverse=reverse)
    for node in graph.nodes.values():
        if hasattr(node, "edges"):
            sort_edges(node, reverse=reverse)


def explain(graph: Graph, x: np.ndarray, actual: np.ndarray, dt: float) -> Answer:
    """Return whether a convention explains the outputs of a framework for a graph.

    Args:
        graph: the network, in the literal reading.
        x: inputs (time, batch, *shape).
        actual: outputs of the framework (time, batch, *shape).
        dt: length of a time step.
    """
    if convention := _find_convention(graph, x, actual, dt):
        expected = run_reference(graph, x, dt, Convention()).output
        return Answer(verdict="pass", convention=convention, expected=expected, actual=actual)
    return _wrong(graph, x, actual, dt, _diagnose(graph, x, actual, dt))


def confirm(
    diagnosis: Diagnosis | None, graph: Graph, x: np.ndarray, actual: np.ndarray, dt: float
) -> Answer:
    """Return "wrong" if outputs are wrong for the same reason as those of another network, else "pass".

    It is stricter than `explain`: steps that rounding leaves undecided are not held against the
    framework, however many there are.

    Args:
        diagnosis: diagnosis of the other network; None: it has none.
        graph, x, actual, dt: as in `explain`.
    """
    is_same = diagnosis is None or diagnosis.explains(graph, x, actual, dt)
    if not is_same or _find_convention(graph, x, actual, dt, min_decided=0.0):
        return Answer(verdict="pass", actual=actual)
    return _wrong(graph, x, actual, dt, diagnosis)


def _wrong(
    graph: Graph, x: np.ndarray, actual: np.ndarray, dt: float, diagnosis: Diagnosis | None
) -> Answer:
    convention = Convention() if diagnosis is None else diagnosis.convention
    reference = run_reference(graph, x, dt, convention)
    reason = _difference(reference, actual) if diagnosis is None else str(diagnosis)
    return Answer(
        verdict="wrong",
        reason=reason,
        diagnosis=diagnosis,
        expected=reference.output,
        actual=actual,
    )


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A change of a file that explains outputs which the file itself does not explain.

    Attributes:
        ignored: parameters that have the values that an importer assumes without reading them.
        time_factor: factor of the time constants.
        convention: the convention under which the changed file has the outputs.
    """

    ignored: tuple[str, ...] = ()
    time_factor: float = 1.0
    convention: Convention = field(default_factory=Convention)

    @property
    def cause(self) -> str:
        """The change, without the convention."""
        if self.ignored:
            values = " and ".join(f"{name} = {_IGNORED[name]:g}" for name in self.ignored)
            return f"the outputs are those of a file with {values}"
        factor = f"{self.time_factor:g}"
        return f"the outputs are those of a file whose time constants are multiplied by {factor}"

    def __str__(self) -> str:
        """Return the change and the convention."""
        return f"{self.cause} ({self.convention})"

    def explains(self, graph: Graph, x: np.ndarray, actual: np.ndarray, dt: float) -> bool:
        """Return whether a graph with the same change has the outputs, under the same convention."""
        changed = _without_parameters(graph, self.ignored)
        if changed is None:
            return False
        dt /= self.time_factor
        return _agrees(run_reference(changed, x, dt, self.convention), actual, _DECIDED)


def _agrees(reference: ReferenceRun, actual: np.ndarray, min_decided: float) -> bool:
    """Return whether outputs are the same, as far as rounding in float32 leaves them decided."""
    if reference.output.shape != actual.shape:
        return False
    mask = reference.decided
    if mask.mean() < min_decided:
        return False
    expected, decided = reference.output[mask], np.asarray(actual, float)[mask]
    if reference.spiking:
        return np.array_equal(expected, decided)
    error = np.sum((expected - decided) ** 2)
    # A convention under which membrane potentials overflow explains nothing.
    return bool(np.isfinite(error)) and bool(error <= MEMBRANE_TOLERANCE**2 * np.sum(expected**2))


def _diagnose(graph: Graph, x: np.ndarray, actual: np.ndarray, dt: float) -> Diagnosis | None:
    """Return the smallest change of a file that explains the outputs, or None."""
    subsets = [*((name,) for name in _IGNORED), *itertools.combinations(_IGNORED, 2)]
    for ignored in subsets:
        changed = _without_parameters(graph, ignored)
        max_differences = len(MEANINGS) if len(ignored) == 1 else 2
        if changed is not None and (
            convention := _find_convention(changed, x, actual, dt, max_differences)
        ):
            return Diagnosis(ignored=ignored, convention=convention)
    for factor in (dt, 1 / dt) if dt != 1 else ():
        if convention := _find_convention(graph, x, actual, dt / factor):
            return Diagnosis(time_factor=factor, convention=convention)
    return None


def _find_convention(
    graph: Graph,
    x: np.ndarray,
    actual: np.ndarray,
    dt: float,
    max_differences: int = len(MEANINGS),
    min_decided: float = _DECIDED,
) -> Convention | None:
    """Return the closest convention to the literal reading that explains the outputs, or None.

    Args:
        max_differences: number of differences from the literal reading up to which conventions are tried.
        min_decided: smallest share of the outputs that rounding has to leave decided.
    """
    for convention in conventions(graph):
        if len(convention.differences) > max_differences:
            return None
        try:
            # Most conventions differ in the first spikes.
            start = run_reference(graph, x[:_FIRST_STEPS], dt, convention)
            if start.spiking and not _agrees(start, actual[:_FIRST_STEPS], min_decided):
                continue
            if _agrees(run_reference(graph, x, dt, convention), actual, min_decided):
                return convention
        except ValueError:  # shapes that no longer match
            return None
    return None


def _without_parameters(graph: Graph, ignored: Sequence[str]) -> Graph | None:
    """Return a graph whose nodes have the values that an importer assumes for some parameters; None if
    one of the parameters is absent, or has these values.
    """
    for name in ignored:
        changed = {}
        for key, node in graph.nodes.items():
            value = node.parameters.get(name)
            if value is None or isinstance(value, str) or np.all(value == _IGNORED[name]):
                continue
            changed[key] = node.replace(**{name: np.full_like(np.asarray(value), _IGNORED[name])})
        if not changed:
            return None
        graph = graph.with_nodes(changed)
    return graph


def _difference(reference: ReferenceRun, actual: np.ndarray) -> str:
    """Return how outputs differ from the literal reading."""
    if reference.output.shape != actual.shape:
        return f"the output has shape {actual.shape[2:]}, and the file says {reference.output.shape[2:]}"
    if not reference.spiking:
        scale = np.sqrt(np.mean(reference.output**2))
        error = np.sqrt(np.mean((reference.output - actual) ** 2)) / scale
        return f"no convention explains the membrane potentials; relative error {error:.2g}"
    different = int((reference.output != actual).any(axis=0).sum())
    return f"no convention explains the spikes; {different} of {actual[0].size} trains differ from the literal reading"
