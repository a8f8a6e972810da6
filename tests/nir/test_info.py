"""What `describe` says: the keys that scripts rely on, and a text for people."""

import json

import nir
import numpy as np
import pytest

from jaxsnn.nir import build, describe, parse, read
from jaxsnn.nir.model.description import as_json, as_text, numbers

KEYS = (
    *("nodes", "edges", "inputs", "outputs", "recurrent", "nested"),
    *("populations", "synapses", "dialect", "repairs", "nir_version"),
)
DIALECT_KEYS = ["name", "dt", "time_unit", "spike_kernel", "reset", "initial", "decided_by", "why"]


def test_a_description_has_the_documented_keys(zoo):
    content = describe(read(zoo["snntorch_v_rsyn_sub"]))
    assert content["schema"] == 1
    assert set(KEYS) <= set(content)
    assert set(DIALECT_KEYS) <= set(content["dialect"])
    assert set(content["nodes"][0]) >= {"name", "type", "input_shape", "output_shape", "parameters"}
    assert content["recurrent"] is True
    assert content["nested"] is False
    assert content["populations"] == 2
    assert content["neurons"] == 33
    assert content["synapses"] == 5 * 30 + 30 * 30 + 30 * 3
    assert content["recurrent_components"] == [["1.lif", "1.w_rec"]]
    assert (content["inputs"], content["outputs"]) == (["input"], ["output"])


def test_what_is_unknown_is_null(zoo):
    content = json.loads(as_json(read(zoo["norse_v_lifbox"])))
    unknown = {
        key: content["dialect"][key]
        for key in ("name", "dt", "time_unit", "spike_kernel", "reset", "initial")
    }
    assert set(unknown.values()) == {None}
    nodes = {
        "a": nir.LIF(*(np.array(value) for value in (0.1, 1.0, 0.0, 1.0))),
        "b": nir.I(np.ones(2)),
    }
    assert describe(parse(nir.NIRGraph(nodes, [], type_check=False)))["neurons"] is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.full(30, 0.1, "float32"), {"shape": [30], "dtype": "float32", "value": 0.1}),
        (np.array(np.inf), {"shape": [], "dtype": "float64", "value": "inf"}),
        (np.array([1, 2], "int64"), {"shape": [2], "dtype": "int64", "values": [1, 2]}),
        (np.array(False), {"shape": [], "dtype": "bool", "value": False}),
        (np.arange(5.0), {"shape": [5], "dtype": "float64", "min": 0.0, "max": 4.0, "mean": 2.0}),
    ],
)
def test_numbers_are_summed_up(values, expected):
    assert numbers(values) == expected


def test_the_text_says_what_the_file_does_not(zoo):
    text = as_text(read(zoo["sinabs_a_lif_scalar__nocomp"]))
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[:7]] == [
        "node",
        "input",
        "0",
        "1",
        "2",
        "3",
        "output",
    ]
    assert "dialect: undecided (undecided)" in text
    assert "they allow nir, norse, sinabs, spikingjelly, jaxsnn. Pass --dialect." in text
    assert "time unit: unknown" in text
    assert "1: tau, r, v_leak, v_threshold, v_reset hold for all 30 elements" in text
    assert not any(line != line.rstrip() for line in lines)


def test_json_has_no_number_that_json_does_not_have():
    graph = build.sequential(
        build.input(2), build.linear(3), build.lif(tau=np.inf, r=np.inf), seed=0, dialect="snntorch"
    )
    assert "Infinity" not in as_json(graph)
    assert "NaN" not in as_json(graph)


def test_resets_of_all_nodes_replace_the_unknown_reset_of_the_file(zoo):
    path = zoo["snntorch_v_rsyn_sub"]
    first, second = read(path).neurons
    resets = {"reset": {first: "zero", second: "subtract"}, "reset_delay": True}
    text = as_text(read(path, **resets))
    assert "reset: by node," in text
    assert f"{second}: reset subtract" in text
    assert f"reset: by node, unknown for {second}," in as_text(read(path, reset={first: "zero"}))
