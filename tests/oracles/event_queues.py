"""When events leave a link of the chip: a queue for each lane, written as a loop."""

import numpy as np


def served(times, lanes, queue):
    """The clock cycle in which each event is passed on, inf for those that are lost.

    Each lane passes on one event a cycle; an event that would wait for more than `queue` cycles is
    lost. Event i takes lane i % lanes; at one time the earlier slot comes first.

    Args:
        times: (slots,), in cycles; inf where unused.
    """
    served_at, free = np.full(len(times), np.inf), np.zeros(lanes)
    for place in np.argsort(times, kind="stable")[: np.isfinite(times).sum()]:
        cycle = max(np.ceil(times[place]), free[place % lanes])
        if cycle - np.ceil(times[place]) <= queue:
            served_at[place], free[place % lanes] = cycle, cycle + 1
    return served_at
