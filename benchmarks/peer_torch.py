"""Worker: snnTorch or Norse, 100 steps, surrogate gradients.

python peer_torch.py snntorch | norse
"""

import sys
from functools import partial
from importlib.metadata import version

import numpy as np
import torch
from protocol import serve
from records import Convolution, Work
from threads import fastest


def snntorch_cells(work: Work | Convolution):
    """A cell for each of up to two populations; (current, state) -> (spikes, state)."""
    import snntorch
    from snntorch import surrogate

    alpha, beta = (float(np.exp(-work.dt / tau)) for tau in (work.tau_syn, work.tau_mem))
    options = {"threshold": work.v_threshold, "spike_grad": surrogate.fast_sigmoid(slope=25)}
    made = [snntorch.Synaptic(alpha=alpha, beta=beta, **options) for _ in range(2)]

    def step(cell, current, state):
        spikes, *state = cell(current, *(state or cell.reset_mem()))
        return spikes, state

    return made, step, work.dt / work.tau_mem


def norse_cells(work: Work | Convolution):
    """Likewise."""
    import norse.torch as norse

    values = {
        "tau_mem_inv": 1 / work.tau_mem,
        "tau_syn_inv": 1 / work.tau_syn,
        "v_th": work.v_threshold,
        "v_leak": 0.0,
        "v_reset": 0.0,
    }
    given = norse.LIFParameters(**{name: torch.as_tensor(value) for name, value in values.items()})
    return (
        [norse.LIFCell(given, dt=work.dt) for _ in range(2)],
        lambda cell, *given: cell(*given),
        1.0,
    )


def in_order(array: np.ndarray) -> np.ndarray:
    """A matrix as torch holds it, (outputs, inputs), or back; a kernel is held as it is."""
    return array.T if array.ndim == 2 else array


def network(work: Work, x, weights, cells, step):
    """Spikes of the outputs in each step, (steps, batch, 3)."""
    linear, found, states, last = torch.nn.functional.linear, [], [None, None], None
    for frame in x:
        current = linear(frame, weights["hidden_weights"])
        if work.recurrent and last is not None:
            current = current + linear(last, weights["recurrent_weights"])
        last, states[0] = step(cells[0], current, states[0])
        spikes, states[1] = step(cells[1], linear(last, weights["output_weights"]), states[1])
        found.append(spikes)
    return torch.stack(found)


def convolution(work: Convolution, x, weights, cells, step):
    """Spikes of all neurons in each step, (steps, batch, channels, out_side, out_side)."""
    found, state = [], None
    for frame in x:
        current = torch.nn.functional.conv2d(
            frame, weights["kernel"], stride=work.stride, padding=work.padding
        )
        spikes, state = step(cells[0], current, state)
        found.append(spikes)
    return torch.stack(found)


def build(work: Work | Convolution):
    cells, step, factor = {"snntorch": snntorch_cells, "norse": norse_cells}[sys.argv[1]](work)
    names, model = ("hidden_weights", "output_weights", "recurrent_weights"), network
    if isinstance(work, Convolution):
        names, model = ("kernel",), convolution
    weights = {
        name: torch.as_tensor(factor * in_order(getattr(work, name)), dtype=torch.float32)
        .contiguous()
        .requires_grad_()
        for name in names
        if getattr(work, name).size
    }
    output_spikes = partial(model, work, torch.as_tensor(work.raster()), weights, cells, step)

    def forward():
        with torch.no_grad():
            return output_spikes()

    def both():
        for weight in weights.values():
            weight.grad = None
        output_spikes().sum().backward()

    def results():
        both()
        counts = forward().flatten(1).sum(dim=1).numpy()
        return {
            "output_counts": counts,
            **{name: in_order(weight.grad.numpy()) for name, weight in weights.items()},
        }

    return fastest({"forward": forward, "weights": both}), results


if __name__ == "__main__":
    names = {"snntorch": "snnTorch", "norse": "Norse"}
    serve(lambda: f"{names[sys.argv[1]]} {version(sys.argv[1])}, 100 steps", build)
