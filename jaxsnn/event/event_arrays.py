"""Type aliases of the arrays that the parts of the event engine exchange, for annotations.

Axes have the same names everywhere. `batch`: the samples; if neurons are grouped by position
(`forward.layer`), the positions of all samples, sample by sample. `neurons`: the neurons of a
population, or those at one position. `spikes`: slots of a neuron. `arrivals`, `events`: slots of a
list; unused slots have the time inf. `rows`: rows of a table of weights. `steps`: steps of a
recurrent group's loop. "..." stands for shapes that broadcast against each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxsnn.network.array_types import Array, Bool, Float, Int

# ---- neuron models

#: Constants of a neuron model's equations: a pytree record of arrays (neurons,) or (positions,
#: neurons), of a class that the model defines (`Neuron.constants`).
NeuronConstants = Any
#: NIR's (or the model's own) parameter names -> arrays (neurons,).
Parameters = Mapping[str, Float[Array, "neurons"]]
#: Elementwise quantities of some neurons.
Numbers = Float[Array, "..."]
#: The state of some neurons: arrays that broadcast against each other, V first.
State = tuple[Float[Array, "..."], ...]
#: Coefficients of the flow over a time, computed once; see `Neuron.decay`.
Decay = tuple[Float[Array, "..."], ...]
#: A time or a duration, the same for all samples.
Seconds = float | Float[Array, ""]

# ---- arrivals

#: Weights of an arrival of each row.
Weights = Float[Array, "rows neurons"]
#: Times of arrivals, seconds; inf where unused.
Times = Float[Array, "batch arrivals"]
#: The row of `Weights` of each arrival, one list for all samples or one for each.
Rows = Int[Array, "*batch arrivals"]

# ---- a batch

#: A quantity, a condition and an integer (such as a spike count) of each neuron in each sample.
OfNeurons = Float[Array, "batch neurons"]
WhichNeurons = Bool[Array, "batch neurons"]
IntOfNeurons = Int[Array, "batch neurons"]
#: A quantity and a condition of each sample.
OfSamples = Float[Array, "batch"]
WhichSamples = Bool[Array, "batch"]
#: The number of a neuron, a step or a row in each sample.
NumberOfSamples = Int[Array, "batch"]
#: A quantity of each spike of each neuron.
OfSpikes = Float[Array, "batch neurons spikes"]
#: A quantity of each step of a recurrent group's loop.
OfSteps = Float[Array, "steps batch"]

# ---- a recurrent group

#: Arrivals at each population of a group from outside the group: (weight, time, row).
OutsideArrivals = Sequence[tuple[Weights, Times, Rows]]
#: (weight, delay) of each feedback edge: weight (source's neurons, target's neurons), None for the
#: identity; delay in seconds, a scalar or an array with an entry per neuron of the source, None for
#: 0.
Feedback = Sequence[tuple[Float[Array, "source target"] | None, Float[Array, "..."] | None]]
