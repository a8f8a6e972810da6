"""Every kind of file against every importer.

`make interop` runs this with Spyx and writes docs/interop.md.
"""

import dataclasses
import importlib.metadata
import os
import platform
from pathlib import Path

import numpy as np
import pytest

from jaxsnn.errors import ConversionError
from jaxsnn.nir import parse
from jaxsnn.nir.frameworks.tables import frameworks_table
from tests.helpers.zoo import FACTS, RECORDED
from tests.interop import nets
from tests.interop.page import with_part
from tests.interop.players import compare, import_and_play, needs_spyx, shift_of

pytestmark = [pytest.mark.interop, pytest.mark.slow]

TITLES = {"snntorch": "snnTorch", "norse": "Norse", "spikingjelly": "SpikingJelly", "spyx": "Spyx"}
SOURCES = {**TITLES, "sinabs": "Sinabs", "rockpool": "Rockpool"}
#: Reproducible recordings of networks without a readout.
FILES = tuple(
    name for name in RECORDED if FACTS[name].get("reproducible", True) and not name.endswith("_li")
)
LIVE = {
    **{
        f"snntorch live {kind} {reset}{'' if delay else ' at once'}": (kind, reset, delay)
        for kind in ("leaky", "synaptic", "rleaky", "rsynaptic", "conv")
        for reset in ("zero", "subtract")
        for delay in (True, False)
        if (kind, delay) != ("rsynaptic", False)
    },
    "snntorch live leaky zero, different tau": ("leaky", "zero", True),
    "snntorch live synaptic zero at once, different tau": ("synaptic", "zero", False),
    "snntorch live conv zero, different tau": ("conv", "zero", True),
    "norse live lif, different tau": "lif",
    "norse live cuba, different tau": "cuba",
    **{
        f"norse live {kind}": kind
        for kind in ("lif", "cuba", "lif_v_leak", "cuba_v_leak", "if", "conv")
    },
    **{
        f"spikingjelly live {kind}": kind
        for kind in ("lif", "lif_adds", "lif_v_reset", "if", "cuba", "conv")
    },
    **{f"spyx live {kind}": kind for kind in ("lif", "cuba", "if", "rlif")},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One conversion: the share of identical trains, or why there is none, and what an
    approximation gives.
    """

    source: str
    target: str
    share: float | None
    active: int
    trains: int
    shift: int
    reason: str = ""
    approximate: float | None = None


@pytest.fixture(scope="session")
def table():
    """Cells, written as a document at the end where the environment names one."""
    cells: list[Cell] = []
    yield cells
    path = os.environ.get("INTEROP_DOCUMENT")
    if path and cells:
        Path(path).write_text(document(cells, Path(path).read_text()))


def live(name):
    """A random network of a framework: graph, input spikes, and what the framework itself fires."""
    framework, kind, alike = name.split()[0], LIVE[name], not name.endswith("different tau")
    shape = (1, 8, 8) if "conv" in kind else (5,)
    x = nets.spikes(7, shape, batch=20 if shape == (5,) else 6)
    if framework == "snntorch":
        kind, reset, delay = kind
        options = {"alike": alike, "reset_mechanism": reset, "reset_delay": delay}
        return nets.snntorch_case(kind, 3, x, **options)
    if framework == "norse":
        return nets.norse_case(kind, x, alike=alike)
    if framework == "spikingjelly":
        return nets.spikingjelly_case(kind, 6, x)
    graph, y = nets.spyx_case(kind, x)
    return parse(graph, dialect="spyx", time_unit="s"), x, y


def measure(graph, target, x, y, path, approximate=False):
    """(share of identical trains, active trains, trains, shift) with the target's own importer."""
    conversion, outputs = import_and_play(graph, target, x, path, approximate=approximate)
    shift = shift_of(conversion)
    identical, trains, active = compare(y, outputs, shift)
    return identical / trains, active, trains, shift


@pytest.mark.parametrize("target", TITLES)
@pytest.mark.parametrize("name", [*FILES, *LIVE])
def test_a_source_and_a_target_give_a_cell(name, target, recorded, table, tmp_path):
    needs_spyx()
    if name in LIVE:
        graph, x, y = live(name)
    else:
        graph, x, y = recorded(name)
        x = x.astype(np.float32)
    trains, active = y.reshape(*y.shape[:2], -1).any(axis=0).size, int((y != 0).any(axis=0).sum())
    try:
        share, active, trains, shift = measure(graph, target, x, y, tmp_path / "a.nir")
    except ConversionError as error:
        try:
            nearest, *_ = measure(graph, target, x, y, tmp_path / "b.nir", approximate=True)
        except ConversionError:
            nearest = None
        table.append(
            Cell(
                source=name, target=target, share=None, active=active, trains=trains, shift=0,
                reason=error.problem.message, approximate=nearest,
            )
        )  # fmt: skip
        return
    assert active >= trains / 4
    table.append(
        Cell(source=name, target=target, share=share, active=active, trains=trains, shift=shift)
    )
    assert share >= 0.99


def document(cells, page):
    """A page with the measured tables in their places."""
    reasons: list[str] = []
    sources = list(dict.fromkeys(cell.source for cell in cells))
    cell_by_pair = {(cell.source, cell.target): cell for cell in cells}
    lines = [
        row(["source", "active trains", *TITLES.values()]),
        row(["---", "---:", *["---"] * len(TITLES)]),
    ]
    for name in sources:
        some = cell_by_pair[name, next(iter(TITLES))]
        assert all((name, target) in cell_by_pair for target in TITLES), (
            f"{name} was not measured whole"
        )
        entries = (text(cell_by_pair[name, target], reasons) for target in TITLES)
        lines.append(row([name, f"{some.active} of {some.trains}", *entries]))
    why = [f"{number}. {reason}" for number, reason in enumerate(reasons, start=1)]
    page = with_part(page, "pairs", summary(cells))
    page = with_part(page, "frameworks", [frameworks_table()])
    page = with_part(page, "files", lines)
    return with_part(page, "reasons", why)


def summary(cells):
    """Sources against targets: conversions and refusals."""
    rows = [
        row(["files of", *(f"to {title}" for title in TITLES.values())]),
        row(["---"] * (len(TITLES) + 1)),
    ]
    for source, title in SOURCES.items():
        entries: list[str] = []
        for target in TITLES:
            pair_cells = [
                cell for cell in cells if cell.source.startswith(source) and cell.target == target
            ]
            shares = [cell.share for cell in pair_cells if cell.share is not None]
            converted = f"{len(shares)} converted" if shares else ""
            if shares and min(shares) < 1:
                converted += f", at least {floor_percent(min(shares))} identical"
            refused = (
                f"{len(pair_cells) - len(shares)} refused" if len(pair_cells) > len(shares) else ""
            )
            entries.append("; ".join(part for part in (converted, refused) if part))
        rows.append(row([title, *entries]))
    packages = ("snntorch", "norse", "spikingjelly", "spyx", "nir", "nirtorch", "torch", "jax")
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name).split('+')[0]}" for name in packages
    )
    return [*rows, "", f"Measured with {versions}, Python {platform.python_version()}."]


def text(cell, reasons):
    """One cell of the table."""
    if cell.share is not None:
        return floor_percent(cell.share) + (f" ({cell.shift:+d})" if cell.shift else "")
    reason = general(cell.reason, TITLES[cell.target])
    if reason not in reasons:
        reasons.append(reason)
    nearest = "" if cell.approximate is None else f", {floor_percent(cell.approximate)}"
    return f"refused [{reasons.index(reason) + 1}]{nearest}"


def general(reason, title):
    """A reason without the node and the numbers of one file."""
    reason = reason.removeprefix(f"{title} cannot load this graph: ").partition(" (and ")[0]
    _, _, rest = reason.partition("': ") if "': " in reason else ("", "", reason)
    rest = rest.partition(": its membrane potential can reach")[0]
    for word in ("the membrane potential of neuron 0 starts at",):
        if rest.startswith(word):
            rest = "it starts at v_leak and resets elsewhere, the importer starts where it resets"
    return f"{title}: {rest.partition(' (0.')[0]}"


def floor_percent(share):
    """Never rounds up to 100 %."""
    return f"{int(share * 10000) / 100:g} %"


def row(entries):
    return f"| {' | '.join(entries)} |"
