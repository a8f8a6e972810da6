"""from_torch: spikes that forward keeps and feeds back in the next step are a loop of the graph."""

from collections import deque

import numpy as np
import pytest
import torch

from jaxsnn import TimeStepped, from_torch, load_into, simulate, verify
from jaxsnn.errors import ConversionError
from tests.helpers.refusals import assert_refused
from tests.interop import nets
from tests.interop.modules import (
    Wired,
    assert_loads,
    assert_no_graph,
    low_leaky,
    play_with_states,
    type_counts,
    verified,
)

pytestmark = pytest.mark.interop

LINEAR = torch.nn.Linear
STEPS = 60


class FedBack(Wired):
    """Spikes of the step before are given to forward, and returned by it."""

    def __init__(self, current, **options):
        layers = {"a": LINEAR(4, 3), "rec": LINEAR(3, 3), "both": LINEAR(7, 3)}
        super().__init__(None, **layers, out=low_leaky(init_hidden=False, **options))
        self.current = current

    def forward(self, x, spikes=None, membrane=None):
        if spikes is None:
            spikes, membrane = torch.zeros(len(x), 3), self.out.reset_mem()
        spikes, membrane = self.out(self.current(self, x, spikes), membrane)
        return spikes, spikes, membrane


class Keeping(Wired):
    """A module with an attribute that it keeps from step to step, which begins as nothing."""

    stored = None

    def before(self, x, size=3):
        return torch.zeros(len(x), size) if self.stored is None else self.stored


class Around(Keeping):
    """Layers, and weights back into the neurons."""

    def __init__(self, forward, seed=0, **layers):
        layers = {"a": LINEAR(4, 3), "rec": LINEAR(3, 3, bias=False), **layers}
        super().__init__(forward, seed, **layers)


class KeptInside(Keeping):
    """Spikes of the last layer feed the first one, by an attribute; states are kept in the layers."""

    def __init__(self, seed=0):
        layers = {"a": LINEAR(4, 5), "b": LINEAR(5, 3), "back": LINEAR(3, 5)}
        super().__init__(None, seed, **layers, first=low_leaky())

    def forward(self, x):
        self.stored = self.out(self.b(self.first(self.a(x) + self.back(self.before(x)))))
        return self.stored


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
    net = FedBack(CURRENTS[current], **options)
    x = nets.spikes(3, (4,), steps=STEPS, batch=3)
    y = play_with_states(net, x)
    assert verify(from_torch(net, torch.zeros(1, 4)), x, y).ok
    open_loop = FedBack(lambda net, x, spikes: CURRENTS[current](net, x, 0 * spikes), **options)
    assert not np.array_equal(play_with_states(open_loop, x), y)


def test_a_loop_through_two_layers_goes_back_into_the_module():
    first, second = KeptInside(1), KeptInside(2)
    x = nets.spikes(4, (4,), steps=STEPS, batch=3)
    graph = from_torch(first, torch.zeros(1, 4))
    assert first.stored is None
    assert {("out", "back"), ("back", "first")} <= set(graph.edges)
    y = np.asarray(simulate(graph, x, engine=TimeStepped()).y["output"])
    assert_loads(second, graph, x, y)
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
    graph, y = from_torch(net, torch.zeros(1, 4)), play_with_states(net, x)
    assert 0.02 < y.mean() < 0.98
    assert verify(graph, x, y).ok


class KeepsCurrent(KeptInside):
    def forward(self, x):
        before, self.stored = self.before(x, 5), self.a(x)
        return self.out(self.b(self.first(self.stored + before)))


class Noise(KeptInside):
    def forward(self, x):
        return self.out(self.b(self.first(self.back(torch.rand(len(x), 3)))))


class Late(KeptInside):
    """A line of delays, which is no loop."""

    def forward(self, x):
        before, self.stored = self.before(x, 5), self.first(self.a(x))
        return self.out(self.b(before))


def keeping(keep, current=lambda net, x: net.a(x) + net.rec(net.before(x))):
    """A forward that keeps what `keep` makes of the spikes."""

    def forward(net, x):
        spikes = net.out(current(net, x))
        net.stored = keep(net, spikes)
        return spikes

    return forward


def left_out_at_first(net, x):
    return net.a(x) if net.stored is None else net.a(x) + net.rec(net.stored)


def keeps_spikes(current):
    return keeping(lambda net, spikes: spikes, current)


def from_one_row(net, x):
    return net.a(x) + net.rec(torch.zeros(3) if net.stored is None else net.stored)


def two_spikes_apart(net, x):
    """Spikes arrive in another step by one of two ways, however few they are."""
    before = net.before(x)
    net.stored = net.first(net.a(x) + net.rec(before))
    return net.out(net.b(net.stored) + before)


def keeps_its_input(net, x):
    before, net.stored = net.before(x, 4), x
    return net.out(net.a(before))


def fed_twice(first, second):
    """A cycle of two populations that are both fed by the input."""

    def forward(net, x):
        spikes = getattr(net, first)(net.a(x) + net.rec(net.before(x)))
        net.stored = getattr(net, second)(net.b(spikes) + net.c(x))
        return net.stored

    neurons = {first: low_leaky(), second: low_leaky()}
    return Around(forward, b=LINEAR(3, 3), c=LINEAR(4, 3), **neurons)


IN_ANOTHER_STEP = "of the previous time step in the module and of the same time step in the"


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (KeepsCurrent(), "reads the previous output of 'a', which is not a spiking layer of this module"),
        (Noise(), "forward does not depend on the sample"),
        (Late(), f"'out' receives the output of 'first' {IN_ANOTHER_STEP}"),
        (Around(two_spikes_apart, first=low_leaky(threshold=1e9), b=LINEAR(3, 3)),
         f"'out' receives the output of 'first' {IN_ANOTHER_STEP}"),
        (fed_twice("l2", "l1"), f"'l2' receives the output of 'l1' {IN_ANOTHER_STEP}"),
        (Around(keeps_its_input), "from samples of earlier time steps"),
        (Around(keeps_spikes(left_out_at_first), rec=LINEAR(3, 3)),
         "forward skips 'rec' in the first time step"),
    ],
)  # fmt: skip
def test_feedback_that_is_no_loop_of_spikes_is_refused(net, message):
    assert_no_graph(net, (4,), message)


@pytest.mark.parametrize(
    "forward",
    [
        keeping(lambda net, spikes: spikes.detach()),
        keeping(lambda net, spikes: spikes.clone()),
        keeping(lambda net, spikes: net.same(spikes)),
        keeps_spikes(lambda net, x: net.a(net.same(x)) + net.rec(net.before(x))),
        keeps_spikes(left_out_at_first),
        keeps_spikes(from_one_row),
    ],
)
def test_ways_to_keep_spikes_are_one_loop(forward):
    graph, _, _ = verified(Around(forward, same=torch.nn.Identity()), (4,), 3, steps=STEPS)
    assert {("out", "rec"), ("rec", "out")} <= set(graph.edges)


def test_a_loop_too_weak_to_move_a_spike_is_there():
    net = Around(keeps_spikes(left_out_at_first))
    torch.nn.init.zeros_(net.rec.weight)
    assert ("rec", "out") in from_torch(net, torch.zeros(1, 4)).edges


def test_in_a_cycle_that_is_fed_twice_the_first_by_name_is_first():
    verified(fed_twice("l1", "l2"), (4,), 3, steps=STEPS)


def test_what_a_module_keeps_is_as_before():
    def forward(net, x):
        spikes = net.out(net.a(x) + net.rec(net.line[0]))
        net.line.append(spikes)
        net.seen.add_(spikes)
        return spikes

    net = Around(forward)
    net.line, net.seen = deque([torch.zeros(1, 3)], maxlen=1), torch.zeros(1, 3)
    start = net.line[0]
    from_torch(net, torch.ones(1, 4))
    assert net.line[0] is start
    assert not net.seen.any()


def test_spikes_that_are_returned_to_be_fed_back_are_no_output():
    def forward(net, x):
        spikes = net.out(net.a(x) - net.rec(net.before(x)))
        net.stored = net.inhibitory(net.b(spikes))
        return spikes, net.stored

    net = Around(forward, b=LINEAR(3, 3), inhibitory=low_leaky())
    assert from_torch(net, torch.zeros(1, 4)).outputs == ("output",)


def copied(net, spikes):
    return net.stored.copy_(spikes) if net.stored is not None else spikes.clone()


KEPT = {
    "copy": keeping(copied),
    "scaled": keeping(lambda net, spikes: 0.5 * spikes),
    "masked": keeping(lambda net, spikes: spikes * net.mask),
    "weighted": keeping(
        lambda net, spikes: net.rec(spikes.flip(1).clone()), lambda net, x: net.a(x) + net.before(x)
    ),
    "rectified": keeping(lambda net, spikes: torch.nn.functional.relu(spikes, inplace=True)),
    "twice": keeping(lambda net, spikes: spikes + 0.5 * spikes.detach()),
    "as a matrix": keeping(lambda net, spikes: spikes @ net.rec.weight),
}


@pytest.mark.parametrize("kind", KEPT)
def test_what_is_made_of_spikes_is_kept(kind):
    def make(seed):
        net = Around(KEPT[kind], seed)
        return net.register_buffer("mask", torch.tensor([1.0, 0.0, 0.5])) or net

    net, target = make(0), make(1)
    graph, x, y = verified(net, (4,), 3, steps=STEPS)
    assert_loads(target, graph, x, y)


class KeepsASum(KeptInside):
    """What two layers fired, by weights, feeds the first one; with the current, or a bias, besides."""

    def __init__(self, current=False, **bias):
        super().__init__()
        self.c, self.back = LINEAR(3, 5, bias=False), LINEAR(5, 5, **bias)
        self.current = current

    def forward(self, x):
        current = self.a(x)
        first = self.first(current + self.before(x, 5))
        spikes = self.out(self.b(first))
        self.stored = self.back(first + self.c(spikes) + (current if self.current else 0))
        return spikes


def test_weights_of_what_two_layers_fired_are_kept():
    graph, _, _ = verified(KeepsASum(bias=False), (4,), 3, steps=STEPS)
    assert type_counts(graph)["Linear"] == 2


class BeginsOtherwise(KeptInside):
    """Fed back are zeros at first, and something small that a graph does not begin with."""

    def __init__(self, begin):
        super().__init__()
        self.begin, self.last = begin, None
        self.late = LINEAR(3, 5, bias=begin == "late bias")
        if self.late.bias is not None:
            torch.nn.init.constant_(self.late.bias, 1e-5)

    def forward(self, x):
        current = self.a(x)
        if self.last is not None:
            current = current + self.late(self.last)
        fill = 0.01 if self.begin == "no spikes" else 0.0
        before = torch.full((len(x), 3), fill) if self.stored is None else self.stored
        self.stored = self.last = self.out(self.b(self.first(current + self.back(before))))
        return self.stored


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (BeginsOtherwise("late bias"), "forward skips 'late' in the first time step, but a graph adds its bias"),
        (BeginsOtherwise("no spikes"), "'first', step 0, .* the membrane potential is .* in the module"),
        (KeepsASum(), "forward skips 'back' in the first time step, .* its bias"),
        (KeepsASum(current=True, bias=False), "reads the previous output of 'a', which is not a spiking layer"),
    ],
)  # fmt: skip
def test_a_first_step_that_no_spike_shows_is_compared(net, message):
    assert_no_graph(net, (4,), message)


def test_layers_that_the_first_step_leaves_out_are_nodes():
    assert {"back", "late"} <= set(from_torch(BeginsOtherwise("zeros"), torch.zeros(1, 4)).nodes)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_module_that_holds_spikes_of_an_earlier_run_is_told_so(batch):
    net, message = KeptInside(), r"stores values in 'stored' that may come from an earlier run: fi"
    graph = from_torch(net, torch.zeros(1, 4))
    assert net(10 * torch.ones(batch, 4)).any()
    assert_no_graph(net, (4,), message)
    assert_refused(lambda: load_into(net, graph), ConversionError, message)
    net.stored = None
    assert from_torch(net, torch.zeros(1, 4)).edges == graph.edges


def test_another_problem_of_a_module_that_keeps_spikes_is_reported_alone():
    graph = from_torch(torch.nn.Sequential(LINEAR(4, 3), low_leaky()), torch.zeros(1, 4))
    with pytest.raises(ConversionError) as caught:
        load_into(KeptInside(), graph)
    assert "earlier run" not in str(caught.value)


class Counts(KeptInside):
    """Does something else after many steps, and counts them."""

    def __init__(self, kind, after=1000):
        super().__init__()
        self.after = after
        self.count = torch.zeros(1) if kind is torch.Tensor else kind(0)

    def forward(self, x):
        self.count = self.count + 1
        return super().forward(2 * x if self.count > self.after else x)


def test_a_kept_spike_of_one_neuron_and_no_number_are_no_counters():
    class KeepsOne(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.back, self.out = LINEAR(4, 1), LINEAR(1, 1, bias=False), low_leaky()
            torch.nn.init.constant_(self.a.bias, 0.6)  # it fires from the second step on
            self.loss = float("nan")
            self.register_buffer("stored", torch.zeros(1, 1))

        def forward(self, x):
            self.stored.copy_(self.out(self.a(x) + self.back(self.stored)))
            return self.stored.clone()

    assert not from_torch(KeepsOne(), torch.zeros(1, 4)).warnings


@pytest.mark.parametrize("kind", [int, float, torch.Tensor])
def test_a_module_that_counts_its_steps_may_do_something_else_later(kind):
    net = Counts(kind)
    (warning,) = from_torch(net, torch.zeros(1, 4)).warnings
    assert warning.code == "counts-steps"
    assert "changes 'count' of the module in each time step" in warning.message
    assert float(net.count) == 0
    assert not from_torch(KeptInside(), torch.zeros(1, 4)).warnings
    assert_no_graph(
        Counts(kind, after=8), (4,), "'a' is computed differently in different time steps"
    )
