"""Common mistakes and their messages, for the page of messages (`site_pages.py`).

`tests/house/test_messages.py` checks that each message names the node, the numbers and what to do.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: Code that runs before the code of every mistake.
PREAMBLE = """\
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
    """A common mistake.

    Attributes:
        title: Heading of its section.
        code: Python that makes the mistake; or command lines, each after "$ ".
        expected: Parts of the message: node, numbers, what to do.
        prints: The code prints notes or a result, and raises no error.
        missing: Package that is not installed.
    """

    title: str
    code: str
    expected: tuple[str, ...]
    prints: bool = False
    missing: str = ""


def message_of(mistake: Mistake) -> str:
    """Return the message for a mistake, by running its code in an empty folder."""
    from jaxsnn.errors import JaxsnnError

    namespace: dict[str, Any] = {}
    exec(PREAMBLE, namespace)
    working_directory = os.getcwd()
    with tempfile.TemporaryDirectory() as folder, _without_package(mistake.missing):
        os.chdir(folder)
        try:
            if mistake.code.startswith("$ "):
                return _stderr_of(mistake.code, namespace["FILE"])
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(mistake.code, namespace)
            return out.getvalue().strip()
        except JaxsnnError as error:
            return f"{type(error).__name__}: {error}"
        finally:
            os.chdir(working_directory)


@contextlib.contextmanager
def _without_package(name: str) -> Iterator[None]:
    """Make imports of a package fail; "" hides none."""
    if not name:
        yield
        return
    modules = {key: sys.modules.pop(key) for key in list(sys.modules) if key.split(".")[0] == name}
    sys.modules[name] = None  # type: ignore
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules |= modules


def _stderr_of(code: str, file: str) -> str:
    """Run command lines, in which net.nir stands for a file; return what the last one prints."""
    import shlex

    from jaxsnn.commands.cli import main

    message = ""
    for line in code.splitlines():
        words = shlex.split(line.removeprefix("$ "))[1:]
        err, out = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
            main([file if word == "net.nir" else word for word in words])
        message = err.getvalue().strip()
    return message.replace(file, "net.nir")


MISTAKES = (
    Mistake(
        title="Wrong dialect",
        code='jaxsnn.read(FILE, dialect="norse", dt=1e-3)',
        expected=("norse", "pass"),
    ),
    Mistake(
        title="Missing time step",
        code="""\
layers = build.input(2), build.linear(weight=np.ones((1, 2))), build.lif(tau=10e-3)
plain = build.sequential(*layers, dialect="nir", time_unit="s")
x = np.zeros((20, 1, 2), np.float32)
jaxsnn.simulate(plain, x, engine=jaxsnn.TimeStepped())""",
        expected=("'2'", "dt, which the file does not contain", "dt="),
    ),
    Mistake(
        title="Spike times in milliseconds",
        code="""\
late = jaxsnn.Events(time=np.array([[1.0, 5.0]]), index=np.array([[0, 1]]))
for note in jaxsnn.simulate(graph, late, t_end=0.04).notes:
    print("note:", note)""",
        expected=("'input'", "2", "seconds"),
        prints=True,
    ),
    Mistake(
        title="Input with the wrong number of channels",
        code="""\
network = jaxsnn.lower(graph, dtype=np.float32)
jaxsnn.simulate(network, np.zeros((20, 1, 5), np.float32), engine=jaxsnn.TimeStepped(dt=1e-3))""",
        expected=("input", "5", "2"),
    ),
    Mistake(
        title="Recording with the batch axis first",
        code="""\
x = np.zeros((4, 20, 2), np.float32)
y = np.zeros((20, 4, 1), np.float32)
jaxsnn.verify(graph.with_dialect(graph.dialect), x, y, engine=jaxsnn.TimeStepped(dt=1e-3))""",
        expected=("(20, 4, 1)", "(4, 20, 1)", "(time, batch"),
    ),
    Mistake(
        title="Unsorted spikes (allowed)",
        code="""\
unsorted = jaxsnn.Events(time=np.array([[1e-3, 0.0]]), index=np.array([[1, 0]]))
sorted_run, unsorted_run = (jaxsnn.simulate(graph, x, t_end=0.04) for x in (events, unsorted))
print("the same spikes:", bool((sorted_run.first_spike("2") == unsorted_run.first_spike("2")).all()))""",
        expected=("the same spikes: True",),
        prints=True,
    ),
    Mistake(
        title="Array as input of the event engine",
        code="jaxsnn.simulate(graph, np.random.rand(20, 1, 2), t_end=0.04)",
        expected=("input", "jaxsnn.Events", "TimeStepped"),
    ),
    Mistake(
        title="Events as input of fidelity",
        code="""\
np.savez("x.npz", time=np.array([[0.0, 1e-3]]), index=np.array([[0, 1]]))
stepped = jaxsnn.read(FILE, dialect="snntorch", reset="zero", reset_delay=True)
jaxsnn.fidelity(stepped, "x.npz")""",
        expected=("events", "'x' (time, batch, ...)"),
    ),
    Mistake(
        title="End of the simulation in milliseconds",
        code="""\
for note in jaxsnn.simulate(graph, events, t_end=40.0).notes:
    print("note:", note)""",
        expected=("40 s", "time constant", "seconds"),
        prints=True,
    ),
    Mistake(
        title="Missing reset",
        code="""\
imported = jaxsnn.read(FILE, dialect="snntorch")
jaxsnn.simulate(imported, np.zeros((20, 1, 5), np.float32), engine=jaxsnn.TimeStepped())""",
        expected=("lif1", "reset", "reset_delay", "zero", "subtract"),
    ),
    Mistake(
        title="More spikes than max_spikes",
        code="""\
many = jaxsnn.Events(time=np.arange(200)[None] * 1e-3, index=np.zeros((1, 200), int))
jaxsnn.simulate(graph, many, t_end=0.3, engine=jaxsnn.EventDriven(max_spikes=16))""",
        expected=("'2'", "16", "max_spikes"),
    ),
    Mistake(
        title="Network that does not fit the chip",
        code="""\
large = build.sequential(build.input(2), build.linear(600, weight=np.ones((600, 2))), neurons)
search = jaxsnn.place_and_route(jaxsnn.quantize(large).netlist, max_runs=1)
print(search.stop_reason + ":", search.why)""",
        expected=("600", "512", "runs"),
        prints=True,
    ),
    Mistake(
        title="PyTorch layer that NIR does not have",
        code="""\
import torch, snntorch
leaky = dict(beta=0.9, reset_mechanism="zero", init_hidden=True)
net = torch.nn.Sequential(
    torch.nn.Linear(4, 3), snntorch.Leaky(**leaky), torch.nn.Tanh(),
    torch.nn.Linear(3, 2), snntorch.Leaky(**leaky),
)
jaxsnn.from_torch(net, torch.zeros(1, 4))""",
        expected=("Tanh", "spiking neuron"),
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
        expected=("BatchNorm", "eval()"),
    ),
    Mistake(
        title="Input without a batch axis",
        code="""\
network = jaxsnn.lower(graph, dtype=np.float32)
jaxsnn.simulate(network, np.zeros((20, 2), np.float32), engine=jaxsnn.TimeStepped(dt=1e-3))""",
        expected=("input", "(20, 2)", "batch"),
    ),
    Mistake(
        title="One-hot labels",
        code="jaxsnn.fit(graph, (np.random.rand(10, 2), np.zeros((10, 3))))",
        expected=("(10, 3)", "(samples,)", "argmax"),
    ),
    Mistake(
        title="Output file exists",
        code="$ jaxsnn draw net.nir -o g.svg\n$ jaxsnn draw net.nir -o g.svg",
        expected=("g.svg exists", "--force"),
    ),
    Mistake(
        title="Negative time constant",
        code="""\
bad = build.sequential(build.input(2), build.linear(weight=np.ones((3, 2))), build.lif(tau=[1e-2, -1e-2, 1e-2]))
jaxsnn.lower(bad)""",
        expected=("'2'", "tau", "-0.01", "1"),
    ),
    Mistake(
        title="NIR graph without a dialect",
        code="""\
exported = jaxsnn.export(graph)
exported.metadata = {}
jaxsnn.simulate(jaxsnn.parse(exported), events, t_end=0.04)""",
        expected=("dialect=",),
    ),
    Mistake(
        title="Name of an engine in place of an engine",
        code='jaxsnn.simulate(graph, events, t_end=0.04, engine="event")',
        expected=("'event'", "EventDriven()", "TimeStepped"),
    ),
    Mistake(
        title="Missing end of the simulation",
        code="jaxsnn.simulate(graph, events)",
        expected=("t_end",),
    ),
    Mistake(
        title="matplotlib is not installed",
        code='jaxsnn.plot.graph(graph).render("png")',
        expected=("matplotlib", "pip install matplotlib"),
        missing="matplotlib",
    ),
)
