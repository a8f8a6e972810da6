"""The trained graph carries the conventions with which it was trained."""

import jaxsnn
from jaxsnn.nir import read, write
from jaxsnn.train import yinyang_splits
from tests.helpers.pages import ROOT

DEMO = ROOT / "jaxsnn" / "commands" / "demo" / "snntorch_yinyang.nir"


def test_a_trained_file_records_its_reset(tmp_path):
    graph = read(DEMO, reset="subtract", reset_delay=False)
    fitted = jaxsnn.fit(graph, yinyang_splits(sizes=(64, 16, 16)), epochs=1)
    write(tmp_path / "trained.nir", fitted.graph)
    reread = read(tmp_path / "trained.nir")
    assert (reread.dialect.reset, reread.dialect.reset_delay) == ("subtract", False)
    assert reread.dialect.dt == graph.dialect.dt
