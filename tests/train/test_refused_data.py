"""What training refuses of data and options, in which words, and the way out that it names."""

import re
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.errors import FileError, UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.files.png_images import read_pngs
from jaxsnn.files.read_limits import ByteBudget
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build
from jaxsnn.train import (
    Current,
    Data,
    Delta,
    Dropout,
    Latency,
    LevelCrossing,
    PopulationCode,
    Rate,
    events_of_arrays,
    splits_of_arrays,
    yinyang,
)
from jaxsnn.train.data.batches import encoded, even_batch_size
from jaxsnn.train.data.datasets import as_splits, check_data
from jaxsnn.train.data.labelled_files import _of_file
from jaxsnn.train.data.named_encoders import named_encoder
from jaxsnn.train.data.utterances import read_ts
from jaxsnn.train.loop.defaults import make_engine, output_node
from jaxsnn.train.loop.parallel import join_processes
from jaxsnn.train.loop.recorded_chip import read_recording
from jaxsnn.train.option_values import (
    at_least,
    duration,
    factors,
    integer,
    mapping,
    name_list,
    number,
    positive,
    seed_check,
    switch,
)
from tests.helpers.refusals import assert_refused


def network(inputs=2, outputs=2):
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    return lower(
        build.sequential(
            build.input(inputs), build.linear(weight=np.ones((outputs, inputs))), neurons
        )
    )


def two_outputs():
    """Neurons "a" and "b" with the same input, each with an Output."""
    neurons = {name: build.cubalif(2, tau_mem="20ms", tau_syn="10ms") for name in ("a", "b")}
    nodes = {"in": build.input(2), **neurons, "out a": build.output(2), "out b": build.output(2)}
    return lower(build.network(nodes, [("in", "a", "out a"), ("in", "b", "out b")]))


def batch_of(x, encoder=None, in_steps=False):
    data = Data(x=x, y=np.array([0, 1]), classes=("0", "1"))
    engine = SimpleNamespace(takes_rasters=in_steps)
    return encoded(
        data, network(), population="2", encoder=encoder, engine=engine, data_name="training"
    )


def file_of(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return _of_file(str(folder / "data.npz"), 0, 2)


def text_of(folder, text):
    (folder / "data.ts").write_text(text)
    return read_ts(folder / "data.ts")


def broken_png(folder):
    (folder / "no.png").write_text("no image")
    return read_pngs([folder / "no.png"], ByteBudget(folder))


def recorded(folder, **arrays):
    np.savez(folder / "run.npz", **arrays)
    sent = {"input": (np.zeros((1, 1)), np.zeros((1, 1), int))}
    return read_recording(folder / "run.npz", sent, network())


class Countless:
    """What is neither array nor sequence."""


X, Y = np.zeros((10, 2)), np.arange(10) % 2
SIGNAL = np.ones((1, 2, 1))
EVENTS = Events(time=jnp.zeros((2, 1)), index=jnp.zeros((2, 1), int))
CAMERA = np.array([(0, 0, 0, -5)], dtype=[(name, int) for name in "xypt"])
COCHLEA = np.array([(0.0, np.nan), (0.5, 1.0)], dtype=[("x", float), ("t", float)])
REFUSED = {
    "few samples": (
        lambda: splits_of_arrays(X[:2], Y[:2]),
        "data has 2 samples of 2 classes, too few for the part",
        "pass more samples, or Splits with explicit parts",
    ),
    "one-hot labels": (
        lambda: splits_of_arrays(X, np.eye(10)),
        "data: the labels are float64 of shape (10, 10)",
        "y.argmax(axis=1)",
    ),
    "labels that are fractions": (
        lambda: splits_of_arrays(X, Y + 0.7),
        "data: the labels are float64 of shape (10,), such as 0.7",
        "pass integers",
    ),
    "text samples": (
        lambda: splits_of_arrays(np.array([["a"]] * 10), Y),
        "data: the samples are <U1 of shape (10, 1)",
        "pass numbers",
    ),
    "masked samples": (
        lambda: splits_of_arrays(np.ma.array(X, mask=np.ones_like(X)), Y),
        "data has masked entries",
        "remove masked entries",
    ),
    "large label": (
        lambda: splits_of_arrays(X, Y + 10**9),
        "data: the largest label is 1000000001, and labels range from 0 to",
        "number the classes from 0",
    ),
    "no samples": (
        lambda: splits_of_arrays(X[:0], Y[:0]),
        "data has no samples",
        "pass at least one sample",
    ),
    "three parts": (
        lambda: as_splits((X, Y, X)),
        "data must be Splits, Data or (x, y), not a tuple of 3 elements",
        "pass arrays (x, y)",
    ),
    "four parts": (lambda: as_splits([X, Y, X, Y]), "a list of 4 elements", "pass Splits(name="),
    "no labels": (lambda: as_splits(X), "ndarray of shape (10, 2)", "pass the labels, too: (x, y)"),
    "table": (
        lambda: as_splits({"x": X}),
        "not an object of type dict",
        "pass a tuple, such as (data['x'], data['y'])",
    ),
    "anything": (
        lambda: as_splits(Countless()),
        "not an object of type Countless",
        "pass (x, y): arrays (samples, ...) or Events",
    ),
    "flat currents": (
        lambda: Current()(np.zeros(3)),
        "the values have shape (3,)",
        "pass values of shape (samples, channels)",
    ),
    "flat signals": (
        lambda: Delta(step=1.0, frame=0.1)(X),
        "the values have shape (10, 2)",
        "which delta encoding requires",
    ),
    "flat codes": (
        lambda: PopulationCode(centres=(0.0,), frame=0.1)(np.zeros(3)),
        "the values have shape (3,)",
        "which population encoding requires",
    ),
    "no step": (lambda: Delta(step=0.0, frame=0.1)(SIGNAL), "step is 0", "a number above 0"),
    "frame": (lambda: Delta(step=1.0, frame=-0.1)(SIGNAL), "frame is -0.1", "a number above 0"),
    "inf": (
        lambda: Delta(step=1.0, frame=0.1)(SIGNAL * np.inf),
        "channel 0 has the value inf",
        "NaN",
    ),
    "levels": (
        lambda: LevelCrossing(levels=(0.0, np.nan), frame=0.1)(SIGNAL),
        "levels are (0.0, nan)",
        "pass increasing levels",
    ),
    "frame of levels": (
        lambda: LevelCrossing(levels=(0.0,), frame=np.nan)(SIGNAL),
        "frame is nan",
        "a number above 0",
    ),
    "centres": (
        lambda: PopulationCode(centres=(1.0, 0.0), frame=0.1)(X),
        "centres are (1.0, 0.0)",
        "pass increasing centres",
    ),
    "one centre": (
        lambda: PopulationCode(centres=0.5, frame=0.1)(X),
        "centres are 0.5",
        "pass increasing centres",
    ),
    "frame of codes": (
        lambda: PopulationCode(centres=(0.0,), frame="1ms")(X),
        "frame is '1ms'",
        "a number above 0",
    ),
    "some of the nearest": (
        lambda: PopulationCode(centres=(0.0, 1.0), frame=0.1, nearest=1.5)(X),
        "nearest is 1.5, and the number of centres is 2",
        "from 1 to the number of centres",
    ),
    "infinite code": (
        lambda: PopulationCode(centres=(0.0, 1.0), frame=0.1)(SIGNAL * np.inf),
        "sample 0, channel 0 has the value inf",
        "NaN for no spike",
    ),
    "dark": (
        lambda: Latency(t_min=0.0, t_max=0.1, least=np.nan)(np.ones((1, 1))),
        "least is nan",
        "a finite number",
    ),
    "clock": (
        lambda: Latency(t_min=0.0, t_max=0.1, clock=(0.0, -0.1))(np.ones((1, 1))),
        "clock is -0.1",
        "a number of at least 0",
    ),
    "scale": (lambda: Current(scale=np.inf)(X), "scale is inf", "a finite number"),
    "early events": (
        lambda: events_of_arrays([CAMERA], (1, 1, 1)),
        "sample 0 has an event before time 0",
        "measure times from the first event",
    ),
    "events at no time": (
        lambda: events_of_arrays([COCHLEA], (2, 1, 1), time_unit="1s"),
        "sample 0 has an event at time nan",
        "measure times from the first event",
    ),
    "events between pixels": (
        lambda: events_of_arrays([COCHLEA[1:]], (2, 1, 1), time_unit="1s"),
        "sample 0 has an event with x = 0.5",
        "from 0 to 1",
    ),
    "no times": (
        lambda: events_of_arrays([COCHLEA[["x"]]], (2, 1, 1)),
        "sample 0 has no field 't'",
        "a structured array with the fields t and p",
    ),
    "a flat sensor": (
        lambda: events_of_arrays([CAMERA], (1, 1)),
        "sensor_size is (1, 1)",
        "pass (x, y, p)",
    ),
    "a sensor of one number": (
        lambda: events_of_arrays([CAMERA], 2),
        "sensor_size is 2",
        "pass (x, y, p)",
    ),
    "a list of events": (
        lambda: events_of_arrays([[(0, 0, 1, 2000)]], (2, 1, 2)),
        "sample 0 has no field 't'",
        "a structured array with the fields t and p",
    ),
    "one moment of a clock": (
        lambda: Latency(t_min=0.0, t_max=0.1, clock=0.05)(np.ones((1, 1))),
        "clock is 0.05",
        "pass times in seconds, such as (0.0, 0.01)",
    ),
    "a part below 0": (
        lambda: splits_of_arrays(X, Y, validation=-0.1),
        "the fraction of samples for a part is -0.1",
        "pass a fraction from 0 to 1",
    ),
    "a part above 1": (
        lambda: splits_of_arrays(X, Y, test=1.5),
        "the fraction of samples for a part is 1.5",
        "pass a fraction from 0 to 1",
    ),
    "all for the test": (
        lambda: splits_of_arrays(X, Y, test=1.0),
        "data has 10 samples of 2 classes, too few for the part 'validation'",
        "pass more samples",
    ),
    "no encoder": (
        lambda: batch_of(X[:2]),
        "training contains values, not events",
        'encoder="latency" or "current"',
    ),
    "other channels": (
        lambda: batch_of(np.zeros((2, 3)), Latency(t_min=0.0, t_max=0.01, bias=True)),
        "training has 4 channels (including the bias channel), and input 'input' has 2",
        "the field bias of Latency adds one",
    ),
    "steps": (
        lambda: batch_of(np.zeros((2, 20, 2)), Latency(t_min=0.0, t_max=0.01)),
        "training has 20 time steps of shape (2,), and Latency encodes one value per channel",
        "Events.of_steps(x, dt)",
    ),
    "other channels of a rate": (
        lambda: batch_of(np.zeros((2, 1)), Rate(highest=1.0, duration=1.0)),
        "training has 1 channels, and input 'input' has 2",
        "use the same number of channels",
    ),
    "other channels of steps": (
        lambda: batch_of(np.ones((2, 3, 2)), Delta(step=1.0, frame=0.1)),
        "training has 4 channels, and input 'input' has 2",
        "use the same number of channels",
    ),
    "other channels of levels": (
        lambda: batch_of(np.ones((2, 3, 2)), LevelCrossing(levels=(0.5, 2.0), frame=0.1)),
        "training has 8 channels, and input 'input' has 2",
        "use the same number of channels",
    ),
    "fewer channels of codes": (
        lambda: batch_of(np.ones((2, 1)), PopulationCode(centres=(0.0,), frame=0.1)),
        "training has 1 channels, and input 'input' has 2",
        "use the same number of channels",
    ),
    "signals of another shape": (
        lambda: batch_of(np.zeros((2, 5, 3)), in_steps=True),
        "training has shape (2, 5, 3), and for input 'input' the time-stepped engine requires (samples",
        "move the axes, or pass Events",
    ),
    "an order of latencies": (
        lambda: Latency(t_min=0.0, t_max=1.0, first="bright")([[0.5]]),
        "first is 'bright'",
        'first="large" or first="small"',
    ),
    "a current of nan": (
        lambda: Current()([[0.5, np.nan]]),
        "sample 0, channel 1 has the value nan",
        "",
    ),
    "a large value": (
        lambda: Latency(t_min=0.0, t_max=1.0)([[0.5], [1.5]]),
        "sample 1, channel 0 has the value 1.5",
        "",
    ),
    "a value above 1 by rounding": (
        lambda: Latency(t_min=0.0, t_max=1.0)(np.nextafter(np.ones((1, 1), np.float32), 2)),
        "has the value 1.00000012",
        "",
    ),
    "flat values": (
        lambda: Latency(t_min=0.0, t_max=1.0)([0.5]),
        "the values have shape (1,)",
        "(samples, channels)",
    ),
    "equal levels": (
        lambda: LevelCrossing(levels=(0.5, 0.5), frame=0.01)(SIGNAL),
        "levels are (0.5, 0.5)",
        "pass increasing levels",
    ),
    "flat signals for levels": (
        lambda: LevelCrossing(levels=(0.5,), frame=0.01)([0.5]),
        "the values have shape (1,)",
        "(samples, time, channels)",
    ),
    "an option that an encoder lacks": (
        lambda: named_encoder(yinyang(6, seed=0), 0.01, "latency", options={"tmax": 1}),
        "encoder_options has no field 'tmax'",
        "",
    ),
    "a text for a time of an encoder": (
        lambda: named_encoder(yinyang(6, seed=0), 0.01, "latency", options={"t_max": "soon"}),
        "'soon' is not a time",
        "",
    ),
    **{
        f"latencies from {t_min} to {t_max}": (
            lambda t_min=t_min, t_max=t_max: Latency(t_min=t_min, t_max=t_max)(X),
            f"{t_max}",
            "pass 0 <= t_min <= t_max, in seconds",
        )
        for t_min, t_max in ((0.02, 0.01), (-1e-3, 0.01), ("0ms", "10ms"), (0.0, np.inf))
    },
    "a rate below 0": (
        lambda: Rate(highest=-100.0, duration=1.0)(np.array([[0.1, 0.9]])),
        "highest is -100",
        "",
    ),
    "many classes": (
        lambda: splits_of_arrays(X, np.full(10, 65536)),
        "data: the largest label is 65536, and labels range from 0 to 65535",
        "number the classes from 0",
    ),
    "two outputs": (
        lambda: output_node(two_outputs()),
        "2 nodes (a, b) feed outputs of the network, and training uses one output population",
        'population = "a" in [loss-options]',
    ),
    "no engine": (
        lambda: make_engine("evnt", network(), None),
        "there is no engine 'evnt'",
        "event",
    ),
    "process": (
        lambda: join_processes("here:1", 2, 2),
        "process is 2, and the number of processes is 2",
        "from 0 to 1",
    ),
    "address": (
        lambda: join_processes("here:0", 2, 0),
        "coordinator is 'here:0'",
        'pass coordinator="HOST:PORT"',
    ),
    "many": (lambda: at_least(1, 3)("epochs", 4), "epochs is 4", "pass at most 3"),
    "none": (lambda: positive("lr", 0.0), "lr is 0", "pass a positive, finite number"),
    "long seed": (lambda: seed_check("seed", 2**40), "seed is 1099511627776", ""),
}
UNREADABLE = {
    "one training sample": (
        lambda folder: file_of(folder, x_train=X[:1], y_train=Y[:1], x_test=X, y_test=Y),
        UsageError,
        "data.npz has too few training samples to hold one out for validation: 1",
    ),
    "no samples": (
        lambda folder: file_of(folder, x_train=X, y_train=Y, y_test=Y),
        FileError,
        "data.npz has neither 'x_test' nor 'time_test' and 'index_test'",
    ),
    "no signals": (
        lambda folder: text_of(folder, "@data\n1,2:x\n"),
        FileError,
        "data.ts, line 2: ",
    ),
    "two channels": (
        lambda folder: text_of(folder, "@data\n1,2:3,4:1\n"),
        FileError,
        "data.ts, line 2: 2 channels of up to 2 frames",
    ),
    "few channels in line 3": (
        lambda folder: text_of(folder, "@problemName JapaneseVowels\n@data\n1,2:3\n"),
        FileError,
        "data.ts, line 3: ",
    ),
    "no data": (lambda folder: text_of(folder, "@data\n"), FileError, "data.ts contains no data"),
    "no image": (
        lambda folder: broken_png(folder),
        FileError,
        "no.png cannot be read as a PNG image",
    ),
    "no spikes": (
        lambda folder: recorded(folder, other=X),
        UsageError,
        "run.npz lacks '2.time' or '2.index', and contains other",
    ),
    "no numbers of neurons": (
        lambda folder: recorded(folder, **{"2.time": X[:1], "2.index": X[:1]}),
        UsageError,
        "'2.index' of ",
    ),
}
NO_VALUES = {
    "a text for an integer": (lambda: integer("a"), "pass an integer"),
    "a float for an integer": (lambda: integer(1.0), "pass an integer"),
    "a text for a number": (lambda: number("a"), "pass a number"),
    "a truth for a number": (lambda: number(True), "pass a number"),
    "a truth for a time": (lambda: duration(True), "pass a time, such as 40ms"),
    "a number for a truth": (lambda: switch(1), "pass true or false"),
    "a number for names": (lambda: name_list(3), "pass names separated by commas"),
    "a number for a table": (lambda: mapping(3), "write a table"),
    "a population twice": (lambda: factors("a:1,b:2,a:3"), "specify each population once"),
    "a population without a factor": (lambda: factors("a:x"), "pass one factor, or NODE:FACTOR"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_data_and_options_are_refused_with_a_way_out(case):
    call, message, fix = REFUSED[case]
    assert_refused(call, UsageError, re.escape(message), fix=fix)


@pytest.mark.parametrize("case", UNREADABLE)
def test_files_are_refused_with_a_way_out(case, tmp_path):
    call, error, message = UNREADABLE[case]
    assert_refused(lambda: call(tmp_path), error, re.escape(message))


@pytest.mark.parametrize("case", NO_VALUES)
def test_values_of_options_say_what_they_take(case):
    call, message = NO_VALUES[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (
            lambda: check_data(Data(x=X, y=np.full(len(X), 7), classes=("a", "b")), "mine"),
            {"data": "mine", "sample": 0, "label": 7, "maximum": 1},
        ),
        (lambda: Dropout(probability=2.0), {"probability": 2.0}),
        (
            lambda: encoded(
                Data(x=np.zeros((2, 2)), y=np.array([0, 1]), classes=("a", "b")),
                network(outputs=1),
                population="2",
                encoder=None,
                engine=EventDriven(),
                data_name="mine",
            ),
            {"data": "mine", "classes": 2, "population": "2", "neurons": 1},
        ),
        (
            lambda: even_batch_size(8, 4, 5),
            {"devices": 5, "samples": 4},
        ),
    ],
)
def test_a_problem_has_its_numbers_as_facts(call, facts):
    with pytest.raises(UsageError) as caught:
        call()
    assert dict(caught.value.problem.facts) == facts
