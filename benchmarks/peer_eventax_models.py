"""Worker: eventax, the neuron models of custom_neurons.py.

python peer_eventax_models.py SOLVER STEP, for example Heun 0.05
"""

import sys
from importlib.metadata import version

import diffrax
import equinox
import jax
import jax.numpy as jnp
import numpy as np
from eventax.evnn import EvNN
from eventax.neuron_models import EIF, LIF, QIF
from eventax.neuron_models.helpers import clip_with_identity_grad
from protocol import serve
from records import NEURON_MODELS, NeuronWork

SOLVER, STEP = sys.argv[1], float(sys.argv[2])


class AdaptiveLIF(LIF):
    """State (v, j, a): the threshold is thresh + a, and each spike raises a."""

    tau_adaptation: float = equinox.field(static=True)
    step: float = equinox.field(static=True)

    def __init__(self, *, tau_adaptation, step, **options):
        super().__init__(**options)
        self.tau_adaptation, self.step = tau_adaptation, step

    def init_state(self, n_neurons):
        return jnp.zeros((n_neurons, 3), self.dtype)

    def dynamics(self, t, y, args):
        membrane = super().dynamics(t, y, args)
        return jnp.concatenate([membrane, -y[:, 2:] / self.tau_adaptation], axis=1)

    def spike_condition(self, t, y, **options):
        return y[:, 0] - y[:, 2] - self.thresh.value

    def reset_spiked(self, y, spike_mask):
        v, j, a = y.T
        v = jnp.where(spike_mask, self.vreset.value, v)
        a = a + self.step * spike_mask
        v = clip_with_identity_grad(v, self.thresh.value + a - self.epsilon)
        return jnp.stack([v, j, a], axis=1)


def neuron_model(name):
    """Return eventax's class and its options."""
    p = NEURON_MODELS[name]
    options = {"tmem": p["tau_mem"], "tsyn": p["tau_syn"], "init_weights": 0.0, "init_bias": 0.0}
    if name == "ThetaQIF":
        return QIF, options
    if name == "ExponentialLIF":
        options |= {"vT": p["v_rheobase"], "deltaT": p["sharpness"], "EL": p["v_leak"]}
        return EIF, {
            **options,
            "vreset": p["v_reset"],
            "v_peak": p["v_spike"],
            "spike_time_tol": None,
        }
    options |= {"thresh": p["v_threshold"], "vreset": p["v_reset"]}
    if name == "CubaLIF":
        return LIF, options
    return AdaptiveLIF, {**options, "tau_adaptation": p["tau_adaptation"], "step": p["step"]}


def build(work: NeuronWork):
    inputs, hidden = work.hidden_weights.shape
    cells = hidden + work.output_weights.shape[1]
    weights, mask = np.zeros((2, cells + inputs, cells))
    weights[cells:, :hidden], mask[cells:, :hidden] = work.hidden_weights, 1
    weights[:hidden, hidden:], mask[:hidden, hidden:] = work.output_weights, 1
    is_output = np.arange(cells) >= hidden
    model, options = neuron_model(work.model)
    net = EvNN(
        neuron_model=model,
        n_neurons=cells,
        max_solver_time=work.t_end,
        in_size=inputs,
        key=jax.random.PRNGKey(0),
        wmask=jnp.asarray(mask),
        output_neurons=jnp.asarray(is_output),
        input_neurons=jnp.asarray(~is_output),
        max_event_steps=int(1.2 * (inputs + 2 * work.hidden_events)),
        solver_stepsize=STEP,
        solver=getattr(diffrax, SOLVER)(),
        **options,
    )
    weights = jnp.asarray(weights, jnp.float32)
    times = jnp.asarray(work.input_times, jnp.float32)[..., None]

    def with_weights(weights):
        return equinox.tree_at(lambda net: net.neuron_model.weights, net, weights)

    def total(weights, times):
        first = jax.vmap(with_weights(weights).ttfs)(times)
        return jnp.where(jnp.isfinite(first), first, work.t_end).sum(), first

    forward = jax.jit(total)
    gradient = jax.jit(jax.value_and_grad(total, has_aux=True))

    def results():
        (_, first), by_weights = gradient(weights, times)
        spike_times, neurons, _ = jax.jit(jax.vmap(with_weights(weights).record))(times)
        trains = np.full((len(times), hidden, work.max_spikes + 2), np.inf)
        counts = np.zeros((len(times), hidden), int)
        for sample, (row, indices) in enumerate(zip(spike_times, neurons, strict=True)):
            for time, neuron in zip(np.asarray(row), np.asarray(indices), strict=True):
                if np.isfinite(time) and neuron < hidden:
                    slot = min(counts[sample, neuron], trains.shape[2] - 1)
                    trains[sample, neuron, slot] = time
                    counts[sample, neuron] += 1
        return {
            "output_times": first,
            "hidden_times": trains,
            "hidden_weights": by_weights[cells:, :hidden],
            "output_weights": by_weights[:hidden, hidden:],
        }

    rows = {
        "forward": lambda: jax.block_until_ready(forward(weights, times)),
        "weights": lambda: jax.block_until_ready(gradient(weights, times)),
    }
    return rows, results


if __name__ == "__main__":
    serve(lambda: f"eventax {version('eventax')} {SOLVER}", build)
