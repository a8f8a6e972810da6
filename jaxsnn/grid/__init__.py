"""The time-stepped engine: every NIR node, every dialect, surrogate gradients."""

from jaxsnn.grid.engine import Grid
from jaxsnn.grid.solution import GridSolution
from jaxsnn.grid.surrogate import ArcTan, FastSigmoid, Sigmoid, StraightThrough, Surrogate

__all__ = ["ArcTan", "FastSigmoid", "Grid", "GridSolution", "Sigmoid", "StraightThrough", "Surrogate"]
