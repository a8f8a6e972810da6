"""Independent check of a solution: the voltages, recomputed in float64 from the spikes alone.

It uses no scan, no crossing solver and no state: V of a neuron at any time is a sum over the arrivals
and the neuron's spikes before that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxsnn.event.dynamics.kinds import neuron_of
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.network.array_types import Float
from jaxsnn.network.network import Network
from jaxsnn.network.signals import signals
from jaxsnn.network.spikes import Events

#: Arrivals from a source: times (arrivals,) in seconds, and the jumps of the synaptic drive
#: (arrivals, neurons).
Arrivals = tuple[Float[np.ndarray, "arrivals"], Float[np.ndarray, "arrivals neurons"]]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Results of the audit of one population, voltages in units of v_threshold - v_reset.

    Attributes:
        spikes: number of checked spikes.
        at_spikes: largest distance of V from the threshold, just before a spike.
        elsewhere: largest excess of V over the threshold at other times; 0 if there is none.
        times: number of other checked times in each sample.
    """

    spikes: int
    at_spikes: float
    elsewhere: float
    times: int


def audit(
    network: Network,
    inputs: dict[str, Events],
    solution: EventSolution,
    t_end: float,
    *,
    samples: int = 32,
    times: int = 256,
) -> dict[str, Audit]:
    """Recompute the voltages of the CubaLIF populations; other populations are skipped.

    Args:
        inputs: Input node -> Events (batch, events), as they were simulated.
        samples: number of samples, from the start of the batch.
        times: number of checked times besides the spikes, spread evenly over a sample.

    Source: the closed form of the equations that NIR gives for CubaLIF.
    """
    trains = {name: (events.time, events.index) for name, events in inputs.items()}
    trains |= {
        name: (solution.events(name).time, solution.events(name).index) for name in solution.spikes
    }
    trains = {
        name: tuple(np.asarray(array)[:samples] for array in train)
        for name, train in trains.items()
    }
    grid = np.linspace(0.0, t_end, times)
    numbers = _numbers(network)
    in_float64 = jax.tree.map(lambda array: np.asarray(array, float), numbers)
    audits = {}
    for name, (constants, factor, matrices) in in_float64.items():
        spike_times = np.asarray(solution.spikes[name].time, float)[:samples]
        at_spikes, elsewhere = 0.0, 0.0
        for sample, spikes in enumerate(spike_times):
            arrivals = []
            for source, matrix in matrices.items():
                time, index = (array[sample] for array in trains[source])
                used = np.isfinite(time)
                weight = np.eye(len(factor)) if matrix is None else matrix
                arrivals.append((time[used].astype(float), weight[index[used]] * factor))
            at_spikes = max(at_spikes, _distance_at_spikes(constants, arrivals, spikes))
            for when in grid:
                excess = _excess_at(constants, arrivals, spikes, np.full(len(spikes), when))
                elsewhere = max(elsewhere, float(np.max(excess)))
        audits[name] = Audit(
            spikes=int(np.isfinite(spike_times).sum()),
            at_spikes=at_spikes,
            elsewhere=elsewhere,
            times=times,
        )
    return audits


@jax.jit  # without jit, each operation of each population would be compiled separately
def _numbers(network: Network) -> dict[str, tuple[Any, Any, Any]]:
    """Return for each audited population its constants, its arrival factor, and source ->
    matrix.
    """
    constants_and_weights = {}
    for name, signal in signals(network).items():
        population = network.populations[name]
        if population.kind != "CubaLIF" or not population.fires:
            continue
        neuron, parameters = neuron_of(population), network.parameters[name]
        constants = neuron.constants(parameters, signal.constant)
        matrices = signal.matrices(network.dtype)
        constants_and_weights[name] = constants, neuron.arrival_factor(parameters), matrices
    return constants_and_weights


def _distance_at_spikes(
    constants: Any, arrivals: Sequence[Arrivals], spikes: Float[np.ndarray, "neurons spikes"]
) -> float:
    """Return the largest distance of V from the threshold just before a spike, in units of the
    height.
    """
    worst = 0.0
    for slot in range(spikes.shape[1]):
        fired = np.isfinite(spikes[:, slot])
        when = np.where(fired, spikes[:, slot], 0.0)
        excess = _excess_at(constants, arrivals, spikes[:, :slot], when)
        worst = max(worst, float(np.max(np.abs(excess[fired]), initial=0.0)))
    return worst


def _excess_at(
    constants: Any,
    arrivals: Sequence[Arrivals],
    spikes: Float[np.ndarray, "neurons spikes"],
    when: Float[np.ndarray, "neurons"],
) -> Float[np.ndarray, "neurons"]:
    """Return (V - v_threshold) / (v_threshold - v_reset) of each neuron at its own time `when`."""
    height = constants.threshold - constants.v_reset
    v = (
        constants.v_start * np.exp(-when / constants.tau_mem)
        + constants.j_start * _response(constants, when[None])[0]
    )
    for time, weight in arrivals:
        v = v + np.sum(weight * _response(constants, when[None] - time[:, None]), axis=0)
    since = when[:, None] - spikes
    past = since > 0
    decay = np.where(past, np.exp(-np.where(past, since, 0.0) / constants.tau_mem[:, None]), 0.0)
    return (v - height * np.sum(decay, axis=1) - constants.threshold) / height


def _response(
    constants: Any, since: Float[np.ndarray, "arrivals neurons"]
) -> Float[np.ndarray, "arrivals neurons"]:
    """Return V after a jump of the synaptic drive by 1, `since` seconds ago; 0 before."""
    since = np.maximum(since, 0.0)
    tau_mem, tau_syn = constants.tau_mem, constants.tau_syn
    equal = tau_mem == tau_syn
    gap = np.where(equal, 1.0, tau_mem - tau_syn)
    apart = tau_syn / gap * (np.exp(-since / tau_mem) - np.exp(-since / tau_syn))
    return np.where(equal, since / tau_mem * np.exp(-since / tau_mem), apart)
