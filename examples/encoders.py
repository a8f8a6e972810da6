# %% [markdown]
# # Compare encoders
#
# An encoder turns values into spikes or currents. This example draws each encoder that
# `jaxsnn train --encoder` and `fit(encoder=...)` know by name, for five grey values or for a signal,
# with tau_syn = 5 ms. Times are relative to the start of a sample.

# %%
import jax.numpy as jnp
import numpy as np

import jaxsnn
from jaxsnn import plot
from jaxsnn.train import (
    Current,
    Delta,
    Latency,
    LevelCrossing,
    PopulationCode,
    Rate,
)

TAU = 5e-3
pixels = np.array([0.05, 0.35, 0.5, 0.8, 1.0])
signal = 0.5 + 0.45 * np.sin(np.linspace(0, 2 * np.pi, 9))[:, None]

# %% [markdown]
# Encoders of constant values, such as the pixels of an image: the time of one spike (latency), a
# current, a Poisson rate, or a spike of the nearest of five centres (population code).

# %%
latency = Latency(t_min=0.0, t_max=2 * TAU)
encoders_of_pixels = {
    "latency": latency,
    "latency, least": Latency(t_min=0.0, t_max=2 * TAU, least=0.1, clock=(0.0, 2 * TAU)),
    "latency-reversed": Latency(t_min=0.0, t_max=2 * TAU, first="small"),
    "current": Current(),
    "rate": Rate(highest=1 / TAU, duration=6 * TAU),
    "population": PopulationCode(centres=(0.0, 0.25, 0.5, 0.75, 1.0), frame=2 * TAU),
}

# %% [markdown]
# Encoders of signals, here of one channel: a spike for each change by a tenth, or for each level that
# the signal crosses.

# %%
encoders_of_signals = {
    "delta": Delta(step=0.1, frame=TAU / 4),
    "levels": LevelCrossing(levels=(0.2, 0.4, 0.6, 0.8), frame=TAU / 4),
}
encodings = {name: (pixels, encoder) for name, encoder in encoders_of_pixels.items()}
encodings |= {name: (signal, encoder) for name, encoder in encoders_of_signals.items()}
plot.encodings(encodings).save("encoders.png", force=True)

# %% [markdown]
# An encoder is a function from values (samples, ...) to `Events`. You can draw and train with your
# own in the same way.


# %%
def double_latency(values):
    """Two spikes for each value, one tau_syn apart."""
    first, count = latency(values), np.shape(values)[1]
    time = jnp.concatenate([first.time, first.time + TAU], axis=1)
    return jaxsnn.Events(time=time, index=jnp.tile(jnp.arange(count), (len(time), 2)))


print(plot.encodings({"double latency": (pixels, double_latency)}))
