"""What a simulation with the event engine can be told."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

#: One number for all populations, or one for some of them.
PerPopulation = int | float | Mapping[str, Any] | tuple[tuple[str, Any], ...] | None


@dataclass(frozen=True, kw_only=True)
class Event:
    """Exact event-based simulation in continuous time.

    Where a number can differ between populations, a mapping from their names gives it; those that
    it leaves out have the default.

    Attributes:
        max_spikes: spikes recorded of each neuron. A neuron that fires more often ends the run with
            a result code that says how many it takes; its spikes are never dropped in silence.
        max_events: spikes of a population in one sample that others see. Default: all that can be
            recorded; where they go through a convolution or a pool at most 4096 or 2 for each
            neuron, whichever is more. Too few end the run likewise.
        max_arrivals: arrivals at one position of a population behind a convolution or a pool.
            Default: 4 times the mean that the budgets of its sources allow, and 32. Too few end the
            run likewise.
        first_spike_only: True, or the names of populations: neurons stop after their first spike.
            For a population that feeds no other it only leaves the later spikes out. For others it
            changes what the network does, and NIR cannot say it: other simulators of the exported
            file will not do it.
        refractory: seconds for which V stays at v_reset after a spike. NIR cannot say it either.
        min_slope: smallest slope of V at a spike that a gradient is divided by, as a fraction of
            (v_threshold - v_reset) / tau_mem. Near a tangential crossing exact gradients grow
            without bound; `Solution.clipped_slopes` counts the spikes that this touched.
        jump_width: a LIF or IF neuron under delta spikes fires when an arrival moves V across the
            threshold; the exact gradient of that time by weights and parameters is zero. With a
            width (seconds) gradients take the jump for a ramp of that length at whose end V comes
            to the threshold: a surrogate. `Solution.degenerate_spikes` counts those spikes.
        threshold: how a Threshold is played: "level", as NIR's documentation has it, y = 1 while x
            > threshold; or "event", a spike whenever x comes to the threshold from below. Its rises
            are counted by `max_spikes`.
        forward_mode: `jax.jvp` and `jax.jacfwd` work, and `jax.grad` does not.
    """

    max_spikes: PerPopulation = 16
    max_events: PerPopulation = None
    max_arrivals: PerPopulation = None
    first_spike_only: bool | tuple[str, ...] = False
    refractory: PerPopulation = 0.0
    min_slope: float = 2**-20
    jump_width: float | None = None
    threshold: str = "level"
    forward_mode: bool = False

    def stops(self, population):
        """Whether the neurons of a population stop after their first spike."""
        only = self.first_spike_only
        return only if isinstance(only, bool) else population in only

    def of(self, field, population):
        """What a field says of a population; its default, where it says nothing."""
        value = getattr(self, field)
        if isinstance(value, Mapping | tuple):
            return dict(value).get(population, type(self).__dataclass_fields__[field].default)
        return value

    def with_room(self, shortages):
        """The same engine with larger budgets: option -> population -> what it must be at least.

        They become an eighth larger than that: what is needed behind a budget that was too small is
        a lower bound.
        """
        larger = {}
        shortages = {
            option: {name: least + least // 8 for name, least in found.items()}
            for option, found in shortages.items()
        }
        for option, found in shortages.items():
            now = getattr(self, option)
            if found and isinstance(now, int):  # one number for all
                larger[option] = max(now, *found.values())
            elif found:
                larger[option] = {**dict(now or ()), **found}
        return replace(self, **larger)

    def hashable(self):
        """The same engine with mappings as sorted tuples, as a static argument."""
        fields = {
            name: getattr(self, name)
            for name in ("max_spikes", "max_events", "max_arrivals", "refractory")
        }
        return replace(
            self,
            **{
                name: tuple(sorted(v.items()))
                for name, v in fields.items()
                if isinstance(v, Mapping)
            },
        )
