"""Ways to spoil a right mapping. Each takes a mapping, its net and a random generator and gives a
mapping and a net that do not belong together, or None where there is nothing to spoil so."""

import dataclasses
from collections.abc import Callable

import numpy as np

CORRUPTIONS: dict[str, Callable] = {}


def corruption(function):
    CORRUPTIONS[function.__name__] = function
    return function


def pick(random, items):
    return items[int(random.integers(len(items)))] if len(items) else None


def with_run(mapping, number, **changes):
    runs = list(mapping.runs)
    runs[number] = dataclasses.replace(runs[number], **changes)
    return dataclasses.replace(mapping, runs=tuple(runs))


def some_run(mapping, random):
    number = int(random.integers(len(mapping.runs)))
    return number, mapping.runs[number]


def feeds(net, one, run):
    """Whether a source has a target in the run."""
    index = net.offsets[one.population] + one.index
    here = [net.offsets[part.population] + part.index for part in run.neurons]
    return bool(np.isin(net.post[net.pre == index], here).any())
