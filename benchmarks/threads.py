"""torch with as many threads as are fastest."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

_QUICK = 1.0  # seconds; slower rows take the number that the row before them was fastest with


def fastest(rows: Mapping[str, Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
    """Rows whose first call finds the number of threads that they are fastest with, and sets it."""
    latest = os.cpu_count() or 1

    def tried(row, threads):
        """What comes of it, and seconds."""
        torch.set_num_threads(threads)
        start = time.perf_counter()
        found = row()
        return found, time.perf_counter() - start

    def chosen(row):
        best: list[int] = []

        def run():
            nonlocal latest
            if best:
                torch.set_num_threads(best[0])
                return row()
            found, took = tried(row, latest)
            if took < _QUICK:
                seconds = {}
                for threads in range(1, (os.cpu_count() or 1) + 1):
                    tried(row, threads)
                    found, seconds[threads] = tried(row, threads)
                latest = min(seconds, key=seconds.__getitem__)
            best.append(latest)
            return found

        return run

    return {name: chosen(row) for name, row in rows.items()}
