"""What stands in the way of running a network: records of it. Nothing here loads JAX."""

from collections.abc import Iterable, Iterator

from jaxsnn.errors import Problem
from jaxsnn.network.structure import Population


def obstacles(population: Population, fields: Iterable[str]) -> Iterator[Problem]:
    """What is not known of a population and what makes no sense, among some fields; one problem for
    each way out.
    """
    wanted = tuple(fields)
    ways: list[str] = []
    for field, problem in population.obstacles:
        way = problem.fix or problem.message
        if field in wanted and way not in ways:
            ways.append(way)
            yield problem
