"""Groups of populations of CubaLIF for tests of the native backend, drawn at random."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.forward.group import GroupSpec
from jaxsnn.event.forward.layer import LayerSpec

TAU, T_END = 1.0, 6.0
SAMPLES, ARRIVALS, ROWS = 3, 8, 4


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of populations of CubaLIF; edges: (source, target, delay), as in `recurrent_cases`."""

    sizes: tuple[int, ...] = (9, 5)
    edges: tuple[tuple[int, int, str], ...] = (
        (0, 1, "none"),
        (1, 0, "none"),
        (0, 0, "none"),
        (0, 0, "none"),
    )
    refractory: tuple[float, ...] = (0.0, 0.0)
    once: bool = False
    subtract: bool = False
    heterogeneous: bool = False  # whether neurons differ in time constants
    above: bool = False  # whether some neurons start above threshold
    share: float = 1.0  # fraction of the connections that exist
    max_spikes: tuple[int, ...] = (12, 10)
    max_events: int = 150

    def spec(self):
        kind = "subtract" if self.subtract else "zero"
        neuron = CubaLIFDelta(uniform=not self.heterogeneous, reset_kind=kind)
        layers = tuple(
            LayerSpec(
                neuron=neuron,
                max_spikes=1 if self.once else slots,
                once=self.once,
                refractory=held,
                min_slope=2**-20,
            )
            for slots, held in zip(self.max_spikes, self.refractory, strict=False)
        )
        edges = tuple((source, target) for source, target, _ in self.edges)
        return GroupSpec(layers=layers[: len(self.sizes)], edges=edges, max_events=self.max_events)

    def numbers(self, seed=0, dtype=jnp.float64):
        """What gradients are asked for by: (weights and times from outside, feedback, lanes); and
        the rows.
        """
        rng = np.random.default_rng(seed)
        outside, rows, lanes = [], [], []
        for number, size in enumerate(self.sizes):
            time = rng.uniform(0, 0.8 * T_END, (SAMPLES, ARRIVALS))
            time[rng.random(time.shape) < 0.15] = np.inf
            outside.append((rng.normal(1.0, 0.6, (ROWS + number, size)), time))
            rows.append(jnp.asarray(rng.integers(0, ROWS + number, time.shape), jnp.int32))
            lanes.append(self._lanes(rng, size, dtype))
        feedback = []
        for source, target, delay in self.edges:
            sizes = self.sizes[source], self.sizes[target]
            weight = rng.normal(0.02, 0.3, sizes) * (rng.random(sizes) < self.share)
            shape = {"none": None, "one": (), "each": sizes[:1]}[delay]
            late = None if shape is None else rng.uniform(0.1, 0.9, shape) * TAU
            feedback.append((weight, late))
        tree = jax.tree.map(partial(jnp.asarray, dtype=dtype), (outside, feedback, lanes))
        return tree, rows

    def _lanes(self, rng, size, dtype):
        spread = rng.uniform(0.7, 1.4, (2, size)) if self.heterogeneous else np.ones((2, size))
        start = rng.uniform(-0.2, 0.3, size) + self.above * (rng.random(size) < 0.3)
        values = {
            "threshold": rng.uniform(0.5, 1.0, size),
            "v_reset": rng.uniform(-0.3, 0.2, size),
            "v_start": start,
            "j_start": rng.uniform(-0.2, 0.3, size),
            "tau_mem": 1.7 * TAU * spread[0],
            "tau_syn": TAU * spread[1],
        }
        return Constants(**{name: jnp.asarray(value, dtype) for name, value in values.items()})


CASES = {
    "two": Group(),
    "two, own": Group(heterogeneous=True),
    "three": Group(
        sizes=(6, 2, 3),
        edges=((0, 1, "none"), (1, 2, "none"), (2, 0, "none"), (2, 2, "none")),
        refractory=(0.0, 0.0, 0.0),
        max_spikes=(9, 12, 10),
        above=True,
    ),
    "two, once": Group(once=True),
    "delayed": Group(edges=((0, 1, "one"), (1, 0, "each"), (0, 0, "one"), (0, 0, "each"))),
    "some delayed": Group(
        edges=((0, 1, "none"), (1, 0, "each"), (0, 0, "one"), (1, 1, "none")),
        heterogeneous=True,
        share=0.4,
    ),
    "alone, delayed": Group(sizes=(7,), edges=((0, 0, "each"),), subtract=True, above=True),
    "held": Group(edges=((0, 0, "none"),), sizes=(8,), refractory=(0.4,), above=True),
    "some held": Group(
        edges=((0, 1, "none"), (1, 0, "one"), (0, 0, "each")),
        refractory=(0.35, 0.0),
        heterogeneous=True,
        above=True,
    ),
    "held, subtract": Group(refractory=(0.2, 0.5), subtract=True, share=0.5),
    "ties": Group(
        sizes=(8,),
        edges=((0, 0, "one"), (0, 0, "each")),
        refractory=(0.25,),
        above=True,
    ),
    "two, subtract": Group(subtract=True, above=True, share=0.15),
    "few connections": Group(
        sizes=(18, 6), edges=((0, 0, "none"), (0, 1, "one"), (1, 0, "none")), share=0.12, above=True
    ),
}

#: Sparse loops, with and without delays.
SPARSE = {
    "at once": Group(sizes=(30,), edges=((0, 0, "none"),), share=0.1, max_events=400),
    "at once, above": Group(
        sizes=(30,), edges=((0, 0, "none"),), share=0.1, above=True, subtract=True, max_events=400
    ),
    "at once and later": Group(
        sizes=(30,),
        edges=((0, 0, "none"), (0, 0, "each")),
        refractory=(0.3,),
        share=0.05,
        max_events=400,
    ),
    "later": Group(sizes=(30,), edges=((0, 0, "each"),), share=0.1, max_events=400),
    "once": Group(sizes=(30,), edges=((0, 0, "none"),), share=0.1, once=True, max_events=400),
}


def at_one_time():
    """Numbers of the group "ties": all that happens does so at quarters."""
    (outside, feedback, lanes), rows = CASES["ties"].numbers()
    weight, time = outside[0]
    time = jnp.round(4 * time) / 4
    feedback = [(w, jnp.full_like(late, 0.25 * (1 + n))) for n, (w, late) in enumerate(feedback)]
    return ([(weight, time)], feedback, lanes), rows
