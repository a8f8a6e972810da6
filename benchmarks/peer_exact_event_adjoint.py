"""Worker: exact-event-adjoint, its layers of first spikes and of spike trains."""

from importlib.metadata import version

import numpy as np
import torch
from exact_event_adjoint import ExactAdjointLinear
from protocol import Unavailable, serve
from records import AREA, Work
from threads import fastest


def layer(work: Work, weights: np.ndarray) -> ExactAdjointLinear:
    """First spikes. The library's kernel has another factor in front, which the weights take up."""
    options = {
        "tau_m": work.tau_mem,
        "tau_s": work.tau_syn,
        "theta": work.v_threshold,
        "t_max": work.t_end,
    }
    made = ExactAdjointLinear(*weights.shape, **options)
    made.weight.data = torch.as_tensor(factor(work) * weights.T, dtype=torch.float32)
    return made


def factor(work: Work) -> float:
    """Of our weights in theirs."""
    return work.r * work.w_in * AREA / (work.tau_syn * work.tau_mem)


def build(work: Work):
    if not isinstance(work, Work):
        raise Unavailable("has no convolution on events")
    if work.recurrent or not work.once:
        raise Unavailable(
            "feeds only first spikes on"
            if not work.recurrent
            else "has no feedback in continuous time"
        )
    hidden, output = layer(work, work.hidden_weights), layer(work, work.output_weights)
    times = torch.as_tensor(work.input_times, dtype=torch.float32).requires_grad_()

    def forward():
        with torch.no_grad():
            return output(hidden(times))

    def weights():
        for parameter in (hidden.weight, output.weight, times):
            parameter.grad = None
        output(hidden(times)).sum().backward()

    def results():
        weights()
        return {
            "output_times": forward().numpy(),
            "hidden_weights": factor(work) * hidden.weight.grad.numpy().T,
            "output_weights": factor(work) * output.weight.grad.numpy().T,
            "input_times": times.grad.numpy(),
        }

    return fastest({"forward": forward, "weights": weights}), results


if __name__ == "__main__":
    serve(lambda: f"exact-event-adjoint {version('exact-event-adjoint')}", build)
