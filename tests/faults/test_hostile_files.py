"""Every hostile file is refused in one line, within the bounds of time and memory."""

import zlib

import pytest

from tests.faults import hostile_corpus
from tests.faults.hostile_files.corpus import CORPUS
from tests.faults.hostile_files.readers import COMMANDS, FUNCTIONS
from tests.faults.hostile_files.runner import ReadingServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ReadingServer(tmp_path_factory.mktemp("companions")) as server:
        yield server


def test_the_corpus_is_large_and_uses_every_reader():
    networks = len(hostile_corpus.FILES) + len(hostile_corpus.BYTES) + len(hostile_corpus.READ)
    assert len(CORPUS) >= 300
    assert len(CORPUS) + networks >= 400
    assert {hostile.reader for hostile in CORPUS.values()} == {*COMMANDS, *FUNCTIONS}


def _with_mark(name):
    """A name, marked as slow if a command reads it: of those, `make test` takes a fifth."""
    is_slow = CORPUS[name].reader in COMMANDS and zlib.crc32(name.encode()) % 5
    return pytest.param(name, marks=pytest.mark.slow) if is_slow else name


@pytest.mark.parametrize("name", map(_with_mark, CORPUS))
def test_a_hostile_file_is_refused_within_its_bounds(name, server, tmp_path):
    outcome = server.outcome(CORPUS[name], tmp_path)
    assert outcome.defects(CORPUS[name]) == []
    assert not (tmp_path / "unpickled").exists()
