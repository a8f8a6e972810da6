"""One training run for each seed, their statistics, and flags of earlier versions."""

import argparse
import json
import statistics
import sys
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


class FormerFlag(argparse.Action):
    """Flag with a former name, which sets the current option and prints a warning."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Set the option."""
        message = f"DeprecationWarning: {option_string} is deprecated: use --{self.dest} instead"
        print(message, file=sys.stderr)
        setattr(namespace, self.dest, values)
