"""Losses: functions of a `Solution` and labels.

A loss is a frozen record that names the population it looks at. Called, it gives one number for each sample; `predict`
gives the class that it reads. Times are made dimensionless by a time constant that is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxsnn.simulate import Solution


@dataclass(frozen=True, kw_only=True)
class FirstSpike:
    """Cross-entropy of the first spike times: the neuron of the label shall fire first ("time to first spike", TTFS).

    With s = t / tau, and a silent neuron counted at t_max,

        L = -log softmax(-s / sharpness)[label] + late_weight (exp(s[label] / late_tau) - 1).

    A small `sharpness` decides: wide ones push wrong outputs late until they stop firing. It also sets the margin
    between the first and the second output that training asks for.

    Attributes:
        population: name of the population that is read, one neuron for each class.
        tau: seconds, what times are measured in.
        t_max: seconds, when a silent neuron counts as firing.
        sharpness: width of the softmax, in units of tau.
        late_weight, late_tau: weight of the term that keeps the label's spike early, and its growth in units of tau.

    Source: Göltz et al., Nature Machine Intelligence 3, 2021 (softmax of spike times); Wunderlich and Pehle, Scientific
    Reports 11, 12829, 2021 (with the term on the label's time).
    """

    population: str
    tau: float
    t_max: float
    sharpness: float = 0.01
    late_weight: float = 3e-3
    late_tau: float = 2.0

    #: Only first spikes matter: the population may stop after them while it is trained.
    reads_first_spike: ClassVar[bool] = True

    def __call__(self, solution: Solution, labels: jax.Array) -> jax.Array:
        """Loss of each sample, (batch,)."""
        times = solution.first_spike(self.population)
        scaled = jnp.where(jnp.isfinite(times), times, self.t_max) / self.tau
        label = jnp.take_along_axis(scaled, labels[:, None], axis=1)[:, 0]
        log_softmax = jax.nn.log_softmax(-scaled / self.sharpness, axis=1)
        cross_entropy = -jnp.take_along_axis(log_softmax, labels[:, None], axis=1)[:, 0]
        return cross_entropy + self.late_weight * jnp.expm1(label / self.late_tau)

    def predict(self, solution: Solution) -> jax.Array:
        """Class of each sample, (batch,): the neuron that fires first, of several the lowest; -1 where none fires."""
        times = solution.first_spike(self.population)
        return jnp.where(jnp.isfinite(jnp.min(times, axis=1)), jnp.argmin(times, axis=1), -1)


#: Losses by the name that the command line knows them by.
LOSSES: Mapping[str, type[FirstSpike]] = MappingProxyType({"ttfs": FirstSpike})


def accuracy(predictions: jax.Array, labels: jax.Array) -> jax.Array:
    """Fraction of samples whose prediction is the label.

    >>> float(accuracy(jnp.array([0, 1, -1, 2]), jnp.array([0, 1, 2, 0])))
    0.5
    """
    return jnp.mean(predictions == labels)
