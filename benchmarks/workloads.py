"""Work of the sizes that people train: the rows with which the document begins.

Networks and events are random, from seeds. The scales of the weights were looked for once, by
bisection, so that hidden neurons fire about as often as the row says.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from records import SIDE, Layers

WEIGHTS, EVENTS = 0, 1  # seeds
T_END = 100.0  # tau_syn


@dataclass(frozen=True, kw_only=True)
class Row:
    """One piece of work.

    Attributes:
        sizes: inputs, hidden layers, outputs; of convolutions, the channels.
        events: of the inputs, in each sample.
        batch: samples.
        scales: of each layer's weights.
        spikes: of each hidden neuron, about.
        slots: `max_spikes` of hidden neurons.
        once: hidden neurons fire once.
        feedback: the fraction of feedback connections of the first hidden layer; 0: none.
        ratio: tau_mem / tau_syn.
        convolves: 2 x 34 x 34 pixels, channels of 5 x 5, a pool of 2 x 2, channels of 3 x 3.
    """

    sizes: tuple[int, ...]
    events: int
    batch: int
    scales: tuple[float, ...]
    spikes: float
    slots: int
    once: bool = False
    feedback: float = 0.0
    ratio: float = 2.0
    convolves: bool = False


def _dense(sizes, events, batch, scales, **more) -> Row:
    return Row(sizes=sizes, events=events, batch=batch, scales=scales, **more)


_ONCE = {"spikes": 0.7, "slots": 1, "once": True}
_BUSY = {"spikes": 14.0, "slots": 62}
_LOOP = {"spikes": 4.0, "slots": 24, "feedback": 1.0}
_POISSON = {"spikes": 10.0, "slots": 40, "feedback": 0.1}
_PIXELS = {"spikes": 1.5, "slots": 24, "convolves": True}
_CHANNELS, _PIXEL_SCALES = (2, 8, 16), (0.5257, 0.05163)
ROWS = {
    "784-350-10, 150 events": _dense((784, 350, 10), 150, 128, (0.32873, 0.05774), **_ONCE),
    "784-350-10, 784 events": _dense(
        (784, 350, 10), 784, 128, (0.08972, 0.02866), spikes=2.0, slots=14
    ),
    "784-400-400-10, 150 events": _dense(
        (784, 400, 400, 10), 150, 128, (0.32873, 0.045, 0.03), **_ONCE
    ),
    "700-256-20, 8,000 events": _dense((700, 256, 20), 8000, 32, (0.01187, 0.01626), **_BUSY),
    "700-256-20, 8,000 events, ratio 4": _dense(
        (700, 256, 20), 8000, 32, (0.01434, 0.02109), ratio=4.0, **_BUSY
    ),
    "700-1024-20, 8,000 events": _dense((700, 1024, 20), 8000, 32, (0.01187, 0.00404), **_BUSY),
    "700-256-20, recurrent": _dense((700, 256, 20), 1000, 32, (0.07665, 0.02608), **_LOOP),
    "700-1024-20, recurrent": _dense(
        (700, 1024, 20), 1000, 32, (0.07665, 0.006630300363820643), **_LOOP
    ),
    "100-500-20, Poisson, recurrent at 10 %": _dense(
        (100, 500, 20), 5000, 32, (0.01801, 0.01014), **_POISSON
    ),
    "100-1000-20, Poisson, recurrent at 10 %": _dense(
        (100, 1000, 20), 5000, 32, (0.01801, 0.00503), **_POISSON
    ),
    "convolutions, 4,000 events, batch 8": _dense(_CHANNELS, 4000, 8, _PIXEL_SCALES, **_PIXELS),
    "convolutions, 4,000 events, batch 32": _dense(_CHANNELS, 4000, 32, _PIXEL_SCALES, **_PIXELS),
}
_GROWING = ROWS["700-256-20, 8,000 events"]
#: What grows -> its size -> the row. The scales of weights go with what brings a neuron to fire.
GROWTH = {
    "growth with events": {
        size: replace(_GROWING, events=size, scales=(_GROWING.scales[0] * 8000 / size, 0.01626))
        for size in (1000, 2000, 4000, 8000)
    },
    "growth with neurons": {
        size: replace(_GROWING, sizes=(700, size, 20), scales=(0.01187, 0.01626 * 256 / size))
        for size in (64, 256, 1024)
    },
    "growth with the batch": {size: replace(_GROWING, batch=size) for size in (1, 8, 32, 128)},
}


def work(row: Row) -> Layers:
    """The record of a row."""
    rng = np.random.default_rng(EVENTS)
    shape = row.batch, row.events
    inputs = row.sizes[0] * (SIDE**2 if row.convolves else 1)
    times = np.sort(rng.uniform(0, 0.9 * T_END, shape), axis=1)
    channels = rng.integers(0, inputs, shape)
    return Layers(
        input_times=times,
        input_channels=channels,
        **_weights(row),
        once=row.once,
        max_spikes=row.slots,
        room=_room(row),
        tau_mem=row.ratio,
    )


def _weights(row: Row) -> dict[str, Any]:
    rng, none = np.random.default_rng(WEIGHTS), np.zeros((0, 0))
    found: dict[str, Any] = dict.fromkeys(
        ("weights1", "weights2", "weights3", "feedback_weights"), none
    )
    taps = ((5, 5), (3, 3)) if row.convolves else ((), (), ())
    for number, scale in enumerate(row.scales, 1):
        shape = row.sizes[number], row.sizes[number - 1], *taps[number - 1]
        drawn = scale * rng.normal(1.0, 0.7, shape)
        found[f"weights{number}"] = drawn if row.convolves else drawn.T
        if number == 1 and row.feedback:
            size = row.sizes[1]
            there = rng.normal(0.0, 1.0, (size, size)) * (rng.random((size, size)) < row.feedback)
            found["feedback_weights"] = 2 * there.T / np.sqrt(size * row.feedback) / row.spikes
    return found


def _room(row: Row) -> int:
    """Events of the first layer that others see."""
    if row.convolves:
        return 18000
    return int(2 * row.spikes * row.sizes[1]) if row.feedback else 0
