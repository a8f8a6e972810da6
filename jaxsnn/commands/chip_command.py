"""`jaxsnn chip inputs`: writes a data set as input of the scripts of a deployed network."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jaxsnn.commands.arguments import (
    add_command,
    add_file,
    add_notes,
    output_options,
    print_outcome,
    read_graph,
    refuse_no_population,
)
from jaxsnn.errors import UsageError, suggestion
from jaxsnn.options import DATA, DATA_FOLDER, SEED
from jaxsnn.wording import Option, Text

if TYPE_CHECKING:
    from jaxsnn.network.network import Network

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class ChipOutcome:
    """Outcome of `jaxsnn chip inputs`.

    Attributes:
        samples: Number of samples.
        input: Name of the Input node.
        events: Number of events in all samples.
        duration: Time of the last event, seconds of the network.
        output: Path of the file.
    """

    samples: int
    input: str
    events: int
    duration: float
    output: str

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict."""
        return {"schema": 1, **vars(self)}

    def as_text(self) -> str:
        """Return human-readable text."""
        return (
            f"{self.samples} samples, {self.events} events of '{self.input}', the last at "
            f"{self.duration:.4g} s\n{self.output}"
        )


_PART = Option(
    name="part", help="part of the data set: test (default), validation or train", default="test"
)
_POPULATION = Option(
    name="population",
    help="output population, with one neuron per class; its time constant sets the time scale "
    "of the encoding (default: the population that feeds the Output)",
    metavar="NODE",
)
_SAMPLES = Option(
    name="samples", help="write only the first N samples (default: all)", metavar="N", convert=int
)


def add(commands: Any) -> None:
    """Add the parser."""
    parser = add_command(
        commands,
        "chip",
        run,
        "write a data set as input of the deployed scripts",
        DATA.but(required=True, help="data set: yinyang, digits, japanese-vowels or an .npz file"),
        _PART,
        _POPULATION,
        _SAMPLES,
        SEED.but(help="random seed of the data set (default 0)"),
        DATA_FOLDER.but(help="folder with JapaneseVowels, if aeon is not installed"),
        *output_options(
            "X.npz", "file to write, with the arrays NAME.time, NAME.index and label", required=True
        ),
    )
    parser.add_argument(
        "action", metavar="inputs", choices=("inputs",), help="input events of a deployed network"
    )
    add_file(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0."""
    import numpy as np

    from jaxsnn.event.event_driven import EventDriven
    from jaxsnn.network.lowering.lower import lower
    from jaxsnn.output import refuse_shared, refuse_unwritable, write_arrays
    from jaxsnn.train.data.batches import encoded
    from jaxsnn.train.data.datasets import select_samples
    from jaxsnn.train.data.labelled_files import data_files, load_splits
    from jaxsnn.train.data.named_encoders import make_encoder
    from jaxsnn.train.loop.defaults import reference_tau

    read = data_files(arguments.data, arguments.data_folder)
    refuse_shared(read, {"-o": arguments.output})
    output = refuse_unwritable(arguments.output, arguments.force)
    if arguments.samples is not None and arguments.samples < 1:
        message = Text("{option} is {value}", option=_SAMPLES, value=arguments.samples)
        raise UsageError(message, fix="pass an integer of at least 1")
    if arguments.part not in PARTS:
        raise UsageError(
            Text("there is no part '{part}'", part=arguments.part),
            fix=suggestion(arguments.part, PARTS),
        )
    network = lower(read_graph(arguments))
    splits, notes = load_splits(arguments.data, arguments.seed, folder=arguments.data_folder)
    data = getattr(splits, arguments.part)
    if arguments.samples is not None:
        data = select_samples(data, np.arange(min(arguments.samples, len(data))))
    last = _answering(network, arguments.population)
    encoder = None
    if not hasattr(data.x, "time"):
        encoder, encoder_note = make_encoder(splits, reference_tau(network, last))
        notes = [*notes, encoder_note]
    batch = encoded(
        data,
        network,
        population=last,
        encoder=encoder,
        engine=EventDriven(),
        data_name=f"{arguments.data} ({arguments.part})",
    )
    (name,) = network.inputs
    time, index = np.asarray(batch.inputs.time, float), np.asarray(batch.inputs.index)
    arrays = {f"{name}.time": time, f"{name}.index": index, "label": np.asarray(batch.labels)}
    write_arrays(output, arrays, arguments.force)
    add_notes(arguments, notes)
    used = np.isfinite(time)
    print_outcome(
        arguments,
        ChipOutcome(
            samples=len(time),
            input=name,
            events=int(used.sum()),
            duration=float(time[used].max(initial=0.0)),
            output=os.fspath(output),
        ),
    )
    return 0


def _answering(network: Network, population: str | None) -> str:
    """Return the name of the output population.

    Raises:
        UsageError: There is no such population, or several populations feed the outputs and none is
            specified.
    """
    from jaxsnn.train.loop.defaults import output_node

    if population is None:
        try:
            return output_node(network)
        except UsageError as error:
            fix = "pass the output population, --population NODE"
            raise UsageError.of(replace(error.problem, fix=fix)) from error
    refuse_no_population(network, population)
    return population
