"""Files for releases name the version, the licence and the dependencies of the package."""

import json
import re

from jaxsnn.version import __version__
from tests.supply.versions import ROOT, project


def test_all_files_name_the_version():
    codemeta = json.loads((ROOT / "codemeta.json").read_text())
    recipe = (ROOT / "recipe" / "recipe.yaml").read_text()
    citation = (ROOT / "CITATION.cff").read_text()
    assert codemeta["version"] == __version__
    assert f'version: "{__version__}"' in recipe
    assert f"\nversion: {__version__}\n" in citation


def test_all_files_name_the_licence():
    licence = project()["license"]
    assert json.loads((ROOT / "codemeta.json").read_text())["license"].endswith(licence)
    assert f"license: {licence}\n" in (ROOT / "recipe" / "recipe.yaml").read_text()
    assert f"\nlicense: {licence}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_recipe_and_codemeta_list_the_dependencies():
    required = [text.replace(">=", " >=", 1) for text in project()["dependencies"]]
    recipe = (ROOT / "recipe" / "recipe.yaml").read_text()
    assert [text for text in required if f"    - {text}\n" not in recipe] == []
    required_names = [re.split(r"[ <>=!~]", text)[0] for text in project()["dependencies"]]
    codemeta = json.loads((ROOT / "codemeta.json").read_text())
    assert codemeta["softwareRequirements"] == required_names
