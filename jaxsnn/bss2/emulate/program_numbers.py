"""What of a program are numbers: the calibration and the fixed pattern of a chip. They are arguments
of compiled code; the rest, which circuits are used and what is connected, is known to it.

Programs of one mapping on other chips, or with other scales, run the same compiled code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.bss2.emulate.connections import Neurons, Program, RunWiring
from jaxsnn.network.network import with_tau_facts
from jaxsnn.network.structure import Population
from jaxsnn.network.voltage_chains import with_unknown_taus

_OF_NEURONS = ("tau_mem", "tau_syn", "v_leak", "v_threshold", "v_reset", "capacitance")
_OF_PROJECTIONS = ("excite", "inhibit")

#: Numbers of neurons and of projections, run by run, and the program's slope.
Numbers = tuple[Any, Any]


class Structure:
    """A program without its numbers, equal where all is equal that compiled code knows."""

    def __init__(self, program: Program):
        self.program = program
        digest = hashlib.sha256()
        for piece in _pieces(program):
            digest.update(
                piece.tobytes() if isinstance(piece, np.ndarray) else repr(piece).encode()
            )
        self._known = replace(program.chip, seed=0), digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self._known == other._known

    def __hash__(self) -> int:
        return hash(self._known)


def numbers_of(program: Program) -> Numbers:
    """The numbers of a program: a tree of arrays, the same for all programs of one structure."""
    runs = tuple(
        (
            tuple(tuple(getattr(own, name) for name in _OF_NEURONS) for own in wiring.neurons),
            tuple(
                tuple(getattr(part, name) for name in _OF_PROJECTIONS)
                for part in wiring.projections
            ),
        )
        for wiring in program.runs
    )
    return runs, program.slope


def with_numbers(program: Program, numbers: Numbers) -> Program:
    """The program with other numbers, which may be traced; see `numbers_of`."""
    runs, slope = numbers
    filled = tuple(
        _filled(wiring, *given) for wiring, given in zip(program.runs, runs, strict=True)
    )
    return replace(program, runs=filled, slope=slope)


def population_of(own: Neurons) -> Population:
    """The neurons as a population of the event engine."""
    return Population(
        name=own.name,
        kind="CubaLIF" if own.fires else "CubaLI",
        size=len(own.index),
        initial="v_reset" if own.fires else "v_leak",
    )


def prepared(program: Program) -> Program:
    """The program as a tree of its numbers that JAX can trace, with what its time constants are
    like written down while they can be looked at.
    """
    runs = []
    for wiring in program.runs:
        neurons = []
        for own in wiring.neurons:
            taus: dict[str, Any] = {
                name: np.asarray(getattr(own, name), jnp.result_type(float))
                for name in ("tau_mem", "tau_syn")
            }
            known = replace(with_tau_facts(population_of(own), taus), taus_last=True)
            neurons.append(replace(own, population=known))
        runs.append(replace(wiring, neurons=tuple(neurons)))
    known = replace(program, runs=tuple(runs))
    return replace(known, structure=Structure(known))


def stacked(programs: Sequence[Program]) -> Program:
    """Programs of one mapping on several chips of a kind as one, each number an array (programs,
    ...).
    """
    if len({program.structure for program in programs}) > 1:  # by their time constants
        programs = [_any_taus(program) for program in programs]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *programs)


def _any_taus(program: Program) -> Program:
    """The program with nothing said of its time constants."""
    runs = tuple(
        replace(
            wiring,
            neurons=tuple(
                replace(
                    own, population=replace(with_unknown_taus(population_of(own)), taus_last=True)
                )
                for own in wiring.neurons
            ),
        )
        for wiring in program.runs
    )
    unknown = replace(program, runs=runs)
    return replace(unknown, structure=Structure(unknown))


def _filled(wiring: RunWiring, neurons: Any, projections: Any) -> RunWiring:
    return replace(
        wiring,
        neurons=tuple(
            replace(own, **dict(zip(_OF_NEURONS, given, strict=True)))
            for own, given in zip(wiring.neurons, neurons, strict=True)
        ),
        projections=tuple(
            replace(part, **dict(zip(_OF_PROJECTIONS, given, strict=True)))
            for part, given in zip(wiring.projections, projections, strict=True)
        ),
    )


def _pieces(program: Program) -> Iterator[Any]:
    """All that compiled code knows of a program beside its chip."""
    yield program.layout, dict(program.sizes), program.speedup, program.refractory_time
    for wiring in program.runs:
        yield len(wiring.neurons), len(wiring.host), len(wiring.projections)
        for own in wiring.neurons:
            yield from _shaped(own.index, own.output, own.recorded)
            yield own.name, own.fires, own.population
        for part in wiring.host:
            yield from _shaped(part.channels, part.sender)
            yield part.source
        for part in wiring.projections:
            yield from _shaped(part.sender)
            yield part.source, part.from_host, part.target, np.shape(part.excite)


def _shaped(*arrays: np.ndarray) -> Iterator[Any]:
    for array in arrays:
        yield array.shape, array.dtype.str
        yield np.ascontiguousarray(array)


def _flatten(program: Program) -> tuple[Numbers, Structure]:
    structure = program.structure
    assert isinstance(structure, Structure)
    return numbers_of(program), structure


def _unflatten(structure: Structure, numbers: Numbers) -> Program:
    return replace(with_numbers(structure.program, numbers), structure=structure)


jax.tree_util.register_pytree_node(Program, _flatten, _unflatten)
