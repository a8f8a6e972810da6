"""What an engine does not run, listed before anything runs; here the event engine's. Nothing here loads JAX."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from jaxsnn.errors import LoweringError, listing
from jaxsnn.wiring import LINEAR, Population, Wire

#: NIR types of neurons that the engines run.
NEURONS = ("CubaLIF", "CubaLI", "LIF", "LI", "IF", "I")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One reason why an engine cannot run a network: the node, a code for scripts, what, and what to do about it."""

    node: str
    code: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.message}: {self.fix}"


def refuse(limits: Iterable[Limit]) -> None:
    """Raise a LoweringError with the first limit, if there is one."""
    first = next(iter(limits), None)
    if first is not None:
        raise LoweringError(str(first))


def event_limits(wires: Iterable[Wire], populations: Mapping[str, Population]) -> Iterator[Limit]:
    """Why the event engine cannot run a network, in the order of its nodes.

    Args:
        wires: in execution order.
        populations: by name.
    """
    done: set[str] = set()
    steady: set[str] = set()
    for wire in wires:
        done.add(wire.name)
        for source in (source for source in wire.sources if source not in done or source == wire.name):
            yield Limit(
                node=wire.name,
                code="recurrent",
                message=f"nodes '{source}' and '{wire.name}' form a cycle",
                fix="the event engine runs feed-forward networks so far, the grid engine runs all",
            )
        if wire.kind not in ("input", "output", "neuron", *LINEAR):
            supported = listing((*NEURONS, *LINEAR))
            yield Limit(
                node=wire.name,
                code="unsupported-node",
                message=f"node '{wire.name}' is a {wire.kind}",
                fix=f"the event engine runs {supported}",
            )
        if wire.kind == "Affine" or (wire.kind != "neuron" and not steady.isdisjoint(wire.sources)):
            steady.add(wire.name)  # a bias is in what leaves it
        if wire.name in populations:
            yield from _population_limits(populations[wire.name], biased=not steady.isdisjoint(wire.sources))


def _population_limits(population: Population, *, biased: bool) -> Iterator[Limit]:
    name, kind = population.name, population.kind
    where = f"node '{name}' ({kind})"
    current_based = kind in ("CubaLIF", "CubaLI")
    boxes = population.spike_kernel == "box"
    needed = ["seconds", "spike_area", "initial", "tau", "tau_mem", "tau_syn", "spike_kernel"]
    needed += ["reset", "v_reset"] * population.fires
    needed += ["dt"] * ((boxes and not current_based) or (biased and population.bias == "step"))
    yield from obstacles(population, needed)
    if population.fires and population.reset == "none":
        yield Limit(
            node=name,
            code="no-reset",
            message=f"{where} has reset 'none'",
            fix=f"say --readout {name} if it is a leaky readout",
        )
    if not boxes and not current_based and "spike_kernel" not in dict(population.obstacles):
        why = "it can only fire at an arrival, where its spike time has no gradient" if population.fires else "V jumps"
        yield Limit(
            node=name,
            code="delta-spikes",
            message=f"{where}: under delta spikes {why}",
            fix=f"not supported so far, say --spike-kernel {name}:box",
        )
    elif boxes and current_based:
        yield Limit(
            node=name,
            code="box-spikes",
            message=f"{where}: no box spikes here so far",
            fix=f"say --spike-kernel {name}:delta",
        )


def limit_of(node: str, code: str, error: Exception) -> Limit:
    """An error as a limit: what stands behind its last colon is what to do."""
    message, _, fix = str(error).rpartition(": ")
    return Limit(node=node, code=code, message=message, fix=fix)


def obstacles(population: Population, fields: Iterable[str]) -> Iterator[Limit]:
    """What nobody said of a population and what makes no sense, among some fields; one limit for each way out."""
    ways: list[str] = []
    for field, reason in population.obstacles:
        message, _, fix = reason.rpartition(": ")
        if field in fields and fix not in ways:
            ways.append(fix)
            code = "bad-parameter" if field in ("tau", "tau_mem", "tau_syn", "v_reset", "r") else "not-said"
            yield Limit(node=population.name, code=code, message=message, fix=fix)
