"""from_torch: spikes that forward keeps and feeds back in the next step are a loop of the graph."""

import numpy as np
import pytest
import torch

from jaxsnn import TimeStepped, from_torch, load_into, simulate, verify
from jaxsnn.errors import ConversionError
from tests.interop import nets
from tests.interop.test_module_joins import LINEAR, Wired, leaky

pytestmark = pytest.mark.interop

STEPS = 60


class Kept(Wired):
    """Spikes of the step before are given to forward, and returned by it."""

    def __init__(self, current, seed=0, *, size=3, **options):
        layers = {"a": LINEAR(4, 3), "rec": LINEAR(3, 3), "both": LINEAR(7, 3)}
        super().__init__(None, seed, **layers, out=leaky(init_hidden=False, **options))
        self.current, self.size = current, size

    def forward(self, x, spikes=None, membrane=None):
        if spikes is None:
            spikes, membrane = torch.zeros(len(x), self.size), self.out.reset_mem()
        spikes, membrane = self.out(self.current(self, x, spikes), membrane)
        return spikes, spikes, membrane


class KeptInside(Wired):
    """Spikes of the last layer feed the first one, by an attribute; states are kept in the layers."""

    def __init__(self, seed=0):
        layers = {"a": LINEAR(4, 5), "b": LINEAR(5, 3), "back": LINEAR(3, 5)}
        super().__init__(None, seed, **layers, first=leaky())
        self.kept = None

    def forward(self, x):
        before = torch.zeros(len(x), 3) if self.kept is None else self.kept
        self.kept = self.out(self.b(self.first(self.a(x) + self.back(before))))
        return self.kept


def played(net, x):
    """Spikes of a module, (time, batch, neurons)."""
    found, state = [], ()
    with torch.no_grad():
        for frame in torch.as_tensor(x):
            spikes, *state = net(frame, *state)
            found.append(spikes.numpy())
    return np.stack(found)


CURRENTS = {
    "weights": lambda net, x, spikes: net.a(x) + net.rec(spikes),
    "joined": lambda net, x, spikes: net.both(torch.cat([x, spikes], 1)),
    "inhibition": lambda net, x, spikes: net.a(x) - 0.5 * spikes,
    "itself": lambda net, x, spikes: net.a(x) + spikes,
    "twice": lambda net, x, spikes: net.rec(net.rec(spikes)) + net.a(x),
    "moved": lambda net, x, spikes: net.a(x) + net.rec(spikes.flip(1)),
}


@pytest.mark.parametrize("options", [{}, {"reset_delay": False}])
@pytest.mark.parametrize("current", CURRENTS)
def test_spikes_that_forward_keeps_are_fed_back(current, options):
    net = Kept(CURRENTS[current], **options)
    x = nets.spikes(3, (4,), steps=STEPS, batch=3)
    y = played(net, x)
    open_loop = Kept(lambda net, x, spikes: CURRENTS[current](net, x, 0 * spikes), **options)
    assert not np.array_equal(played(open_loop, x), y)
    assert verify(from_torch(net, torch.zeros(1, 4)), x, y).ok


def test_a_loop_through_two_layers_goes_back_into_the_module():
    first, second = KeptInside(1), KeptInside(2)
    x = nets.spikes(4, (4,), steps=STEPS, batch=3)
    graph = from_torch(first, torch.zeros(1, 4))
    assert first.kept is None
    assert {("out", "back"), ("back", "first")} <= set(graph.edges)
    y = np.asarray(simulate(graph, x, engine=TimeStepped()).y["output"])
    load_into(second, graph)
    assert np.array_equal(nets.snntorch_play(second, x), y)
    assert 0.05 < y.mean() < 0.95


@pytest.mark.parametrize("kind", ["norse", "spikingjelly"])
def test_loops_of_other_frameworks_are_those_of_the_module(kind):
    from norse.torch import LIFCell
    from spikingjelly.activation_based.neuron import LIFNode

    torch.manual_seed(0)

    class Looped(Wired):
        def forward(self, x, spikes=None, state=None):
            spikes = torch.zeros(len(x), 3) if spikes is None else spikes
            current = self.a(x) + self.rec(spikes)
            if kind == "norse":
                spikes, state = self.out(current, state)
            else:
                spikes = self.out(current)
            return spikes, spikes, state

    neuron = LIFCell() if kind == "norse" else LIFNode()
    net = Looped(None, a=LINEAR(4, 3), rec=LINEAR(3, 3), out=neuron)
    x = 3 * nets.spikes(5, (4,), steps=STEPS, batch=2)
    graph = from_torch(net, torch.zeros(1, 4))
    y = played(net, x)
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok


def test_what_is_kept_and_is_of_no_neuron_is_refused():
    class Current(KeptInside):
        def forward(self, x):
            before = torch.zeros(len(x), 5) if self.kept is None else self.kept
            self.kept = self.a(x)
            return self.out(self.b(self.first(self.kept + before)))

    with pytest.raises(ConversionError, match=r"what 'a' gave in the step before, .* is no neuron"):
        from_torch(Current(), torch.zeros(1, 4))

    class Noise(KeptInside):
        def forward(self, x):
            return self.out(self.b(self.first(self.back(torch.rand(len(x), 3)))))

    message = r"input of 'back' .* of nothing that a layer gives in this step: .* spikes that forward keeps"
    with pytest.raises(ConversionError, match=message):
        from_torch(Noise(), torch.zeros(1, 4))


def test_a_line_of_delays_is_no_loop_and_is_refused():
    class Late(KeptInside):
        def forward(self, x):
            before = torch.zeros(len(x), 5) if self.kept is None else self.kept
            self.kept = self.first(self.a(x))
            return self.out(self.b(before))

    with pytest.raises(
        ConversionError, match=r"the graph does not do what the module does: 'out', step"
    ):
        from_torch(Late(), torch.zeros(1, 4))
