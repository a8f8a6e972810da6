"""What all routers share: how long they may try, and that they found nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long a router may try.

    Attributes:
        repairs: moves of a source after all are placed.
        deadline: `time.monotonic()` at which it stops.
    """

    repairs: int = 0
    deadline: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Unrouted:
    """A router found nothing.

    Attributes:
        why: for people.
        overflow: how many synapses or labels are too many; None where that is not known.
    """

    why: str
    overflow: int | None = None
