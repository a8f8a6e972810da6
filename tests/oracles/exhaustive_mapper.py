"""Whether a net fits onto the small chip in one run, by trying everything; imports nothing of
jaxsnn.

The small chip has two columns, one bus a hemisphere, two drivers on it, one bit of label and one of
row select. A code is what synapses and drivers see of an event: label in bit 0, row select in bit
1. Assumed, as the mapper does: each connection has a synapse of its own, to which nothing else
responds, and a source sends at most one event to a bus. Sets of sources are integers, bit i for
global index i.
"""

import functools
import itertools

import numpy as np

CODES = range(4)


def fits(net, signs, dead_circuits=()):
    """Whether there is any mapping of all neurons at once; weights up to 63."""
    assert np.abs(net.weight).max(initial=0) <= 63
    neurons = np.flatnonzero(~net.external).tolist()
    inputs = sorted({pre for pre in net.pre.tolist() if net.external[pre]})
    needed = []
    for neuron in neurons:
        into = [(1 << pre, weight > 0) for pre, post, weight in synapses(net) if post == neuron]
        needed.append(
            (
                sum(bit for bit, excites in into if excites),
                sum(bit for bit, excites in into if not excites),
            )
        )
    shapes = placements(len(neurons), dead_circuits)
    on_chip = not all(net.external[pre] for pre in net.pre.tolist())
    for addresses in neuron_codes(len(neurons)) if on_chip else [()]:
        hearings = best(pairs_heard(dict(zip(neurons, addresses, strict=False)), inputs))
        if any(fits_placed(tuple(needed), counts, hearings, signs) for counts in shapes):
            return True
    return False


def synapses(net):
    return zip(net.pre.tolist(), net.post.tolist(), net.weight.tolist(), strict=True)


def placements(size, dead_circuits):
    """For each way to place the neurons: how many circuits each has in the top and in the bottom
    hemisphere.
    """
    circuits = [(row, column) for row in range(2) for column in range(2)]
    free = [circuit for circuit in circuits if circuit not in dead_circuits]
    seen = []
    for owners in itertools.product(range(-1, size), repeat=len(free)):
        circuits_of = [
            [circuit for circuit, owner in zip(free, owners, strict=True) if owner == neuron]
            for neuron in range(size)
        ]
        diagonal = any(
            len(part) == 2 and part[0][0] != part[1][0] and part[0][1] != part[1][1]
            for part in circuits_of
        )
        if diagonal or not all(circuits_of):
            continue
        counts = tuple(
            (sum(row == 0 for row, _ in part), sum(row == 1 for row, _ in part))
            for part in circuits_of
        )
        if counts not in seen:
            seen.append(counts)
    return seen


def neuron_codes(size):
    """Addresses of the neurons, all different, the first one 0: flipping a bit everywhere changes
    nothing.
    """
    for rest in itertools.permutations(CODES[1:], size - 1):
        yield (0, *rest)


def pairs_heard(codes, inputs):
    """For each setting of a hemisphere: the sources that synapses of driver 0, and of driver 1, can
    single out.
    """
    passed = {()}
    for mask, target in itertools.product(range(4), range(4)) if codes else ():
        passed.add(tuple(source for source, code in codes.items() if code & mask == target))
    pairs = set()
    for sources in sorted(passed):
        fixed = [(1 << source, codes[source]) for source in sources]
        free = [code for code in CODES if code not in [codes[source] for source in sources]]
        for size in range(min(len(free), len(inputs)) + 1):
            for chosen, bus_codes in itertools.product(
                itertools.combinations(inputs, size), itertools.permutations(free, size)
            ):
                bus = fixed + [
                    (1 << source, code) for source, code in zip(chosen, bus_codes, strict=True)
                ]
                alone = [[singled_out(bus, driver, mask) for mask in (0, 1)] for driver in (0, 1)]
                pairs.update(itertools.product(*alone))
    return pairs


def singled_out(bus, driver, mask):
    """The sources whose label no other event has that the driver accepts."""
    label: list[list[int]] = [[], []]
    for source, code in bus:
        if (code >> 1 ^ driver) & mask == 0:
            label[code & 1].append(source)
    return sum(part[0] for part in label if len(part) == 1)


def best(pairs):
    """Pairs of sets that no other pair contains."""
    table = np.array(sorted(pairs, key=lambda pair: -(pair[0].bit_count() + pair[1].bit_count())))
    largest_pairs = np.zeros((0, 2), int)
    for pair in table:
        if not np.any(np.all(largest_pairs & pair == pair, axis=1)):
            largest_pairs = np.vstack([largest_pairs, pair])
    return [(first, second) for first, second in largest_pairs.tolist()]


def fits_placed(needed, counts, hearings, signs):
    """Whether some setting of both hemispheres gives every neuron its sources."""
    modes = [(1, 1)] if signs == "free" else list(itertools.product(range(3), repeat=2))
    sides = []
    for side in (0, 1):
        able = {}
        for first, second in hearings:
            for exciting in modes:
                served = [
                    largest_servable(
                        sources,
                        (first & (sources[0] | sources[1]), second & (sources[0] | sources[1])),
                        exciting,
                        number[side],
                        signs,
                    )
                    for sources, number in zip(needed, counts, strict=True)
                ]
                able[tuple(served)] = None
        sides.append(list(able))
    possible = np.ones((len(sides[0]), len(sides[1])), bool)
    for place, (exciting, inhibiting) in enumerate(needed):
        (tops, top), (bottoms, bottom) = (
            numbered([served[place] for served in side]) for side in sides
        )
        enough = [
            [together(first, second, exciting | inhibiting) for second in bottoms] for first in tops
        ]
        possible &= np.array(enough)[np.ix_(top, bottom)]
        if not possible.any():
            return False
    return True


def numbered(values):
    """The different values, and the number of each."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return list(numbers), [numbers[value] for value in values]


@functools.lru_cache(maxsize=1 << 16)
def together(top, bottom, goal):
    """Whether something of the top and something of the bottom hemisphere add up to all."""
    return any(first | second == goal for first in top for second in bottom)


@functools.lru_cache(maxsize=1 << 16)
def largest_servable(needed, heard, exciting, circuits, signs):
    """The largest sets of sources that some circuits of a neuron in one hemisphere can take.

    `exciting` is how many of each driver's two rows excite. Where signs are free, a source takes
    both rows of a driver.
    """
    if circuits == 0:
        return (0,)
    if signs == "free":
        return largest(needed[0] | needed[1], heard, circuits, circuits)
    excited = largest(needed[0], heard, circuits * exciting[0], circuits * exciting[1])
    inhibited = largest(
        needed[1], heard, circuits * (2 - exciting[0]), circuits * (2 - exciting[1])
    )
    return tuple(
        sorted(first_set | second_set for first_set in excited for second_set in inhibited)
    )


def largest(sources, heard, first, second):
    """The largest sets of some sources that two drivers with some slots each can take, by Hall's
    condition.
    """
    bits = [
        1 << place
        for place in range(sources.bit_length())
        if sources >> place & 1 and (heard[0] | heard[1]) >> place & 1
    ]
    able = []
    for size in range(min(len(bits), first + second), -1, -1):
        for chosen in map(sum, itertools.combinations(bits, size)):
            fits_in = (chosen & ~heard[1]).bit_count() <= first and (
                chosen & ~heard[0]
            ).bit_count() <= second
            if fits_in and not any(chosen & larger == chosen for larger in able):
                able.append(chosen)
    return tuple(able)
