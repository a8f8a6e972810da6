"""The Python reference of the site: a page for each topic, an entry for each public object.

Entries are `py:` directives of Sphinx, so that the search and the index of the site know the
objects, and `[](generated/reference/training.md#jaxsnn.fit)` leads to one.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

#: Modules with public names, with what they are for.
REFERENCE = {
    "jaxsnn": "graphs, simulation, conversion, the chip",
    "jaxsnn.train": "training: data, encoders, losses, options",
    "jaxsnn.plot": "pictures of graphs, spikes, voltages and training runs",
    "jaxsnn.nir.build": "layers for graphs that are built in Python",
    "jaxsnn.nir.initializers": "distributions of initial weights",
}
#: Classes whose objects are results of calls, so that their constructors are not documented.
RETURNED = (
    *("jaxsnn.EventSolution", "jaxsnn.EventStream", "jaxsnn.Graph", "jaxsnn.Network"),
    *(
        "jaxsnn.NeuroBench",
        "jaxsnn.Result",
        "jaxsnn.SteppedSolution",
        "jaxsnn.Verification",
        "jaxsnn.plot.Picture",
    ),
    *("jaxsnn.train.EpochRecord", "jaxsnn.train.Fit", "jaxsnn.nir.build.Layer"),
)
#: Section of a docstring -> its title on the page.
SECTIONS = {
    "Args": "Arguments",
    "Attributes": "Attributes",
    "Raises": "Errors",
    "Returns": "Returns",
    "Source": "Source",
}


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A page of the reference.

    Attributes:
        title: Heading of the page.
        introduction: Markdown above the entries.
        module: Module of the objects whose names have no dot.
        summaries: Public object -> what it is or does.
    """

    title: str
    introduction: str
    module: str
    summaries: dict[str, str]

    @property
    def objects(self) -> list[str]:
        """Full names of the objects, in the order of the page."""
        return [name if "." in name else f"{self.module}.{name}" for name in self.summaries]


#: File name of a page -> its content. Each public object is on one page.
TOPICS = {
    "graphs": Topic(
        title="Graphs and NIR files",
        introduction="Guides: [](../../guide_convert.md), [](../../dialects.md). The options of "
        "`read` and `parse` specify what a file does not contain; they are those of the "
        "[command line](../../cli.md#options-of-dialects).",
        module="jaxsnn",
        summaries={
            "read": "read a NIR file",
            "parse": "convert a `nir.NIRGraph` in memory, which is not changed",
            "write": "write a NIR file atomically; unchanged values keep every bit",
            "export": "convert a graph to a `nir.NIRGraph`",
            "Graph": "nodes, edges and dialect, with the values of the file; immutable",
            "check": "list all problems of a graph with an engine, the chip or another simulator; "
            "nothing runs",
            "convert": "rewrite a graph so that the importer of another simulator fires the same "
            'spikes: `to="snntorch"`, or a version, `to="snntorch==1.0"`',
        },
    ),
    "build": Topic(
        title="Build graphs",
        introduction="`sequential` connects layers in a row, `network` named layers along edges. "
        "Sizes follow from the previous layer. One seed samples all weights, in the order of the "
        "layers. Weights are arrays or [initialisers](initializers.md). Time constants are in "
        'seconds, or text such as `"10ms"`.',
        module="jaxsnn.nir.build",
        summaries={
            "jaxsnn.sequential": "build a graph of layers in a row",
            "sequential": "the same function",
            "network": "build a graph of named nodes and edges",
            "input": "entry of data",
            "output": "exit of data",
            "linear": "weight matrix, dense or sparse",
            "affine": "weight matrix and bias",
            "scale": "factor for each element",
            "delay": "delay of each element",
            "cubalif": "current-based leaky integrate-and-fire neurons",
            "cubali": "current-based leaky integrators",
            "lif": "leaky integrate-and-fire neurons",
            "li": "leaky integrators",
            "integrate_and_fire": "integrate-and-fire neurons",
            "integrator": "integrators",
            "node": "node of any type, also of one that is registered",
            "Edges": "synapses of a sparse weight matrix",
            "with_dense_weights": "the same graph with dense matrices",
            "Layer": "what these functions return: a node before its size and weights are set",
        },
    ),
    "initializers": Topic(
        title="Initial weights",
        introduction="Each function returns an initialiser: a function of a random source and a "
        "shape. Pass it as `weight` or `bias` to a layer of [](build.md).",
        module="jaxsnn.nir.initializers",
        summaries={
            "constant": "the same value everywhere",
            "normal": "normal distribution",
            "uniform": "uniform distribution in [low, high)",
            "kaiming_normal": "normal distribution with variance gain² / inputs",
            "kaiming_uniform": "uniform distribution with variance gain² / inputs",
            "xavier_normal": "normal distribution with variance 2 gain² / (inputs + outputs)",
            "xavier_uniform": "uniform distribution with variance 2 gain² / (inputs + outputs)",
            "fans": "return fan-in and fan-out of a weight",
            "generator_of": "return the NumPy generator of a seed",
            "seed_words": "return the integers of a seed or a `jax.random` key",
        },
    ),
    "torch": Topic(
        title="PyTorch modules",
        introduction="These functions need the extra `torch` and the framework. "
        "Guide: [](../../guide_convert.md).",
        module="jaxsnn",
        summaries={
            "from_torch": "make a graph of a module of snnTorch, Norse or SpikingJelly, with the "
            "reset, delay and readout that their exporters lose; compares both before it returns",
            "to_torch": "make a `torch.nn.Module` of a graph, which takes `(x, state)` and runs as "
            "the graph's framework does; returns a dict if there are several Outputs",
            "load_into": "set weights, decays and thresholds of your own module from a graph or a "
            "file (only weights, for a module of `to_torch`); what does not fit is named, and "
            "nothing is set",
            "split_module": "split a module into an encoder, its graph and a decoder: what forward "
            "computes before, in and after its loop over time",
        },
    ),
    "simulation": Topic(
        title="Simulation",
        introduction="Guides: [](../../guide_simulate.md), [](../../guide_streams.md), "
        "[](../../guide_devices.md). Inputs and solutions: [](inputs_and_solutions.md).",
        module="jaxsnn",
        summaries={
            "simulate": "simulate a network, or a graph, which is lowered first; differentiable",
            "lower": "make the `Network` that the engines run",
            "Network": "a pytree of parameters by NIR node and name; `with_parameters` replaces "
            "them",
            "update_graph": "write the parameters of a trained network into the graph from which it "
            "was lowered",
            "with_synaptic_delays": "add a delay to each synapse, or each input, of a Linear or "
            "Affine node, to be simulated and trained by events",
            "EventDriven": "the exact engine in continuous time, with its options",
            "TimeStepped": "the engine that steps as the framework that wrote the file does",
            "FastSigmoid": "surrogate derivative 1 / (1 + slope \\|u\\|)²",
            "ArcTan": "surrogate derivative alpha / 2 / (1 + (π alpha u / 2)²)",
            "Sigmoid": "surrogate derivative slope s (1 - s), s = 1 / (1 + exp(-slope u))",
            "StraightThrough": "surrogate derivative 1",
            "stream": "start a session that takes events as they come and returns spikes as soon as "
            "they are certain; exact, in bounded memory",
            "EventStream": "the session: `push(events, until)`, `voltage(population)`, `time`, "
            "`waiting`, `save(path)`, `restore(path)`",
        },
    ),
    "inputs_and_solutions": Topic(
        title="Inputs and solutions",
        introduction="Guide: [](../../guide_simulate.md). Axes and units: [](../../axes.md).",
        module="jaxsnn",
        summaries={
            "Events": "spikes as arrays `time` (seconds, `inf` in unused slots) and `index`; "
            "`Events.of_steps(x, dt)` converts spike counts (time, batch, channels)",
            "poisson_events": "draw a Poisson spike train for each channel",
            "GradedEvents": "spikes with a size: `time`, `index` and `value`, NIR's "
            "`ValuedEventData`",
            "Currents": "piecewise constant currents: `Currents.held(x, dt)` of a value per step, "
            "`Currents.constant(x)` of static images",
            "Solution": "what the solutions of both engines have in common: `spikes`, "
            "`events(name)`, `voltages`, `outputs`, `result`, `notes`, `late`",
            "EventSolution": "solution of the event engine, with exact maxima and integrals of "
            "voltages",
            "SteppedSolution": "solution of the time-stepped engine: `output()`, `y`, recorded "
            "`spikes` and `voltages`",
            "Result": "how a run ended",
            "neurobench": "compute the metrics of NeuroBench of a run: footprint, sparsities, synaptic "
            "operations; definitions: [](../../guide_results.md#neurobench-metrics)",
            "NeuroBench": "result of `neurobench`: `as_text()`, `as_dict()`",
        },
    ),
    "comparison": Topic(
        title="Comparisons",
        introduction="Guides: [](../../guide_convert.md), [](../../guide_results.md).",
        module="jaxsnn",
        summaries={
            "verify": "simulate a recorded input of the source framework and compare the output, "
            "spike train by spike train",
            "Verification": "result of `verify`: identical trains, and the first difference",
            "fidelity": "compare continuous time with time steps on your data",
            "compare_resets": "count the spikes that resets to v_reset change on your data",
        },
    ),
    "training": Topic(
        title="Training",
        introduction="Guide: [](../../guide_finetune.md). All options: [](../options.md). "
        "Data and encoders: [](data.md). Losses: [](losses.md).",
        module="jaxsnn.train",
        summaries={
            "jaxsnn.fit": "train a graph",
            "fit": "the same function",
            "TrainOptions": "all options of a training run",
            "Fit": "result of `fit`: graph, accuracies, history, notes",
            "EpochRecord": "one epoch of the history; epoch 0 is before training",
            "EpochReport": "what a callback receives after an epoch",
            "TrainingStopped": "error of a run that cannot continue; `fit` has the best epoch",
            "evaluate": "return the accuracy of a graph on labelled samples",
            "evaluate_neurobench": "return the metrics of NeuroBench of a graph on labelled samples",
            "accuracy": "return the fraction of predictions that equal the label",
            "calibrated": "scale weights, layer by layer, until a fraction of the neurons fires",
            "tune": "train a network of another framework in continuous time, also for fewer spikes",
            "OPTIMISERS": "optimisers by name",
            "SCHEDULES": "schedules of the learning rate by name",
            "TRAINABLE": "default constraint of each parameter that can be trained",
            "Constraint": "protocol of constraints of parameters",
            "Free": "any value",
            "Positive": "above a lower bound",
            "Bounded": "between two bounds",
            "unconstrain": "numbers for your own training loop, with time constants in log space",
            "join_processes": "let several processes train together",
        },
    ),
    "data": Topic(
        title="Data, encoders, augmentation",
        introduction="Guide: [](../../guide_data.md).",
        module="jaxsnn.train",
        summaries={
            "Data": "labelled samples",
            "Splits": "samples for training, validation and test",
            "splits_of_arrays": "split samples and labels at random",
            "events_of_arrays": "convert structured arrays with fields t and p, or t, x, y and p",
            "data_of_recordings": "use pairs of a structured array and a label, such as data of tonic",
            "save_events": "write recordings of events to a file for `fit` and the command line",
            "data_of_nir": "read labelled samples of an Input node from NIR's data format",
            "yinyang": "points of the Yin-Yang figure with their labels",
            "yinyang_splits": "the Yin-Yang task with the sizes of its paper",
            "digits_splits": "the 8x8 digits of scikit-learn",
            "japanese_vowels_splits": "JapaneseVowels",
            "mnist_splits": "MNIST",
            "fashion_mnist_splits": "Fashion-MNIST",
            "Encoder": "protocol of encoders: functions from values to spikes",
            "Latency": "a spike per value, large values first (or small ones)",
            "Rate": "a Poisson spike train per value",
            "Current": "a constant current per value",
            "PopulationCode": "a spike of the channel whose centre is nearest",
            "LevelCrossing": "spikes where a signal crosses levels, a channel per level",
            "Delta": "a spike for each change of a signal by a step",
            "Compose": "augmentation: several changes in a row",
            "Warp": "augmentation: mirror, shift, rotate, scale and deform images",
            "Jitter": "augmentation: shift spikes in time",
            "Dropout": "augmentation: remove spikes",
            "Stretch": "augmentation: multiply all times by a factor",
            "ChannelShift": "augmentation: shift samples by groups of channels",
        },
    ),
    "losses": Topic(
        title="Losses and regularisers",
        introduction="Guide: [](../../guide_loss.md).",
        module="jaxsnn.train",
        summaries={
            "LOSSES": "losses by name",
            "FirstSpike": "`ttfs`: cross-entropy of first spike times",
            "SpikeTimes": "`mse`: shift-invariant squared error of first spike times",
            "SpikeCount": "`count`: cross-entropy of spike counts",
            "MaxOverTime": "`max`: cross-entropy of the maxima of readout voltages",
            "MeanOverTime": "`mean`: cross-entropy of the means over time of readout voltages or values",
            "Integral": "`integral`: cross-entropy of the integrals of readout voltages",
            "ExponentialSum": "`exp-sum`: cross-entropy of exponentially weighted sums",
            "Loss": "protocol of losses",
            "Reading": "what a loss can read of a run, from any engine",
            "register_loss": "add a loss by name, also for `jaxsnn train --loss`",
            "Regulariser": "protocol of additional terms of the loss",
            "SpikeRate": "regulariser: neurons fire a target number of times in a sample",
            "SpikeBudget": "regulariser: an upper bound on the spikes of all neurons",
            "PeakMargin": "regulariser: voltages of silent neurons come close to the threshold",
            "WeightBumping": "raise the input weights of silent neurons",
        },
    ),
    "chip": Topic(
        title="BrainScaleS-2",
        introduction="Guide: [](../../guide_chip.md). The chip: [](../../chip.md).",
        module="jaxsnn",
        summaries={
            "quantize": "convert a graph to the integers of the chip (weights of 6 bit and a sign, "
            "voltages in LSB), and report what that loses",
            "place_and_route": "place and route the netlist of a quantised graph: it fits, is proven "
            "impossible, or the search gives up",
            "check_mapping": "list all violations of a mapping, by sending every event through the "
            "chip",
            "emulate": "run a mapping on an emulated chip",
            "EmulatedChip": "an emulated chip: seed of its fixed pattern, size of its deviations, "
            "or `ideal=True`",
            "jaxsnn.train.on_chip": "return an engine that trains on an emulated chip",
            "jaxsnn.train.InTheLoop": "engine that trains on the recorded spikes of a device, with "
            "exact gradients at their times",
            "jaxsnn.train.Device": "protocol of devices in the loop, such as your chip",
        },
    ),
    "plot": Topic(
        title="Pictures",
        introduction="Guide: [](../../guide_results.md). The functions need the extra `plot`.",
        module="jaxsnn.plot",
        summaries={
            "graph": "nodes and edges of a graph",
            "raster": "spikes of samples, a row per population",
            "voltage": "membrane potentials with thresholds and spikes",
            "histogram": "firing rates over time",
            "encodings": "a sample and what encoders make of it",
            "fidelity": "spikes in continuous time and in time steps",
            "first_difference": "the neuron that first differs from a recording",
            "learning_curve": "loss and error by epoch",
            "weights": "distributions of weights, before and after training",
            "floorplan": "placement of a mapping on the chip",
            "Picture": "what these functions return: shown in notebooks, saved by `save`",
            "SpikeTrain": "spikes of one population in one sample",
        },
    ),
    "extensions": Topic(
        title="Node types, neuron models, frameworks",
        introduction="Guides: [](../../guide_neuron.md), [](../../extending.md). Losses and "
        "encoders: [](losses.md).",
        module="jaxsnn",
        summaries={
            "NodeTraits": "a type of node: parameters, shapes, what it computes",
            "register_node": "add a type of node; files with it are then read, checked, simulated, "
            "trained, drawn and written",
            "NeuronModel": "a neuron model that NIR does not have",
            "register_neuron": "add a neuron model",
            "Framework": "a framework: its dialects, importers and layers",
            "register_framework": "add a framework",
        },
    ),
    "errors": Topic(
        title="Errors and warnings",
        introduction="Errors are one line: what is wrong, with the node and the numbers, and what to "
        "do. Examples and codes: [](../messages.md). Warnings: [](../../guide_results.md#warnings).",
        module="jaxsnn",
        summaries={
            "JaxsnnError": "base class of all errors",
            "ApproximationWarning": "issued once per call, lists the notes whose kind is not "
            '"information"',
            "EnvironmentWarning": "a temporary file was left behind, or a cache is not used",
            "Note": "an element of `notes`: a sentence with a `kind` (dropped, truncated, "
            "approximated, assumed, information) and a `code` for scripts",
        },
    ),
}


# ---- text


def plain(text: str) -> str:
    """Return the text of a docstring as Markdown: code stays code, all else is escaped."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        part if number % 2 else re.sub(r"([*_<>\[\]|$\\])", r"\\\1", part)
        for number, part in enumerate(parts)
    )


def described(record: Any) -> str:
    """Return a docstring as Markdown: prose, lists of arguments, examples."""
    lines: list[str] = []
    in_example = False
    for line in inspect.cleandoc(record.__doc__ or "").splitlines():
        stripped = line.strip()
        if stripped.startswith(">>>") and not in_example:
            lines.append("\n```pycon")
            in_example = True
        elif in_example and not stripped:
            lines.append("```\n")
            in_example = False
        if in_example:
            lines.append(line)
        elif stripped.rstrip(":") in SECTIONS:
            lines.append(f"\n**{SECTIONS[stripped.rstrip(':')]}**\n")
        elif argument := re.match(r"    (\*{0,2}\w[\w, .*]*): (.*)", line):
            lines.append(f"- `{argument[1]}`: {plain(argument[2])}")
        elif line.startswith("        "):
            lines.append(f"  {plain(stripped)}")
        else:
            lines.append(plain(stripped))
    lines += ["```"] if in_example else []
    return "\n".join(lines)


class _Source(str):
    """A piece of a signature that is printed as it is, without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def signature_of(name: str, record: Any) -> str:
    """Return a call with its arguments, their types and defaults, in one line."""
    try:
        signature = inspect.signature(record)
    except (TypeError, ValueError):
        return name
    parameters = []
    for parameter in signature.parameters.values():
        if isinstance(parameter.annotation, str):
            parameter = parameter.replace(annotation=_Source(parameter.annotation))
        default = parameter.default
        if inspect.isfunction(default) or inspect.isbuiltin(default):
            parameter = parameter.replace(default=_Source(default.__name__))
        elif repr(default) == "<factory>":
            parameter = parameter.replace(default=_Source("..."))
        if parameter.name != "self":
            parameters.append(parameter)
    text = str(inspect.Signature(parameters)).replace("\n", " ")
    return f"{name}{text}"


# ---- pages


def public_names(module: Any) -> list[str]:
    """Return the public names of a module."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return [name for name in listed if name != "__version__"]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]


def resolve(full_name: str) -> Any:
    """Return a public object by its module and name."""
    module, _, name = full_name.rpartition(".")
    return getattr(import_module(module), name)


def reference_page() -> str:
    """Return the first page: what there is, and the list of the other pages."""
    rows = [
        f"| [](reference/{page}.md) | {', '.join(link_to(name) for name in topic.objects)} |"
        for page, topic in TOPICS.items()
    ]
    modules = [f"| `{name}` | {purpose} |" for name, purpose in REFERENCE.items()]
    entries = "\n".join(f"reference/{page}" for page in TOPICS)
    return "\n".join(
        [
            "# Python reference\n",
            "Find an object by its name with the search, or in the [index](genindex).\n",
            "`import jaxsnn` loads neither JAX nor NumPy: public names are resolved on first use. "
            "Times are in seconds. The order of axes is the same everywhere: [](../axes.md).\n",
            "| page | objects |",
            "|---|---|",
            *rows,
            "\n## Modules\n",
            "| module | contents |",
            "|---|---|",
            *modules,
            f"\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n",
        ]
    )


def link_to(full_name: str) -> str:
    """Return a link to the entry of an object."""
    return f"{{py:obj}}`{full_name.rpartition('.')[2]} <{full_name}>`"


def topic_pages() -> dict[str, str]:
    """Return all pages of topics by file name."""
    entries: dict[int, str] = {}
    modules: set[str] = set()
    pages = {}
    for page, topic in TOPICS.items():
        parts = [f"# {topic.title}\n", topic.introduction + "\n"]
        if topic.module not in modules:
            modules.add(topic.module)
            purpose = REFERENCE[topic.module]
            parts.append(f"```{{py:module}} {topic.module}\n:synopsis: {purpose}\n```\n")
        parts += ["| object | description |", "|---|---|"]
        for full_name, summary in zip(topic.objects, topic.summaries.values(), strict=True):
            parts.append(f"| {link_to(full_name)} | {summary} |")
        parts.append("")
        for full_name in topic.objects:
            value = resolve(full_name)
            original = entries.setdefault(id(value), full_name)
            parts.append(entry_of(full_name, value, original))
        pages[page] = "\n".join(parts)
    return pages


def entry_of(full_name: str, value: Any, original: str) -> str:
    """Return the entry of an object; an object with two names is described at the first."""
    module, _, name = full_name.rpartition(".")
    if not callable(value):
        text = f"`{type(value).__name__}`: {', '.join(f'`{key}`' for key in value)}"
        return directive("py:data", name, text, module)
    if original != full_name:
        text = f"Another name of {link_to(original)}."
        return directive("py:function", name, text, module)
    if not inspect.isclass(value):
        return directive("py:function", signature_of(name, value), described(value), module)
    with_arguments = full_name not in RETURNED and not is_protocol(value)
    kind = "py:exception" if issubclass(value, BaseException) else "py:class"
    heading = signature_of(name, value) if with_arguments else name
    body = "\n\n".join([described(value), *members_of(value)])
    if issubclass(value, enum.Enum):
        body += "\n" + "\n".join(f"- `{member.name}`: {member.value}" for member in value)
    return directive(kind, heading, body, module)


def is_protocol(record: type) -> bool:
    """Return whether a class is a `typing.Protocol`."""
    return bool(getattr(record, "_is_protocol", False))


def members_of(record: type) -> Iterator[str]:
    """Yield the entries of the public methods and properties of a class, inherited ones last."""
    members: dict[str, Any] = {}
    for base in record.__mro__:
        if base is record or (base.__module__.startswith("jaxsnn") and not is_protocol(base)):
            for name, value in vars(base).items():
                members.setdefault(name, value)
    for name in getattr(record, "__dataclass_fields__", ()):
        members.pop(name, None)
    for name, value in members.items():
        is_property = isinstance(value, property)
        function = value.fget if is_property else getattr(value, "__func__", value)
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        text = described(function)
        if is_property:
            yield directive("py:property", name, text)
        elif isinstance(value, classmethod | staticmethod):
            bound = getattr(record, name)
            option = type(value).__name__
            yield directive("py:method", signature_of(name, bound), f":{option}:\n\n{text}")
        else:
            yield directive("py:method", signature_of(name, function), text)


def directive(kind: str, argument: str, body: str, module: str = "") -> str:
    """Return a directive of Sphinx around a text, with a fence that is longer than those inside."""
    fence = "`" * (4 if kind in ("py:method", "py:property") else 5)
    option = f":module: {module}\n\n" if module else ""
    return f"{fence}{{{kind}}} {argument}\n{option}{body}\n{fence}\n"
