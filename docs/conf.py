"""Configuration of Sphinx (`make docs`). `site_pages.py` writes the generated pages first."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import site_pages

from jaxsnn import __version__ as release

project = "jaxsnn-nir"
author = "The jaxsnn-nir contributors"
project_copyright = author
version = release
extensions = ["myst_parser"]
myst_heading_anchors = 3
smartquotes = False  # they would turn --option into a dash
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"jaxsnn-nir {release}"
exclude_patterns = ["_build"]


def setup(app):
    """Write the generated pages before anything is read."""
    app.connect("builder-inited", lambda app: site_pages.write_all(Path(app.srcdir)))
