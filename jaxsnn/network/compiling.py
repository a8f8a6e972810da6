"""Optimisation level of XLA: where native kernels do the work, optimising the code around them
takes longer than it saves.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import jax

#: XLA options for code that runs once: a fifth of the compilation time, but code that is several
#: times slower.
NOT_AT_ALL = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
#: XLA options that halve the compilation time. The code is half as slow again for large arrays,
#: equally fast for small ones, and three times as slow in loops.
A_LITTLE = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}


def known_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the installed XLA supports. That of JAX 0.12 does not have
    `xla_cpu_use_fusion_emitters`.

    The first call runs small compilations: one if XLA has all of them, else one more for each.
    """
    if _has(tuple(options.items())):
        return dict(options)
    return {name: value for name, value in options.items() if _has(((name, value),))}


def unset_flags(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are not set in the variable `XLA_FLAGS`, which takes precedence."""
    set_flags = set(re.findall(r"--(\w+)", os.environ.get("XLA_FLAGS", "")))
    return {name: value for name, value in options.items() if name not in set_flags}


@cache
def _has(options: tuple[tuple[str, Any], ...]) -> bool:
    """Return whether XLA supports all of some options."""
    nothing = jax.jit(lambda x: x, compiler_options=dict(options))
    try:
        nothing.lower(jax.ShapeDtypeStruct((), "float32")).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def loops_in(jaxpr: Any) -> int:
    """Return the number of XLA loops in a jaxpr, including nested ones: native kernels have
    none.
    """
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name in ("while", "scan")
        for value in equation.params.values():
            several = value if isinstance(value, tuple | list) else (value,)
            inner = [getattr(branch, "jaxpr", branch) for branch in several]
            count += sum(loops_in(branch) for branch in inner if hasattr(branch, "eqns"))
    return count


#: XLA option that compiles a program in one thread: if other processes use the other cores,
#: dividing it costs a fifth of the time.
IN_ONE_PART = {"xla_cpu_parallel_codegen_split_count": 1}

if __name__ == "__main__":  # print XLA_FLAGS; XLA exits at an unknown flag
    accepted_flags = known_options(NOT_AT_ALL | IN_ONE_PART)
    flags = (f"--{name}={str(value).lower()}" for name, value in accepted_flags.items())
    sys.stdout.write(" ".join(flags) + "\n")
