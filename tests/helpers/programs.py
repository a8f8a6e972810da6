"""What XLA compiles while something runs, by JAX's own events."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"


@contextmanager
def compiled() -> Iterator[list[str]]:
    """The names of the programs that are compiled in here, "jit(name)", as they come."""
    programs: list[str] = []

    def heard(event: str, _: float, **about: object) -> None:
        if event == _EVENT:
            programs.append(str(about.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        yield programs
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)
