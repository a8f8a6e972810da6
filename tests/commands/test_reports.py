"""`--report`: one page that needs no other file; what is in files is text there, never markup."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from jaxsnn import plot
from jaxsnn.bss2.search.quantize import quantize
from jaxsnn.bss2.target_cells import target_cells
from jaxsnn.commands.fidelity_command import fidelity_report
from jaxsnn.commands.reports.report_page import facts, figure, page, summary, table
from jaxsnn.commands.reports.report_parts import limitations_section
from jaxsnn.commands.verify_command import verify_report
from jaxsnn.errors import UsageError
from jaxsnn.nir import build, read, write
from jaxsnn.nir.initializers import normal
from jaxsnn.nir.model.changes import Change
from tests.helpers.command_line import DEMO_NET, TOLD, assert_cli_refused, call, refused, run_cli

STEPPED = [*TOLD, "--reset-delay", "true"]
SECTIONS = ["Input", "Dialect", "Results", "Limitations"]
SECTIONS_WITH_CHIP = [*SECTIONS[:3], "Chip", SECTIONS[3]]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EMPTY = {"meta", "img", "br", "link", "path", "rect", "circle", "image"}


class Page(HTMLParser):
    """Elements, texts, headings and key figures of a page; every element must be closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts, self.headings = [], [], [], []
        self.key_figures = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] == "dt":
            self.key_figures[data] = None
        if self.open and self.open[-1] == "dd":
            self.key_figures[list(self.key_figures)[-1]] = data

    def count(self, tag):
        """Return the number of elements of a kind."""
        return sum(element == tag for element, _ in self.elements)


def checked(path):
    """Return a report and its text, after checking that it refers to no other file or server, and that
    the result is above the sections.
    """
    text = path.read_text()
    parsed = Page(text)
    for tag, attributes in parsed.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "https://" not in text
    assert "Content-Security-Policy" in text
    assert text.index('class="verdict') < text.index('class="figures"') < text.index("<section")
    assert parsed.key_figures
    return parsed, " ".join(parsed.texts)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """An input, and an output that no network gives."""
    path = tmp_path_factory.mktemp("reports") / "r.npz"
    x = (np.random.default_rng(0).random((30, 2, 5)) < 0.2).astype(np.float32)
    np.savez(path, x=x, y=np.ones((30, 2, 3)))
    return path


@pytest.mark.slow
def test_a_verification_is_reported_with_its_first_difference(tmp_path, capsys, recording):
    path = tmp_path / "v.html"
    words = ["verify", DEMO_NET, *STEPPED, "--recording", recording, "--report", path]
    _, err = run_cli(capsys, *words, code=1)
    assert f"jaxsnn: report: {path}" in err
    report, text = checked(path)
    assert report.headings == SECTIONS
    assert "Not verified" in text
    assert "CubaLIF" in text
    assert report.count("img") == 1
    assert_cli_refused(capsys, *words, says=f"{path} exists")
    run_cli(capsys, *words, "--force", "-q", code=1)


def test_a_mapping_is_reported_with_its_floorplan(tmp_path, capsys):
    path = tmp_path / "m.html"
    words = ["map", DEMO_NET, *TOLD, "-o", tmp_path / "m.json", "--report", path]
    run_cli(capsys, *words)
    report, text = checked(path)
    assert report.headings == SECTIONS_WITH_CHIP
    assert report.key_figures["runs"] == "1"
    assert report.key_figures["circuits"] == "123 of 512"
    assert "0 violations" in text
    assert report.count("svg") == 2
    assert "runs 1000 times as fast" in text
    assert text.count("it is refractory for") == 1  # both populations in one sentence
    assert "Calibration targets" in text
    assert "slope, needed" in text
    quantized = quantize(read(DEMO_NET, dialect="snntorch", reset="zero", reset_delay=True))
    assert all(cell in text for cell in target_cells(quantized.populations["lif2"]))


def test_a_network_that_does_not_fit_is_reported_without_a_chip(tmp_path, capsys):
    path = tmp_path / "m.html"
    wide = build.sequential(
        build.input(2), build.linear(600, weight=normal(1.0, 0.1)), build.lif(tau="10ms"), seed=0
    )
    write(tmp_path / "wide.nir", wide)
    words = ["map", tmp_path / "wide.nir", "--runs", "1", "-o", tmp_path / "m.json"]
    run_cli(capsys, *words, "--report", path, code=1)
    report, text = checked(path)
    assert report.headings == SECTIONS
    assert "impossible" in text
    assert "runs" not in report.key_figures


def arguments(**options):
    """Return the arguments of a command, for its report."""
    return SimpleNamespace(file=DEMO_NET, argv=["run", "a & b"], **options)


def demo_graph():
    return read(DEMO_NET, dialect="snntorch", reset="zero", reset_delay=True)


@pytest.mark.parametrize("ok", [True, False])
def test_a_verification_is_reported_in_numbers(tmp_path, ok):
    numbers = {"trains": 6, "identical": 6 if ok else 4, "active": 5, "identical_active": 3}
    numbers |= {"identical_fraction": 1.0 if ok else 4 / 6, "spikes_expected": 20, "spikes_got": 21}
    numbers |= {"relative_rmse": None, "first_difference": None, "ok": ok}
    outcome = SimpleNamespace(
        replay=SimpleNamespace(comparison=SimpleNamespace(**numbers)),
        fits=(),
        notes=("a <note>",),
    )
    path = tmp_path / "v.html"
    path.write_text(verify_report(arguments(recording="r.npz"), demo_graph(), outcome))
    page, text = checked(path)
    assert page.headings == SECTIONS
    assert ("Verified" if ok else "2 of 6 spike trains differ") in text
    assert page.key_figures["identical spike trains"] == ("100.0000%" if ok else "66.6667%")
    for words in ("r.npz", "A <note>.", "jaxsnn run 'a & b'", "snntorch_yinyang.nir"):
        assert words in text


@pytest.mark.parametrize("cosine", [0.9876, None])
def test_a_comparison_with_steps_is_reported_by_population(tmp_path, cosine):
    population = {"event": 12, "grid": 14, "rate_ratio": 12 / 14, "multi_spike_steps": 2}
    population |= {"count_cosine": cosine}
    comparison = SimpleNamespace(populations={"lif1": SimpleNamespace(**population)}, notes=())
    path = tmp_path / "f.html"
    path.write_text(fidelity_report(arguments(input="x.npz"), demo_graph(), comparison))
    page, text = checked(path)
    assert page.headings == SECTIONS
    lowest = page.key_figures.get("lowest cosine similarity")
    assert lowest == (None if cosine is None else f"{cosine:.4f}")
    assert page.key_figures["spikes, continuous time"] == "12"
    assert page.count("img") == 1
    for words in ("lif1", "x.npz", "steps with more than one spike"):
        assert words in text


def test_a_report_is_refused_before_the_work(tmp_path, capsys, recording):
    words = ["verify", DEMO_NET, *STEPPED, "--recording", recording]
    bad = refused(capsys, *words, "--report", tmp_path / "v.txt")
    assert "a report is an .html file, not" in bad[1]
    assert_cli_refused(
        capsys, *words, "--report", tmp_path / "no" / "v.html", says="does not exist"
    )
    (tmp_path / "old.html").write_text("old")
    assert_cli_refused(capsys, *words, "--report", tmp_path / "old.html", says="--force")
    twice = ["map", DEMO_NET, *TOLD, "-o", tmp_path / "m.html", "--report", tmp_path / "m.html"]
    assert_cli_refused(capsys, *twice, says="is written by -o and by --report")


@pytest.mark.slow
def test_fidelity_training_and_the_demo_are_reported(tmp_path, capsys, monkeypatch, recording):
    path = tmp_path / "f.html"
    call(capsys, "fidelity", DEMO_NET, *STEPPED, "--input", recording, "--report", path)
    assert "lowest cosine similarity" in checked(path)[0].key_figures
    x, y = np.random.default_rng(0).random((60, 5)), np.arange(60) % 3
    np.savez(tmp_path / "task.npz", **{"x_train": x, "y_train": y, "x_test": x, "y_test": y})
    path = tmp_path / "t.html"
    words = ["train", DEMO_NET, *TOLD, "--data", tmp_path / "task.npz", "--epochs", "2"]
    run_cli(capsys, *words, "-o", tmp_path / "t.nir", "--report", path)
    report, text = checked(path)
    assert report.headings == SECTIONS
    assert "best epoch" in report.key_figures
    assert "learning_rate" in text
    assert report.count("img") == 2
    monkeypatch.setattr("jaxsnn.train.data.datasets.YINYANG_SIZES", (640, 128, 128))
    path = tmp_path / "demo" / "report.html"
    words = ["demo", "-o", tmp_path / "demo", "--epochs", "2", "-q", "--report", path]
    run_cli(capsys, *words)
    report, text = checked(path)
    assert report.headings == SECTIONS_WITH_CHIP
    assert report.key_figures["violations of the mapping"] == "0"
    assert (report.count("img"), report.count("svg")) == (3, 2)
    assert "fits on BrainScaleS-2" in text


# -- parts of a report


def test_names_are_text_and_no_markup():
    evil = "<script>alert(1)</script>\x1b[2J"
    shown = page(evil, summary(evil, {evil: evil}), {"Part": table(("a",), [(evil,)])})
    assert "<script>alert" not in shown
    assert "\x1b" not in shown
    assert Page(shown).headings == ["Part"]


def test_limitations_are_sentences_and_changes_of_several_nodes_share_one():
    changes = [Change(node=node, what="t is 1", why="it was 0") for node in ("a", "b")]
    html = limitations_section([*changes, "weights were clipped", "t is 2."], demo_graph())
    sentences = ("a, b: t is 1 (it was 0).", "t is 2.", "Weights were clipped.")
    assert sorted(html.split("</p>")) == ["", *sorted(f"<p>{sentence}" for sentence in sentences)]
    assert limitations_section([], demo_graph()).count("<p>") == 1


def test_a_long_table_reports_the_rows_that_it_omits():
    shown = table(("n",), [(number,) for number in range(403)])
    assert shown.count("<tr>") == 401
    assert "3 more rows" in shown


def test_without_matplotlib_the_reason_replaces_a_picture():
    def draw():
        raise UsageError("pictures need matplotlib, which is not installed", fix="install it")

    shown = figure(draw, "a curve")
    assert "a curve" in shown
    assert "pictures need matplotlib" in shown
    assert "<figure>" not in shown


def dumped(path, text, script, *options):
    """A page after Chromium has run a script at its end: the policy of the page allows its own only
    where it is inline, as this one is.
    """
    path.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    plain = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={path.parent / 'u'}"]
    command = [CHROMIUM, *plain, *options, "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_sorts_a_table_by_the_size_of_its_numbers(tmp_path):
    rows = [("b", 10), ("a", 9), ("c", 100)]
    text = page("t", "", {"Part": table(("name", "number"), rows)})
    click = "document.querySelectorAll('th button')[1].click()"
    dump = dumped(tmp_path / "t.html", text, click)
    assert 'aria-sort="ascending"' in dump
    assert re.findall(r'data-value="(\w+)">\1</td><td', dump) == ["a", "b", "c"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [480, 1400])
def test_no_part_of_a_report_is_wider_than_the_window(tmp_path, width):
    """Long names break, and what is wide is moved sideways in a box of its own."""
    layers = [build.linear(4, weight=normal(1.0, 0.1)), build.lif(tau="10ms")] * 9
    wide = plot.graph(build.sequential(build.input(3), *layers, seed=0))
    parts = facts({"file": "/" + 90 * "long"}) + figure(lambda: wide, "a graph")
    parts += table([f"a heading of a column {n}" for n in range(9)], [tuple(range(9))])
    figures = {f"key figure {n}": "long" * n for n in range(9)}
    text = page("t", summary("long " * 90, figures), {"Part": parts})
    measure = "document.title=`${document.documentElement.scrollWidth} of ${innerWidth}`"
    dump = dumped(tmp_path / "t.html", text, measure, f"--window-size={width},900")
    needed, available = map(int, re.findall(r"<title>(\d+) of (\d+)</title>", dump)[0])
    assert needed <= available
    assert abs(available - width) < 60
