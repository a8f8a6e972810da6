"""Messages for common mistakes name the node, the numbers and what to do."""

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))

from likely_mistakes import MISTAKES, message_of  # noqa: E402


def marked(mistake):
    needs = [pytest.mark.interop] if "import torch" in mistake.code else []
    return pytest.param(mistake, id=mistake.title.replace(" ", "-"), marks=needs)


@pytest.mark.parametrize("mistake", [marked(mistake) for mistake in MISTAKES])
def test_the_message_for_a_mistake_says_what_to_do(mistake):
    message = message_of(mistake)
    for part in mistake.expected:
        assert part in message, message
    assert mistake.prints or "\n" not in message
    assert ("Error: " in message) or ("error: " in message) or mistake.prints


def test_a_run_that_is_long_for_a_reason_gets_no_hint():
    """The hint at seconds is for runs in which nothing happens any more."""
    import numpy as np

    import jaxsnn
    from jaxsnn.nir import build

    weight = np.array([[3.0]])
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    graph = build.sequential(build.input(1), build.linear(weight=weight), neurons)
    for spikes, hint in (([0.0, 1e-3], True), ([0.0, 1e-3, 38.0, 38.001], False)):
        time = np.array([spikes])
        events = jaxsnn.Events(time=time, index=np.zeros(time.shape, int))
        notes = jaxsnn.simulate(graph, events, t_end=40.0).notes
        assert any("times are in seconds" in note for note in notes) == hint
