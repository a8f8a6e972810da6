"""How far XLA optimises what it compiles: where the native kernels do the work, compiling the little
around them takes longer than it would save.
"""

from __future__ import annotations

from typing import Any

#: It takes a fifth of the time, and what XLA runs becomes several times slower: for what runs once.
NOT_AT_ALL = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
#: It takes half of the time, and what XLA runs becomes half as slow again where arrays are large, and
#: no slower where they are small; loops become three times as slow.
A_LITTLE = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}


def loops_in(jaxpr: Any) -> int:
    """The loops of XLA in what is traced, inner ones too: native kernels have none."""
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name in ("while", "scan")
        for value in equation.params.values():
            several = value if isinstance(value, tuple | list) else (value,)
            inner = [getattr(each, "jaxpr", each) for each in several]
            count += sum(loops_in(each) for each in inner if hasattr(each, "eqns"))
    return count
