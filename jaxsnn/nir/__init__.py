"""NIR in and out: files, graphs, dialects. Nothing here loads JAX."""

from jaxsnn.nir.build import network, sequential
from jaxsnn.nir.description import describe
from jaxsnn.nir.dialects import DIALECTS, Dialect
from jaxsnn.nir.export import export, tagged, write
from jaxsnn.nir.gains import require, resistance, spike_area
from jaxsnn.nir.graph import Graph
from jaxsnn.nir.inference import resolve
from jaxsnn.nir.node_traits import NodeTraits, Parameter
from jaxsnn.nir.nodes import register_node
from jaxsnn.nir.parse import parse, read
from jaxsnn.nir.read_limits import limit_reading

__all__ = [
    "DIALECTS",
    "Dialect",
    "Graph",
    "NodeTraits",
    "Parameter",
    "describe",
    "export",
    "limit_reading",
    "network",
    "parse",
    "read",
    "register_node",
    "require",
    "resistance",
    "resolve",
    "sequential",
    "spike_area",
    "tagged",
    "write",
]
