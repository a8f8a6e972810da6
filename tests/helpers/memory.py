"""The memory that a part of a process takes, where the system tells (Linux)."""

import resource
from contextlib import suppress
from pathlib import Path

_KIBIBYTE = 2**10


def _of_status(key: str) -> int:
    """An entry of /proc/self/status in bytes; 0 if there is none."""
    with suppress(OSError, IndexError, ValueError):
        text = Path("/proc/self/status").read_text()
        return int(text.split(f"{key}:")[1].split()[0]) * _KIBIBYTE
    return 0


class PeakMemory:
    """The largest number of resident bytes since the creation of this object, beyond those at that time,
    and those of processes that were started and ended since, if they are the largest so far.
    """

    def __init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak becomes the current size
        self._base = _of_status("VmRSS")
        self._children = _largest_child()

    @property
    def size(self) -> int:
        """Bytes; 0 where the system does not tell."""
        child = _largest_child()
        beside = max(child - self._base, 0) if child > self._children else 0
        return max(_of_status("VmHWM") - self._base, 0) + beside


def _largest_child() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _KIBIBYTE
