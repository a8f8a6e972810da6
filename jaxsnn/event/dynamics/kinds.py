"""Choice of the dynamics of a population in the event engine."""

from __future__ import annotations

from jaxsnn.event.dynamics.cubalif import CubaLIFBox, CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFBox, IFDelta
from jaxsnn.event.dynamics.lif import LIFBox, LIFDelta
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.dynamics.two_variables import TwoVariables
from jaxsnn.network.neuron_models import model_of
from jaxsnn.network.structure import Population

#: (NIR type without a final "F", spike kernel) -> dynamics.
_DYNAMICS: dict[tuple[str, str], type[TwoVariables]] = {
    ("CubaLI", "delta"): CubaLIFDelta,
    ("CubaLI", "box"): CubaLIFBox,
    ("LI", "delta"): LIFDelta,
    ("LI", "box"): LIFBox,
    ("I", "delta"): IFDelta,
    ("I", "box"): IFBox,
}


def neuron_of(population: Population) -> Neuron:
    """Return the dynamics of a population."""
    model = model_of(population.kind)
    if model.dynamics is not None:  # a registered model, not a NIR type
        return model.dynamics(population)
    boxes = population.spike_kernel == "box"
    kind = _DYNAMICS[population.kind.removesuffix("F"), population.spike_kernel]
    return kind(
        tau_shape=population.tau_shape,
        uniform=population.uniform,
        width=(population.dt or 0.0) if boxes else 0.0,
        spike_area=population.spike_area,
        scales_jumps=population.scales_jumps,
        dt=population.dt,
        step=population.dt if population.bias == "step" else None,
        resistance=population.resistance,
        initial=population.initial,
        reset_kind=population.reset,
        fires_at_equality=population.threshold == ">=",
    )
