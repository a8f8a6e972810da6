"""A placer and a router as docs/extending.md writes them, outside the package: registered, they pass the generic tests
and work in `place_and_route` and in `jaxsnn map`; so do those that an installed package offers.
"""

import inspect
import json
from pathlib import Path

import pytest

from jaxsnn.bss2.check import check
from jaxsnn.bss2.mapping import to_json
from jaxsnn.bss2.search.place import PLACERS, Placement, register_placer
from jaxsnn.bss2.search.portfolio import Portfolio, place_and_route
from jaxsnn.bss2.search.route import ROUTERS, register_router
from jaxsnn.commands.cli import main
from jaxsnn.errors import MappingError, UsageError
from jaxsnn.nir import write
from tests.bss2 import test_place, test_route
from tests.bss2.recipes import dense_net, recurrent_net
from tests.extending_page import defined_by
from tests.helpers import packages
from tests.helpers.command_line import finished
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import small_net

ROOT = Path(__file__).parents[2]
PAGE = defined_by("A placer or a router")
from_the_right, first_that_fits = PAGE["from_the_right"], PAGE["first_that_fits"]


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    """Both are registered for the time of a test."""
    monkeypatch.setattr(PLACERS, "_registered", {})
    monkeypatch.setattr(ROUTERS, "_registered", {})
    register_placer("from-the-right", from_the_right)
    register_router("first-that-fits", first_that_fits)


# -- tests of all placers


@pytest.mark.parametrize("count", test_place.MOST)
def test_a_custom_placer_fills_the_chip(count):
    test_place.test_the_chip_is_filled_to_the_last_neuron("from-the-right", count)


def generic(module):
    """The tests of a module that hold for any placer."""
    return [
        (name, arguments)
        for name, test in inspect.getmembers(module, inspect.isfunction)
        if name.startswith("test_")
        for arguments in cases(test)
    ]


def cases(test):
    """The arguments of a test over all placers, without the placer; nothing for other tests."""
    argument_sets = [{}]
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    if not any(mark.args[1] is PLACERS for mark in marks):
        return
    for argument_names, values in (mark.args for mark in marks if mark.args[1] is not PLACERS):
        argument_sets = [
            before | {argument_names: value} for before in argument_sets for value in values
        ]
    yield from argument_sets


@pytest.mark.parametrize(("name", "arguments"), generic(test_place))
def test_a_custom_placer_passes_the_generic_tests(name, arguments):
    getattr(test_place, name)(name="from-the-right", **arguments)


def test_there_are_generic_tests():
    test_names = {name for name, _ in generic(test_place)}
    assert "test_any_sizes_and_dead_circuits" in test_names
    assert len(test_names) >= 4


@pytest.mark.parametrize("signs", ["fixed", "free"])
@pytest.mark.parametrize("net", test_route.NETS)
@pytest.mark.parametrize(
    ("router", "placer"),
    [(router, "from-the-right") for router in ("label-only", "mixed", "first-that-fits")]
    + [("first-that-fits", placer) for placer in ("spread", "by-connectivity", "annealed")],
)
def test_every_router_is_right_after_it_and_the_router_after_every_placer(
    router, placer, net, signs
):
    test_route.test_every_router_is_right_after_every_placer(router, placer, net, signs)


@pytest.mark.parametrize("signs", ["fixed", "free"])
def test_the_router_keeps_off_dead_parts(signs):
    test_route.test_every_router_keeps_off_dead_parts("first-that-fits", signs)


# -- in Python


@pytest.mark.parametrize("net", [dense_net(20, 30, 5), recurrent_net(8, 20), dense_net(600, 90, 5)])
def test_place_and_route_uses_what_it_is_told(net):
    portfolio = Portfolio(placers=["from-the-right"], routers=["first-that-fits"])
    outcome = place_and_route(net, portfolio=portfolio)
    assert outcome.fits, outcome.why
    assert check(outcome.mapping, net) == ()
    for run in outcome.mapping.runs:
        assert run.method.startswith("from-the-right, ")
        assert any((0, 255) in neuron.circuits for neuron in run.neurons)


def test_what_is_registered_changes_nothing_where_it_is_not_chosen(monkeypatch):
    net = dense_net(20, 30, 5)
    mapping = to_json(place_and_route(net).mapping)
    monkeypatch.setattr(PLACERS, "_registered", {})
    monkeypatch.setattr(ROUTERS, "_registered", {})
    assert to_json(place_and_route(net).mapping) == mapping


def placed(change):
    """A placer that changes the circuits which another one gives."""

    def placer(task, counts, rng):
        placement = PLACERS["first-fit"](task, counts, rng)
        return Placement(chip=placement.chip, circuits=tuple(change(list(placement.circuits))))

    return placer


@pytest.mark.parametrize(
    ("placer", "says"),
    [
        (lambda task, counts, rng: [(0, 0)], "list instead of Placement"),
        (placed(lambda circuits: circuits[1:]), "7 of 8 neurons"),
        (
            placed(lambda circuits: [*circuits[:-1], ()]),
            r"0 circuits to 'layer2'\[2\], which needs 1",
        ),
        (
            placed(lambda circuits: [*circuits[:-1], ((0, 256),)]),
            r"to 'layer2'\[2\] a circuit .*dead.*: \(0, 256\)",
        ),
        (
            placed(lambda circuits: [*circuits[:-1], circuits[0]]),
            r"to 'layer2'\[2\] a circuit .*: \(0, 0\)",
        ),
    ],
)
def test_a_wrong_placer_is_named(placer, says):
    register_placer("wrong", placer)
    call = lambda: place_and_route(  # noqa: E731
        dense_net(4, 5, 3), portfolio=Portfolio(placers=["wrong"])
    )
    assert_refused(
        call, MappingError, f"placer 'wrong' .*{says}", fix="a placer other than 'wrong'"
    )


def test_a_router_that_returns_nothing_is_named():
    register_router("wrong", lambda task, placement, rng, effort: None)
    portfolio = Portfolio(routers=["wrong"])
    call = lambda: place_and_route(dense_net(4, 5), portfolio=portfolio)  # noqa: E731
    assert_refused(call, MappingError, "router 'wrong' .* NoneType instead of Run")


@pytest.mark.parametrize(
    ("register", "name", "entry", "says"),
    [
        (register_placer, "spread", from_the_right, "'spread' is already used by another placer"),
        (
            register_router,
            "first-that-fits",
            ROUTERS["mixed"],
            "'first-that-fits' is already used by another router",
        ),
        (register_placer, "mine", "spread", "placer 'mine' is not callable .type: str"),
        (register_placer, "", from_the_right, "the name of the placer is empty"),
    ],
)
def test_names_are_given_once(register, name, entry, says):
    register_placer("from-the-right", from_the_right)  # the same placer again is allowed
    assert_refused(lambda: register(name, entry), UsageError, says)


# -- on the command line


@pytest.fixture
def graph_file(tmp_path):
    write(tmp_path / "net.nir", small_net(12))
    return tmp_path / "net.nir"


def test_the_command_uses_it(graph_file, capsys):
    mapping = graph_file.with_name("m.json")
    flags = ["--placer", "from-the-right", "--router", "first-that-fits"]
    assert main(["map", str(graph_file), "-o", str(mapping), *flags, "--json", "-q"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["fits"], done["methods"]) == (True, ["from-the-right, label-only, 1 groups"])
    assert main(["map", str(graph_file), "--verify", str(mapping), "-q"]) == 0
    assert main(["map", str(graph_file), "-o", str(mapping), "--force", "--placer", "right"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("jaxsnn: error: there is no placer 'right': ")
    assert "from-the-right" in message


#: Module of a package with a placer and a router.
PACKAGE = """
from jaxsnn.bss2.search.place import spread
from jaxsnn.bss2.search.route import mixed


def my_placer(task, counts, rng):
    return spread(task, counts, rng)


def my_router(task, placement, rng, effort):
    return mixed(task, placement, rng, effort)
"""


def installed(tmp_path, **points):
    """The package with entry points of it, installed into a folder."""
    files = {"my_package.py": PACKAGE}
    return packages.installed(tmp_path / "site", "my_package", files=files, **points)


def test_an_installed_package_adds_its_own(graph_file, tmp_path):
    site = installed(
        tmp_path,
        placers={"theirs": "my_package:my_placer"},
        routers={"ours": "my_package:my_router"},
    )
    output, flags = tmp_path / "m.json", ["--placer", "theirs", "--router", "ours"]
    done = finished("map", graph_file, "-o", output, *flags, "--json", site=site)
    assert json.loads(done.stdout)["methods"] == ["theirs, label-only, 1 groups"]


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("broken", "absent", "placer 'broken' cannot be loaded from my_package:absent"),
        (
            "spread",
            "my_placer",
            "'spread' is used by more than one placer, among them my_package:my_pl",
        ),
    ],
)
def test_a_broken_package_is_named_where_its_placer_is_wanted(
    name, target, message, graph_file, tmp_path
):
    site = installed(tmp_path, placers={name: f"my_package:{target}"})
    command = ["map", graph_file, "-o", tmp_path / "m.json"]
    assert message in finished(*command, "--placer", name, code=2, site=site).stderr
    finished(*command, site=site)
