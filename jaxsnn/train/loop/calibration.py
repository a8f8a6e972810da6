"""Weights to begin with that let a given fraction of the neurons fire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxsnn.errors import SimulationError, UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.network.lowering.lower import lower, update_graph
from jaxsnn.network.network import Network
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.nir.model.graph import Graph
from jaxsnn.options import T_END
from jaxsnn.simulation.retry import FIRE_LESS, with_enough_room
from jaxsnn.train.data.batches import Batch, encoded
from jaxsnn.train.data.datasets import Data, Splits, taken
from jaxsnn.train.data.encoders import Encoder
from jaxsnn.train.data.named_encoders import make_encoder
from jaxsnn.train.data.splitting import as_splits
from jaxsnn.train.loop.batch_engines import run_batch
from jaxsnn.train.loop.defaults import default_end, read_population, reference_tau
from jaxsnn.train.losses.silence import feeding_weights
from jaxsnn.units import refuse_no_time

_SAMPLES, _STEPS, _CLOSE = 128, 24, 0.01


@usual_promotion
def calibrated(
    graph: Graph,
    data: Splits | Data | tuple[Any, Any],
    *,
    fraction: float = 0.8,
    encoder: Encoder | str | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    t_end: float | None = None,
    engine: EventDriven | None = None,
    population: str | None = None,
) -> Graph:
    """The graph with the weights into each population scaled so that a fraction of its neurons
    fires.

    Population by population from the input on, by bisection of one factor for all weights that feed
    it, on the first 128 training samples. The fraction is that of pairs of a neuron and a sample
    with at least one spike.

    Args:
        data: as in `jaxsnn.train.fitting`.
        fraction: between 0 and 1.
        encoder, encoder_options, t_end: as in `jaxsnn.train.fitting`.
        engine: whose neurons they will be: those that stop after their first spike do so here, too.
            Its `max_spikes` grows as needed.
        population: the one that answers, in whose time constants values are encoded; default: that
            which feeds the Output.

    Raises:
        UsageError: a fraction or an engine that makes no sense, or data that do not fit.
        SimulationError: no factor lets so many neurons fire; it says how many one does.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"fraction is {fraction:g}", fix="give a number between 0 and 1")
    if t_end is not None:
        refuse_no_time(t_end, T_END)
    data, _ = as_splits(data)
    network = lower(graph)
    narrow = _narrow(engine, network)
    population = read_population(network) if population is None else population
    tau = reference_tau(network, population)
    if isinstance(encoder, str) or (encoder is None and not hasattr(data.train.x, "time")):
        encoder = make_encoder(data, tau, encoder, encoder_options)[0]
    end = t_end
    if end is None:
        end = default_end((data.train, data.validation, data.test), tau, encoder, data.span)
    what = {
        "population": population,
        "encoder": encoder,
        "engine": EventDriven(),
        "what": f"{data.name}, train",
    }
    first = taken(data.train, np.arange(min(_SAMPLES, len(data.train))))
    batch = encoded(first, network, **what)

    def firing(changed: Network, name: str) -> float:
        return _firing(narrow, changed, name, batch, end)

    for name, nodes in feeding_weights(network):
        names = [node for node, _ in nodes]
        if network.populations[name].fires and names:
            network = _scaled_until(
                network, names, lambda changed, name=name: firing(changed, name), fraction, name
            )
    return update_graph(graph, network)


def _narrow(engine: EventDriven | None, network: Network) -> EventDriven:
    """The engine with room for one spike of each neuron, to begin with."""
    chosen = EventDriven(first_spike_only=()) if engine is None else engine
    if not isinstance(chosen, EventDriven):
        raise UsageError(
            f"the engine is {chosen!r}, and weights are calibrated on the event engine",
            fix="pass EventDriven(...), or leave it out",
        )
    chosen.check(network)
    return replace(chosen, max_spikes=1)


def _firing(narrow: EventDriven, network: Network, name: str, batch: Batch, end: float) -> float:
    """Fraction of pairs of a neuron of a population and a sample with at least one spike."""

    def attempt(engine: EventDriven) -> EventSolution:
        return run_batch(engine, network, batch.inputs, end)

    _, solution = with_enough_room(narrow, attempt, advice=FIRE_LESS, grown=_power_of_two)
    return float(np.mean(np.asarray(solution.counts[name]) > 0))


def _power_of_two(needed: int) -> int:
    """At least twice what is needed: few numbers, each of which is a program, serve all steps."""
    return 1 << (2 * needed - 1).bit_length()


def _scaled_until(
    network: Network,
    nodes: list[str],
    firing: Callable[[Network], float],
    fraction: float,
    name: str,
) -> Network:
    """Bisection of the logarithm of a factor: more weight lets more neurons fire, where weights are
    mostly positive.
    """
    low, high = -7.0, 7.0
    best = None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        changed = _scaled(network, nodes, 2.0**middle)
        now = firing(changed)
        if best is None or abs(now - fraction) < abs(best[0] - fraction):
            best = (now, changed)
        if abs(now - fraction) < _CLOSE:
            break
        low, high = (middle, high) if now < fraction else (low, middle)
    assert best is not None
    if abs(best[0] - fraction) > 0.1:
        raise SimulationError(
            f"population '{name}': no factor of its input weights lets {fraction:.0%} of its"
            f" neurons fire, the nearest is {best[0]:.0%}",
            fix="draw other weights, most of them positive",
            node=name,
        )
    return best[1]


def _scaled(network: Network, nodes: list[str], factor: float) -> Network:
    parameters = dict(network.parameters)
    for node in nodes:
        parameters[node] = {**parameters[node], "weight": factor * parameters[node]["weight"]}
    return network.with_parameters(parameters)
