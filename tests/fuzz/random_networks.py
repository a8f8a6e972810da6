"""Random networks: a structure for every few seeds, and numbers for each seed.

Time constants are about 1 s. What must be static for one compiled function to serve all seeds of a
structure (sizes, wiring, widths, options, the class of the time constants) belongs to the structure.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.fuzz.nir_reading import NEURONS, Meaning, Node, shapes_of

SAMPLES, EVENTS, T_END = 2, 10, 5.0
TAU_CLASSES = ("double", "half", "equal", "near", "apart", "far", "mixed")
LEVELS = (*["usual"] * 7, "resets above rest", *["thresholds below 0"] * 2)
#: Neuron types of each dialect.
KINDS = {
    "nir": NEURONS,
    "jaxsnn": NEURONS,
    "spikingjelly": ("LIF", "IF", "CubaLIF"),
    "sinabs": ("LIF", "IF", "LI"),
}
Draw = Callable[[np.random.Generator], dict[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A node of a structure: its type, its settings, and what draws its numbers."""

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    draw: Draw | None = None


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What the networks of a few seeds have in common.

    Attributes:
        places: node -> `Place`, in the order in which numbers are drawn.
        meaning: what the file does not say.
        options: of `jaxsnn.nir.build.network`.
        exact: whole-number weights and times on a raster, so that V meets thresholds exactly.
        equal: some events come at exactly equal times.
        ends: some events come at 0 or at the end.
    """

    places: Mapping[str, Place]
    edges: tuple[tuple[str, str], ...]
    dialect: str
    meaning: Meaning
    options: Mapping[str, Any]
    exact: bool
    equal: bool
    ends: bool
    words: tuple[str, ...]

    @property
    def inputs(self) -> dict[str, int]:
        return {
            name: math.prod(place.settings["shape"])
            for name, place in self.places.items()
            if place.kind == "Input"
        }


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A network: numbers and events."""

    structure: Structure
    nodes: Mapping[str, Node]
    times: Mapping[str, np.ndarray]
    channels: Mapping[str, np.ndarray]
    t_end: float = T_END
    attempt: int = 0

    def events(self, sample: int) -> dict[str, list[tuple[float, int]]]:
        return {
            name: [
                (float(time), int(channel))
                for time, channel in zip(times[sample], self.channels[name][sample], strict=True)
                if np.isfinite(time)
            ]
            for name, times in self.times.items()
        }


def numbers_of(structure: Structure, seed: int, attempt: int, samples: int = SAMPLES) -> Drawn:
    """The numbers of one seed; attempts differ in how strong the weights are, too."""
    rng = np.random.default_rng([seed, attempt, 77])
    nodes = {
        name: Node(
            kind=place.kind,
            settings=place.settings,
            numbers={} if place.draw is None else place.draw(rng),
        )
        for name, place in structure.places.items()
    }
    gain = 1.0 if structure.exact else (1.0, 1.8, 0.6, 3.0, 0.3)[attempt % 5]
    for name, node in nodes.items():
        if "weight" in node.numbers and not name.startswith("back"):
            nodes[name] = node.with_numbers(weight=node.numbers["weight"] * gain)
    times, channels = {}, {}
    for name, size in structure.inputs.items():
        times[name] = event_times(rng, structure, samples)
        channels[name] = rng.integers(0, size, times[name].shape)
    return Drawn(structure=structure, nodes=nodes, times=times, channels=channels, attempt=attempt)


def event_times(rng: np.random.Generator, structure: Structure, samples: int) -> np.ndarray:
    """(samples, EVENTS), in no order; some slots unused."""
    shape = (samples, EVENTS)
    times = rng.uniform(0.02, 0.8 * T_END, shape)
    if structure.exact:
        times = rng.integers(1, 12, shape) * 0.25
    elif structure.equal:
        again = rng.random(shape) < 0.4
        times = np.where(again, times[:, :1], times)
    if structure.ends:
        times = np.where(rng.random(shape) < 0.3, rng.choice([0.0, T_END], shape), times)
    times[rng.random(shape) < 0.1] = np.inf
    return times


# -- structures


class _Builder:
    """Nodes and edges as they are added."""

    def __init__(self, rng: np.random.Generator, dialect: str, dt: float, exact: bool):
        self.rng, self.dialect, self.dt, self.exact = rng, dialect, dt, exact
        self.places: dict[str, Place] = {}
        self.edges: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.count = 0
        self.kinds: dict[str, str] = {}  # neuron types of the populations
        self.cycle: frozenset[str] = frozenset()  # populations that may be part of one
        self.linked: set[tuple[str, str]] = set()
        self.below: set[str] = set()  # populations with thresholds below 0

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, choices):
        return choices[int(self.rng.integers(len(choices)))]

    def add(self, kind: str, prefix: str, draw: Any = None, **settings: Any) -> str:
        self.count += 1
        name = f"{prefix}{self.count}"
        self.places[name] = Place(kind=kind, draw=draw, settings=settings)
        self.words.append(kind)
        return name

    def link(self, *path: str) -> None:
        self.edges += list(itertools.pairwise(path))

    def unit(self, target: str) -> float:
        """A weight that counts, by the target."""
        unit_weights = (
            {"LIF": 1 / self.dt, "CubaLIF": self.dt} if self.dialect == "spikingjelly" else {}
        )
        return unit_weights.get(self.kinds[target], 1.0)

    def current(self, target: str) -> float:
        """A bias that counts, by the target."""
        if self.dialect == "spikingjelly":
            return {"LIF": 1.0, "IF": self.dt, "CubaLIF": self.dt**2}[self.kinds[target]]
        return self.dt if self.dialect == "sinabs" else 1.0

    def weights(self, shape, target: str, *, feedback: bool = False) -> Draw:
        """Draws a matrix or kernel; target "": what others behind it make count."""
        exact, unit = self.exact, self.unit(target) if target else 1.0
        fan = math.prod(shape[1:])

        def draw(rng):
            if exact:
                choices = [-1, 0, 0, 1] if feedback else [-1, 0, 1, 1, 2, 2, 3]
                return {"weight": rng.choice(choices, shape) * unit}
            mean, std = (-0.1, 0.5) if feedback else (1.3, 1.0)
            return {"weight": rng.normal(mean, std, shape) * unit * min(1, 2.5 / math.sqrt(fan))}

        return draw

    def with_bias(self, draw: Draw, count: int, target: str, *, high: bool) -> Draw:
        """Draws a bias, too; a high one drives V above the threshold."""
        level, unit = (1.3 if high else 0.2), self.current(target)

        def drawn(rng):
            return {**draw(rng), "bias": rng.normal(level, 0.2, count) * unit}

        return drawn

    def delay(self, size: int) -> str:
        kind, exact = self.pick(["shared", "each", "pairs", "zero", "some"]), self.exact

        def draw(rng):
            delays = rng.integers(0, 4, size) * 0.25 if exact else rng.uniform(0.05, 1.0, size)
            if kind == "zero":
                delays = np.zeros(size)
            if kind == "shared":
                delays = np.full(size, delays[0])
            if kind == "pairs":
                delays = delays[np.arange(size) // 2]
            if kind == "some":
                delays = np.where(rng.random(size) < 0.5, 0.0, delays)
            return {"delay": delays}

        return self.add("Delay", "d", draw)

    def scale(self, size: int) -> str:
        exact = self.exact

        def draw(rng):
            return {"scale": rng.choice([1.0, 2.0], size) if exact else rng.uniform(0.6, 1.6, size)}

        return self.add("Scale", "s", draw)

    def matrix(self, before: int, after: int, target: str, *, bias: bool, back: bool) -> str:
        draw = self.weights((after, before), target, feedback=back)
        prefix = "back" if back else "w"
        if bias and self.chance(0.3):
            high = self.chance(0.4) and not back
            return self.add("Affine", prefix, self.with_bias(draw, after, target, high=high))
        return self.add("Linear", prefix, draw)

    def path(self, source: str, before: int, target: str, after: int, back: bool) -> None:
        """Linear nodes from one population to another; in a cycle no second ones."""
        if (source, target) in self.linked and target in self.cycle:
            return
        self.linked.add((source, target))
        node_path = [source]
        if before == after and self.chance(0.12) and not back:
            node_path.append(self.scale(before) if self.chance(0.6) else self.delay(before))
            self.link(*node_path, target)
            return
        if self.chance(0.15) and not back:
            node_path.append(self.scale(before))
        if self.chance(0.5 if back else 0.25):
            node_path.append(self.delay(before))
        if self.chance(0.12):
            middle = int(self.rng.integers(1, 4))
            node_path.append(self.matrix(before, middle, target, bias=False, back=False))
            if self.chance(0.5):
                node_path.append(self.delay(middle))
            before = middle
        # delays behind weights: one for each target neuron
        behind = self.chance(0.15)
        node_path.append(self.matrix(before, after, target, bias=not behind, back=back))
        if behind:
            node_path.append(self.delay(after))
        elif self.chance(0.15):
            node_path.append(self.scale(after))
        self.link(*node_path, target)

    # -- neurons

    def levels(self, name: str, kind: str) -> str:
        """Where the thresholds and resets of a population are."""
        levels = str(self.pick(LEVELS))
        if self.exact or not kind.endswith("F"):
            return LEVELS[0]
        if levels != LEVELS[0]:
            self.words.append(levels)
        if levels == "thresholds below 0":
            self.below.add(name)
        return levels

    def population(self, name: str, kind: str, shape: tuple[int, ...]) -> None:
        """Neurons of a type, with a class of time constants."""
        tau_class, heterogeneous = self.pick(TAU_CLASSES), self.chance(0.5)
        leaky, driven = self.chance(0.4), self.chance(0.15)
        levels = self.levels(name, kind)
        size, exact, dialect, dt = math.prod(shape), self.exact, self.dialect, self.dt
        fires = kind.endswith("F")
        if kind.startswith("Cuba"):
            self.words.append(f"tau {tau_class}{' each' if heterogeneous else ''}")

        def draw(rng):
            def number(low, high):
                return (
                    rng.uniform(low, high, size)
                    if heterogeneous
                    else np.full(size, rng.uniform(low, high))
                )

            tau_syn = number(0.5, 1.5)
            ratio = ratios(tau_class, rng, size if heterogeneous else 1)
            p = {"r": number(0.6, 1.5)}
            if exact:
                p["r"], tau_syn = np.ones(size), np.ones(size)
            if kind.startswith("Cuba"):
                p |= {
                    "tau_syn": tau_syn,
                    "tau_mem": ratio * tau_syn,
                    "w_in": np.ones(size) if exact else number(0.6, 1.5),
                }
            elif kind in ("LIF", "LI"):
                p["tau"] = np.ones(size) if exact else tau_syn
            if kind in ("CubaLIF", "CubaLI", "LIF", "LI"):
                level = 1.4 if driven else 0.2 if leaky else 0.0
                p["v_leak"] = np.zeros(size) if exact else rng.normal(level, 0.15, size)
            if fires:
                p["v_threshold"] = number(0.7, 1.3)
                p["v_reset"] = number(-0.4, 0.2) if leaky else np.zeros(size)
                if levels == "resets above rest":
                    p["v_reset"] = rng.uniform(0.2, 0.6, size)
                if levels == "thresholds below 0":
                    p |= {"v_threshold": number(-0.5, -0.2), "v_reset": number(-1.2, -0.7)}
                    p |= {"v_leak": rng.normal(-0.5, 0.4, size)} if "v_leak" in p else {}
                if exact:
                    p["v_threshold"] = rng.choice([1.0, 2.0, 3.0], size)
                    p["v_reset"] = rng.choice([0.0, -1.0], size)
            if dialect == "sinabs":
                p["r"] = np.full(size, 1.0 / dt) if kind == "IF" else np.ones(size)
                p |= {"v_leak": np.zeros(size)} if "v_leak" in p else {}
            return as_spikingjelly(p, kind, dt) if dialect == "spikingjelly" else p

        self.places[name] = Place(kind=kind, draw=draw, settings={"shape": shape})
        self.words.append(kind)


def as_spikingjelly(p: dict[str, np.ndarray], kind: str, dt: float) -> dict[str, np.ndarray]:
    """What it writes: r is 1 or follows from dt, V leaks to where it is reset, with a current to 0."""
    if kind == "IF":
        return p | {"r": np.full_like(p["r"], 1 / dt)}
    if kind == "LIF":
        return p | {"r": np.ones_like(p["r"]), "v_leak": p["v_reset"]}
    return p | {"r": p["tau_mem"] / dt, "w_in": p["tau_syn"] / dt, "v_leak": np.zeros_like(p["r"])}


def ratios(tau_class: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """tau_mem / tau_syn."""
    fixed = {"double": 2.0, "half": 0.5, "equal": 1.0}
    if tau_class in fixed:
        return np.full(size, fixed[tau_class])
    near = 1 + rng.choice([-1, 1], size) * 10.0 ** -rng.integers(3, 13, size)
    apart = np.exp(rng.uniform(np.log(1.2), np.log(5.0), size) * rng.choice([-1, 1], size))
    if tau_class == "near":
        return near
    if tau_class == "apart":
        return apart
    if tau_class == "far":
        return np.exp(rng.uniform(np.log(5.0), np.log(50.0), size) * rng.choice([-1, 1], size))
    choices = np.stack([near, apart, np.full(size, 2.0), np.ones(size), np.full(size, 0.5)])
    return choices[rng.integers(0, 5, size), np.arange(size)]


def structure_of(group: int, *, smooth: bool = False) -> Structure:
    """The structure of a group of seeds; smooth: without exact ties."""
    rng = np.random.default_rng([group, 33])
    dialect = str(rng.choice(["nir", "jaxsnn", "spikingjelly", "sinabs"], p=[0.4, 0.3, 0.15, 0.15]))
    exact, equal = bool(rng.random() < 0.25), bool(rng.random() < 0.3)
    ends = bool(rng.random() < 0.25)
    if smooth:
        exact = equal = ends = False
    dt = float(rng.choice([0.25, 0.5])) if exact else round(float(rng.uniform(0.1, 0.6)), 3)
    builder = _Builder(rng, dialect, dt, exact)
    populations = [f"n{number + 1}" for number in range(int(rng.integers(1, 5)))]
    builder.kinds = dict(zip(populations, kinds_for(builder, len(populations)), strict=True))
    source, target = loop_of(builder)
    builder.cycle = frozenset(name for name in populations if target <= name <= source)
    shapes = layout(builder)
    back = loops(builder, shapes, source, target)
    return finished(builder, shapes, back, exact, equal, ends)


def kinds_for(builder: _Builder, count: int) -> list[str]:
    """Types of the populations; the last may be a readout."""
    kinds = KINDS[builder.dialect]
    firing = [kind for kind in kinds if kind.endswith("F")]
    weights = [kind for kind in firing if not (builder.exact and kind == "CubaLIF")]
    chosen = [
        str(builder.pick(weights + (["CubaLIF"] if builder.chance(0.3) else [])))
        for _ in range(count)
    ]
    if builder.dialect == "sinabs":
        chosen = [str(builder.pick(["LIF", "IF"])) for _ in range(count)]
    silent = [kind for kind in kinds if not kind.endswith("F")]
    if silent and count > 1 and builder.chance(0.35):
        chosen[-1] = str(builder.pick(silent))
    return chosen


def layout(builder: _Builder) -> dict[str, tuple[int, ...]]:
    """Inputs, populations and what goes forward; shapes by population."""
    kinds = list(builder.kinds.values())
    image = builder.chance(0.2)
    shape = (int(builder.rng.integers(1, 7)),)
    if image:
        shape = (int(builder.rng.integers(1, 3)), *builder.rng.integers(3, 5, 2).tolist())
        shape = shape[:2] if builder.chance(0.3) else shape
    builder.places["a"] = Place(kind="Input", settings={"shape": shape})
    shapes, sizes, before = {}, {"a": math.prod(shape)}, "a"
    if builder.chance(0.3) and not image:
        sizes["b"] = int(builder.rng.integers(1, 4))
        builder.places["b"] = Place(kind="Input", settings={"shape": (sizes["b"],)})
    for number, kind in enumerate(kinds):
        name = f"n{number + 1}"
        if image and number == 0:
            shapes[name] = windowed(builder, shape, name)
        else:
            shapes[name] = (int(builder.rng.integers(1, 7)),)
            source = before
            if len(shapes.get(before, shape)) > 1:
                source = flattened(builder, before)
            builder.path(source, sizes[before], name, math.prod(shapes[name]), back=False)
            for source_name in sizes:
                flat = len(shapes.get(source_name, (1,))) == 1 and not (
                    image and source_name == "a"
                )
                if source_name != before and flat and builder.chance(0.3):
                    builder.path(
                        source_name, sizes[source_name], name, math.prod(shapes[name]), back=False
                    )
                    builder.words.append("skip")
        if builder.chance(0.12) and number and not image:
            builder.path(before, sizes[before], name, math.prod(shapes[name]), back=False)
            builder.words.append("diamond")
        builder.population(name, kind, shapes[name])
        sizes[name], before = math.prod(shapes[name]), name
    return shapes


def flattened(builder: _Builder, source: str) -> str:
    name = builder.add("Flatten", "f", start_dim=0, end_dim=-1)
    builder.link(source, name)
    return name


def windowed(builder: _Builder, shape: tuple[int, ...], target: str) -> tuple[int, ...]:
    """A convolution, and perhaps a pool and a second convolution, from an image to a population; its
    shape.
    """
    conv, before = convolution(builder, shape, target)
    node_path = [conv]
    if len(before) == 3 and min(before[1:]) >= 2 and builder.chance(0.5):
        kind = str(builder.pick(["SumPool2d", "AvgPool2d"]))
        square = {
            "kernel_size": np.full(2, 2),
            "stride": np.full(2, int(builder.rng.integers(1, 3))),
        }
        pool = builder.add(kind, "p", padding=np.zeros(2, int), **square)
        node_path.append(pool)
        before = _without_numbers(builder, pool, before)
    if builder.chance(0.3):
        again, before = convolution(builder, before, "")
        node_path.append(again)
        builder.words.append("convolutions")
    builder.link("a", *node_path, target)
    return before


def convolution(
    builder: _Builder, shape: tuple[int, ...], target: str
) -> tuple[str, tuple[int, ...]]:
    """A convolution of an image, and the shape of what leaves it; target "": behind another one."""
    rng, axes = builder.rng, len(shape) - 1
    groups = shape[0] if builder.chance(0.3) else 1
    outputs = groups * int(rng.integers(1, 3))
    taps, padding = int(rng.integers(1, 1 + min(3, *shape[1:]))), int(rng.integers(0, 2))
    fits = 2 * taps - 1 <= min(shape[1:]) + 2 * padding
    dilation = int(rng.integers(1, 3)) if fits else 1
    draw = builder.weights((outputs, shape[0] // groups, *(taps,) * axes), target)
    if target:
        draw = builder.with_bias(draw, outputs, target, high=builder.chance(0.3))
    else:
        draw = _without_bias(draw, outputs)
    settings = {"stride": int(rng.integers(1, 3)), "padding": padding, "dilation": dilation}
    conv = builder.add(
        f"Conv{axes}d",
        "c",
        draw,
        groups=groups,
        **{key: np.full(axes, value) for key, value in settings.items()},
    )
    builder.words += ["dilation"] * (dilation > 1 and taps > 1) + ["groups"] * (groups > 1)
    return conv, _without_numbers(builder, conv, shape)


def _without_bias(draw: Draw, count: int) -> Draw:
    """Draws a bias of 0, too."""
    return lambda rng: {**draw(rng), "bias": np.zeros(count)}


def _without_numbers(builder: _Builder, name: str, inward: tuple[int, ...]) -> tuple[int, ...]:
    place = builder.places[name]
    numbers = {} if place.draw is None else place.draw(np.random.default_rng(0))
    nodes = {
        "in": Node(kind="Input", settings={"shape": inward}),
        "it": Node(kind=place.kind, settings=place.settings, numbers=numbers),
    }
    return shapes_of(nodes, [("in", "it")])["it"]


def loop_of(builder: _Builder) -> tuple[str, str]:
    """Which population shall feed back into which, or "" and "~"; in dialects where that takes a
    step, into itself.
    """
    firing = [name for name, kind in builder.kinds.items() if kind.endswith("F")]
    if not builder.chance(0.4):
        return "", "~"
    source = str(builder.pick(firing))
    if builder.dialect in ("spikingjelly", "sinabs"):
        return source, source
    return source, str(builder.pick([name for name in firing if name <= source]))


def loops(builder: _Builder, shapes: Mapping[str, Any], source: str, target: str):
    """Edges that go back."""
    if not source or len(shapes[source]) > 1 or len(shapes[target]) > 1:
        return frozenset()
    builder.path(source, shapes[source][0], target, shapes[target][0], back=True)
    builder.words.append("loop" if source == target else "long loop")
    return frozenset({(source, target)})


def finished(builder, shapes, back, exact, equal, ends) -> Structure:
    """Outputs, options, and what the file does not say."""
    dialect, dt, populations = builder.dialect, builder.dt, list(shapes)
    kinds = {name: builder.places[name].kind for name in populations}
    last = populations[-1]
    builder.places["out"] = Place(kind="Output", settings={"shape": shapes[last]})
    builder.link(last, "out")
    boxes = frozenset(name for name in populations if builder.chance(0.2 if exact else 0.35))
    share = 0.6 if builder.chance(0.3) else 0.0
    subtract = frozenset(
        name for name in populations if kinds[name].endswith("F") and builder.chance(share)
    ) - frozenset(builder.below)
    firing = [name for name in populations if kinds[name].endswith("F")]
    refractory = {
        name: 0.5 if exact else round(float(builder.rng.uniform(0.05, 0.5)), 3)
        for name in firing
        if builder.chance(0.2)
    }
    once = frozenset(name for name in firing if builder.chance(0.1))
    area: dict[str, float | str | None] = dict.fromkeys(NEURONS, 1.0)
    if dialect == "jaxsnn":  # I jumps by w_in w; V of neurons without a current by r w
        area |= dict.fromkeys(("CubaLIF", "CubaLI", "LIF", "LI"), "tau")
    if dialect in ("spikingjelly", "sinabs"):
        area = dict.fromkeys(NEURONS, dt)
    if dialect == "sinabs":
        area |= {"LIF": None, "LI": None}
    late = dialect in ("spikingjelly", "sinabs")
    meaning = Meaning(
        area=area,
        dt=dt,
        boxes=boxes,
        subtract=subtract,
        initial="v_reset" if dialect == "spikingjelly" else "zero",
        inclusive=late,
        steps=late,
        late=dt if late else 0.0,
        back=back,
        refractory=refractory,
        once=once,
    )
    options: dict[str, Any] = {
        "dt": dt,
        "spike_kernel": {name: "box" if name in boxes else "delta" for name in populations},
        "reset": {name: "subtract" if name in subtract else "zero" for name in firing},
    }
    if dialect == "sinabs":
        options["norm_input"] = False
    words = [dialect, *builder.words]
    words += ["exact"] * exact + ["equal"] * equal + ["ends"] * ends + ["box"] * bool(boxes)
    words += (
        ["subtract"] * bool(subtract) + ["refractory"] * bool(refractory) + ["once"] * bool(once)
    )
    return Structure(
        places=dict(builder.places),
        edges=tuple(dict.fromkeys(builder.edges)),
        dialect=dialect,
        meaning=meaning,
        options=options,
        exact=exact,
        equal=equal,
        ends=ends,
        words=tuple(dict.fromkeys(words)),
    )


def with_end(drawn: Drawn, t_end: float) -> Drawn:
    return replace(drawn, t_end=t_end)
