"""NIR in and out: files, graphs, dialects. Nothing here loads JAX."""

from jaxsnn.nir.build import network, sequential
from jaxsnn.nir.description import describe
from jaxsnn.nir.dialects import DIALECTS, Dialect
from jaxsnn.nir.export import export, tagged, write
from jaxsnn.nir.gains import require, resistance, spike_area
from jaxsnn.nir.graph import Graph
from jaxsnn.nir.inference import resolve
from jaxsnn.nir.parse import parse, read

__all__ = [
    "DIALECTS",
    "Dialect",
    "Graph",
    "describe",
    "export",
    "network",
    "parse",
    "read",
    "require",
    "resistance",
    "resolve",
    "sequential",
    "spike_area",
    "tagged",
    "write",
]
