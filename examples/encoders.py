# %% [markdown]
# # What an encoder makes of values
#
# Each encoder that `jaxsnn train --encoder` and `fit(encoder=...)` know by name, on five grey values
# or on a signal, with tau_syn = 5 ms. Times are counted from the start of a sample.

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
# Values that stay as they are, such as those of an image: one spike each, the bright ones first or
# the dark ones; a current; a rate; one of five neurons whose centre is nearest.

# %%
latency = Latency(t_min=0.0, t_max=2 * TAU)
of_pixels = {
    "latency": latency,
    "latency, least": Latency(t_min=0.0, t_max=2 * TAU, least=0.1, clock=(0.0, 2 * TAU)),
    "latency-reversed": Latency(t_min=0.0, t_max=2 * TAU, first="small"),
    "current": Current(),
    "rate": Rate(highest=1 / TAU, duration=6 * TAU),
    "population": PopulationCode(centres=(0.0, 0.25, 0.5, 0.75, 1.0), frame=2 * TAU),
}

# %% [markdown]
# Signals, here of one channel: a spike for each tenth up or down, or where a level is crossed.

# %%
of_signals = {
    "delta": Delta(step=0.1, frame=TAU / 4),
    "levels": LevelCrossing(levels=(0.2, 0.4, 0.6, 0.8), frame=TAU / 4),
}
encoded = {name: (pixels, encoder) for name, encoder in of_pixels.items()}
encoded |= {name: (signal, encoder) for name, encoder in of_signals.items()}
plot.encodings(encoded).save("encoders.png", force=True)

# %% [markdown]
# An encoder is a function of values (samples, ...) that gives `Events`, so that one of your own is
# drawn and trained with in the same way.


# %%
def twice(values):
    """Two spikes for each value, one tau_syn apart."""
    first, count = latency(values), np.shape(values)[1]
    time = jnp.concatenate([first.time, first.time + TAU], axis=1)
    return jaxsnn.Events(time=time, index=jnp.tile(jnp.arange(count), (len(time), 2)))


print(plot.encodings({"twice": (pixels, twice)}))
