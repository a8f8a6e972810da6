"""Networks of snnTorch whose decays of 0, of 1 and between are mixed in one population."""

import numpy as np

from jaxsnn.nir import build

#: Name -> (alphas or None, betas) of three neurons.
MIXED_DECAYS = {
    "LIF 0 0.5 1": (None, (0.0, 0.5, 1.0)),
    "LIF 0 1": (None, (0.0, 1.0, 1.0)),
    "LIF 0.5 1": (None, (0.5, 1.0, 0.9)),
    "CubaLIF 0 0.5 1": ((0.5, 1.0, 0.0), (0.0, 0.5, 1.0)),
    "CubaLIF 0 1": ((0.0, 1.0, 0.0), (0.0, 1.0, 1.0)),
    "CubaLIF 1": ((0.5, 0.0, 0.9), (1.0, 1.0, 1.0)),
}
_DT = 1e-4


def _tau(decays):
    with np.errstate(divide="ignore"):
        return (_DT / (1 - np.array(decays))).astype(np.float32)


def mixed_decays(case):
    """Four channels into the three neurons of a case of `MIXED_DECAYS`, as snnTorch writes them."""
    alphas, betas = MIXED_DECAYS[case]
    weight = np.random.default_rng(0).normal(0.3, 0.4, (3, 4)).astype(np.float32)
    membrane = _tau(betas)
    entries = {"r": membrane / np.float32(_DT), "v_threshold": 1.0}
    if alphas is None:
        neurons = build.lif(3, tau=membrane, **entries)
    else:
        synapse = _tau(alphas)
        entries |= {"tau_syn": synapse, "w_in": synapse / np.float32(_DT)}
        neurons = build.cubalif(3, tau_mem=membrane, **entries)
    layers = build.input(4), build.linear(weight=weight), neurons
    return build.sequential(*layers, dialect="snntorch", reset="subtract", reset_delay=True)
