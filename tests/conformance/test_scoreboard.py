"""The scoreboard of the site is what the stored results say."""

import json
from pathlib import Path

import pytest

from jaxsnn.conformance import adapter_of, run
from jaxsnn.conformance.report import as_dict
from jaxsnn.conformance.scoreboard import main, read_results, scoreboard, stored_result

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_that_of_the_stored_results():
    results = read_results(DOCS / "conformance")
    assert {"norse", "snntorch", "spikingjelly"} <= {result["framework"] for result in results}
    assert (DOCS / "scoreboard.md").read_text(encoding="utf-8") == scoreboard(results)


def test_a_result_is_stored_and_shown(tmp_path):
    pytest.importorskip("snntorch")
    report = run(adapter_of("snntorch"), only="import/LIF/v_reset")
    result = as_dict(report)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result), encoding="utf-8")
    main([str(tmp_path), str(path)])
    (stored,) = read_results(tmp_path / "conformance")
    assert stored == json.loads(json.dumps(stored_result(result)))
    assert stored["primitives"] == {"LIF": {"import": {"wrong": 1}}}
    page = (tmp_path / "scoreboard.md").read_text(encoding="utf-8")
    assert "| LIF | **1 wrong** |" in page
    answer = report.failures[0].smallest.answer
    trains = {
        name: "".join(".|"[int(spike)] for spike in spikes[:, 0, 0])
        for name, spikes in (("expected", answer.expected), ("actual", answer.actual))
    }
    assert trains["expected"] != trains["actual"]
    assert all(f"{name}:\nsample 0, neuron 0: {train}\n" in page for name, train in trains.items())


def test_versions_are_sorted_by_number(tmp_path):
    for version in ("0.10.0", "0.9.4"):
        result = {"framework": "simulator", "version": version}
        (tmp_path / f"{version}.json").write_text(json.dumps(result), encoding="utf-8")
    assert [result["version"] for result in read_results(tmp_path)] == ["0.9.4", "0.10.0"]
