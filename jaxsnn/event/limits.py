"""What the event engine does not run, all of it, listed before anything runs.

Nothing here loads JAX.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from jaxsnn.errors import LoweringError, Problem, listing
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.neuron_models import is_registered, neuron_kinds
from jaxsnn.network.obstacles import obstacles, unknown_model
from jaxsnn.network.structure import OPERATORS, Population, Wire, carried, carriers
from jaxsnn.options import ENGINE, MIN_V_MEM, READOUT, RESET, SPIKE_KERNEL
from jaxsnn.wording import Text

_STEPPED = Text("simulate with {engine}", engine=ENGINE.set_to("grid"))


def event_limits(
    wires: Iterable[Wire],
    populations: Mapping[str, Population],
    currents: Collection[str] = (),
) -> Iterator[Problem]:
    """Yield why the event engine cannot run a network, in the order of its nodes.

    Args:
        wires: in execution order.
        populations: by name.
        currents: inputs that are currents, not spikes.
    """
    wires = tuple(wires)
    steady = _steady(wires)
    lasting = carriers(wires, currents)
    looped: set[str] = set()
    # A cycle without neurons is a problem of its own; the others are listed all the same.
    try:
        cycles = [part for part in groups(wires) if isinstance(part, Cycle)]
        looped = {wire.name for cycle in cycles for wire in cycle.wires}
        yield from _in_turn(cycles)
    except LoweringError as error:
        yield error.problem
    kinds = {wire.name: wire.kind for wire in wires}
    # What is wrong comes in the order of the nodes, and in the order of the checks at each.
    for wire in wires:
        if not wire.linear and wire.kind not in ("input", "output", "neuron"):
            supported = listing((*neuron_kinds(), *OPERATORS))
            fix = f"replace it, the event engine runs {supported}"
            if wire.kind == "Threshold":
                fix = _STEPPED
                # MaxPool2d of spikes is read as a sum that is compared with a threshold.
                if any(kinds[source] == "SumPool2d" for source in wire.sources):
                    fix = "take AvgPool2d in place of the largest of a window, or " + _STEPPED
            yield Problem(
                node=wire.name,
                code="unsupported-node",
                message=f"node '{wire.name}' is a {wire.kind}",
                fix=fix,
            )
        # A constant that passes a Delay begins at its end: no constant any more.
        if wire.kind == "Delay" and not steady.isdisjoint(wire.sources):
            yield Problem(
                node=wire.name,
                code="late-bias",
                message=f"node '{wire.name}' (Delay) delays the bias that comes from "
                f"{listing(name for name in wire.sources if name in steady)}, which would begin at "
                "the delay",
                fix="put the bias behind the Delay, or " + _STEPPED,
            )
        if wire.name in populations:
            # Biases and currents last: how a step takes them up has to be known.
            yield from _population_limits(
                populations[wire.name],
                steadily=not (steady | lasting).isdisjoint(wire.sources),
                looped=wire.name in looped,
            )
    yield from _voltage_limits(wires, populations)
    yield from _mixture_limits(wires, populations, currents)


def _in_turn(cycles: Iterable[Cycle]) -> Iterator[Problem]:
    """Loops in which the order of the nodes decides where a time step passes."""
    for cycle in (cycle for cycle in cycles if cycle.in_turn):
        listed_nodes = listing(wire.name for wire in cycle.wires)
        between = {wire.name for wire in cycle.wires if wire.kind != "neuron"}
        if any(between.issuperset({*wire.late, wire.name}) for wire in cycle.wires if wire.late):
            description, fix = "form a loop without a neuron, which remembers", _STEPPED
        else:
            description = "join what several neurons of their loop send, which passes"
            fix = "give each way from neuron to neuron weights of its own, or " + _STEPPED
        yield Problem(
            node=cycle.wires[0].name,
            code="instant-cycle",
            message=f"nodes {listed_nodes} {description} from one time step to the next in the order of the "
            "importer, and continuous time has no steps",
            fix=fix,
        )


def late_by_target(wires: Iterable[Wire]) -> Iterator[Problem]:
    """Delays in a loop that each neuron of the target has for itself, which no engine in continuous
    time runs, streams apart.

    Args:
        wires: in execution order.
    """
    try:
        cycles = [part for part in groups(tuple(wires)) if isinstance(part, Cycle)]
    except LoweringError:  # `event_limits` says so
        return
    for cycle in cycles:
        inside = {wire.name: wire for wire in cycle.wires}
        for wire in cycle.wires:
            behind = [inside[name] for name in wire.sources if name in inside]
            if wire.kind == "Delay" and wire.size > 1 and _any_spreads(behind, inside):
                yield Problem(
                    node=wire.name,
                    code="late-by-target",
                    message=f"node '{wire.name}' (Delay) is part of a cycle and has {wire.size} delays"
                    " behind weights, one for each that is reached",
                    fix="put it right behind the neurons that send, or " + _STEPPED,
                )


def _any_spreads(wires: Iterable[Wire], inside: Mapping[str, Wire]) -> bool:
    """Whether some linear nodes, or those before them in the loop, send a channel to several."""
    seen: set[str] = set()
    waiting = list(wires)
    while waiting:
        wire = waiting.pop()
        if wire.name in seen or wire.linear is None:
            continue
        seen.add(wire.name)
        if _spreads(wire):
            return True
        waiting += [inside[name] for name in wire.sources if name in inside]
    return False


def _spreads(wire: Wire) -> bool:
    """Whether a linear node sends a channel to several."""
    window = wire.detail
    if wire.kind in ("Scale", "Delay", "Flatten"):
        return False
    if wire.kind in ("SumPool2d", "AvgPool2d"):
        axes = zip(window.kernel, window.stride, window.dilation, strict=True)
        return any(stride <= (taps - 1) * apart for taps, stride, apart in axes)
    if wire.kind == "Linear" and wire.detail is not None:  # copies of channels
        return len(set(wire.detail)) < len(wire.detail)
    return wire.size > 1


def without_kernels(
    wires: Sequence[Wire], populations: Mapping[str, Population]
) -> Iterator[Problem]:
    """Yield the populations that XLA runs on a CPU, too, as the native kernels do not cover them.

    Args:
        wires: as of `event_limits`.
        populations: by name; neurons that are missing are left out.
    """
    whys: dict[str, list[str]] = {}
    try:
        cycles = [part for part in groups(tuple(wires)) if isinstance(part, Cycle)]
    except LoweringError:  # `event_limits` says so
        return
    loops = {name: cycle.order for cycle in cycles for name in cycle.order}
    for name, population in populations.items():
        # a loop is run as a whole
        inside = [populations[part] for part in loops.get(name, (name,)) if part in populations]
        why = next(filter(None, map(_outside_kernels, inside)), None)
        if why is None and name in loops:
            why = _loop_outside_kernels(inside)
        if population.fires and why:
            whys.setdefault(why, []).append(name)
    for why, node_names in whys.items():
        yield Problem(
            node=node_names[0] if len(node_names) == 1 else "",
            code="by-xla",
            message=f"{listing(node_names)}: run by XLA, and not by the kernels, which takes longer: {why}",
            severity="note",
        )


def _outside_kernels(population: Population) -> str | None:
    """Return why no kernel knows a population by itself; None where one does."""
    if is_registered(population.kind):
        return "its neuron model is none of NIR's"
    if population.kind == "CubaLIF" and population.spike_kernel == "box":
        return "boxes drive currents that decay"
    return None


def _loop_outside_kernels(inside: Sequence[Population]) -> str | None:
    """Return why no kernel knows a loop of populations each of which may be known."""
    boxed = {population.name for population in inside if population.spike_kernel == "box"}
    if any(
        population.kind in ("LIF", "IF") and population.name not in boxed for population in inside
    ):
        return "spikes of a loop move V itself"
    if 0 < len(boxed) < len(inside):
        return "spikes of a loop are boxes for some neurons and not for others"
    if len({population.reset for population in inside}) > 1:
        return "the neurons of a loop are reset by different rules"
    return None


def output_limits(
    wires: Sequence[Wire], populations: Mapping[str, Population]
) -> Iterator[Problem]:
    """Yield Outputs that the event engine cannot write: those that weights or an Input feed, which
    send no spikes of neurons.

    Thresholds, and voltages that come through other nodes, are problems of `event_limits`.

    Args:
        wires: as of `event_limits`.
        populations: by name; neurons that are missing are taken for some that fire.
    """
    kinds = {wire.name: wire.kind for wire in wires}
    voltages = _voltages_into(wires, populations)
    for wire in wires:
        if wire.kind != "output" or not set(voltages[wire.name]) <= set(wire.sources):
            continue
        sent = [kinds[name] for name in wire.sources]
        # A single readout has a voltage to write; several sources must all fire.
        fires = [
            kind == "Threshold" or (kind == "neuron" and not _is_silent(populations.get(name)))
            for name, kind in zip(wire.sources, sent, strict=True)
        ]
        if sent != ["neuron"] and not (fires and all(fires)):
            yield Problem(
                node=wire.name,
                code="output-source",
                message=f"output '{wire.name}' is fed by {listing(wire.sources)}",
                fix="feed it by spiking populations alone, or by one readout, to be written as one;"
                " jaxsnn.simulate gives what each of its sources does",
            )


def _is_silent(population: Population | None) -> bool:
    """Whether it is known not to fire."""
    return population is not None and not population.fires


def _voltages_into(
    wires: Sequence[Wire], populations: Mapping[str, Population]
) -> dict[str, tuple[str, ...]]:
    """Return for each node the readouts whose voltages enter it, directly or through linear nodes."""
    readouts = [name for name, population in populations.items() if _is_silent(population)]
    return carried(wires, readouts)


def _voltage_limits(
    wires: Sequence[Wire], populations: Mapping[str, Population]
) -> Iterator[Problem]:
    """Yield readouts that send their voltage on, Thresholds aside."""
    entering = _voltages_into(wires, populations)
    for wire in wires:
        if wire.linear or wire.kind == "Threshold":
            continue
        for source in entering[wire.name]:
            if wire.kind == "output":
                if source in wire.sources:  # it is recorded
                    continue
                destination = f"through other nodes to Output '{wire.name}'"
                fix = _STEPPED + ", the event engine records voltages of neurons only"
            else:
                kind = populations[wire.name].kind if wire.name in populations else wire.kind
                destination = f"on to '{wire.name}' ({kind})"
                fix = "put spiking neurons in between, or " + _STEPPED
            yield Problem(
                node=source,
                code="analog-signal",
                message=f"node '{source}' ({populations[source].kind}) sends its voltage {destination}",
                fix=fix,
            )


def _mixture_limits(
    wires: Sequence[Wire],
    populations: Mapping[str, Population],
    currents: Collection[str],
) -> Iterator[Problem]:
    """Yield neurons that receive delta spikes and currents, which are boxes."""
    lasting = carriers(wires, currents)
    firing = [name for name, population in populations.items() if population.fires]
    inputs = [wire.name for wire in wires if wire.kind == "input" and wire.name not in currents]
    spiking = carriers(wires, [*firing, *inputs])
    for wire in wires:
        if wire.name not in populations or populations[wire.name].spike_kernel != "delta":
            continue
        # One linear node can carry both: then it stands for both sources.
        current = next((source for source in wire.sources if source in lasting), None)
        spikes = next((source for source in wire.sources if source in spiking), None)
        if current is not None and spikes is not None:
            yield Problem(
                node=wire.name,
                code="current-and-deltas",
                message=f"node '{wire.name}' ({populations[wire.name].kind}) receives the current of"
                f" an input from '{current}' and delta spikes from '{spikes}'",
                fix=Text(
                    "pass {spike_kernel}, or {stepped}",
                    spike_kernel=SPIKE_KERNEL.set_to("box", node=wire.name),
                    stepped=_STEPPED,
                ),
            )


def _steady(wires: Sequence[Wire]) -> set[str]:
    """Names of the linear nodes whose output has a constant in it, which biases leave."""
    return carriers(wires, [wire.name for wire in wires if wire.biased])


def _population_limits(
    population: Population, *, steadily: bool, looped: bool
) -> Iterator[Problem]:
    name, kind = population.name, population.kind
    location = f"node '{name}' ({kind})"
    # What the file has to say, or the user: always, of neurons that fire, and of steps.
    needed = ["seconds", "spike_area", "initial", "tau", "tau_mem", "tau_syn", "spike_kernel"]
    needed += ["reset", "v_reset"] * population.fires
    # The length of a step is a duration in continuous time, too: of a box, of a delay of one step,
    # of a current that a step adds up.
    needed += ["dt"] * (
        population.spike_kernel == "box"
        or (steadily and population.bias == "step")
        or (looped and population.recurrent_delay > 0)
    )
    yield from unknown_model(population)
    yield from obstacles(population, needed)
    if population.resetting:
        yield Problem(
            node=name,
            code="resetting-readout",
            message=f"{location} gives its membrane and resets ({population.reset}), and the event"
            " engine has readouts that never reset",
            fix=Text(
                "{stepped}, or pass {reset}",
                stepped=_STEPPED,
                reset=RESET.set_to("none", node=name),
            ),
        )
    if population.floor is not None:
        yield Problem(
            node=name,
            code="floor",
            message=f"{location} keeps V at {population.floor:g} or above, step by step, which"
            " continuous time has no rule for",
            fix=Text(
                "{stepped}, or pass {bound}",
                stepped=_STEPPED,
                bound=MIN_V_MEM.set_to("none", node=name),
            ),
        )
    if population.fires and population.reset == "none":
        yield Problem(
            node=name,
            code="no-reset",
            message=f"{location} has reset 'none'",
            fix=Text(
                "pass {readout} if it is a leaky readout, or another reset",
                readout=READOUT.set_to(name),
            ),
        )
