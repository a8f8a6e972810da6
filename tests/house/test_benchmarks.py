"""What the benchmarks compare with: the float64 reference, and the workers that run everywhere."""

import dataclasses
import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def scripts():
    """The benchmarks as scripts see each other."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def work(kind):
    import small_work

    if kind == "convolution":
        return small_work.convolution(150, taps=3, spikes=0.05)
    makers = {
        "once": lambda: small_work.feed_forward(12, batch=3),
        "several": lambda: small_work.several_spikes(12, 3, batch=3),
        "recurrent": lambda: small_work.recurrent(12, batch=3),
    }
    return makers[kind]()


@pytest.mark.parametrize("kind", ["once", "several", "recurrent"])
def test_gradients_of_the_reference_are_those_of_its_spike_times(kind):
    import reference

    inputs = work(kind)
    gradients = reference.network_results(inputs)
    rng, step = np.random.default_rng(1), 1e-6
    gradients.pop("output_times")
    for name in gradients:
        direction = rng.normal(size=gradients[name].shape)
        direction /= np.linalg.norm(direction)

        def total(change, name=name, direction=direction):
            moved = {name: getattr(inputs, name) + change * direction}
            return reference.population(dataclasses.replace(inputs, **moved))[-1].sum()

        slope = (total(step) - total(-step)) / (2 * step)
        expected = (direction * gradients[name]).sum()
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)


NEEDS_COMPILER = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.mark.parametrize(
    ("worker", "kind", "limit"),
    [
        *(
            pytest.param("loops", kind, 1e-5, marks=NEEDS_COMPILER)
            for kind in ("once", "several", "recurrent")
        ),
        pytest.param("ours", "several", 1e-5, marks=pytest.mark.slow),
        ("ours", "recurrent", 1e-5),
        pytest.param("ours", "convolution", 1e-4, marks=pytest.mark.slow),
    ],
)
def test_workers_compute_what_the_reference_does(worker, kind, limit):
    import records
    import reference
    import run

    inputs = work(kind)
    if kind == "convolution":
        assert inputs.max_spikes > 1
        expected = reference.convolution_results(inputs)
    elif worker == "ours":
        expected = reference.network_results(inputs, parameters=records.PARAMETERS)
    else:
        expected = reference.network_results(inputs)
    _, results = importlib.import_module(worker).build(inputs)
    spikes, gradients = run.errors(results(), expected)
    assert spikes < limit
    assert gradients < 1e-3


def test_what_arrives_in_steps_is_the_convolution_of_the_raster():
    import jax.lax
    import records

    rng = np.random.default_rng(0)
    inputs = records.Convolution(
        input_times=rng.uniform(0, 19, (2, 3000)),
        input_channels=rng.integers(0, 2 * 34 * 34, (2, 3000)) // 9 * 9,
        kernel=rng.integers(-5, 6, (4, 2, 5, 5)).astype(float),
        stride=2,
        padding=2,
    )
    raster = inputs.raster()
    assert raster.max() > 1
    assert raster.sum() == inputs.input_times.size
    arriving = inputs.binned(*inputs.fields(), len(inputs.rows())) @ inputs.rows()
    frames, kernel = raster.reshape(-1, 2, 34, 34), inputs.kernel.astype(np.float32)
    expected = jax.lax.conv_general_dilated(frames, kernel, (2, 2), [(2, 2), (2, 2)])
    channels_first = np.swapaxes(arriving.reshape(len(frames), -1, 4), 1, 2)
    np.testing.assert_array_equal(channels_first.reshape(expected.shape), expected)


MACHINE = {
    "date": "",
    "processor": "",
    "cores": 2,
    "system": "",
    "python": "",
    "versions": {},
    "load": [0.0],
}


def test_the_document_has_what_was_missed_and_what_was_not_run():
    import report

    case = {
        "name": "5-120-3",
        "kind": "feed-forward",
        "size": 120,
        "spikes_per_neuron": 1.0,
        "titles": {"native": "this", "loops": "C", "jaxsnn-eventprop": "that"},
        "seconds": {
            "forward": {"native": [0.003], "loops": [0.001]},
            "weights": {"native": [1.0], "jaxsnn-eventprop": [60.0]},
        },
        "first": {
            "native": {"weights": 2.0},
            "loops": {"weights": 0.1},
            "jaxsnn-eventprop": {"weights": 3.0},
        },
        "errors": {"native": [0.0, 0.0], "loops": [0.0, 0.0], "jaxsnn-eventprop": [0.0, 0.0]},
        "memory": {"native": 2**20, "loops": 2**20, "jaxsnn-eventprop": 2**21},
        "reasons": {"norse": "takes more than 60 s"},
    }
    targets = [target[1:] for target in report.targets([case])]
    assert ("50 x", "60 (60)", True) in targets
    assert ("at most 2", "3 (3)", False) in targets
    assert ("60 x", "not run: takes more than 60 s", None) in targets
    assert ("below every JAX peer", "1 MB; that 2 MB", True) in targets
    text = report.document({"machine": MACHINE, "cases": [case]}, "# Performance\n")
    count = sum(target[2] is True for target in targets)
    assert f"\n{count} of {len(targets)} targets are met. Not met:\n" in text
    assert "| at most 2 | 3 (3) |" in text
    assert "| 60 x | not run: takes more than 60 s |" in text
    assert "| 60 (60) |" not in text


def test_cases_of_this_library_alone_share_a_table():
    import report

    cases = [
        {
            "name": f"5-120-3, batch {batch}",
            "kind": "batch",
            "size": batch,
            "spikes_per_neuron": 1.0,
            "titles": {"native": "this"},
            "seconds": {"weights": {"native": [batch / 1000]}},
            "first": {"native": {"weights": 0.5}},
            "errors": {"native": [0.0, 0.0]},
            "memory": {"native": 2**20},
            "reasons": {},
        }
        for batch in (16, 64)
    ]
    text = report.document({"machine": MACHINE, "cases": cases}, "# Performance\n")
    rows = [line for line in text.splitlines() if line.startswith("| 5-120-3, batch")]
    assert [row.split(" | ")[4] for row in rows] == ["16 (16)", "64 (64)"]
    assert "| batch |  | this |  | 1.00 |  |" in text


def test_the_introduction_of_the_page_stays():
    import report
    from report_layers import BEGIN, END

    page = f"# Performance\n\nby hand\n\n{BEGIN}\n\nmeasured before\n\n{END}\n\n## Small\n"
    case = {"kind": "batch", "size": 1, "name": "x", "titles": {}, "seconds": {}, "reasons": {}}
    case["spikes_per_neuron"] = 1.0
    text = report.document({"machine": MACHINE, "cases": [case]}, page)
    assert text.startswith(page.partition("## Small")[0] + "## Small networks\n")


def test_the_page_has_the_tables_that_the_program_writes():
    import report

    page = (FOLDER.parent / "docs" / "performance.md").read_text()
    positions = [page.index(f"\n### {title}\n") for title in report.TITLES.values()]
    assert positions == sorted(positions)
    assert page.endswith(f"\n\n{report.NOTES.read_text().strip()}\n")


def test_the_document_keeps_what_a_run_did_not_measure():
    import report
    import report_layers

    name = "700-256-20, 8,000 events"
    times = {"native": [0.04], "spyx": [0.03], "norse": [0.2]}
    seconds = {"weights": times, "one": {"native": [0.001], "norse": [0.02]}}
    case = {
        "name": name,
        "kind": "layers",
        "titles": {"native": "this", "spyx": "Spyx 1", "norse": "Norse 1"},
        "seconds": seconds,
        "processor": seconds,
        "fired": {"native": {"weights": 13.7}, "spyx": {"weights": 57.4}},
        "first": {"native": {"weights": 9.0}, "spyx": {"weights": 1.0}},
        "memory": {"native": 100 * 2**20, "spyx": 2**28},
        "reasons": {"xla": "takes more than 90 s"},
    }
    data = {"machine": MACHINE, "cases": [case]}
    page = "# Performance\n\n## Small work\n\nas it was\n"
    text = report.document(data, page)
    assert f"| {name}: native, faster than Spyx in 100 steps | 0.9 x | 0.75 (0.75) |" in text
    targets = report_layers.targets([case])
    (fastest,) = [target for target in targets if "than the fastest peer" in target.description]
    assert fastest[1:] == ("1 x", "20 (20)", True)
    assert "| below 8 s | 9.0 s" in text
    assert f"| {name} (32) | 13.7 | 0.75 |  | 20 |" in text
    assert "| 13.7 | 57.4 |" in text
    assert f"Not run: {name}, xla: takes more than 90 s." in text
    assert text.index(name) < text.index("## Small work")
    assert text.endswith("as it was\n")
    # Writing the same data again changes nothing.
    assert report.document(data, text) == text


SMALL = {"batch": 2, "events": 60}
LOOP = {"spikes": 8.0, "slots": 24, "feedback": 0.5} | SMALL
KERNELS = {"spikes": 2.0, "slots": 12, "convolves": True} | SMALL


@pytest.mark.usefixtures("native_kernels")
@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"sizes": (30, 12, 3), "scales": (1.0, 0.3), **LOOP}, id="loop"),
        pytest.param({"sizes": (2, 1, 2), "scales": (3.0, 0.4), **KERNELS}, id="kernels"),
    ],
)
def test_both_backends_compute_the_same_for_work_of_real_size(row, monkeypatch):
    import ours
    import run
    import workloads

    inputs, results = workloads.work(workloads.Row(**row)), {}
    for backend in ("native", "xla"):
        monkeypatch.setattr(ours, "BACKEND", backend)
        built, compute = ours.build_layers(inputs)
        assert set(built) == {"one", "weights", "one thread"}
        results[backend] = compute()
    assert results["native"]["fired"] > 0
    differ, gradients = run.apart(results["native"], results["xla"])
    assert differ == 0
    assert gradients < 1e-2


def test_rows_of_real_size_are_of_the_size_that_they_say():
    import workloads

    for name, row in workloads.ROWS.items():
        if row.batch <= 8 or not row.convolves:
            inputs = workloads.work(row)
            assert inputs.input_times.shape == (row.batch, row.events), name
            assert len(inputs.stages) == len(row.sizes) - 1
            assert inputs.recurrent == bool(row.feedback)
    raster = workloads.work(workloads.ROWS["784-350-10, 150 events"]).raster()
    assert raster.shape == (100, 128, 784)
    assert raster.sum() == 128 * 150


def test_the_table_beside_the_recordings_is_written_between_its_marks():
    import bss2_recordings

    from jaxsnn.bss2.emulate import SPREADS

    rows = np.array(
        [
            (0.1, 0.2, -0.3, 0.01, 0.1, 0.05),
            (0.2, 0.1, 0.3, 0.03, 0.2, 0.07),
            (0.6, 0.0, 0.0, 0.02, 0.3, 0.06),
        ]
    )
    errors = np.full(6, 0.002)
    table = bss2_recordings.table_of(
        bss2_recordings.Figures(*rows[0]),
        errors,
        {f"`{name}`": rows for name in reversed(SPREADS)},
    )
    assert "(inputs) | 0.002 | 0.002 | 0.002 | 0.2% | 0.002 | 0.002 |" in table
    assert "median of 3 | 0.200 | 0.100 | +0.000 | 2.0% | 0.200 | 0.060 |" in table
    assert (
        "| emulated minus recorded | +100% | -50% | +100% | +1.0 points | +100% | +20% |" in table
    )
    assert "| 5th percentile | 0.110 | 0.010 | -0.270 | 1.1% | 0.110 | 0.051 |" in table
    assert "| 95th percentile | 0.560 | 0.190 | +0.270 | 2.9% | 0.290 | 0.069 |" in table
    page = bss2_recordings.PAGE.read_text()
    mark = bss2_recordings.MARKS[0]
    changed = bss2_recordings.with_table(page, mark, table)
    assert bss2_recordings.with_table(changed, mark, "").count("|") < page.count("|")
    # The page itself has these rows, in this order.
    end = f"<!-- end {mark} -->"
    begin = len(page.split(f"<!-- begin {mark} -->\n")[0])
    there = page[begin:].split(end)[0].splitlines()[1:]
    labels = [line.split("|")[1].replace("512", "3") for line in there]
    assert labels == [line.split("|")[1] for line in table.splitlines()]
    assert changed[:begin] == page[:begin]
    assert changed.split(end)[1] == page.split(end)[1]


def test_parts_of_the_recording_are_disjoint_and_figures_of_folds_are_medians():
    import bss2_recordings

    parts = bss2_recordings.folds(5000)
    assert [(len(fitted), len(rows)) for fitted, rows in parts] == 5 * [(4000, 1000)]
    assert all(not np.intersect1d(fitted, rows).size for fitted, rows in parts)
    held_out = np.concatenate([rows for _, rows in parts])
    np.testing.assert_array_equal(np.sort(held_out), np.arange(5000))
    emulated = np.array([3 * (0.1,) + (0.01, 0.1, 0.05), 3 * (0.3,) + (0.03, 0.3, 0.15)])
    fold = bss2_recordings.Fold(
        spread=bss2_recordings.Spread(),
        strength=1.0,
        recorded=bss2_recordings.Figures(0.4, 0.1, 0.1, 0.05, 0.2, 0.2),
        errors=np.zeros(6),
        emulated=emulated,
    )
    lines = bss2_recordings.table_of_folds([fold]).splitlines()
    assert "| 0.200 | 0.200 | +0.200 | 2.0% | 0.200 | 0.100 |" in lines[-2]
    assert "| -50% | +100% | +100% | -3.0 points | +0% | -50% |" in lines[-1]


def test_figures_of_recordings_separate_noise_from_the_fixed_pattern():
    """Deviations that change slowly with the input are the fixed pattern, and the rest is noise."""
    import bss2_recordings

    random = np.random.default_rng(0)
    inputs = random.uniform(0.2, 2.0, (3000, 2))
    ideal = np.stack([inputs.sum(axis=1), 4.0 - inputs[:, 0]], axis=1)
    pattern = 0.1 * np.stack([np.sin(inputs[:, 0]), np.cos(2 * inputs[:, 1])], axis=1)
    first = ideal + pattern + random.normal(0.03, 0.05, ideal.shape)
    first[::50, 0] = ideal[1::60, 1] = np.inf
    result = bss2_recordings.figures(first, ideal, bss2_recordings.nearest(inputs))
    assert result.trial == pytest.approx(0.05, rel=0.05)
    assert result.std**2 == pytest.approx(result.fixed**2 + result.trial**2)
    both = np.isfinite(first) & np.isfinite(ideal)
    assert result.fixed == pytest.approx(pattern[both].std(), rel=0.05)
    assert result.mean == pytest.approx(0.03 + pattern[both].mean(), abs=0.004)
    assert result.missing == pytest.approx(0.01)


def test_standard_errors_are_those_of_resampled_inputs():
    import bss2_recordings

    random = np.random.default_rng(0)
    inputs = random.uniform(0.2, 2.0, (1000, 2))
    ideal = np.ones((1000, 3))
    # the three outputs of an input deviate together, and a tenth of the inputs has no answer
    first = ideal + random.normal(0.0, 0.2, (1000, 1))
    first[::10] = np.inf
    neighbour = bss2_recordings.nearest(inputs)
    errors = bss2_recordings.standard_errors(
        lambda rows: bss2_recordings.figures(first, ideal, neighbour, rows), 1000
    )
    result = bss2_recordings.Figures(*errors)
    assert result.mean == pytest.approx(0.2 / np.sqrt(900), rel=0.1)
    assert result.std == pytest.approx(0.2 / np.sqrt(2 * 900), rel=0.15)
    assert result.missing == pytest.approx(np.sqrt(0.1 * 0.9 / 1000), rel=0.1)


def test_the_shift_of_a_recording_is_that_of_the_chip_and_not_of_its_inputs():
    import bss2_recordings

    random = np.random.default_rng(0)
    train, test = random.uniform(0.2, 2.0, (4000, 2)), random.uniform(1.0, 2.0, (500, 2))

    def late(inputs, extra):
        smooth = 0.1 * inputs[:, :1] + [0.0, 0.2]
        return smooth + extra + random.normal(0.0, 0.03, smooth.shape)

    later = late(test, 0.01)
    later[::7, 0] = np.nan
    earlier = late(train, 0.0)
    mean, error = bss2_recordings.shift(later, test, earlier, train)
    assert mean == pytest.approx(0.01, abs=3 * error)
    assert error == pytest.approx(0.03 * np.sqrt(2 / np.isfinite(later).sum()), rel=0.15)
    assert np.nanmean(later) - earlier.mean() > 0.03


def test_integers_are_written_without_their_fraction():
    """29 times the float 1/30 times 30 is just below 29."""
    import bss2_recordings

    exact = np.arange(-63, 64)
    written = bss2_recordings.written(exact / 30.0 + 0.01)
    assert set((exact - written).tolist()) == {-1, 0, 1}
    assert (np.abs(written) <= np.abs(exact)).all()
    assert (written[np.abs(exact) <= 10] == exact[np.abs(exact) <= 10]).all()


def test_the_page_has_the_table_of_the_recipes_that_were_run():
    import train_recipes

    page = (FOLDER.parent / "docs" / "results.md").read_text()
    assert f"{train_recipes.BEGIN}\n{train_recipes.table()}\n{train_recipes.END}" in page, (
        "run benchmarks/train_recipes.py --write"
    )


def test_runs_of_a_recipe_that_was_changed_are_left_out(tmp_path, monkeypatch):
    import json

    import train_recipes

    (tmp_path / "examples" / "recipes").mkdir(parents=True)
    recipe = tmp_path / "examples" / "recipes" / "one.toml"
    recipe.write_text("epochs = 3\n")
    result = {
        "recipe": "one",
        "digest": train_recipes.digest(recipe),
        "validation": 0.9,
        "epochs": 3,
        "minutes": 1.25,
        "minutes_to_target": None,
        "spikes": {"1": 0.5},
        "megabytes": 900,
        "load": [1.0, 3.0],
    }
    old, result = result, result | {"cpu_minutes": 0.5}
    runs = [result | {"seed": 0, "test": 0.5}, result | {"seed": 0, "test": 0.97}]
    runs += [old | {"seed": 1, "test": 0.98}, result | {"seed": 2, "test": 0.1, "digest": "other"}]
    monkeypatch.setattr(train_recipes, "ROOT", tmp_path)
    monkeypatch.setattr(train_recipes, "RUNS", tmp_path / "runs.jsonl")
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
    row = train_recipes.table().splitlines()[-1]
    assert row.startswith(
        "| `one` | 97.00, 98.00 | **97.50 +- 0.71 %** | 3 | 1.2, 1.2 | -, - | 1: 0.5"
    )
    assert row.endswith("| 900 | 0.5, - | 1 to 3 |")
    recipe.write_text("epochs = 4\n")
    assert "`one`" not in train_recipes.table()
