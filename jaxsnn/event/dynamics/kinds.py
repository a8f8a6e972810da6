"""Which neuron type plays a population."""

from jaxsnn.event.dynamics.current_based import CubaLIFBox, CubaLIFDelta
from jaxsnn.event.dynamics.driven import LIFUnderI, LIFUnderLI
from jaxsnn.event.dynamics.membrane_only import IFBox, IFDelta, LIFBox, LIFDelta
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.network.structure import Population

#: NIR type without its last letter's claim to fire, and spike kernel -> neuron type.
_TYPES = {
    ("CubaLI", "delta"): CubaLIFDelta,
    ("CubaLI", "box"): CubaLIFBox,
    ("LI", "delta"): LIFDelta,
    ("LI", "box"): LIFBox,
    ("I", "delta"): IFDelta,
    ("I", "box"): IFBox,
}
#: What drives a LIF or LI in the place of spikes -> neuron type.
_DRIVEN_TYPES = {"LI": LIFUnderLI, "I": LIFUnderI}


def neuron_of(population: Population) -> Neuron:
    """The neuron type of a population."""
    if population.chain is None:
        boxes = population.spike_kernel == "box"
        kind = _TYPES[population.kind.removesuffix("F"), population.spike_kernel]
    else:
        boxes, kind = False, _DRIVEN_TYPES[population.chain.kind]
    return kind(
        tau_shape=population.tau_shape,
        uniform=population.uniform,
        width=(population.dt or 0.0) if boxes else 0.0,
        spike_area=population.spike_area,
        dt=population.dt,
        step=population.dt if population.bias == "step" else None,
        resistance=population.resistance,
        initial=population.initial,
        reset=population.reset,
    )
