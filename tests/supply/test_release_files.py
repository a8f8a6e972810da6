"""Files for releases name the version, the licence and the dependencies of the package, and workflows
test and publish what pyproject.toml declares."""

import json
import re
import tomllib

import pytest

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


# -- workflows

#: The workflows of this repository, and the one that docs/conformance.md offers to others.
WORKFLOWS = {
    path.name: path.read_text()
    for folder in (ROOT / ".github" / "workflows", ROOT / "docs")
    for path in folder.glob("*.yml")
}


def workflow_jobs(name):
    """The jobs of a workflow: name -> text."""
    _, text = WORKFLOWS[name].split("\njobs:\n")
    parts = re.split(r"^  (\w+):\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def wheel_configuration():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]


def test_workflows_pin_the_same_commit_of_an_action():
    uses = re.findall(r"uses: (?!\./)(.+)", "".join(WORKFLOWS.values()))
    assert len(uses) > 20
    pins = [re.fullmatch(r"([\w-]+/[\w-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+", use) for use in uses]
    assert [use for use, pin in zip(uses, pins, strict=True) if pin is None] == []
    actions = {pin[1] for pin in pins if pin}
    assert len({pin[0] for pin in pins if pin}) == len(actions)


def test_dependabot_updates_the_actions():
    assert (
        "package-ecosystem: github-actions\n" in (ROOT / ".github" / "dependabot.yml").read_text()
    )


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_workflows_can_only_read_the_repository(name):
    head, _ = WORKFLOWS[name].split("\njobs:\n")
    assert re.findall(r"^permissions:\n((?:  .*\n)+)", head, re.M) == ["  contents: read\n"]
    checkouts = WORKFLOWS[name].count("actions/checkout@")
    assert WORKFLOWS[name].count("persist-credentials: false") == checkouts > 0


def test_only_tested_tags_are_published_and_without_a_password():
    jobs = workflow_jobs("wheels.yml")
    publishing = [name for name, text in jobs.items() if "gh-action-pypi-publish" in text]
    assert publishing == [name for name, text in jobs.items() if "id-token: write" in text]
    (name,) = publishing
    assert "if: github.event_name == 'push'" in jobs[name]
    assert "environment:\n      name: pypi\n" in jobs[name]
    assert set(re.search(r"needs: \[(.+)\]", jobs[name])[1].split(", ")) == jobs.keys() - {name}
    assert jobs["tests"].strip() == "uses: ./.github/workflows/tests.yml"
    assert "\n  workflow_call:\n" in WORKFLOWS["tests.yml"]
    (trigger,) = re.findall(r"^  push:\n((?:    .*\n)+)", WORKFLOWS["wheels.yml"], re.M)
    assert trigger == '    tags: ["v*"]\n'
    assert "secrets." not in WORKFLOWS["wheels.yml"]


def test_tests_and_wheels_cover_the_oldest_and_the_newest_python():
    versions = json.loads(re.search(r"python: (\[.+\])", WORKFLOWS["tests.yml"])[1])
    assert project()["requires-python"] == f">={versions[0]}"
    builds = [f"cp{number.replace('.', '')}-*" for number in (versions[0], versions[-1])]
    assert wheel_configuration()["build"].split() == builds
    (oldest,) = re.findall(r'python-version: "(.+)"', workflow_jobs("tests.yml")["oldest"])
    assert oldest == versions[0]


def test_wheels_contain_the_kernels_for_all_instruction_sets():
    assert wheel_configuration()["environment"] == {"JAXSNN_WHEEL_LEVELS": "all"}
    assert "      JAXSNN_WHEEL_LEVELS: all\n" in (ROOT / "recipe" / "recipe.yaml").read_text()
    hook = (ROOT / "build_backend" / "build_hook.py").read_text()
    assert 'os.environ.get("JAXSNN_WHEEL_LEVELS") == "all"' in hook


def test_kernels_are_compiled_with_the_headers_of_the_oldest_jaxlib():
    backend = (ROOT / "build_backend" / "kernel_backend.py").read_text()
    (headers,) = re.findall(r'^OLDEST = "jaxlib==(.+)"', backend, re.M)
    (oldest,) = (text for text in project()["dependencies"] if text.startswith("jax>="))
    assert oldest.startswith(f"jax>={headers.removesuffix('.0')},")
    assert f"    - jaxlib {headers}.* #" in (ROOT / "recipe" / "recipe.yaml").read_text()
