"""The steps of the demo: each is timed, and reported as it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DemoStep:
    """Record of one step of the demo.

    Attributes:
        name: name of the step.
        lines: result as text.
        facts: result for scripts.
        seconds: wall time.
    """

    name: str
    lines: tuple[str, ...]
    facts: Mapping[str, Any]
    seconds: float


def step_text(number: int, step: DemoStep) -> str:
    """Return the human-readable text of a step."""
    first, *others = step.lines
    margin = " " * 14
    return "\n".join(
        [
            f"{number:<2d} {step.name:9s}  {first}  [{step.seconds:.1f} s]",
            *(margin + line for line in others),
        ]
    )


class Steps:
    """Runner of the demo's steps, which times them and collects their records."""

    def __init__(self, step_done: Callable[[int, DemoStep], None] | None):
        self.done: list[DemoStep] = []
        self.step_done = step_done

    def run(
        self, name: str, work: Callable[..., tuple[Any, list[str], dict[str, Any]]], *arguments: Any
    ) -> Any:
        """Run `work`, which returns a value, lines and facts; record the step and return the
        value.
        """
        start = time.perf_counter()
        value, lines, facts = work(*arguments)
        step = DemoStep(
            name=name, lines=tuple(lines), facts=facts, seconds=time.perf_counter() - start
        )
        self.done.append(step)
        if self.step_done is not None:
            self.step_done(len(self.done), step)
        return value
