"""Pictures, one call each; every call returns a `Picture`, which a notebook shows and `save`
writes as PNG, SVG or PDF.

The public names are resolved on first use, and matplotlib is loaded when something is drawn.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxsnn.plot.graph_drawing import floorplan as floorplan
    from jaxsnn.plot.graph_drawing import graph as graph
    from jaxsnn.plot.picture import Picture as Picture
    from jaxsnn.plot.spike_plots import SpikeTrain as SpikeTrain
    from jaxsnn.plot.spike_plots import encodings as encodings
    from jaxsnn.plot.spike_plots import fidelity as fidelity
    from jaxsnn.plot.spike_plots import first_difference as first_difference
    from jaxsnn.plot.spike_plots import histogram as histogram
    from jaxsnn.plot.spike_plots import raster as raster
    from jaxsnn.plot.training_plots import learning_curve as learning_curve
    from jaxsnn.plot.training_plots import weights as weights
    from jaxsnn.plot.voltage_plots import voltage as voltage

_HOME = {
    "Picture": "picture",
    "SpikeTrain": "spike_plots",
    "encodings": "spike_plots",
    "fidelity": "spike_plots",
    "first_difference": "spike_plots",
    "floorplan": "graph_drawing",
    "graph": "graph_drawing",
    "histogram": "spike_plots",
    "learning_curve": "training_plots",
    "raster": "spike_plots",
    "voltage": "voltage_plots",
    "weights": "training_plots",
}

__all__ = [*_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jaxsnn.plot' has no attribute {name!r}")
    return getattr(import_module(f"jaxsnn.plot.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
