"""What the importers of the main branches of snnTorch and Norse do, from what their sources say.

No release has them. Both map each node to a module of PyTorch, and let nirtorch.nir_to_torch run
them. Their neurons and layers are those of the releases; what differs is how a node is read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np


def snntorch_import(graph: Any, dt: float = 1e-4) -> Any:
    """snnTorch after 1.0.0: `import_from_nir(graph, dt)`."""
    import nir
    import nirtorch
    from snntorch.import_nir import _nir_to_snntorch_module

    layer = partial(_nir_to_snntorch_module, init_hidden=True)
    layers = (nir.Affine, nir.Linear, nir.Conv2d, nir.Flatten, nir.AvgPool2d)
    neurons = {nir.IF: _snntorch_if, nir.LIF: _snntorch_lif, nir.CubaLIF: _snntorch_cubalif}
    readers: dict[Any, Callable[[Any], Any]] = dict.fromkeys(layers, layer)
    readers |= {kind: partial(read, dt=dt) for kind, read in neurons.items()}
    return nirtorch.nir_to_torch(graph, readers)


def _one(values: Any) -> float:
    """The one number for all neurons that it insists on."""
    (number,) = np.unique(values)
    return float(number)


def _snntorch_if(node: Any, dt: float) -> Any:
    """beta = 1, and the default reset of Leaky, which subtracts."""
    import snntorch

    assert _one(node.r) == 1
    return snntorch.Leaky(
        beta=1.0, threshold=_one(node.v_threshold), init_hidden=True, reset_delay=False
    )


def _snntorch_lif(node: Any, dt: float) -> Any:
    """The threshold is divided by r dt/tau."""
    import snntorch
    import torch

    assert np.allclose(node.v_leak, 0)
    scale = node.r * dt / node.tau
    threshold = node.v_threshold
    if not np.allclose(scale, 1):
        threshold = threshold / np.unique(scale)[0]
    beta = torch.as_tensor(1 - dt / node.tau)
    return snntorch.Leaky(
        beta=beta,
        threshold=_one(threshold),
        reset_mechanism="zero",
        init_hidden=True,
        reset_delay=False,
    )


def _snntorch_cubalif(node: Any, dt: float) -> Any:
    """The threshold is divided by w_in alone."""
    import snntorch
    import torch

    assert np.allclose(node.v_leak, 0)
    assert np.allclose(node.r, node.tau_mem / dt)
    threshold = node.v_threshold
    if not np.allclose(node.w_in, 1):
        threshold = threshold / node.w_in[0]
    alpha, beta = (torch.as_tensor(1 - dt / tau) for tau in (node.tau_syn, node.tau_mem))
    return snntorch.Synaptic(
        alpha=alpha,
        beta=beta,
        threshold=_one(threshold),
        reset_mechanism="zero",
        init_hidden=True,
        reset_delay=False,
    )


def norse_import(graph: Any, reset_method: Any = None, dt: float = 1e-3) -> Any:
    """Norse after 1.1.0: the modules of 1.1.0, run by nirtorch.nir_to_torch."""
    import nir
    import nirtorch
    from norse.torch.functional.reset import reset_value
    from norse.torch.utils.import_nir import _import_norse_module

    method = reset_value if reset_method is None else reset_method
    read = partial(_import_norse_module, ignore_warnings=True, reset_method=method, dt=dt)
    kinds = (nir.Affine, nir.Conv2d, nir.Flatten, nir.IF, nir.LIF, nir.CubaLIF, nir.SumPool2d)
    return nirtorch.nir_to_torch(graph, dict.fromkeys(kinds, read))
