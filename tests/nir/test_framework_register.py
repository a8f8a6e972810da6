"""What the register of frameworks takes, versions that follow each other, and what is refused."""

import re
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from jaxsnn.errors import UsageError
from jaxsnn.nir.frameworks import registry
from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.model.dialect import Conventions, FrameworkOption, Rule
from tests.helpers.refusals import assert_refused

PLAIN = Conventions(name="mine", rules={})
MINE = Framework(name="mine", title="Mine", dialects=(PLAIN,))


def works(*arguments: Any) -> Any:
    raise NotImplementedError


@pytest.fixture
def load_entry_point(monkeypatch):
    """`load_entry_point(value)`: the entry points are loaded where there is one of this value."""

    def load(value: Any) -> None:
        def entry_points(group):
            assert group == "jaxsnn.frameworks"
            return [SimpleNamespace(name="a", value="b:c", load=lambda: value)]

        monkeypatch.setattr(registry.importlib.metadata, "entry_points", entry_points)
        registry._load_entry_points.__wrapped__()

    return load


def test_an_entry_point_brings_a_framework_and_nothing_else(load_entry_point):
    says = r"'a' .* jaxsnn.frameworks \(b:c\) has the type int"
    assert_refused(lambda: load_entry_point(5), UsageError, says)
    load_entry_point(MINE)
    try:
        assert registry.framework_of("mine") is MINE
        assert list(registry.frameworks())[-1] == "mine"
        registry.register_framework(MINE)  # once more
        namesake = Framework(name="mine", title="Other", dialects=(PLAIN,))
        says = "the framework 'mine' is already"
        assert_refused(lambda: registry.register_framework(namesake), UsageError, says)
    finally:
        registry.unregister_framework("mine")
    assert_refused(lambda: registry.unregister_framework("mine"), UsageError, "no framework 'mine'")


def writing(rule: Rule, *options: FrameworkOption) -> Conventions:
    return Conventions(name="mine", rules={"LIF": rule}, options=options)


def option(name: str, kind: Any) -> FrameworkOption:
    return FrameworkOption(name=name, kind=kind, help="")


DEPENDS, HALF = Rule(option="mode", without=Rule()), Rule(option="mode")
ABLE = Importer(version="1", write=works, load=works, nodes=("LIF",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        ({"name": "Mine"}, "has a name that cannot be an option"),
        (
            {"name": "auto", "dialects": (Conventions(name="auto", rules={}),)},
            "cannot be an option",
        ),
        (
            {"name": "norse", "dialects": (Conventions(name="norse", rules={}),)},
            "'norse' is already",
        ),
        ({"name": "my-own"}, "has a name that cannot be an option"),
        ({"dialects": ()}, "has no conventions"),
        ({"dialects": (Conventions(name="other", rules={}),)}, "has conventions named 'other'"),
        ({"dialects": (writing(DEPENDS, option("mode", "bool")),)}, ""),
        ({"dialects": (writing(HALF, option("mode", "bool")),)}, "depends on the option 'mode'"),
        ({"dialects": (writing(DEPENDS),)}, "a rule for LIF that depends on the option 'mode'"),
        ({"dialects": (writing(DEPENDS, option("mode", "number")),)}, "a rule for LIF"),
        ({"dialects": (PLAIN, PLAIN)}, "has the same version twice"),
        ({"importers": (ABLE, Importer(version="2"))}, ""),
        ({"importers": (ABLE, ABLE)}, "has the same version twice (1, 1)"),
        (
            {"importers": (Importer(version="1", write=works, nodes=()),)},
            "one of `write` and `load`",
        ),
        ({"importers": (Importer(version="1", load=works),)}, "one of `write` and `load`"),
        ({"importers": (Importer(version="1", load=works, write=works),)}, "without `nodes`"),
        ({"dialects": (writing(Rule(), option("dt", "time")),)}, "'dt', which all dialects have"),
        ({"dialects": (writing(Rule(), option("norm_input", "bool")),)}, ""),
        (
            {"dialects": (writing(Rule(), option("norm_input", "number")),)},
            "an option 'norm_input' of kind number; another framework has it with kind bool",
        ),
    ],
)
def test_parts_that_do_not_fit_together(changes, message):
    framework = Framework(**{"name": "mine", "title": "Mine", "dialects": (PLAIN,)} | changes)
    register = partial(registry.register_framework, framework)
    if message:
        assert_refused(register, UsageError, re.escape(message))
    else:
        register()
        registry.unregister_framework("mine")


@pytest.mark.parametrize(
    ("versions", "version", "expected"),
    [
        (["1.0", ("main", "1.0")], "1.0", "1.0"),
        (["1.0", ("main", "1.0")], "1.0.3", "1.0"),
        (["1.0", ("main", "1.0")], "main", "main"),
        (["1.0", ("main", "1.0")], "1.1", "main"),
        (["1.0", ("main", "1.0")], "1.0rc", None),
        (["1.0", ("main", "1.0")], "0.9", None),
        (["1.9", ("main", "1.9")], "1.10", "main"),
        (["1.9", ("main", "1.9")], "nightly", None),
        (["1.0"], "1.1", None),
        ([""], "1", None),
    ],
)
def test_versions_that_follow_each_other(versions, version, expected):
    pairs = [(name, "") if isinstance(name, str) else name for name in versions]
    importers = [Importer(version=name, after=after) for name, after in pairs]
    importer = registry._of_version(importers, version)
    assert (importer and importer.version) == expected


def test_without_an_installed_version_the_newest_release_is_written_for(monkeypatch):
    def none(name):
        raise registry.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(registry.importlib.metadata, "version", none)
    assert registry.chosen_importer("snntorch").version == "1.0"
    assert registry.chosen_importer("hxtorch").version == "main"
    assert registry.installed_version("jaxsnn") is None
    assert registry.installed_importer("snntorch") is None
    assert registry.build_options("jaxsnn==1") == {"time_unit": "s", "scale_spikes": True}
    assert registry.build_options("nir") == {}
    assert registry.build_options("nobody") == {}
    assert registry.owners("norm_input") == ["sinabs"]
    assert registry.owners("dt") == []
    assert "spinnaker2" in registry.with_importers()
    assert "nir" not in registry.with_importers()
    assert set(registry.with_importers()) - set(registry.writable()) == {
        *("lava", "nengo", "spinnaker2")
    }
