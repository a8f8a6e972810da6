"""A task that is learnt in seconds: a few points of yin-yang, and a small network for it."""

from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import yinyang_splits

DATA = yinyang_splits(0, (292, 128, 128))
QUICK = {"epochs": 12, "learning_rate": 0.05, "progress": None}


def small_net(hidden=20, first=(1.2, 0.6), second=(0.3, 0.3), seed=0):
    """5-hidden-3, CubaLIF, tau_mem = 2 tau_syn = 20 ms; weights by mean and standard deviation."""
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    return build.sequential(
        build.input(5),
        build.linear(hidden, weight=normal(*first)),
        neurons,
        build.linear(3, weight=normal(*second)),
        neurons,
        seed=seed,
    )
