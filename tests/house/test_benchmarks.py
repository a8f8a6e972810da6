"""What the benchmarks compare with: the float64 reference, and the workers that run everywhere."""

import dataclasses
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

    makers = {
        "once": lambda: small_work.feed_forward(12, batch=3),
        "several": lambda: small_work.several_spikes(12, 3, batch=3),
        "recurrent": lambda: small_work.recurrent(12, batch=3),
    }
    return makers[kind]()


@pytest.mark.parametrize("kind", ["once", "several", "recurrent"])
def test_gradients_of_the_reference_are_those_of_its_spike_times(kind):
    import reference

    given = work(kind)
    found = reference.network_results(given)
    rng, step = np.random.default_rng(1), 1e-6
    for name in (name for name in found if name != "output_times"):
        direction = rng.normal(size=found[name].shape)
        direction /= np.linalg.norm(direction)
        ends = [
            reference.population(
                dataclasses.replace(given, **{name: getattr(given, name) + change * direction})
            )
            for change in (step, -step)
        ]
        slope = (ends[0][-1].sum() - ends[1][-1].sum()) / (2 * step)
        np.testing.assert_allclose(slope, (direction * found[name]).sum(), rtol=1e-4, atol=1e-6)


def errors(module, given, expected):
    import run

    _, results = module.build(given)
    return run.errors(results(), expected)


@pytest.mark.parametrize("kind", ["once", "several", "recurrent"])
def test_the_native_loops_find_the_same(kind):
    import loops
    import reference

    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    given = work(kind)
    spikes, gradients = errors(loops, given, reference.network_results(given))
    assert spikes < 1e-5
    assert gradients < 1e-3


@pytest.mark.parametrize("kind", [pytest.param("several", marks=pytest.mark.slow), "recurrent"])
def test_the_engine_finds_the_same(kind):
    import ours
    import records
    import reference

    given = work(kind)
    spikes, gradients = errors(
        ours, given, reference.network_results(given, parameters=records.PARAMETERS)
    )
    assert spikes < 1e-5
    assert gradients < 1e-3


@pytest.mark.slow
def test_a_convolution_finds_the_same():
    import ours
    import reference
    import small_work

    given = small_work.convolution(150, taps=3, spikes=0.05)
    assert given.max_spikes > 1
    spikes, gradients = errors(ours, given, reference.convolution_results(given))
    assert spikes < 1e-4
    assert gradients < 1e-3


def test_what_arrives_in_steps_is_the_convolution_of_the_raster():
    import jax.lax
    import records

    rng = np.random.default_rng(0)
    given = records.Convolution(
        input_times=rng.uniform(0, 19, (2, 3000)),
        input_channels=rng.integers(0, 2 * 34 * 34, (2, 3000)) // 9 * 9,
        kernel=rng.integers(-5, 6, (4, 2, 5, 5)).astype(float),
        stride=2,
        padding=2,
    )
    raster = given.raster()
    assert raster.max() > 1
    assert raster.sum() == given.input_times.size
    arriving = given.binned(*given.fields(), len(given.rows())) @ given.rows()
    frames = raster.reshape(-1, 2, 34, 34)
    expected = jax.lax.conv_general_dilated(
        frames, given.kernel.astype(np.float32), (2, 2), [(2, 2), (2, 2)]
    )
    found = np.swapaxes(arriving.reshape(len(frames), -1, 4), 1, 2).reshape(expected.shape)
    np.testing.assert_array_equal(found, expected)


MACHINE = {
    "date": "",
    "processor": "",
    "cores": 2,
    "system": "",
    "python": "",
    "versions": {},
    "load": [0.0],
}


def test_the_document_tells_what_was_missed_and_what_was_not_run():
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
    text = report.document({"machine": MACHINE, "cases": [case]}, "# Performance\n")
    assert "| 50 x | 60 (60) | met |" in text
    assert "| at most 2 | 3 (3) | **missed** |" in text
    assert "| 60 x | not run: takes more than 60 s |  |" in text
    assert "| below every JAX peer | 1 MB; that 2 MB | met |" in text


def test_the_document_keeps_what_a_run_did_not_measure():
    import report

    name = "700-256-20, 8,000 events"
    times = {"native": [0.04], "spyx": [0.03], "norse": [0.2]}
    case = {
        "name": name,
        "kind": "layers",
        "titles": {"native": "this", "spyx": "Spyx 1", "norse": "Norse 1"},
        "seconds": {"weights": times, "one": {"native": [0.001], "norse": [0.02]}},
        "processor": {"weights": times, "one": {"native": [0.001], "norse": [0.02]}},
        "fired": {"native": {"weights": 13.7}, "spyx": {"weights": 57.4}},
        "first": {"native": {"weights": 9.0}, "spyx": {"weights": 1.0}},
        "memory": {"native": 100 * 2**20, "spyx": 2**28},
        "reasons": {"xla": "takes more than 90 s"},
    }
    data = {"machine": MACHINE, "cases": [case]}
    page = "# Performance\n\n## Small work\n\nas it was\n"
    text = report.document(data, page)
    assert (
        f"| {name}: native, faster than Spyx in 100 steps | 0.9 x | 0.75 (0.75) | **missed**"
        in text
    )
    assert "than the fastest peer in 100 steps | 1 x | 20 (20) | met |" in text
    assert "| below 8 s | 9.0 s" in text
    assert "| 13.7 | 57.4 |" in text
    assert f"Not run: {name}, xla: takes more than 90 s." in text
    assert text.index(name) < text.index("## Small work")
    assert text.endswith("as it was\n")
    # once more on its own page it changes nothing
    assert report.document(data, text) == text


@pytest.mark.usefixtures("native_kernels")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["loop", "kernels"])
def test_both_backends_find_the_same_of_work_of_real_size(kind, monkeypatch):
    import ours
    import run
    import workloads

    small = {"batch": 2, "events": 60}
    loop = {"spikes": 8.0, "slots": 24, "feedback": 0.5}
    kernels = {"spikes": 2.0, "slots": 12, "convolves": True}
    rows = {
        "loop": workloads.Row(sizes=(30, 12, 3), scales=(1.0, 0.3), **loop, **small),
        "kernels": workloads.Row(sizes=(2, 1, 2), scales=(3.0, 0.4), **kernels, **small),
    }
    given, found = workloads.work(rows[kind]), {}
    for backend in ("native", "xla"):
        monkeypatch.setattr(ours, "BACKEND", backend)
        built, results = ours.build_layers(given)
        assert set(built) == {"one", "weights", "one thread"}
        found[backend] = results()
    assert found["native"]["fired"] > 0
    differ, gradients = run.apart(found["native"], found["xla"])
    assert differ == 0
    assert gradients < 1e-2


def test_rows_of_real_size_are_of_the_size_that_they_say():
    import workloads

    for name, row in workloads.ROWS.items():
        if row.batch <= 8 or not row.convolves:
            given = workloads.work(row)
            assert given.input_times.shape == (row.batch, row.events), name
            assert len(given.stages) == len(row.sizes) - 1
            assert given.recurrent == bool(row.feedback)
    raster = workloads.work(workloads.ROWS["784-350-10, 150 events"]).raster()
    assert raster.shape == (100, 128, 784)
    assert raster.sum() == 128 * 150


def test_the_table_beside_the_recordings_is_written_between_its_marks():
    import bss2_recordings

    from jaxsnn.bss2.emulate import SPREADS

    rows = [(0.1, 0.2, -0.3, 0.01), (0.2, 0.1, 0.3, 0.03), (0.6, 0.0, 0.0, 0.02)]
    table = bss2_recordings.table_of(rows[0], dict.fromkeys(reversed(SPREADS), rows))
    assert "median of 3 | 0.200 | 0.100 | +0.000 | 2.0% |\n| lowest | 0.100" in table
    page = bss2_recordings.PAGE.read_text()
    changed = bss2_recordings.with_table(page, table)
    assert bss2_recordings.with_table(changed, "").count("|") < page.count("|")
    # the page's own table has these rows, in this order
    begin = len(page.split(bss2_recordings.BEGIN)[0])
    there = page[begin:].split(bss2_recordings.END)[0].splitlines()[1:]
    labels = [line.split("|")[1].replace("16", "3") for line in there]
    assert labels == [line.split("|")[1] for line in table.splitlines()]
    assert changed[:begin] == page[:begin]
    assert changed.split(bss2_recordings.END)[1] == page.split(bss2_recordings.END)[1]


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
    made = {
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
    old, made = made, made | {"cpu_minutes": 0.5}
    runs = [made | {"seed": 0, "test": 0.5}, made | {"seed": 0, "test": 0.97}]
    runs += [old | {"seed": 1, "test": 0.98}, made | {"seed": 2, "test": 0.1, "digest": "other"}]
    monkeypatch.setattr(train_recipes, "ROOT", tmp_path)
    monkeypatch.setattr(train_recipes, "RUNS", tmp_path / "runs.jsonl")
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(own) + "\n" for own in runs))
    row = train_recipes.table().splitlines()[-1]
    assert row.startswith(
        "| `one` | 97.00, 98.00 | **97.50 +- 0.71 %** | 3 | 1.2, 1.2 | -, - | 1: 0.5"
    )
    assert row.endswith("| 900 | 0.5, - | 1 to 3 |")
    recipe.write_text("epochs = 4\n")
    assert "`one`" not in train_recipes.table()
