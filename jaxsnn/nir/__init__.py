"""NIR in and out: files, graphs, dialects. Nothing here loads JAX."""

from jaxsnn.files.read_limits import limit_reading
from jaxsnn.nir.build import network, sequential
from jaxsnn.nir.dialects.dialect_names import DIALECTS
from jaxsnn.nir.dialects.gains import require, spike_area
from jaxsnn.nir.dialects.inference import resolve
from jaxsnn.nir.dialects.resolve import resistance
from jaxsnn.nir.frameworks.registry import dialect_of
from jaxsnn.nir.graphs.export import export, tagged, write
from jaxsnn.nir.graphs.parse import parse, read
from jaxsnn.nir.model.description import describe
from jaxsnn.nir.model.dialect import Dialect
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import NodeTraits, Parameter
from jaxsnn.nir.model.nodes import register_node

__all__ = [
    "DIALECTS",
    "Dialect",
    "Graph",
    "NodeTraits",
    "Parameter",
    "describe",
    "dialect_of",
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


def __dir__() -> list[str]:
    return __all__
