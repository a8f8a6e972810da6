"""Worker: snnTorch or Norse, 100 steps, surrogate gradients.

python peer_torch.py snntorch | norse
"""

import sys
from importlib.metadata import version

import numpy as np
import torch
from protocol import Unavailable, serve
from records import Work
from threads import fastest


def snntorch_cells(work: Work):
    """One cell for each population; (current, state) -> (spikes, state)."""
    import snntorch
    from snntorch import surrogate

    alpha, beta = (float(np.exp(-work.dt / tau)) for tau in (work.tau_syn, work.tau_mem))
    options = {"threshold": work.v_threshold, "spike_grad": surrogate.fast_sigmoid(slope=25)}
    made = [snntorch.Synaptic(alpha=alpha, beta=beta, **options) for _ in range(2)]

    def step(cell, current, state):
        spikes, *state = cell(current, *(state or cell.reset_mem()))
        return spikes, state

    return made, step, work.dt / work.tau_mem


def norse_cells(work: Work):
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
    return [norse.LIFCell(given, dt=work.dt) for _ in range(2)], lambda cell, *given: cell(*given), 1.0


def build(work: Work):
    if not isinstance(work, Work):
        raise Unavailable("the convolution is measured on events only")
    cells, step, factor = {"snntorch": snntorch_cells, "norse": norse_cells}[sys.argv[1]](work)
    names = [name for name in ("hidden_weights", "output_weights", "recurrent_weights") if getattr(work, name).size]
    weights = {
        name: torch.as_tensor(factor * getattr(work, name).T, dtype=torch.float32).contiguous().requires_grad_()
        for name in names
    }
    x = torch.as_tensor(work.raster())

    def output_spikes():
        linear, found, states, last = torch.nn.functional.linear, [], [None, None], None
        for frame in x:
            current = linear(frame, weights["hidden_weights"])
            if work.recurrent and last is not None:
                current = current + linear(last, weights["recurrent_weights"])
            last, states[0] = step(cells[0], current, states[0])
            spikes, states[1] = step(cells[1], linear(last, weights["output_weights"]), states[1])
            found.append(spikes)
        return torch.stack(found)

    def forward():
        with torch.no_grad():
            return output_spikes()

    def both():
        for weight in weights.values():
            weight.grad = None
        output_spikes().sum().backward()

    def results():
        both()
        counts = forward().sum(dim=(1, 2)).numpy()
        return {"output_counts": counts, **{name: weight.grad.numpy().T for name, weight in weights.items()}}

    return fastest({"forward": forward, "weights": both}), results


if __name__ == "__main__":
    names = {"snntorch": "snnTorch", "norse": "Norse"}
    serve(lambda: f"{names[sys.argv[1]]} {version(sys.argv[1])}, 100 steps", build)
