"""Sphinx: `sphinx-build docs docs/_build` with the docs extra."""

from jaxsnn import __version__ as release

project = "jaxsnn-nir"
author = "The jaxsnn-nir contributors"
version = release
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
