"""Whether neurons surely have room on a chip: one that gives each far more circuits than it takes
finds some. Imports nothing of jaxsnn.
"""

import numpy as np


def has_room(counts, dead, columns, halves):
    """Each neuron gets both circuits of whole columns, alive and side by side, from the left.

    Args:
        counts: circuits of each neuron.
        dead: (row, column) of the circuits that are not used.
        columns: of the chip, two circuits each.
        halves: of the chip; a neuron stays in one.
    """
    free = np.ones(columns, bool)
    free[[column for _, column in dead]] = False
    half = columns // halves
    for count in counts:
        width = (count + 1) // 2
        for first in range(columns - width + 1):
            last = first + width - 1
            if first // half == last // half and free[first : last + 1].all():
                free[first : last + 1] = False
                break
        else:
            return False
    return True
