"""Neurons whose threshold each spike raises, as docs/guide_neuron.md makes them, become known."""

import sys
from pathlib import Path

import jaxsnn

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.extending_page import defined_by  # noqa: E402: the page's code is run for the tests, too

PAGE = defined_by("A neuron model")
jaxsnn.register_node(PAGE["TRAITS"])
jaxsnn.register_neuron(PAGE["MODEL"])
