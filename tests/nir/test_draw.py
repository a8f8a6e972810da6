"""Pictures of graphs: every file of the zoo, in every format."""

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


def test_every_zoo_file_is_drawn(graph):
    picture = ElementTree.fromstring(svg(graph))
    texts = [element.text for element in picture.iter(f"{SVG}text")]
    for name in graph.nodes:
        assert name.rsplit("/", 1)[-1] in texts
    arrows = [element for element in picture.iter(f"{SVG}path") if element.get("marker-end")]
    assert len(arrows) == len(graph.edges)
    assert dot(graph).count(" -> ") == mermaid(graph).count(" --> ") == len(graph.edges)
    assert dot(graph).count("{") == dot(graph).count("}") == len(graph.subgraphs)


def boxes(text):
    """(left, top, right, bottom) of the boxes of the nodes."""
    found = [
        e for e in ElementTree.fromstring(text).iter(f"{SVG}rect") if e.get("stroke") == "#555"
    ]
    corners = [[float(e.get(key, "nan")) for key in ("x", "y", "width", "height")] for e in found]
    return [(left, top, left + width, top + height) for left, top, width, height in corners]


def test_boxes_do_not_overlap_and_stay_inside(graph):
    text = svg(graph)
    root = ElementTree.fromstring(text)
    width, height = (float(root.get(key, "nan")) for key in ("width", "height"))
    rectangles = boxes(text)
    for number, (left, top, right, bottom) in enumerate(rectangles):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        for other in rectangles[:number]:
            assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top


def test_signals_run_to_the_right_and_recurrence_back():
    loop = build.network(
        {
            "in": build.input(2),
            "w": build.linear(3, weight=np.ones((3, 2))),
            "h": build.cubalif(tau_mem=0.01, tau_syn=0.005),
            "back": build.linear(3, weight=np.ones((3, 3))),
            "out": build.output(),
        },
        [["in", "w", "h", "out"], ["h", "back", "h"]],
    )
    lefts = dict(zip(loop.nodes, (box[0] for box in boxes(svg(loop))), strict=True))
    assert lefts["in"] < lefts["w"] < lefts["h"] < lefts["back"]
    assert lefts["h"] < lefts["out"]


def test_names_are_escaped():
    size = np.array([2])
    nodes = {'a<b&"c': nir.Input({"input": size}), "o#]": nir.Output({"output": size})}
    graph = parse(nir.NIRGraph(nodes=nodes, edges=[('a<b&"c', "o#]")]))
    texts = [element.text for element in ElementTree.fromstring(svg(graph)).iter(f"{SVG}text")]
    assert 'a<b&"c' in texts
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
    assert_refused(
        lambda: draw(recurrent, tmp_path / "g.gif"),
        UsageError,
        r"\.svg, \.png, \.pdf, \.dot, \.mmd",
    )
    assert not list(tmp_path.iterdir())


def test_endings_in_capitals_are_the_same(tmp_path, recurrent):
    draw(recurrent, tmp_path / "g.svg")
    draw(recurrent, tmp_path / "G.SVG")
    assert (tmp_path / "G.SVG").read_bytes() == (tmp_path / "g.svg").read_bytes()
