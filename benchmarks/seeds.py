"""One training run for each seed, and what they say together."""

import json
import statistics
from collections.abc import Callable
from typing import Any


def each_seed(
    run: Callable[[int], dict[str, Any]], seeds: int, names: tuple[str, ...], first: int = 0
) -> None:
    """Print what each seed's run gives as a line of JSON, then mean and standard deviation of some
    of it.
    """
    results = []
    for seed in range(first, first + seeds):
        results.append(run(seed))
        print(json.dumps(results[-1]), flush=True)
    for name in names:
        values = [result[name] for result in results]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name}: mean {statistics.mean(values):.4f}, standard deviation {spread:.4f}")
