"""Machines of edits, small: `make fuzz` takes more and longer ones."""

import pytest

from tests.fuzz.edited_graphs import ConvertedNetwork, EditedGraph, run


def test_edited_graphs_are_written_and_read_again_or_refused():
    run(EditedGraph, 12, 8)


@pytest.mark.usefixtures("x64")
def test_converted_networks_keep_their_spikes_or_are_refused():
    run(ConvertedNetwork, 3, 3)
