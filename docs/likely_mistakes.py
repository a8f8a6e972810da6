"""Likely mistakes and what answers them: `site_pages.py` shows the exact texts, and
`tests/house/test_messages.py` holds each to naming the node, the numbers and the way out.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from dataclasses import dataclass
from typing import Any

#: What the code of every mistake begins with.
PREPARED = """\
import numpy as np
import jaxsnn
from importlib.resources import files
from jaxsnn.nir import build

FILE = str(files("jaxsnn") / "commands" / "demo" / "snntorch_yinyang.nir")
neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
graph = build.sequential(build.input(2), build.linear(weight=np.array([[3.0, 2.0]])), neurons)
events = jaxsnn.Events(time=np.array([[0.0, 1e-3]]), index=np.array([[0, 1]]))
"""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One mistake.

    Attributes:
        title: what was done wrong.
        code: Python; or a command line, from `jaxsnn` on.
        says: what the answer must hold: node, numbers, way out.
        prints: the code prints the answer, and raises nothing.
    """

    title: str
    code: str
    says: tuple[str, ...]
    prints: bool = False


def answered(mistake: Mistake) -> str:
    """What the library answers, in one line mostly; for a folder's name stands nothing."""
    from jaxsnn.errors import JaxsnnError

    names: dict[str, Any] = {}
    exec(PREPARED, names)
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            if mistake.code.startswith("$ "):
                return _command(mistake.code, names["FILE"])
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(mistake.code, names)
            return out.getvalue().strip()
        except JaxsnnError as error:
            return f"{type(error).__name__}: {error}"
        finally:
            os.chdir(before)


def _command(code: str, file: str) -> str:
    """What commands print on stderr, the last one's; lines before it prepare."""
    import shlex

    from jaxsnn.commands.cli import main

    said = ""
    for line in code.splitlines():
        words = shlex.split(line.removeprefix("$ "))[1:]
        err, out = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
            main([file if word == "net.nir" else word for word in words])
        said = err.getvalue().strip()
    return said.replace(file, "net.nir")


MISTAKES = (
    Mistake(
        title="The dialect is another framework's",
        code='jaxsnn.read(FILE, dialect="norse", dt=1e-3)',
        says=("norse", "say"),
    ),
    Mistake(
        title="The time step is missing",
        code="""\
layers = build.input(2), build.linear(weight=np.ones((1, 2))), build.lif(tau=10e-3)
plain = build.sequential(*layers, dialect="nir", time_unit="s")
x = np.zeros((20, 1, 2), np.float32)
jaxsnn.simulate(plain, x, engine=jaxsnn.TimeStepped())""",
        says=("'2'", "dt, which the file does not say", "dt="),
    ),
    Mistake(
        title="Milliseconds for seconds",
        code="""\
late = jaxsnn.Events(time=np.array([[1.0, 5.0]]), index=np.array([[0, 1]]))
for note in jaxsnn.simulate(graph, late, t_end=0.04).notes:
    print("note:", note)""",
        says=("'input'", "2", "seconds"),
        prints=True,
    ),
    Mistake(
        title="An input of another shape",
        code="""\
network = jaxsnn.lower(graph, dtype=np.float32)
jaxsnn.simulate(network, np.zeros((20, 1, 5), np.float32), engine=jaxsnn.TimeStepped(dt=1e-3))""",
        says=("input", "5", "2"),
    ),
    Mistake(
        title="Batch first",
        code="""\
x = np.zeros((4, 20, 2), np.float32)
y = np.zeros((20, 4, 1), np.float32)
jaxsnn.verify(graph.with_dialect(graph.dialect), x, y, engine=jaxsnn.TimeStepped(dt=1e-3))""",
        says=("(20, 4, 1)", "(4, 20, 1)", "(time, batch"),
    ),
    Mistake(
        title="Spikes that are not sorted: no mistake, they are sorted",
        code="""\
wrong = jaxsnn.Events(time=np.array([[1e-3, 0.0]]), index=np.array([[1, 0]]))
one, other = (jaxsnn.simulate(graph, given, t_end=0.04) for given in (events, wrong))
print("the same spikes:", bool((one.first_spike("2") == other.first_spike("2")).all()))""",
        says=("the same spikes: True",),
        prints=True,
    ),
    Mistake(
        title="An array of numbers for the event engine",
        code="jaxsnn.simulate(graph, np.random.rand(20, 1, 2), t_end=0.04)",
        says=("input", "jaxsnn.Events", "TimeStepped"),
    ),
    Mistake(
        title="An .npz file of events for fidelity, which compares steps",
        code="""\
np.savez("x.npz", time=np.array([[0.0, 1e-3]]), index=np.array([[0, 1]]))
stepped = jaxsnn.read(FILE, dialect="snntorch", reset="zero", reset_delay=True)
jaxsnn.fidelity(stepped, "x.npz")""",
        says=("events", "'x' (time, batch, ...)"),
    ),
    Mistake(
        title="Forty milliseconds as 40",
        code="""\
for note in jaxsnn.simulate(graph, events, t_end=40.0).notes:
    print("note:", note)""",
        says=("40 s", "time constant", "seconds"),
        prints=True,
    ),
    Mistake(
        title="The reset was not said",
        code="""\
read = jaxsnn.read(FILE, dialect="snntorch")
jaxsnn.simulate(read, np.zeros((20, 1, 5), np.float32), engine=jaxsnn.TimeStepped())""",
        says=("lif1", "reset", "reset_delay", "zero", "subtract"),
    ),
    Mistake(
        title="More spikes than the engine was given room for",
        code="""\
many = jaxsnn.Events(time=np.arange(200)[None] * 1e-3, index=np.zeros((1, 200), int))
jaxsnn.simulate(graph, many, t_end=0.3, engine=jaxsnn.EventDriven(max_spikes=16))""",
        says=("'2'", "16", "max_spikes"),
    ),
    Mistake(
        title="A network that does not fit the chip",
        code="""\
large = build.sequential(build.input(2), build.linear(600, weight=np.ones((600, 2))), neurons)
found = jaxsnn.place_and_route(jaxsnn.quantize(large).netlist, max_runs=1)
print(found.stop_reason + ":", found.why)""",
        says=("600", "512", "runs"),
        prints=True,
    ),
    Mistake(
        title="A layer that NIR does not have",
        code="""\
import torch, snntorch
net = torch.nn.Sequential(
    torch.nn.Conv2d(1, 2, 3), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(18, 2),
    snntorch.Leaky(beta=0.9, reset_mechanism="zero", init_hidden=True),
)
jaxsnn.from_torch(net, torch.zeros(1, 1, 8, 8))""",
        says=("MaxPool2d", "AvgPool2d"),
    ),
    Mistake(
        title="BatchNorm in training mode",
        code="""\
import torch, snntorch
net = torch.nn.Sequential(
    torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2),
    snntorch.Leaky(beta=0.9, reset_mechanism="zero", init_hidden=True),
)
jaxsnn.from_torch(net, torch.zeros(1, 4))""",
        says=("BatchNorm", "eval()"),
    ),
    Mistake(
        title="One sample without a batch",
        code="""\
network = jaxsnn.lower(graph, dtype=np.float32)
jaxsnn.simulate(network, np.zeros((20, 2), np.float32), engine=jaxsnn.TimeStepped(dt=1e-3))""",
        says=("input", "(20, 2)", "batch"),
    ),
    Mistake(
        title="Labels of another shape",
        code="jaxsnn.fit(graph, (np.random.rand(10, 2), np.zeros((10, 3))))",
        says=("(10, 3)", "(samples,)", "argmax"),
    ),
    Mistake(
        title="The output exists",
        code="$ jaxsnn draw net.nir -o g.svg\n$ jaxsnn draw net.nir -o g.svg",
        says=("g.svg exists", "--force"),
    ),
    Mistake(
        title="A negative time constant",
        code="""\
bad = build.sequential(build.input(2), build.linear(weight=np.ones((3, 2))), build.lif(tau=[1e-2, -1e-2, 1e-2]))
jaxsnn.lower(bad)""",
        says=("'2'", "tau", "-0.01", "1"),
    ),
    Mistake(
        title="A graph without its dialect",
        code="""\
written = jaxsnn.export(graph)
written.metadata = {}
jaxsnn.simulate(jaxsnn.parse(written), events, t_end=0.04)""",
        says=("dialect=",),
    ),
    Mistake(
        title="A text as engine",
        code='jaxsnn.simulate(graph, events, t_end=0.04, engine="event")',
        says=("'event'", "EventDriven()", "TimeStepped"),
    ),
    Mistake(
        title="No end of the simulation",
        code="jaxsnn.simulate(graph, events)",
        says=("t_end",),
    ),
    Mistake(
        title="A picture without matplotlib",
        code="""\
import sys
there = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("matplotlib")}
sys.modules["matplotlib"] = None
try:
    jaxsnn.plot.graph(graph).render("png")
finally:
    del sys.modules["matplotlib"]
    sys.modules |= there""",
        says=("matplotlib", "pip install matplotlib"),
    ),
)
