"""Worker: snnTorch or Norse, in steps, surrogate gradients.

python peer_torch.py snntorch | norse
"""

import sys
from importlib.metadata import version

import numpy as np
import torch
from protocol import rows_by_steps, serve
from records import Convolution, Layers, Stage, Work
from threads import fastest


def snntorch_cells(work: Work | Convolution | Layers):
    """A cell for each population; (current, state) -> (spikes, state)."""
    import snntorch
    from snntorch import surrogate

    alpha, beta = (float(np.exp(-work.dt / tau)) for tau in (work.tau_syn, work.tau_mem))
    options = {"threshold": work.v_threshold, "spike_grad": surrogate.fast_sigmoid(slope=25)}
    made = [snntorch.Synaptic(alpha=alpha, beta=beta, **options) for _ in work.stages]

    def step(cell, current, state):
        spikes, *state = cell(current, *(state or cell.reset_mem()))
        return spikes, state

    return made, step, work.dt / work.tau_mem


def norse_cells(work: Work | Convolution | Layers):
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
        [norse.LIFCell(given, dt=work.dt) for _ in work.stages],
        lambda cell, *given: cell(*given),
        1.0,
    )


CELLS = {"snntorch": snntorch_cells, "norse": norse_cells}


def in_order(array: np.ndarray) -> np.ndarray:
    """A matrix as torch holds it, (outputs, inputs), or back; a kernel is held as it is."""
    return array.T if array.ndim == 2 else array


def weighted(stage: Stage, spikes, weight):
    """What spikes bring to the neurons of a stage."""
    functional = torch.nn.functional
    if weight.ndim == 2:
        return functional.linear(spikes, weight)
    if stage.pool > 1:
        spikes = functional.avg_pool2d(spikes, stage.pool, divisor_override=1)
    return functional.conv2d(spikes, weight, stride=stage.stride, padding=stage.padding)


class Model:
    """The work in some number of steps."""

    def __init__(self, work: Work | Convolution | Layers) -> None:
        self.work = work
        self.cells, self.step, factor = CELLS[sys.argv[1]](work)
        names = [stage.name for stage in work.stages]
        names += [work.feedback] if work.recurrent else []
        self.weights = {
            name: torch.as_tensor(factor * in_order(getattr(work, name)), dtype=torch.float32)
            .contiguous()
            .requires_grad_()
            for name in names
        }
        self.raster = torch.as_tensor(work.raster())

    def spikes(self, *, of_all: bool = False):
        """Spikes of the last population in each step, (steps, batch, *shape); of all, (steps, batch)
        sums over the first population, too.
        """
        found, fired, states, last = [], [], [None for _ in self.cells], None
        for frame in self.raster:
            spikes = frame
            for n, stage in enumerate(self.work.stages):
                current = weighted(stage, spikes, self.weights[stage.name])
                if n == 0 and self.work.recurrent and last is not None:
                    feedback = self.weights[self.work.feedback]
                    current = current + torch.nn.functional.linear(last, feedback)
                spikes, states[n] = self.step(self.cells[n], current, states[n])
                if n == 0:
                    last = spikes
            found.append(spikes)
            if of_all:
                fired.append(last.flatten(1).mean(dim=1))
        return torch.stack(found), fired

    def forward(self):
        with torch.no_grad():
            return self.spikes()[0]

    def both(self):
        for weight in self.weights.values():
            weight.grad = None
        self.spikes()[0].sum().backward()

    def fired(self) -> float:
        """Spikes of a neuron of the first population, on average."""
        with torch.no_grad():
            return float(sum(self.spikes(of_all=True)[1]).mean())

    def results(self):
        """Spikes of the outputs in each step, and gradients."""
        self.both()
        gradients = {name: in_order(weight.grad.numpy()) for name, weight in self.weights.items()}
        return {"output_counts": self.forward().flatten(1).sum(dim=1).numpy(), **gradients}


def build(work: Work | Convolution | Layers):
    if isinstance(work, Layers):
        rows, results = rows_by_steps(work, Model)
        return fastest(rows), results
    model = Model(work)
    return fastest({"forward": model.forward, "weights": model.both}), model.results


if __name__ == "__main__":
    names = {"snntorch": "snnTorch", "norse": "Norse"}
    serve(lambda: f"{names[sys.argv[1]]} {version(sys.argv[1])}", build)
