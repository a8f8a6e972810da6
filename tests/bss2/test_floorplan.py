"""The picture is well-formed, shows every neuron and synapse once, and is the same every time."""

import base64
import dataclasses
import itertools
import re
import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest

from jaxsnn.bss2.chip import HICANN_X, INHIBITORY, Dead
from jaxsnn.bss2.floorplan import (
    PALETTE,
    POPULATIONS,
    bus_order,
    colour,
    floorplan,
    png,
    synapse_image,
    utilisation,
)
from jaxsnn.errors import MappingError
from tests.bss2.recipes import dense_net, layer_by_layer_mapping, one_run_mapping
from tests.helpers.refusals import assert_refused

SVG = "{http://www.w3.org/2000/svg}"


def mapped():
    net = dense_net(40, 20, 6, population_names=("in", "hid<den>", "out"))
    return layer_by_layer_mapping(net, groups=2)


def test_every_neuron_is_drawn_with_its_circuits():
    tree = ElementTree.fromstring(floorplan(mapped()))
    neurons = [group for group in tree.iter(f"{SVG}g") if group.find(f"{SVG}path") is not None]
    assert len(neurons) == 26
    assert neurons[3].find(f"{SVG}title").text == "hid<den>[3]: 2 circuits, address 3"
    assert all(group.find(f"{SVG}path").get("d").count("M") == 2 for group in neurons)
    assert len({group.get("fill") for group in neurons}) == 2


def decoded(href):
    """The pixels of a PNG without interlacing or filters."""
    data = base64.b64decode(href.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = {}, 8
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        body = data[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack(">I", data[place + 8 + length : place + 12 + length])
        assert checksum == zlib.crc32(kind + body)
        chunks[kind], place = body, place + 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    assert len(chunks[b"PLTE"]) == 3 * len(PALETTE)
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:]


def test_every_synapse_is_a_pixel_in_the_band_of_its_bus():
    mapping, rows = mapped(), bus_order(HICANN_X).tolist()
    images = iter(re.findall(r'href="([^"]+)"', floorplan(mapping)))
    for run, side in itertools.product(mapping.runs, (0, 1)):
        pixels = decoded(next(images))
        shown = np.argwhere(pixels >= 2).tolist()
        synapses = run.synapses[run.synapses[:, 0] == side, 1:3].tolist()
        assert sorted((rows[place], column) for place, column in shown) == sorted(
            map(tuple, synapses)
        )
        for place, column in shown[:20]:
            inhibits = run.row_modes[side, rows[place]] == INHIBITORY
            assert (pixels[place, column] >= 6) == inhibits
    assert next(images, None) is None
    buses = [row // 2 % 4 for row in rows]
    assert buses == sorted(buses)


def test_strengths_and_dead_parts_have_their_colours():
    mapping = mapped()
    weights = mapping.runs[0].synapses[:, 4]
    image = synapse_image(mapping, mapping.runs[0])
    counts = np.bincount((image[image >= 2] - 2) % 4, minlength=4)
    assert counts.tolist() == np.histogram(weights, [1, 16.5, 32.5, 48.5, 64])[0].tolist()
    dead = dataclasses.replace(mapping, dead=Dead(circuits=((1, 200),), drivers=((0, 127),)))
    assert (synapse_image(dead, dead.runs[0]) == 1).sum() == 2 * 256
    assert floorplan(dead).count("dead (1, 200)") == 2


def test_utilisation_counts_rows_with_synapses():
    mapping = one_run_mapping(dense_net(256, 246, 10))
    used = {name: counts for name, *counts in utilisation(mapping, mapping.runs[0])}
    assert used["circuits"] == [512, 512]
    assert used["synapses"] == [65436, 131072]
    rows = [f"rows {side} {bus}" for side in ("top", "bottom") for bus in range(4)]
    assert [used[name] for name in rows] == [[64, 64]] * 8


def test_the_same_mapping_has_the_same_picture():
    assert floorplan(mapped()) == floorplan(mapped())
    assert len(png(np.zeros((2, 3), np.uint8))) < 200


def test_sixty_populations_have_colours_of_their_own():
    colours = [colour(number) for number in range(60)]
    assert colours[:12] == list(POPULATIONS)
    assert len(set(colours)) == 60
    rgb = np.array([list(bytes.fromhex(text[1:])) for text in colours[:36]], float)
    apart = np.linalg.norm(rgb[:, None] - rgb[None], axis=-1)
    assert apart[~np.eye(36, dtype=bool)].min() > 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"head": 7},
            "damaged in run 0: entry 0: its head, the circuit that fires, has index 7, but it has "
            "only 2 circuits",
        ),
        ({"circuits": ()}, "it has no circuit"),
        ({"circuits": ((0, 999),)}, r"circuit \(0, 999\) does not exist"),
        ({"population": 9}, "population 9 does not exist"),
    ],
)
def test_a_damaged_mapping_is_refused(changes, message):
    mapping = mapped()
    first, *others = mapping.runs
    neurons = (dataclasses.replace(first.neurons[0], **changes), *first.neurons[1:])
    runs = (dataclasses.replace(first, neurons=neurons), *others)
    broken = dataclasses.replace(mapping, runs=runs)
    assert_refused(lambda: floorplan(broken), MappingError, message)
