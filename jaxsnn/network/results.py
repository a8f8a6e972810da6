"""How a run ended, for both engines."""

import enum


class Result(enum.IntEnum):
    """How a run ended."""

    SUCCESS = 0
    BUDGET_EXHAUSTED = 1
    TIME_CONSTANTS_CHANGED = 2
    NOT_FINITE = 3
    INVALID_INPUT = 4
