"""torch with as many threads as are fastest."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

_QUICK = 1.0  # seconds; slower rows are not tried with every number of threads


def fastest(rows: Mapping[str, Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
    """Rows whose first call finds the number of threads that they are fastest with, and sets it."""

    def chosen(row):
        best: list[int] = []

        def run():
            if best:
                torch.set_num_threads(best[0])
                return row()
            seconds: dict[int, float] = {}
            for threads in range(1, (os.cpu_count() or 1) + 1):
                torch.set_num_threads(threads)
                row()
                start = time.perf_counter()
                found = row()
                seconds[threads] = time.perf_counter() - start
                if seconds[threads] > _QUICK:
                    break
            best.append(min(seconds, key=seconds.__getitem__))
            return found

        return run

    return {name: chosen(row) for name, row in rows.items()}
