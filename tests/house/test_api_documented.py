"""Every public object has a docstring, and the guide to simulation prints what it says."""

import sys
from importlib import import_module

from tests.helpers.pages import ROOT, blocks_of, run_python

sys.path.insert(0, str(ROOT / "docs"))

import reference_pages


def test_every_public_object_has_a_docstring():
    for module in map(import_module, reference_pages.REFERENCE):
        for name in reference_pages.public_names(module):
            value = getattr(module, name)
            assert not callable(value) or (value.__doc__ or "").strip(), name


def test_dir_lists_the_public_names_only():
    for name in (*reference_pages.REFERENCE, "jaxsnn.nir"):
        module = import_module(name)
        assert dir(module) == sorted(module.__all__), name


def test_the_examples_of_the_guide_to_simulation_print_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = [block for block in blocks_of("guide_simulate") if block.language == "python"]
    assert len(blocks) > 5
    namespace: dict = {}
    for block in blocks:
        run_python(block, namespace)
