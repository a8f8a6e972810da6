"""Ways to spoil a right mapping, by name."""

from tests.bss2.corruptions import events, neurons, settings, synapses, whole
from tests.bss2.corruptions.common import CORRUPTIONS

__all__ = ["CORRUPTIONS", "events", "neurons", "settings", "synapses", "whole"]
