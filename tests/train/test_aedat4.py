"""Files of AEDAT 4.0, read by the package aedat, and by a fake with its interface."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from jaxsnn.commands.run_command import run_file
from jaxsnn.errors import FileError, UsageError
from jaxsnn.files.event_files import read_camera_file
from jaxsnn.files.read_limits import limit_reading
from jaxsnn.nir import build
from jaxsnn.train.data.event_sets import event_splits
from tests.helpers.event_files import aedat4_bytes

EVENTS = [(5000, 1, 2, 1), (5000, 33, 0, 0), (7000, 3, 4, 0)]
CAMERA = {"type": "events", "width": 34, "height": 34}


def packet(events, number=0):
    dtype = [("t", "u8"), ("x", "u2"), ("y", "u2"), (("p", "on"), "?")]
    return {"stream_id": number, "events": np.array(events, dtype)}


def fake(monkeypatch, streams, packets):
    """Replace the package by one that decodes these packets; an exception is raised at its place."""

    def decoded():
        for entry in packets:
            if isinstance(entry, BaseException):
                raise entry
            yield entry

    class Decoder:
        def __init__(self, path):
            self.id_to_stream = lambda: streams
            self.packets = decoded()

        def __iter__(self):
            return self.packets

    monkeypatch.setitem(sys.modules, "aedat", SimpleNamespace(Decoder=Decoder))


@pytest.fixture
def path(tmp_path):
    place = tmp_path / "a.aedat4"
    place.write_bytes(b"#!AER-DAT4.0\r\n")
    return place


@pytest.mark.parametrize("timeout", [60.0, math.inf])
def test_events_of_all_packets_start_at_0(timeout, path, monkeypatch):
    others = {"stream_id": 1, "imus": None}
    packets = [packet(EVENTS[:2]), others, packet(EVENTS[2:])]
    fake(monkeypatch, {0: CAMERA, 1: {"type": "imus"}}, packets)
    with limit_reading(read_timeout=timeout):
        recording = read_camera_file(path)
    expected = [(0, 1, 2, 1), (0, 33, 0, 0), (2000, 3, 4, 0)]
    assert recording.events.tolist() == expected
    assert (recording.size, recording.dropped) == ((34, 34), 1)


class Panic(BaseException):
    """As those of Rust, which are no Exception."""


@pytest.mark.parametrize(
    ("streams", "packets"),
    [
        ({0: {"type": "imus"}}, []),
        ({0: CAMERA, 2: CAMERA}, [packet(EVENTS)]),
        ({0: CAMERA}, [packet(EVENTS), RuntimeError("failed to fill whole buffer")]),
        ({0: CAMERA}, [Panic("range start index 9 out of range")]),
        ({0: CAMERA}, [packet([(2**64 - 5, 1, 1, 1)])]),
    ],
)
@pytest.mark.parametrize("timeout", [60.0, math.inf])
def test_files_that_cannot_be_read_are_refused(streams, packets, timeout, path, monkeypatch):
    fake(monkeypatch, streams, packets)
    with limit_reading(read_timeout=timeout), pytest.raises(FileError, match=r"a\.aedat4"):
        read_camera_file(path)


def test_the_limits_hold(path, monkeypatch):
    fake(monkeypatch, {0: CAMERA}, [packet(EVENTS * 100)] * 10)
    with limit_reading(max_bytes=10**5), pytest.raises(FileError, match="limit"):
        read_camera_file(path)
    assert len(read_camera_file(path).events) == 3000


def test_without_the_package_it_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aedat", None)
    with pytest.raises(UsageError) as caught:
        read_camera_file(path)
    assert caught.value.problem.fix == "pip install jaxsnn-nir[events]"


def test_a_folder_of_labels_and_a_run_read_them(path, tmp_path, monkeypatch):
    fake(monkeypatch, {0: CAMERA}, [packet(EVENTS)])
    for part in ("train", "test"):
        for label in ("0", "1"):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(6):
                (tmp_path / part / label / f"{number}.aedat4").touch()
    splits, _ = event_splits("events", str(tmp_path), shape=(2, 34, 34))
    assert len(splits.test) == 12
    channel = np.sort(np.asarray(splits.test.x.index[np.array([0])])[0])
    assert channel.tolist() == [33, 4 * 34 + 3, 34 * 34 + 2 * 34 + 1]
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    for side in (34, 36):
        graph = build.sequential(
            build.input((2, side, side)),
            build.node("Flatten", start_dim=0, end_dim=-1),
            build.linear(weight=np.full((3, 2 * side * side), 9.0)),
            neurons,
        )
        if side == 34:
            outcome = run_file(graph, path, tmp_path / "out.npz")
            assert outcome.t_end == pytest.approx(2e-3 + 0.2, rel=1e-5)
        else:  # the sensor of the file is smaller
            with pytest.raises(UsageError):
                run_file(graph, path, tmp_path / "other.npz")


# -- the package itself


@pytest.fixture
def package():
    pytest.importorskip("flatbuffers", reason="writes files of AEDAT 4.0")
    return pytest.importorskip("aedat", reason="reads files of AEDAT 4.0")


def test_the_package_reads_packets_in_turn(package, path):
    content = aedat4_bytes((1, EVENTS[:2]), (1, EVENTS[2:]), streams=[(0, "IMUS"), (1, "EVTS")])
    path.write_bytes(content)
    recording = read_camera_file(path)
    assert recording.events.tolist() == [(0, 1, 2, 1), (0, 33, 0, 0), (2000, 3, 4, 0)]
    assert recording.size == (34, 34)


def test_the_package_refuses_damaged_files(package, path):
    content = aedat4_bytes((0, EVENTS))
    header = len(aedat4_bytes())
    wrong = [
        content[:-1],
        content[: header + 4],
        content[:20],
        b"",
        content.replace(b"EVTS", b"EVTX"),
    ]
    for flipped in (18, 19, 20, 21):  # an offset in the header, which the package does not check
        damaged = bytearray(content)
        damaged[flipped] ^= 0x7F
        wrong.append(bytes(damaged))
    for number, damaged in enumerate(wrong):
        path.write_bytes(damaged)
        with pytest.raises(FileError):
            pytest.fail(f"{number}: {read_camera_file(path)}")
