"""What stands in the way of running a network: records of it, and refusals.

Nothing here loads JAX.
"""

from collections.abc import Iterable, Iterator

from jaxsnn.errors import Problem
from jaxsnn.network.structure import Population


def limit_of(node: str, code: str, error: Exception) -> Problem:
    """An error as a limit: what stands behind its last colon is what to do."""
    message, _, fix = str(error).rpartition(": ")
    return Problem(node=node, code=code, message=message, fix=fix)


def obstacles(population: Population, fields: Iterable[str]) -> Iterator[Problem]:
    """What nobody said of a population and what makes no sense, among some fields; one limit for
    each way out.
    """
    ways: list[str] = []
    for field, reason in population.obstacles:
        message, _, fix = reason.rpartition(": ")
        if field in fields and fix not in ways:
            ways.append(fix)
            code = (
                "bad-parameter"
                if field in ("tau", "tau_mem", "tau_syn", "v_reset", "r")
                else "not-said"
            )
            yield Problem(node=population.name, code=code, message=message, fix=fix)
