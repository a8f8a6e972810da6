"""PyTorch modules of the node types that NIR does not have, for `to_torch`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxsnn.nir.frameworks.source_rule import NeuronRule


def layer_norm(entry: Mapping[str, Any]) -> Any:
    """Build the module of a LayerNorm, whose weight and bias are parameters."""
    import torch

    shape = list(np.shape(entry["weight"]))
    module = torch.nn.LayerNorm(shape, float(np.ravel(entry["epsilon"])[0]))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.tensor(np.asarray(entry[name], np.float32)))
    return module


def neuron(rule: NeuronRule, shape: tuple[int, ...], spike: Callable[[Any], Any]) -> Any:
    """Build the module of an Alpha or a LIFRefrac, called with (input, state).

    Args:
        rule: rule of its neurons.
        shape: shape of the population.
        spike: membranes less threshold -> spikes.
    """
    import torch

    node, unit_dt = rule.node, rule.unit_dt

    class ExtensionNeuron(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in node.names:
                value = np.broadcast_to(node.numbers(name), shape).astype(np.float32)
                self.register_buffer(name, torch.tensor(value))

    class AlphaModule(ExtensionNeuron):
        """Alpha neurons; the state is membrane, excitatory and inhibitory current."""

        def forward(self, x: Any, state: Any = None) -> Any:
            numbers: Any = self
            zero = torch.zeros_like(x)
            v, excitatory, inhibitory = state or (zero, zero, zero)
            alpha, beta = numbers.alpha.clamp(0, 1), numbers.beta.clamp(0, 1)
            height = torch.log(alpha) / (torch.log(beta) - torch.log(alpha)) + 1
            fired = spike(v - numbers.v_threshold).detach()
            later_excitatory = alpha * excitatory + x
            later_inhibitory = beta * inhibitory - x
            v = height * (later_excitatory + later_inhibitory)
            if rule.reset == "subtract":
                later_excitatory = later_excitatory - numbers.v_threshold * fired
                v = v + inhibitory * fired
            if rule.reset == "zero":
                later_excitatory = later_excitatory * (1 - fired)
                v = v * (1 - fired)
            if rule.reset != "none":
                later_inhibitory = later_inhibitory * (1 - fired)
            output = v if rule.readout else spike(v - numbers.v_threshold)
            return output, (v, later_excitatory, later_inhibitory)

    class RefractoryModule(ExtensionNeuron):
        """LIFRefrac neurons; the state is membrane, current, and remaining refractory time steps."""

        def forward(self, x: Any, state: Any = None) -> Any:
            numbers: Any = self
            zero = torch.zeros_like(x)
            v, i, remaining = state or (zero + numbers.v_leak, zero, zero)
            i = i + x
            moved = v + unit_dt * (1 / numbers.tau_mem) * (numbers.v_leak - v + i)
            i = i - unit_dt * (1 / numbers.tau_syn) * i
            fired = spike(moved - numbers.v_threshold)
            moved = (1 - fired) * moved + fired * numbers.v_reset
            refractory = (remaining > 0).to(x.dtype)
            v = (1 - refractory) * moved + refractory * v
            fired = (1 - refractory) * fired
            remaining = (1 - fired) * torch.relu(remaining - refractory)
            remaining = remaining + fired * numbers.refractory_steps
            return (v if rule.readout else fired), (v, i, remaining)

    return AlphaModule() if node.type == "Alpha" else RefractoryModule()
