"""Every file of the corpus is refused in one line that says what is wrong with it, by the command
line, too; none is a defect of ours.
"""

import pytest

from jaxsnn.errors import JaxsnnError
from jaxsnn.nir import read
from tests.faults.hostile_corpus import BYTES, FILES, READ, write_corpus_file
from tests.helpers.command_line import assert_cli_refused


def message_of(path, **options):
    with pytest.raises(JaxsnnError) as caught:
        read(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert "report" not in text
    assert caught.value.fix, text
    return text


def test_the_corpus_is_large():
    assert len(FILES) + len(BYTES) + len(READ) >= 100


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_edited_is_refused(name, tmp_path):
    path = write_corpus_file(name, tmp_path / "mail.nir")
    assert FILES[name][1] in message_of(path)


@pytest.mark.parametrize("name", BYTES)
def test_a_file_whose_bytes_were_changed_is_refused(name, tmp_path):
    path = write_corpus_file(name, tmp_path / "mail.nir")
    limit = 0.3 if "not read within" in BYTES[name][1] else 60.0
    assert BYTES[name][1] in message_of(path, read_timeout=limit)


@pytest.mark.parametrize("name", READ)
def test_a_file_that_is_odd_is_read_with_a_warning(name, tmp_path):
    graph = read(write_corpus_file(name, tmp_path / "mail.nir"))
    assert READ[name][1] in {warning.code for warning in graph.warnings}
    assert all(warning.fix for warning in graph.warnings)


@pytest.mark.parametrize("name", [*list(FILES)[::6], *list(BYTES)[::4]])
def test_the_command_line_says_the_same_in_one_line(name, tmp_path, capsys):
    path = write_corpus_file(name, tmp_path / "mail.nir")
    refusal = (FILES | BYTES)[name][1]
    limit = "1s" if "not read within" in refusal else "60s"
    assert_cli_refused(capsys, "info", path, "--read-timeout", limit, "--json", says=refusal)
