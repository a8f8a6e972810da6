"""A mapping's JSON: the same bytes again, and one line for whatever is malformed."""

import dataclasses
import json

import pytest

from jaxsnn.bss2.chip import SMALL, Dead
from jaxsnn.bss2.mapping import from_json, to_json
from jaxsnn.bss2.mapping_files import read_mapping
from jaxsnn.bss2.quantization import Quantization
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.errors import MappingError
from tests.bss2.recipes import dense_net
from tests.helpers.refusals import assert_refused

QUANTIZATION = Quantization(
    speedup=1000.0,
    refractory_time=1e-6,
    bias="source",
    bias_period=2e-6,
    v_leak=80,
    v_threshold=150,
    scale={"lif1": 10.5, "lif2": 2.0},
    slope=0.1,
    i_synin_gm=500,
    synapse_dac_bias=1000,
)


@pytest.fixture(scope="module")
def text():
    dead = Dead(circuits=((0, 1),), rows=((1, 3),))
    net = dataclasses.replace(dense_net(5, 7, 3), quantization=QUANTIZATION)
    return to_json(place_and_route(net, dead=dead).mapping)


def test_there_and_back_gives_the_same_bytes(text):
    assert to_json(from_json(text)) == text
    assert from_json(text).quantization == QUANTIZATION
    scaled = dataclasses.replace(from_json(text), scales={"lif1": 1307.25, "lif2": 0.1})
    assert from_json(to_json(scaled)).scales == scaled.scales
    assert to_json(from_json(to_json(scaled))) == to_json(scaled)


def edited(text, *path, to):
    """The JSON with one entry replaced, or removed where `to` is None."""
    content = json.loads(text)
    place = content
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return json.dumps(content)


RUN, SYNAPSES = ("runs", 0), ("runs", 0, "synapses", 0)


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (("schema",), 2, "schema 2"),
        (("chip",), "HICANN-Y", "'HICANN-Y': did you mean 'HICANN-X'"),
        (("signs",), "any", "'signs' is 'any'"),
        (("seed",), 1.5, "'seed' is a number, not an integer"),
        (("seed",), 2**40, "the largest magnitude"),
        (("fingerprint",), None, "no 'fingerprint'"),
        (("quantization", "speedup"), None, "quantization has no 'speedup'"),
        (("quantization", "speedup"), -1.0, "'speedup' is -1.0, not a positive number"),
        (("quantization", "refractory_time"), True, "'refractory_time' is True"),
        (("quantization", "v_leak"), 80.5, "'v_leak' is a number, not an integer"),
        (("quantization", "scale", "lif1"), "much", "'lif1' is 'much', not a positive number"),
        (("quantization", "refractory"), 1.0, "unknown key 'refractory': did you mean"),
        (("dead", "rows"), [[1]], "1 x 1 entries, not 1 x 2"),
        (("populations", 0), 3, r"populations\[0\] is an integer, not an object"),
        (
            (*RUN, "neurons", 2, "recorded"),
            1,
            r"neurons\[2\]: 'recorded' is an integer, not true or false",
        ),
        (
            (*RUN, "neurons", 0, "circuits"),
            [[0, "a"]],
            "'circuits' is not a rectangular list of integers",
        ),
        ((*RUN, "compare_masks"), [[0] * 128], "1 x 128 entries, not 2 x 128"),
        ((*RUN, "row_modes", 0, 0), "loud", "row mode 'loud' is not one of disabled"),
        ((*RUN, "row_modes", 0), "loud", "'row_modes' is not a rectangular list of integers"),
        ((*RUN, "crossbar"), [], "'crossbar' has 0 x 4 entries, not 76 x 4"),
        ((*SYNAPSES, "labels"), [1], "entries, not"),
        (
            (*RUN, "neurons", 0, "circuits"),
            [[0, -(2**63)]],
            "'circuits' has a number of a magnitude above",
        ),
        (
            (*RUN, "neurons", 0, "circuits"),
            [[0, 2**31]],
            "'circuits' has a number of a magnitude above",
        ),
        ((*SYNAPSES, "weights"), [[1, 2], [3]], "'weights' is not a rectangular list of integers"),
        (("seed",), "1", "'seed' is text"),
        (("seed",), 2**31, "'seed' is 2147483648; the largest magnitude is 2147483647"),
        (("sedd",), 3, "mapping: unknown key 'sedd': did you mean 'seed'"),
        (("dead", "row"), [], "mapping: dead: unknown key 'row': did you mean 'rows'"),
        (("populations", 1, "width"), 3, r"populations\[1\]: unknown key 'width'"),
        ((*RUN, "masks"), [], r"runs\[0\]: unknown key 'masks'"),
        (
            (*RUN, "neurons", 2, "adress"),
            1,
            r"neurons\[2\]: unknown key 'adress': did you mean 'ad",
        ),
        (
            (*RUN, "sources", 0, "event"),
            1,
            r"sources\[0\]: unknown key 'event': did you mean 'even",
        ),
        ((*SYNAPSES, "weight"), [1], "unknown key 'weight': did you mean 'weights'"),
    ],
)
def test_malformed_entries_are_one_line(text, path, to, message):
    with pytest.raises(MappingError, match=message) as caught:
        from_json(edited(text, *path, to=to))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["seed", "index", "weights"])
def test_repeated_keys_are_refused(text, key):
    """JSON would use the last one."""
    doubled = text.replace(f'"{key}":', f'"{key}":0,"{key}":', 1)
    problem = assert_refused(lambda: from_json(doubled), MappingError)
    assert problem.facts == {"location": "mapping", "key": key, "count": 2}


@pytest.mark.parametrize("broken", ["", "[]", "{}", '{"schema": 1', "nan", "[" * 100_000])
def test_what_is_no_mapping_is_one_line(broken):
    with pytest.raises(MappingError) as caught:
        from_json(broken)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"schema": 9}', '{"schema": 1, "sedd": 1}', '{"schema": 1, "chip": "X"}'],
)
def test_the_message_names_the_file_that_is_no_mapping(content, tmp_path):
    path = tmp_path / "second.json"
    path.write_text(content)
    problem = assert_refused(lambda: read_mapping(path), MappingError)
    assert problem.facts["location"] == str(path)


def test_the_chip_must_be_the_one_that_was_mapped(text):
    assert_refused(
        lambda: from_json(text, {"small": SMALL}), MappingError, "chip 'HICANN-X': Available: small"
    )


@pytest.mark.parametrize(
    ("path", "to", "facts"),
    [
        (("schema",), 2, {"location": "mapping", "actual": 2, "expected": 1}),
        (("chip",), "HICANN-Y", {"location": "mapping", "chip": "HICANN-Y"}),
        (
            ("seed",),
            2**31,
            {"location": "mapping", "key": "seed", "value": 2**31, "limit": 2**31 - 1},
        ),
        (
            (*RUN, "crossbar"),
            [],
            {
                "location": "mapping: runs[0]",
                "key": "crossbar",
                "actual": "0 x 4",
                "expected": "76 x 4",
            },
        ),
    ],
)
def test_a_malformed_entry_has_its_place_and_numbers_as_facts(text, path, to, facts):
    problem = assert_refused(lambda: from_json(edited(text, *path, to=to)), MappingError)
    assert problem.facts == facts
