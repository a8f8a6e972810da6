"""docs/nir_semantics.md names cells of the suite, and states their outcomes for versions of frameworks."""

import collections
import importlib.metadata
import json
import re
from pathlib import Path

import pytest

from jaxsnn.conformance import adapter_of, run
from jaxsnn.conformance.cells import cells
from jaxsnn.conformance.comparison import VERDICTS, Answer
from jaxsnn.conformance.reference import MEANINGS, Convention
from jaxsnn.nir.dialects.inference import _TAGGED
from jaxsnn.nir.model.nodes import TYPES
from jaxsnn.options import INITIAL, RESET, RESET_DELAY, SPIKE_KERNEL, TIME_UNIT
from tests.helpers.pages import ROOT

PAGE = (ROOT / "docs" / "nir_semantics.md").read_text()
OUTCOMES = re.compile(r"^\| network and cell \|(.*)\|\n\|[-| ]+\|\n((?:\|.*\|\n)+)", re.M)
ROLES = ("export", "import", "round trip")
#: All cells; some have the first reset of a framework only.
CELLS = [
    cell for resets in (("zero", "subtract"), ("subtract",)) for cell in cells(resets, full=True)
]


def rows_of(text):
    """The entries of each row of a table."""
    return [[entry.strip() for entry in line.strip("|").split("|")] for line in text.splitlines()]


def cell_names(text):
    return re.findall(rf"`((?:{'|'.join(ROLES)})/[^`\n]+)`", text)


def stated_outcomes():
    """(framework, version) -> cell -> outcome as the page states it."""
    stated = collections.defaultdict(dict)
    for headings, body in OUTCOMES.findall(PAGE):
        columns = [heading.split() for heading in headings.split("|")]
        for network, *entries in rows_of(body):
            (name,) = cell_names(network)
            for (framework, version), entry in zip(columns, entries, strict=True):
                stated[framework.lower().replace("-", "_"), version][name] = entry
    return stated


STATED = stated_outcomes()


def agrees(answer, entry):
    """Whether a cell has the outcome that the page states: its verdict, then the convention, or a part
    of the reason. "pass" alone is the literal reading.
    """
    verdict, _, detail = entry.partition(": ")
    if answer.verdict not in verdict.split(" or "):
        return False
    if verdict == "pass":
        # A round trip without a convention has the spikes of the module.
        return str(answer.convention or "literal") == (detail or "literal")
    return detail in answer.reason


def test_every_cell_of_the_page_exists():
    names = {cell.name for cell in CELLS}
    assert len(cell_names(PAGE)) > 50
    assert {*cell_names(PAGE)} <= names


def test_every_outcome_is_a_verdict():
    entries = [entry for outcomes in STATED.values() for entry in outcomes.values()]
    assert len(entries) > 90
    assert {entry.partition(": ")[0] for entry in entries} <= {*VERDICTS, "–", "wrong or crash"}
    # "wrong" and "crash" without a reason would hold for any fault
    assert {"wrong", "crash", "refused"}.isdisjoint(entries)


def test_every_node_with_a_cell_is_in_the_table_of_primitives():
    table = PAGE.partition("## Primitives")[2].partition("\n## ")[0]
    listed = {row[0].strip("`") for row in rows_of(table) if len(row) == 4}
    asked = {cell.node.partition(" ")[0] for cell in CELLS}
    assert asked <= listed
    without_cells = re.findall(r"`(\w+)`", table.partition("No cell runs")[2].partition(".")[0])
    assert asked.isdisjoint(without_cells)
    assert {*listed, *without_cells} >= {*TYPES} - {"Input", "Output"}


def test_the_page_of_the_suite_lists_all_conventions():
    guide = (ROOT / "docs" / "conformance.md").read_text()
    table = guide.partition("| decision | values |")[2].partition("\n\n")[0]
    rows = {row[0]: row[1] for row in rows_of(table) if len(row) == 2}
    for decision, meanings in MEANINGS.items():
        assert set(meanings) <= set(re.findall(r"`([^`]+)`", rows[decision.replace("_", " ")]))


def recorded_answers():
    """(framework, version) -> cell -> answer of a run of the suite, with each framework in an
    environment of its own.
    """
    columns = json.loads((Path(__file__).parent / "recorded_outcomes.json").read_text())
    return {
        tuple(column.split()): {
            name: Answer(
                verdict=cell["verdict"],
                reason=cell.get("reason", ""),
                convention=Convention(**cell["convention"]) if "convention" in cell else None,
            )
            for name, cell in cells_of_column.items()
        }
        for column, cells_of_column in columns.items()
    }


def test_the_page_states_the_recorded_outcomes():
    recorded = recorded_answers()
    assert recorded.keys() == STATED.keys()
    for column, outcomes in STATED.items():
        asked = {name for name, entry in outcomes.items() if entry != "–"}
        assert asked == recorded[column].keys()
        for name in asked:
            assert agrees(recorded[column][name], outcomes[name]), (column, name)


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.parametrize(("framework", "version"), STATED)
def test_the_cells_have_the_outcomes_of_the_page(framework, version):
    pytest.importorskip(framework)
    adapter, outcomes = adapter_of(framework), STATED[framework, version]
    installed = importlib.metadata.version(adapter.distribution)
    if installed != version:
        pytest.skip(f"the page has {framework} {version}, and {installed} is installed")
    asked = {cell.name for cell in cells(adapter.resets, full=True)}
    different = {}
    for name, entry in outcomes.items():
        if entry == "–":
            assert name not in asked
            continue
        report = run(adapter, only=name, full=True)
        (answer,) = [item.answer for item in report.outcomes if item.cell.name == name]
        if not agrees(answer, entry):
            different[name] = (entry, answer.verdict, str(answer.convention), answer.reason)
    assert different == {}


# -- metadata


def proposed_fields():
    """Field -> (its values in code font, whether jaxsnn writes it)."""
    (body,) = re.findall(r"^\| field \| values \|.*\n\|[-| ]+\|\n((?:\|.*\|\n)+)", PAGE, re.M)
    return {
        name: (re.findall(r"`([^`]+)`", values), written == "yes")
        for names, values, _, written in rows_of(body)
        for name in re.findall(r"`(\w+)`", names)
    }


def test_the_page_says_which_fields_this_library_writes():
    written = {name for name, (_, is_written) in proposed_fields().items() if is_written}
    # dt_export and norm_input describe how two frameworks write numbers, not how they run them.
    assert written == {*_TAGGED} - {"dt_export", "norm_input"}


def test_fields_have_the_values_of_this_library_and_of_the_suite():
    fields = {name: set(values) for name, (values, _) in proposed_fields().items()}
    for option in (INITIAL, RESET, SPIKE_KERNEL, TIME_UNIT):
        assert fields[option.name] == {*option.values}
    assert fields[RESET_DELAY.name] == {*RESET_DELAY.values}
    for decision in ("decay", "reset_time", "current"):
        assert fields[decision] == {*MEANINGS[decision]}
