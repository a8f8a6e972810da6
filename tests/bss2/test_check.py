"""The checker accepts right mappings, and agrees with a few loops on those that are not."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn.bss2.check import check, refuse_wrong
from jaxsnn.bss2.check.check_mapping import (
    _difference,
    _recording_violations,
    refuse_undrawable,
)
from jaxsnn.bss2.check.legality import (
    dead_violations,
    existing,
    neuron_violations,
    setting_violations,
    synapse_violations,
)
from jaxsnn.bss2.check.propagate import ChipEvents
from jaxsnn.bss2.chip import HICANN_X, ROW_MODES, Dead
from jaxsnn.bss2.mapping import from_json, to_json
from jaxsnn.bss2.netlist import NetPopulation, netlist
from jaxsnn.errors import MappingError
from tests.bss2.recipes import (
    dense_net,
    layer_by_layer_mapping,
    mapping_of,
    one_run_mapping,
    recurrent_net,
    stage,
)
from tests.helpers.refusals import assert_refused
from tests.oracles import mapping_walker

RIGHT = {
    "256-246-10": lambda: (dense_net(256, 246, 10), one_run_mapping),
    "5-120-3": lambda: (dense_net(5, 120, 3), one_run_mapping),
    "20-12-6-3 layer by layer": lambda: (dense_net(20, 12, 6, 3), layer_by_layer_mapping),
    "128-20-5 in 2 groups": lambda: (
        dense_net(128, 20, 5),
        lambda net: one_run_mapping(net, groups=2),
    ),
    "sums of several synapses": lambda: (recurrent_net(3, 5, largest=200), one_run_mapping),
    "all to all": lambda: (recurrent_net(16, 24), lambda net: one_run_mapping(net, groups=2)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_mappings_are_accepted(name):
    net, recipe = RIGHT[name]()
    mapping = recipe(net)
    assert check(mapping, net) == ()
    assert check(from_json(to_json(mapping)), net) == ()
    if len(net.weight) < 2000:
        assert mapping_walker.is_right(mapping, net)


def with_run(mapping, number=0, **changes):
    """A mapping of which some parts of one run are changed."""
    runs = list(mapping.runs)
    runs[number] = dataclasses.replace(runs[number], **changes)
    return dataclasses.replace(mapping, runs=tuple(runs))


def violations(net, number=0, mapping=None, **changes):
    """What is wrong with a mapping of which some parts of one run are changed."""
    return check(with_run(mapping or one_run_mapping(net), number, **changes), net)


def test_scales_of_all_its_populations_are_right():
    """Whole weights alone do not tell of others: a scale that moves thresholds may leave them."""
    net = dense_net(20, 12, 5)
    scales = {part.name: 0.02 for part in net.populations if not part.external}

    def messages(changed, recorded):
        changes = {"scales": changed, "fingerprint": net.fingerprint(recorded)}
        mapping = dataclasses.replace(one_run_mapping(net), **changes)
        violated = check(mapping, net)
        assert check(from_json(to_json(mapping)), net) == violated
        return [(violation.code, violation.message) for violation in violated]

    assert messages(scales, scales) == []
    more = {**scales, "elsewhere": 0.02}
    ((code, message),) = messages(more, more)
    assert (code, "'elsewhere'" in message) == ("bad-scales", True)
    for changed in (scales | {next(iter(scales)): 0.020000000000000004}, None):
        ((code, message),) = messages(changed, scales)
        assert (code, message.endswith("scales were changed")) == ("other-net", changed is not None)


def test_everything_responding_to_everything_is_told_in_bounded_memory():
    """One label for all: the sums are of millions of responses."""
    net = dense_net(256, 246, 10)
    run = one_run_mapping(net).runs[0]
    run.synapses[:, 3] = 0
    sources = tuple(
        dataclasses.replace(source, events=(source.events[0] & ~63,)) for source in run.sources
    )
    violated = violations(net, sources=sources, synapses=run.synapses)
    assert {"unwanted", "wrong-weight", "same-event"} <= {violation.code for violation in violated}


def test_a_neuron_on_the_chip_is_no_source_of_its_own_run():
    """Its spikes would come twice: over the chip, and from the host."""
    net = dense_net(20, 12, 6, 3)
    mapping = layer_by_layer_mapping(net)
    neuron, source = mapping.runs[1].neurons[0], mapping.runs[1].sources[0]
    again = dataclasses.replace(source, population=neuron.population, index=neuron.index)
    violated = violations(net, 1, mapping, sources=(*mapping.runs[1].sources, again))
    assert "source-twice" in {violation.code for violation in violated}


def test_a_wrong_mapping_is_refused_by_the_first_of_its_violations():
    net = dense_net(5, 4, 3)
    mapping = one_run_mapping(net)
    for place, says in enumerate(
        ("one violation in run 0: ", "2 violations, the first in run 0: ")
    ):
        mapping.runs[0].synapses[place, 4] -= 1
        assert_refused(lambda: refuse_wrong(mapping, net), MappingError, says)


def test_messages_name_the_neurons_and_both_numbers():
    net = dense_net(5, 4, 3, population_names=("in", "hidden", "out"))
    run = one_run_mapping(net).runs[0]
    place = int(np.flatnonzero(run.synapses[:, 2] == 0)[0])
    run.synapses[place, 4] -= 1
    (violation,) = violations(net, synapses=run.synapses)
    assert (violation.code, violation.node[:12], violation.node[-14:]) == (
        *("wrong-weight", "run 0: 'in'[", "to 'hidden'[0]"),
    )
    weight = violation.facts["weight"]
    got = (abs(weight) - 1, 0) if weight > 0 else (0, abs(weight) - 1)
    assert (violation.facts["excitation"], violation.facts["inhibition"]) == got


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_the_largest_event_and_the_largest_address_are_the_last_that_are_allowed(beyond):
    net = dense_net(5, 4, 3)
    run = one_run_mapping(net).runs[0]
    event = (HICANN_X.buses << HICANN_X.event_bits) - 1 + beyond
    address = (1 << HICANN_X.address_bits) - 1 + beyond
    source = dataclasses.replace(run.sources[0], events=(*run.sources[0].events, event))
    neuron = dataclasses.replace(run.neurons[0], address=address)
    for code, number, changes in (
        ("bad-event", event, {"sources": (source, *run.sources[1:])}),
        ("bad-address", address, {"neurons": (neuron, *run.neurons[1:])}),
    ):
        wrong = [
            violation.message for violation in violations(net, **changes) if violation.code == code
        ]
        assert bool(wrong) == (beyond > 0)
        assert all(str(number - beyond) in text for text in wrong)


@pytest.mark.parametrize(("sign", "mode"), [(1, 1), (-1, 2)])
def test_every_source_of_one_sign_that_is_missing_is_found(sign, mode):
    """Rows of the chip have one sign: all synapses in rows of that sign are taken out."""
    net = recurrent_net(4, 5)
    run = one_run_mapping(net).runs[0]
    rows = run.row_modes[run.synapses[:, 0], run.synapses[:, 1]]
    violated = violations(net, synapses=run.synapses[rows != mode])
    missing = {violation.node for violation in violated if violation.code == "missing"}
    assert len(missing) == int((net.weight * sign > 0).sum()) > 0


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_inputs_of_a_net_may_come_last(recurrent):
    """The neurons begin with number 0."""
    parts = [NetPopulation(name="out", size=3, external=False)]
    parts.append(NetPopulation(name="in", size=5, external=True))
    pre, post = (indices.ravel() for indices in np.meshgrid(np.arange(8), np.arange(3)))
    weight = np.arange(1, 25) * np.where(pre % 2, 1, -1) * (pre != post) * ((pre > 2) | recurrent)
    net = netlist(parts, pre, post, weight)
    run = stage(HICANN_X, net, range(3), dict.fromkeys(range(3, 8)))
    neuron, *others = run.neurons
    again = dataclasses.replace(run.sources[0], population=neuron.population, index=neuron.index)
    far = dataclasses.replace(neuron, address=10**6)
    silent = dataclasses.replace(neuron, recorded=False)
    weaker = run.synapses.copy()
    weaker[np.flatnonzero((weaker[:, 2] == 0) & (weaker[:, 4] > 1))[0], 4] -= 1
    for changes, code, node in (
        ({"sources": (*run.sources, again)}, "source-twice", "run 0: 'out'[0]"),
        ({"neurons": tuple(others)}, "not-placed", "'out'[0]"),
        ({"neurons": (*run.neurons, neuron)}, "placed-twice", "run 0: 'out'[0]"),
        ({"sources": run.sources[1:]}, "no-source", "run 0: 'in'[0]"),
        ({"neurons": (far, *others)}, "bad-address", "run 0: 'out'[0]"),
        ({"synapses": weaker}, "wrong-weight", " to 'out'[0]"),
    ):
        nodes = {
            violation.code: violation.node
            for violation in violations(net, 0, mapping_of(net, run), **changes)
        }
        assert nodes[code].endswith(node)
    assert check(mapping_of(net, run), net) == ()
    unseen = violations(net, 0, mapping_of(net, run), neurons=(silent, *others))
    expected = [] if recurrent else [("not-recorded", "run 0: 'out'[0]")]
    assert [(violation.code, violation.node) for violation in unseen] == expected


EFFECTS = ("unwanted", "missing", "wrong-weight", "wrong-sign")
SMALL_NETS = [
    (dense_net(6, 5, 3), 1),
    (dense_net(24, 3, 2), 2),
    (recurrent_net(4, 5), 1),
    (recurrent_net(9, 4), 2),
]


@settings(max_examples=120)
@given(st.data())
def test_random_damage_is_judged_as_a_few_loops_judge_it(data):
    """Labels, masks, modes, filters, addresses and events are changed at random; the effects
    decide.
    """
    net, groups = data.draw(st.sampled_from(SMALL_NETS))
    mapping = one_run_mapping(net, groups=groups, signs="fixed")
    run = mapping.runs[0]
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    for kind in data.draw(st.lists(st.sampled_from(sorted(DAMAGE)), min_size=1, max_size=3)):
        run = DAMAGE[kind](run, random)
    damaged = dataclasses.replace(mapping, runs=(run,))
    violated = {
        violation.node: violation for violation in check(damaged, net) if violation.code in EFFECTS
    }
    expected, got = (
        mapping_walker.expected_effects(damaged, net, run),
        mapping_walker.effects(damaged, run),
    )
    labels = [part.name for part in net.populations]
    wrong = {
        f"run 0: '{labels[pre[0]]}'[{pre[1]}] to '{labels[post[0]]}'[{post[1]}]": got.get(
            (pre, post)
        )
        for pre, post in {*expected, *got}
        if expected.get((pre, post)) != got.get((pre, post))
    }
    assert set(violated) == set(wrong)
    for node, effect in wrong.items():
        if effect:
            facts = violated[node].facts
            assert (facts["excitation"], facts["inhibition"]) == tuple(effect)
        else:
            assert violated[node].code == "missing"


def changed(run, key, place, value):
    array = getattr(run, key).copy()
    array[place] = value
    return dataclasses.replace(run, **{key: array})


def side_and_row(run, random):
    """Of some synapse."""
    return run.synapses[random.integers(len(run.synapses)), :2]


def damaged_mask(run, random):
    side, row = side_and_row(run, random)
    return changed(run, "compare_masks", (side, row // 2), random.integers(32))


def damaged_mode(run, random):
    side, row = side_and_row(run, random)
    return changed(run, "row_modes", (side, row ^ random.integers(2)), random.integers(4))


def damaged_filter(run, random):
    place, bits = random.integers(60), int(1 << random.integers(14))
    return changed(run, "crossbar", (place, slice(2, 4)), (bits, random.choice([0, bits])))


def damaged_event(run, random):
    sources = list(run.sources)
    place = random.integers(len(sources))
    event = sources[place].events[0] ^ 1 << int(random.integers(16))
    more = tuple(sources[random.integers(len(sources))].events[: random.integers(2)])
    sources[place] = dataclasses.replace(sources[place], events=(event, *more))
    return dataclasses.replace(run, sources=tuple(sources))


def damaged_address(run, random):
    neurons = list(run.neurons)
    place = random.integers(len(neurons))
    neurons[place] = dataclasses.replace(neurons[place], address=int(random.integers(256)))
    return dataclasses.replace(run, neurons=tuple(neurons))


DAMAGE = {
    "label": lambda run, random: changed(
        run,
        "synapses",
        (random.integers(len(run.synapses)), 3),
        random.choice(run.synapses[:, 3]),
    ),
    "mask": damaged_mask,
    "mode": damaged_mode,
    "filter": damaged_filter,
    "open": lambda run, random: changed(
        run, "crossbar", (random.integers(60), slice(2, 4)), (0, 0)
    ),
    "address": damaged_address,
    "event": damaged_event,
}


def test_a_mapping_of_nothing():
    net = netlist([], [], [], [])
    mapping = dataclasses.replace(one_run_mapping(dense_net(1, 1)), populations=(), runs=())
    assert [violation.code for violation in check(mapping, net)] == ["other-net"]
    assert check(dataclasses.replace(mapping, fingerprint=net.fingerprint()), net) == ()


@pytest.mark.parametrize(
    ("kind", "size"),
    [("circuits", HICANN_X.columns), ("drivers", HICANN_X.drivers), ("rows", HICANN_X.rows)],
)
def test_the_last_dead_part_of_each_hemisphere_is_the_last_that_exists(kind, size):
    assert list(dead_violations(HICANN_X, Dead(**{kind: [(0, 0), (1, size - 1)]}))) == []
    for part in ((1, size), (2, 0), (0, -1), (-1, 0)):
        (violation,) = dead_violations(HICANN_X, Dead(**{kind: [part]}))
        message = f"dead {kind[:-1]} {part} does not exist; the chip has {size} in each hemisphere"
        assert (violation.code, violation.message) == ("no-such-part", message)


LAST_MODE = len(ROW_MODES) - 1


@pytest.mark.parametrize(
    ("name", "place", "allowed", "beyond", "code", "node"),
    [
        ("compare_masks", (1, 2), [0, 31], [-1, 32], "bad-mask", "driver (1, 2)"),
        ("row_modes", (1, 2), [0, LAST_MODE], [-1, LAST_MODE + 1], "bad-mode", "row (1, 2)"),
        ("crossbar", (0, 2), [0, 2**14 - 1], [-1, 2**14], "bad-filter", "crossbar node (0, 0)"),
        ("crossbar", (0, 3), [0, 2**14 - 1], [-1, 2**14], "bad-filter", "crossbar node (0, 0)"),
        ("crossbar", (0, 0), [0], [1], "bad-node", "crossbar node (1, 0)"),
    ],
)
def test_the_largest_of_each_setting_is_the_last_that_exists(
    name, place, allowed, beyond, code, node
):
    run = one_run_mapping(dense_net(5, 4, 3)).runs[0]
    for value in (*allowed, *beyond):
        violated = setting_violations(HICANN_X, changed(run, name, place, value), "run 0")
        expected = [(code, f"run 0: {node}")] * (value in beyond)
        assert [(violation.code, violation.node) for violation in violated] == expected


def test_the_last_synapse_and_the_largest_weight_are_the_last_that_exist():
    mapping = one_run_mapping(dense_net(5, 4, 3))
    last = [1, HICANN_X.rows - 1, HICANN_X.columns - 1, HICANN_X.labels - 1, 63]
    everywhere = np.ones((2, HICANN_X.columns), bool)

    def wrong(*table, placed=everywhere):
        run = dataclasses.replace(mapping.runs[0], synapses=np.array(table))
        codes = [violation.code for violation in synapse_violations(mapping, run, placed, "run 0")]
        return codes, existing(HICANN_X, run).tolist()

    assert wrong(last, [0, 0, 0, 0, 1]) == ([], [True, True])
    for place, value in itertools.product(range(4), (-1, None)):
        beyond = last.copy()
        beyond[place] = last[place] + 1 if value is None else value
        assert wrong(last, beyond) == (["no-such-synapse"], [True, False])
    for weight in (0, 64):
        assert wrong([*last[:4], weight]) == (["bad-weight"], [True])
    assert wrong(last, [*last[:3], 0, 1]) == (["synapse-twice"], [True, True])
    near = [1, HICANN_X.rows - 1, HICANN_X.columns - 2, 0, 1], [1, HICANN_X.rows - 3, *last[2:]]
    assert wrong(last, *near, [0, *last[1:]]) == ([], [True] * 4)
    partner = [1, HICANN_X.rows - 2, *last[2:]]
    assert wrong(last, partner) == (["sign-not-free"] * 2, [True, True])
    empty = everywhere.copy()
    empty[1, -1] = False
    assert wrong(last, [0, *last[1:]], near[0], placed=empty)[0] == ["no-neuron"]


BORDER = HICANN_X.columns // 2


@pytest.mark.parametrize(
    ("circuits", "head", "codes"),
    [
        ([(0, 5)], 0, []),
        ([(0, 5), (1, 5), (1, 6)], 2, []),
        ([(0, 6), (0, 5), (1, 5)], 0, []),
        ([(0, 5)], 1, ["bad-head"]),
        ([(0, 5), (1, 5)], -1, ["bad-head"]),
        ([(0, 5), (1, 6)], 0, ["not-connected"]),
        ([(1, 6), (0, 5)], 0, ["not-connected"]),
        ([(0, 5), (0, 7)], 0, ["not-connected"]),
        ([(0, BORDER - 1), (0, BORDER)], 0, ["over-border"]),
        ([(0, BORDER - 2), (0, BORDER - 1)], 1, []),
        ([(0, HICANN_X.columns)], 0, ["no-such-circuit"]),
        ([], 0, ["no-circuit"]),
    ],
)
def test_circuits_of_a_neuron_touch_within_a_half_and_one_of_them_fires(circuits, head, codes):
    mapping = one_run_mapping(dense_net(5, 4, 3))
    neuron = dataclasses.replace(mapping.runs[0].neurons[0], circuits=tuple(circuits), head=head)
    run = dataclasses.replace(mapping.runs[0], neurons=(neuron,))
    violated = neuron_violations(mapping, run, {0: "it"}, "run 0")
    assert [violation.code for violation in violated] == codes


def test_equal_addresses_of_different_outputs_are_different_events():
    mapping = one_run_mapping(dense_net(5, 4, 3))
    neuron, chip = mapping.runs[0].neurons[0], mapping.chip

    def codes(*columns):
        neurons = tuple(
            dataclasses.replace(neuron, circuits=((0, column),), head=0) for column in columns
        )
        run = dataclasses.replace(mapping.runs[0], neurons=neurons)
        population_names = dict.fromkeys(range(len(columns)), "it")
        return [
            violation.code
            for violation in neuron_violations(mapping, run, population_names, "run 0")
        ]

    first, *others = range(chip.columns)
    events = {column: chip.neuron_event(column, neuron.address) for column in (first, *others)}
    different = next(column for column in others if events[column] != events[first])
    same = next(column for column in others if events[column] == events[first])
    assert codes(first, different) == []
    assert codes(first, same) == ["same-address"]


def test_only_synapses_of_a_dead_row_are_on_a_dead_row():
    mapping = one_run_mapping(dense_net(5, 4, 3))
    everywhere = np.ones((2, HICANN_X.columns), bool)
    synapses = np.array([[0, 4, 1, 0, 1], [0, 5, 2, 0, 1], [1, 4, 3, 0, 1]])
    run = dataclasses.replace(mapping.runs[0], synapses=synapses)
    for row, node in ((4, "run 0: synapse (0, 4, 1)"), (5, "run 0: synapse (0, 5, 2)")):
        damaged = dataclasses.replace(mapping, dead=Dead(rows=[(0, row)]), signs="fixed")
        violated = synapse_violations(damaged, run, everywhere, "run 0")
        assert [(violation.code, violation.node) for violation in violated] == [("dead-row", node)]


def test_an_input_of_the_network_is_no_neuron_of_a_run():
    net = dense_net(5, 4, 3)
    run = one_run_mapping(net).runs[0]
    source, (neuron, *others) = run.sources[0], run.neurons
    placed = dataclasses.replace(neuron, population=source.population, index=source.index)
    violated = violations(net, neurons=(placed, *others))
    assert "unknown-neuron" in {violation.code for violation in violated}


def test_a_wrong_origin_is_a_run_that_did_not_record_the_spikes():
    net = dense_net(20, 12, 6, 3)
    mapping = layer_by_layer_mapping(net)
    source, *others = mapping.runs[2].sources
    assert source.from_run == 1
    for origin in (0, 2, 3, -1):
        moved = dataclasses.replace(source, from_run=origin)
        violated = violations(net, 2, mapping, sources=(moved, *others))
        assert "bad-origin" in {violation.code for violation in violated}


def test_synapses_of_a_disabled_row_are_idle():
    net = dense_net(5, 4, 3)
    run = one_run_mapping(net).runs[0]
    side, row = run.synapses[0, :2].tolist()
    table = run.synapses
    disabled = changed(run, "row_modes", (side, row), 0)
    violated = violations(net, row_modes=disabled.row_modes)
    idle = {violation.node for violation in violated if violation.code == "idle-synapse"}
    inside = table[(table[:, 0] == side) & (table[:, 1] == row), 2].tolist()
    assert idle == {f"run 0: synapse ({side}, {row}, {column})" for column in inside}


@pytest.mark.parametrize(("link", "codes"), [(0, ["same-record"] * 2), (1, [])])
def test_equal_addresses_on_different_links_are_different_records(link, codes):
    net = dense_net(5, 4, 3)
    events = ChipEvents(
        sender=np.array([5, 6]),
        entry=np.zeros(2, int),
        address=np.array([9, 9]),
        recorded=np.array([True, True]),
    )
    reached = np.array([0, 1]), np.array([HICANN_X.link_output(0), HICANN_X.link_output(link)])
    violated = _recording_violations(HICANN_X, net, events, reached, "run 0")
    assert [violation.code for violation in violated] == codes
    lost = _recording_violations(
        HICANN_X, net, events, tuple(part[:1] for part in reached), "run 0"
    )
    assert [violation.code for violation in lost] == ["not-recorded"]


def test_a_wrong_weight_of_the_other_sign_is_no_mere_wrong_sign():
    for excited, inhibited, code in (
        (0, 7, "wrong-sign"),
        (0, 6, "wrong-weight"),
        (7, 7, "wrong-weight"),
    ):
        assert _difference(7, excited, inhibited, "here").code == code
        assert _difference(-7, inhibited, excited, "here").code == code


def test_a_mapping_is_drawn_without_its_netlist_unless_it_is_damaged():
    mapping = one_run_mapping(dense_net(5, 4, 3))
    refuse_undrawable(mapping)
    synapses = mapping.runs[0].synapses.copy()
    synapses[0, 4] = 64
    damaged = with_run(mapping, synapses=synapses)
    assert_refused(lambda: refuse_undrawable(damaged), MappingError, "its weight is 64")
