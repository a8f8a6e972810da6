"""Hostile JSON and TOML: mappings, measured slopes, histories of training runs, configurations."""

import json
import os
from functools import partial

from tests.faults.hostile_files.case import Corpus, mapping_text

CORPUS = Corpus()

#: Texts that are no JSON or too much of it, by their descriptions.
BROKEN = {
    "empty": b"",
    "spaces": b" " * 1000,
    "word": b"hello",
    "unclosed": b'{"schema": 1',
    "unclosed list": b"[1, 2",
    "unclosed text": b'{"schema": "',
    "no text": b"\xff\xfe{}",
    "UTF-16": '{"schema": 1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "zero bytes": bytes(100),
    "two documents": b"{} {}",
    "comma at the end": b'{"schema": 1,}',
    "comments": b'{"schema": 1} // one',
    "a list": b"[]",
    "a number": b"7",
    "a text": b'"hello"',
    "null": b"null",
    "NaN": b"NaN",
    "lone surrogate": b'{"\\ud800": 1}',
    "100,000 brackets": b"[" * 100_000,
    "100,000 closed brackets": b"[" * 100_000 + b"]" * 100_000,
    "100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of 10^6 digits": b"1" * 10**6,
    "10^6 empty lists": b"[" + b"[]," * 10**6 + b"[]]",
}


def sparse(content: bytes, size: int = 2**30):
    """A file of zeros after some bytes, which takes no room on the disk."""

    def write(place):
        place.write_bytes(content)
        os.truncate(place, size)

    return write


def add(kind, name, content, *words, reader, path, **options):
    CORPUS.add(f"{kind}: {name}", content, *words, reader=reader, path=path, **options)


# -- mappings

add_mapping = partial(add, "mapping", reader="map", path="mail.json")
for name, content in BROKEN.items():
    add_mapping(name, content, exit_code=-1)
add_mapping("1 GiB", sparse(b"{}"), "bytes")


def edited(change):
    """A mapping whose document was changed."""

    def write(place):
        document = json.loads(mapping_text())
        document = change(document) or document
        place.write_text(json.dumps(document))

    return write


def synapse(weight):
    """Return a row of a mapping with one synapse."""
    return {"hemisphere": 0, "row": 0, "columns": [0], "labels": [0], "weights": [weight]}


def put(value, *keys):
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return edited(change)


def drop(*keys):
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]

    return edited(change)


def repeated(place):
    place.write_text(mapping_text().replace('"schema":1', '"schema":1,"seed":1'))


RUN, NEURON = ("runs", 0), ("runs", 0, "neurons", 0)
_HUGE = 10**400
for name, (content, *words) in {
    "schema 2": (put(2, "schema"), "schema"),
    "schema true": (put(True, "schema"), "schema"),
    "schema missing": (drop("schema"), "schema"),
    "chip unknown": (put("HICANN-Y", "chip"), "HICANN-Y"),
    "chip a list": (put([], "chip"), "chip"),
    "key unknown": (put(1, "sede"), "sede"),
    "key of a run unknown": (put(1, *RUN, "wieghts"), "wieghts"),
    "key of a neuron unknown": (put(1, *NEURON, "heda"), "heda"),
    "key twice": (repeated, "seed"),
    "runs missing": (drop("runs"), "runs"),
    "runs a number": (put(3, "runs"), "runs"),
    "runs of numbers": (put([1, 2], "runs"), "runs"),
    "no runs": (put([], "runs"), "run"),
    "populations missing": (drop("populations"), "populations"),
    "population of half a neuron": (put(0.5, "populations", 0, "size"), "size"),
    "population of -1 neurons": (put(-1, "populations", 1, "size"),),
    "population of 10^400 neurons": (put(_HUGE, "populations", 1, "size"), "401 digits"),
    "population of 2^31 - 1 neurons": (put(2**31 - 1, "populations", 1, "size"),),
    "population without a name": (put("", "populations", 1, "name"),),
    "population twice": (put("2", "populations", 2, "name"), "2"),
    "neuron of population 99": (put(99, *NEURON, "population"), "99"),
    "neuron of population -1": (put(-1, *NEURON, "population"), "-1"),
    "neuron 10^12": (put(10**12, *NEURON, "index"), "index"),
    "neuron on circuit 9,999": (put([[0, 9999]], *NEURON, "circuits"), "9999"),
    "neuron on circuit -1": (put([[0, -1]], *NEURON, "circuits"), "-1"),
    "neuron on circuits of texts": (put([["0", "1"]], *NEURON, "circuits"), "circuits"),
    "neuron on no circuits": (put([], *NEURON, "circuits"),),
    "neuron on a circuit of three numbers": (put([[0, 1, 2]], *NEURON, "circuits"), "circuits"),
    "head 77": (put(77, *NEURON, "head"),),
    "address 10^9": (put(10**9, *NEURON, "address"),),
    "recorded 1": (put(1, *NEURON, "recorded"), "recorded"),
    "sources null": (put(None, *RUN, "sources"), "sources"),
    "events of texts": (put(["a"], *RUN, "sources", 0, "events"), "events"),
    "event -1": (put([-1], *RUN, "sources", 0, "events"), "-1"),
    "event 2^31": (put([2**31], *RUN, "sources", 0, "events"), "events"),
    "synapses flat": (put([1, 2, 3], *RUN, "synapses"), "synapses"),
    "synapses ragged": (put([[0, 0, 0, 0, 1], [1]], *RUN, "synapses"), "synapses"),
    "synapse of row 10^6": (put([[0, 10**6, 0, 0, 1]], *RUN, "synapses"),),
    "synapse of weight -3": (put([synapse(-3)], *RUN, "synapses"), "-3|weights"),
    "synapse of weight 64": (put([synapse(64)], *RUN, "synapses"), "64"),
    "synapse of weight 0.5": (put([[0, 0, 0, 0, 0.5]], *RUN, "synapses"), "synapses"),
    "row mode unknown": (put([["maybe"] * 256] * 2, *RUN, "row_modes"), "maybe|row_modes"),
    "row modes of one hemisphere": (put([["disabled"] * 256], *RUN, "row_modes"), "row_modes"),
    "masks of texts": (put([["a"] * 128] * 2, *RUN, "compare_masks"), "compare_masks"),
    "crossbar empty": (put([], *RUN, "crossbar"), "crossbar"),
    "run that reads a later run": (put(5, *RUN, "sources", 0, "from_run"), "5"),
    "dead circuit 10^6": (put([[0, 10**6]], "dead", "circuits"),),
    "dead of another key": (put({"cells": []}, "dead"), "cells|circuits"),
    "scale NaN": (put({"2": float("nan"), "4": 1.0}, "scales"), "NaN"),
    "scale infinite": (put({"2": float("inf"), "4": 1.0}, "scales"), "Infinity"),
    "scale negative": (put({"2": -1.0, "4": 1.0}, "scales"), "scales"),
    "scale of text": (put({"2": "1", "4": 1.0}, "scales"), "scales"),
    "signs unknown": (put("any", "signs"), "any"),
    "seed 10^400": (put(_HUGE, "seed"), "401 digits"),
    "fingerprint of another network": (put("0" * 64, "fingerprint"),),
}.items():
    add_mapping(name, content, *words, exit_code=-1)

# -- measured slopes

add_slopes = partial(add, "slopes", reader="slopes", path="mail.json")
for name in (
    "empty",
    "unclosed",
    "no text",
    "zero bytes",
    "null",
    "a list",
    "100,000 brackets",
    "100,000 objects",
    "a number of 10^6 digits",
    "lone surrogate",
):
    add_slopes(name, BROKEN[name], exit_code=-1)
for name, (content, *words) in {
    "a table": ({"slope": 1.0}, "list"),
    "of numbers": ([1.0, 2.0], r"\[0\]"),
    "without a slope": ([{"i_synin_gm": 500}], "slope"),
    "NaN": ([{"slope": float("nan")}], "NaN|slope"),
    "infinite": ([{"slope": float("inf")}], "Infinity|slope"),
    "negative": ([{"slope": -1.0}], "slope"),
    "zero": ([{"slope": 0}], "slope"),
    "a text": ([{"slope": "1"}], "slope"),
    "true": ([{"slope": True}], "slope"),
    "10^400": ([{"slope": _HUGE}], "401|slope"),
    "another key": ([{"slope": 1.0, "solpe": 2.0}], "solpe"),
    "a setting of half": ([{"slope": 1.0, "i_synin_gm": 0.5}], "i_synin_gm"),
    "a setting below 0": ([{"slope": 1.0, "i_synin_gm": -1}], "i_synin_gm"),
    "a setting above 1,022": ([{"slope": 1.0, "synapse_dac_bias": 10**6}], "synapse_dac_bias"),
    "a setting twice": (
        [{"slope": 1.0, "i_synin_gm": 500}, {"slope": 2.0, "i_synin_gm": 500}],
        "i_synin_gm|twice|500",
    ),
}.items():
    add_slopes(name, json.dumps(content).encode(), *words, exit_code=-1)
add_slopes("1e999", b'[{"slope": 1e999}]', "1e999|slope", exit_code=-1)
add_slopes("key twice", b'[{"slope": 1.0, "slope": 2.0}]', "slope", exit_code=-1)

# -- histories

add_history = partial(add, "history", reader="plot", path="mail.json")
for name in (
    "empty",
    "unclosed",
    "no text",
    "zero bytes",
    "null",
    "a list",
    "100,000 brackets",
    "100,000 objects",
    "a number of 10^6 digits",
):
    add_history(name, BROKEN[name], exit_code=-1)
EPOCH = {
    **dict.fromkeys(
        ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"), 0.5
    ),
    **dict.fromkeys(("undecided", "clipped"), 0.5),
    **{"epoch": 0, "silent": {}, "spikes": {}, "max_spikes": 4},
}
HISTORY = {
    "epochs": [EPOCH, EPOCH | {"epoch": 1}],
    "best_epoch": 1,
    "test_accuracy": 0.5,
    "settings": {"loss": {}},
    "notes": [],
}
for name, changes in {
    "no epochs": {"epochs": []},
    "epochs a number": {"epochs": 3},
    "epochs of numbers": {"epochs": [1, 2]},
    "epochs null": {"epochs": None},
    "epoch without a loss": {"epochs": [{"epoch": 0}]},
    "loss NaN": {"epochs": [EPOCH | {"train_loss": float("nan")}]},
    "loss infinite": {"epochs": [EPOCH | {"train_loss": float("inf")}]},
    "loss a text": {"epochs": [EPOCH | {"train_loss": "low"}]},
    "loss 10^400": {"epochs": [EPOCH | {"train_loss": _HUGE}]},
    "accuracy 3": {"epochs": [EPOCH | {"train_accuracy": 3.0}]},
    "accuracy null": {"epochs": [EPOCH | {"train_accuracy": None}]},
    "epoch 10^400": {"epochs": [EPOCH | {"epoch": _HUGE}]},
    "epoch negative": {"epochs": [EPOCH | {"epoch": -1}]},
    "epoch a text": {"epochs": [EPOCH | {"epoch": "0"}]},
    "best epoch 99": {"best_epoch": 99},
    "best epoch a text": {"best_epoch": "1"},
    "best epoch missing": {"best_epoch": ...},
    "test accuracy NaN": {"test_accuracy": float("nan")},
    "test accuracy a list": {"test_accuracy": []},
    "test accuracy missing": {"test_accuracy": ...},
    "settings a list": {"settings": []},
    "settings missing": {"settings": ...},
    "loss of settings a number": {"settings": {"loss": 3}},
}.items():
    document = {key: value for key, value in (HISTORY | changes).items() if value is not ...}
    add_history(name, json.dumps(document).encode(), exit_code=-1)

# -- configurations

add_config = partial(add, "config", reader="config", path="mail.toml")
_LAYERS = b"[[network.layers]]\nneurons = 3\nweight = [0.5, 0.1]\n"
_NETWORK = b'[network]\ninput = 5\ntau-mem = "20ms"\ntau-syn = "10ms"\n' + _LAYERS
for name, content in {
    "word": b"hello",
    "no text": b"\xff\xfe = 1",
    "zero bytes": bytes(100),
    "unclosed text": b'data = "yin',
    "unclosed list": b"data = [1, 2",
    "key twice": b"epochs = 1\nepochs = 2",
    "key in two spellings": b'data = "yinyang"\nbatch-size = 1\nbatch_size = 2',
    "table twice": b"[augment]\n[augment]",
    "100,000 brackets": b"data = " + b"[" * 100_000,
    "100,000 closed brackets": b"data = " + b"[" * 100_000 + b"]" * 100_000,
    "100,000 inline tables": b"data = " + b"{a=" * 100_000,
    "key of 50,000 parts": b".".join([b"a"] * 50_000) + b" = 1",
    "key of 5,000 parts, ten times": b"\n".join(
        b"b%d." % n + b".".join([b"a"] * 5000) + b" = 1" for n in range(10)
    ),
    "table of 50,000 parts": b"[" + b".".join([b"a"] * 50_000) + b"]\nb = 1",
    "list of tables of 50,000 parts": b"[[" + b".".join([b"a"] * 50_000) + b"]]\nb = 1",
    "inline table of 50,000 parts": b"data = {" + b".".join([b"a"] * 50_000) + b" = 1}",
    "quoted key of 50,000 parts": b".".join([b'"a"'] * 50_000) + b" = 1",
    "key of 10^6 letters": b"a" * 10**6 + b" = 1",
    "number of 10^6 digits": b"epochs = " + b"1" * 10**6,
    "number of 10^6 hexadecimal digits": b"epochs = 0x" + b"f" * 10**6,
    "20,000 tables": b"".join(b"[a%d]\n" % number for number in range(20_000)),
    "option unknown": b'data = "yinyang"\nepohcs = 3',
    "option of the network unknown": b'data = "yinyang"\n' + _NETWORK.replace(b"input", b"imput"),
    "option of a layer unknown": b'data = "yinyang"\n' + _NETWORK.replace(b"neurons", b"nuerons"),
    **{
        f"{table}, {kind}": b'data = "yinyang"\nloss = "ttfs"\n'
        + f"[{table}]\n{lines}\n".encode()
        + _NETWORK
        for table, tables in {
            "loss-options": {
                "unknown": "temperatur = 0.1",
                "two spellings": "late-weight = 0.1\nlate_weight = 0.2",
                "NaN": "temperature = nan",
                "a table": "temperature = {a = 1}",
                "a date": "temperature = 2026-01-01",
            },
            "engine-options": {
                "unknown": "max_spike = 4",
                "two spellings": "max-spikes = 4\nmax_spikes = 8",
                "infinite": "refractory = inf",
                "a list": "max_spikes = [4, 4]",
                "dunder": '__class__ = "x"',
            },
            "augment": {
                "unknown": "rotaton = 3",
                "two spellings": "channel-shift = [1, 2, 4]\nchannel_shift = [1, 2, 4]",
                "a text": 'jitter = "a"',
                "negative": "jitter = -1",
            },
        }.items()
        for kind, lines in tables.items()
    },
    "engine-options, a device": b'data = "yinyang"\nengine = "loop"\n[engine-options]\ndevice = "x"\n'
    + _NETWORK,
    "layer, two spellings": b'data = "yinyang"\n'
    + _NETWORK.replace(b"neurons", b'tau-mem = "1ms"\ntau_mem = "2ms"\nneurons'),
    "option of the augmentation unknown": b'data = "yinyang"\naugment = {rotaion = 3}\n' + _NETWORK,
}.items():
    add_config(name, content)
add_config("1 GiB", sparse(b"a = 1\n"), "bytes")
for key, values in {
    "epochs": ("-1", "0.5", "1e999", "nan", '"many"', "[]", "true", "10" * 200, "2026-01-01"),
    "lr": ("-1.0", "nan", "inf", '"fast"', "0.0", "{}"),
    "batch-size": ("0", "-5", "nan"),
    "seed": ("-1", "4294967296", "0.5"),
    "ema-decay": ("1.5", "nan", "-0.1"),
    "dropout": ("1.0", "nan", "-0.5"),
}.items():
    for value in values:
        content = f'data = "yinyang"\n{key} = {value}\n'.encode() + _NETWORK
        add_config(f"{key} {value[:16]}", content, {"lr": "lr|learning-rate"}.get(key, key))
for value in ("soon", "-5ms", "nan s"):
    content = f'data = "yinyang"\nt-end = "{value}"\n'.encode() + _NETWORK
    add_config(f"t-end {value}", content, value)
for name, (old, new) in {
    "no neurons": (b"neurons = 3", b"neurons = 0"),
    "10^12 neurons": (b"neurons = 3", b"neurons = 1000000000000"),
    "half a neuron": (b"neurons = 3", b"neurons = 1.5"),
    "-3 inputs": (b"input = 5", b"input = -3"),
    "inputs of 2^60": (b"input = 5", b"input = [1073741824, 1073741824]"),
    "weights NaN": (b"[0.5, 0.1]", b"[nan, 0.1]"),
    "weights infinite": (b"[0.5, 0.1]", b"[0.5, inf]"),
    "weights of texts": (b"[0.5, 0.1]", b'["a", "b"]'),
    "layers a number": (_LAYERS, b"layers = 3"),
    "no layers": (_LAYERS, b"layers = []"),
}.items():
    assert old in _NETWORK, name
    add_config(f"network, {name}", b'data = "yinyang"\n' + _NETWORK.replace(old, new))
