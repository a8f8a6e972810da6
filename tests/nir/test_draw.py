"""Pictures of graphs: every file of the zoo, in every format."""

import itertools
import xml.etree.ElementTree as ElementTree

import nir
import numpy as np
import pytest

from jaxsnn.errors import FileError, UsageError
from jaxsnn.nir import build
from jaxsnn.nir.graphs.parse import parse, read
from jaxsnn.plot.graph_drawing import dot, draw, mermaid, svg
from tests.helpers.refusals import assert_refused
from tests.helpers.zoo import FACTS

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module", params=sorted(FACTS))
def graph(request, zoo):
    """Each graph of the zoo."""
    return read(zoo[request.param])


@pytest.fixture
def recurrent(zoo):
    """A recurrent graph."""
    return read(zoo["snntorch_c_rleaky_all"])


def texts_of(picture):
    return [element.text for element in picture.iter(f"{SVG}text")]


def test_every_zoo_file_is_drawn(graph):
    picture = ElementTree.fromstring(svg(graph))
    texts = texts_of(picture)
    assert [name for name in graph.nodes if name.rsplit("/", 1)[-1] not in texts] == []
    arrows = [element for element in picture.iter(f"{SVG}path") if element.get("marker-end")]
    assert len(arrows) == len(graph.edges)
    assert dot(graph).count(" -> ") == mermaid(graph).count(" --> ") == len(graph.edges)
    assert dot(graph).count("{") == dot(graph).count("}") == len(graph.subgraphs)


def boxes(picture):
    """(left, top, right, bottom) of the boxes of the nodes."""
    rectangles = [e for e in picture.iter(f"{SVG}rect") if e.get("stroke") == "#555"]
    corners = [
        [float(e.get(key, "nan")) for key in ("x", "y", "width", "height")] for e in rectangles
    ]
    return [(left, top, left + width, top + height) for left, top, width, height in corners]


def test_boxes_do_not_overlap_and_stay_inside(graph):
    picture = ElementTree.fromstring(svg(graph))
    width, height = (float(picture.get(key, "nan")) for key in ("width", "height"))
    for left, top, right, bottom in boxes(picture):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    for a, b in itertools.combinations(boxes(picture), 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_signals_run_to_the_right_and_recurrence_back():
    nodes = {
        "in": build.input(2),
        "w": build.linear(3, weight=np.ones((3, 2))),
        "h": build.cubalif(tau_mem=0.01, tau_syn=0.005),
        "back": build.linear(3, weight=np.ones((3, 3))),
        "out": build.output(),
    }
    loop = build.network(nodes, [["in", "w", "h", "out"], ["h", "back", "h"]])
    picture = ElementTree.fromstring(svg(loop))
    lefts = dict(zip(loop.nodes, (box[0] for box in boxes(picture)), strict=True))
    assert lefts["in"] < lefts["w"] < lefts["h"] < lefts["back"]
    assert lefts["h"] < lefts["out"]


def test_names_are_escaped():
    size = np.array([2])
    nodes = {'a<b&"c': nir.Input({"input": size}), "o#]": nir.Output({"output": size})}
    graph = parse(nir.NIRGraph(nodes=nodes, edges=[('a<b&"c', "o#]")]))
    assert 'a<b&"c' in texts_of(ElementTree.fromstring(svg(graph)))
    assert '"a<b&\\"c" -> "o#]"' in dot(graph)
    assert "a&lt;b&amp;&quot;c" in mermaid(graph)


@pytest.mark.parametrize("ending", ["svg", "dot", "mmd"])
def test_a_picture_is_never_overwritten_unless_told(tmp_path, recurrent, ending):
    path = tmp_path / f"g.{ending}"
    draw(recurrent, path)
    first = path.read_bytes()
    assert_refused(lambda: draw(recurrent, path), FileError, "exists")
    draw(recurrent, path, force=True)
    assert path.read_bytes() == first


def test_other_endings_are_refused(tmp_path, recurrent):
    says = r"\.svg, \.png, \.pdf, \.dot, \.mmd"
    assert_refused(lambda: draw(recurrent, tmp_path / "g.gif"), UsageError, says)
    assert not list(tmp_path.iterdir())


def test_endings_in_capitals_are_the_same(tmp_path, recurrent):
    draw(recurrent, tmp_path / "g.svg")
    draw(recurrent, tmp_path / "G.SVG")
    assert (tmp_path / "G.SVG").read_bytes() == (tmp_path / "g.svg").read_bytes()
