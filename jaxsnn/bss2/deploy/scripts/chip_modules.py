"""hxtorch's modules with exact times: events go to and come from the chip at cycles of its event
clock, and nothing is computed from them.

hxtorch's own modules put spikes on a grid of `dt`, need an excitatory and an inhibitory projection
even if all weights have one sign, and integrate the neurons again. The classes are defined inside a
function, because hxtorch is installed only on the chip's host.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np


@cache
def exact_modules(hxsnn: Any, torch: Any) -> SimpleNamespace:
    """Return the modules Source, Neurons, Readouts, Synapse and Whole, by these names."""

    class ExactSource(hxsnn.InputNeuron):
        """Source of spikes at `cycles`: by sample and source, integer cycles of `cycle`
        milliseconds, the unit of grenade's times.
        """

        cycles: list[list[list[int]]]
        cycle: float

        def add_to_input_generator(self, input: Any, builder: Any) -> None:
            times = [
                [[self.cycle * tick for tick in train] for train in sample]
                for sample in self.cycles
            ]
            builder.add(times, self.descriptor)

        def forward_func(self, input: Any, hw_data: Any = None) -> Any:
            return input

    class ExactNeurons(hxsnn.LIF):
        """Spiking neurons; `recorded` holds (cycle, sample, neuron) of each spike."""

        def post_process(self, hw_data: Any, runtime: float) -> Any:
            self.recorded = hw_data.spikes.get_data()

    class ExactReadouts(hxsnn.LI):
        """Readout neurons; `recorded` holds (steps, samples, neurons) CADC LSB."""

        def post_process(self, hw_data: Any, runtime: float) -> Any:
            self.recorded = hw_data.cadc.to_dense(
                runtime, self.experiment.dt, mode=self.interpolation_mode
            )

    class SignedSynapse(hxsnn.Synapse):
        """Synapses with one projection for each sign that occurs, without zero weights."""

        @property
        def pending(self) -> Any:
            """Output handle of the synapse, also before the synapse is connected."""
            return self._output_handle

        def add_to_network_graph(self, pre: Any, post: Any, builder: Any) -> tuple[Any, ...]:
            weight = self.weight_transform(torch.clone(self.weight.data))
            self.descriptor = tuple(
                builder.add(projection, self.execution_instance.ID)
                for projection in projections(
                    np.rint(weight.cpu().numpy()).astype(np.int32), pre, post, self.chip_coordinate
                )
            )
            return self.descriptor

    class WholeRun(hxsnn.HXModuleWrapper):
        """Wrapper of all modules of a run, in which recordings stay with their modules."""

        def forward_func(self, *inputs: Any, hw_data: Any = None) -> tuple[Any, ...]:
            return tuple(module._output_handle for module in self.modules.values())

    return SimpleNamespace(
        Source=ExactSource,
        Neurons=ExactNeurons,
        Readouts=ExactReadouts,
        Synapse=SignedSynapse,
        Whole=WholeRun,
    )


def projections(weight: np.ndarray, pre: Any, post: Any, chip: Any) -> Iterator[Any]:
    """Yield the excitatory and the inhibitory projection of signed weights (outputs, inputs)."""
    import _hxtorch_core
    import pygrenade_vx.network as grenade

    types = grenade.Receptor.Type
    for sign, kind in ((1, types.excitatory), (-1, types.inhibitory)):
        every = _hxtorch_core.weight_to_connection(np.maximum(sign * weight, 0).astype(np.int32))
        connections = [connection for connection in every if connection.weight.value()]
        if connections:
            receptor = grenade.Receptor(grenade.Receptor.ID(), kind)
            yield grenade.Projection(receptor, connections, pre, post, chip)
