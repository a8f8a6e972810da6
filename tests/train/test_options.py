"""One record of options behind `fit`, the command, its configuration file and its documentation."""

import ast
import dataclasses
import inspect
import json
from pathlib import Path

import pytest

import jaxsnn
from jaxsnn.commands import train_command
from jaxsnn.commands.arguments import Parser
from jaxsnn.errors import UsageError
from jaxsnn.train import SpikeRate, TrainOptions, fit
from jaxsnn.train.options import (
    OPTIONS,
    check_options,
    flag_of,
    names_in_files,
    options_table,
    options_with,
)
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, small_net

FIELDS = [field.name for field in dataclasses.fields(TrainOptions)]
FLAGGED = [name for name in FIELDS if OPTIONS[name].has_flag]
IN_FILES = [name for name in FIELDS if OPTIONS[name].convert is not None]


def parsed(*argv):
    """Return the options that the command makes of arguments."""
    parser = Parser()
    train_command.add(parser.add_subparsers(parser_class=Parser))
    arguments = parser.parse_args(["train", "net.nir", "-o", "out.nir", *argv])
    return train_command.options_of(arguments)


def configured(tmp_path, text, *argv):
    (tmp_path / "run.toml").write_text(text)
    return parsed("--config", str(tmp_path / "run.toml"), *argv)


def test_the_page_has_the_table_of_the_record():
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    assert options_table() in page, (
        "replace the table of jaxsnn train in docs/cli.md by what this prints: "
        'python -c "from jaxsnn.train.options import options_table; print(options_table())"'
    )


def test_every_field_is_described_once():
    assert list(OPTIONS) == FIELDS
    for name, option in OPTIONS.items():
        assert option.help_text, name
        assert f"\n        {name}: " in TrainOptions.__doc__
        assert len(option.help_text) <= 120, name
    assert list(inspect.signature(fit).parameters) == ["graph", "data", "options", "fields"]


def test_an_option_stands_in_two_files():
    """In the record, and where it acts; only checkpoints also know its name of earlier versions."""
    package = Path(jaxsnn.__file__).parent
    naming = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "ema_decay" in path.read_text()
    }
    acting = {"train/loop/epoch.py", "train/loop/checkpoint.py"}
    assert naming == {"train/options.py", "train/fit_keywords.py", *acting}


TABLE = '[trainable]\nweight = {kind = "free"}\n'


@pytest.mark.parametrize(
    ("text", "argv", "name", "value"),
    [
        ("resume = true\n", [], "resume", True),
        ("", ["--resume"], "resume", True),
        ("", [], "resume", False),
        (TABLE, [], "trainable", {"weight": {"kind": "free"}}),
        (TABLE, ["--train", "bias"], "trainable", ("bias",)),
    ],
)
def test_a_flag_goes_before_what_the_file_says(text, argv, name, value, tmp_path):
    assert getattr(configured(tmp_path, f'data = "yinyang"\n{text}', *argv), name) == value


def test_the_parser_is_made_of_the_record():
    parser = Parser()
    commands = parser.add_subparsers()
    train_command.add(commands)
    train = commands.choices["train"]
    train.complete()
    actions = {action.dest: action for action in train._actions if action.dest in OPTIONS}
    assert list(actions) == FLAGGED
    assert len(FLAGGED) > 25
    for name, action in actions.items():
        assert {*action.option_strings} == {f"--{flag_of(name)}", *OPTIONS[name].other_flags}
        assert action.metavar == (OPTIONS[name].metavar or None)
        assert OPTIONS[name].help_text.replace("`", "") in action.help


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("--data yinyang", {"data": "yinyang"}),
        (
            "--data x.npz --lr 0.1 --train weight,2.tau_mem --t-end 40ms --batch-size 7 --resume"
            " --engine loop --headroom 2:1.5,4:3 --chip-seed 3",
            {
                "data": "x.npz",
                "learning_rate": 0.1,
                "trainable": ("weight", "2.tau_mem"),
                "t_end": 0.04,
                "batch_size": 7,
                "engine": "loop",
                "headroom": {"2": 1.5, "4": 3.0},
                "chip_seed": 3,
                "resume": True,
            },
        ),
    ],
    ids=["the defaults of fit", "flags"],
)
def test_flags_become_fields(line, fields):
    assert parsed(*line.split()) == TrainOptions(**fields)


@pytest.mark.parametrize("rate", ["lr", "learning_rate", "learning-rate"])
def test_a_file_says_the_same_by_flag_or_by_field_and_flags_win(rate, tmp_path):
    text = f"""
data = "yinyang"
{rate} = 0.1
batch_size = 8
epochs = 3
t-end = "40ms"
train = ["weight", "bias"]
resume = true
[weight_bumping]
label = 2.0
[loss-options]
temperature = 0.1
"""
    assert configured(tmp_path, text, "--batch-size", "16") == TrainOptions(
        data="yinyang",
        learning_rate=0.1,
        batch_size=16,
        epochs=3,
        t_end=0.04,
        resume=True,
        weight_bumping={"label": 2.0},
        loss_options={"temperature": 0.1},
    )


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("lr = 0.1\nlearning-rate = 0.2\n", ("lr", "learning-rate")),
        ('train = "weight"\n[trainable]\nbias = {}\n', ("train", "trainable")),
    ],
)
def test_an_option_stands_once_in_a_file(text, keys, tmp_path):
    message = rf"run\.toml sets \w+ twice, as {keys[0]} and as {keys[1]}:"
    assert_refused(lambda: configured(tmp_path, text), UsageError, message)


@pytest.mark.parametrize("value", ["[1]", "{a = 1}"])
@pytest.mark.parametrize("name", [name for name in IN_FILES if not OPTIONS[name].table])
def test_values_of_another_type_are_refused_with_where_they_stand(name, value, tmp_path):
    text, message = f"{flag_of(name)} = {value}\n", rf"run\.toml: {flag_of(name)} is .*: pass "
    assert_refused(lambda: configured(tmp_path, text), UsageError, message)


def test_what_only_python_can_say_is_not_in_files(tmp_path):
    only = set(FIELDS) - set(IN_FILES)
    assert {"regularisers", "progress", "checkpoint"} <= only
    assert only.isdisjoint(names_in_files().values())
    assert_refused(
        lambda: configured(tmp_path, "progress = 1\n"), UsageError, "there is no option 'progress'"
    )


def test_fit_takes_a_record_or_fields_and_fields_win():
    record = TrainOptions(epochs=7, batch_size=16, progress=None)
    assert options_with(record, {}) == record
    assert options_with(record, {"epochs": 2}) == dataclasses.replace(record, epochs=2)
    assert options_with(None, {"epochs": 2}) == TrainOptions(epochs=2)
    assert options_with(None, {"trainable": ["bias"]}) == TrainOptions(trainable=("bias",))
    trained = fit(small_net(), DATA, options=record, epochs=1)
    assert trained.settings["epochs"] == 1
    assert trained.settings["batch_size"] == 16
    again = fit(small_net(), options=dataclasses.replace(record, data=DATA, epochs=1))
    assert again.as_dict() == trained.as_dict()
    assert_refused(
        lambda: fit(small_net(), DATA, learning=0.1),
        UsageError,
        "there is no option 'learning': did you mean 'lear",
    )


def test_the_record_of_a_run_has_the_options_that_decide_it():
    recorded = [name for name, option in OPTIONS.items() if option.recorded]
    trained = fit(small_net(), DATA, epochs=1, progress=None, dropout=0.1)
    assert list(trained.settings) == recorded
    assert trained.settings["augment"] == {"name": "Dropout", "probability": 0.1}
    json.dumps(trained.settings, allow_nan=False)


def test_only_what_is_compiled_in_makes_other_code():
    first = TrainOptions(epochs=3, seed=1, clip=2.0, trainable={"weight": {}}, ema_decay=0.5)
    second = TrainOptions(epochs=9, seed=2, clip=2.0, progress=None, ema_decay=0.5)
    assert first.compiled_only() == second.compiled_only()
    assert hash(first.compiled_only()) == hash(second.compiled_only())
    assert first.compiled_only() != dataclasses.replace(first, clip=3.0).compiled_only()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chip_seed": 1}, 'chip_seed=1 requires engine="loop", and the engine is event'),
        ({"runs": 2, "engine": "grid"}, 'runs=2 requires engine="loop", and the engine is grid'),
        (
            {"regularisers": (SpikeRate(),), "engine": jaxsnn.TimeStepped()},
            'regularisers requires engine="event" or "loop", and the engine is grid',
        ),
        ({"devices": 2, "engine": "loop"}, 'devices=2 requires engine="event" or "grid"'),
        ({"engine": 3}, "3 is not an engine"),
        ({"copies": 0}, "copies is 0: pass at least 1"),
        (
            {"processes": 2},
            "2 processes need an address to connect to each other: pass coordinator=",
        ),
        (
            {"process": 1},
            "process is 1, and the number of processes is 1: number the processes from 0 to 0",
        ),
        ({"seed": 1.5}, r"seed is 1\.5: pass an integer of at least 0, or one key of jax.random"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_loaded(options, message):
    assert_refused(lambda: check_options(TrainOptions(**options)), UsageError, message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_options": {"t_max": "60ms"}}, "loss_options: t_max is '60ms': pass a number"),
        ({"encoder_options": {"least": "0.2"}}, "encoder_options: least is '0.2'"),
        ({"weight_bumping": {"hidden": "much"}}, "weight_bumping: hidden is 'much'"),
        ({"engine_options": {"min-slope": "0.1"}}, "engine_options: min_slope is '0.1'"),
        (
            {"dropout": 0.3, "augment": {"dropout": 0.1}},
            "dropout is 0.3, and that of augment is 0.1",
        ),
        ({"dropout": 0.1, "augment": abs}, "dropout is 0.1, and augment is also specified"),
        ({"loss_options": {"gain": 1.0}}, "loss_options has no field 'gain'"),
        (
            {"loss": "ttfs", "loss_options": {"late-weight": 0.1, "late_weight": 0.2}},
            "loss_options has late_weight twice",
        ),
        (
            {"engine_options": {"max-spikes": 4, "max_spikes": 8}},
            "engine_options has max_spikes twice",
        ),
        ({"encoder_options": {"t-max": 0.1, "t_max": 0.2}}, "encoder_options has t_max twice"),
        (
            {"augment": {"channel-shift": [1, 2, 4], "channel_shift": [1, 2, 4]}},
            "augment has channel_shift twice",
        ),
        (
            {"engine": "loop", "engine_options": {"device": "x"}},
            "engine_options contains a device",
        ),
        ({"plot": "x.png"}, "plot is supported on the command line only"),
        ({"copies": 2}, "copies is only for tasks that are selected by name"),
        ({"data_folder": "x"}, "data_folder is only for tasks that are selected by name"),
    ],
)
def test_options_that_cannot_act_are_refused(options, message):
    assert_refused(lambda: fit(small_net(), DATA, **options, progress=None), UsageError, message)


def test_every_public_name_is_one_of_the_lazy_ones():
    tree = ast.parse(Path(jaxsnn.train.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == jaxsnn.train._HOME
    assert [
        name for name in jaxsnn.train.__all__ if getattr(jaxsnn.train, name, None) is None
    ] == []
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = jaxsnn.train.fitt


def test_the_record_is_read_without_numpy_or_jax(run_python):
    code = """
import sys
from jaxsnn.train.options import TrainOptions, check_options, options_table
check_options(TrainOptions(engine="loop"))
options_table()
print([name for name in ("numpy", "h5py", "jax", "optax", "nir") if name in sys.modules])
"""
    assert run_python(code).stdout == "[]\n"


def test_no_message_of_training_speaks_of_flags():
    """Advice is in the words of Python; the command line translates it."""
    folder = Path(jaxsnn.train.__file__).parent
    mentions = []
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith(
                ("Error", "Stopped")
            ):
                texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                mentions += [text for text in texts if isinstance(text, str) and "--" in text]
    assert [text for text in mentions if "XLA_FLAGS" not in text] == []


def test_short_and_long_names_of_the_learning_rate_are_accepted_everywhere(tmp_path):
    assert options_with(None, {"lr": 0.5}) == options_with(None, {"learning_rate": 0.5})
    for flag in ("--lr", "--learning-rate"):
        assert configured(tmp_path, 'data = "yinyang"', flag, "0.5").learning_rate == 0.5
    for name in ("lr", "learning-rate", "learning_rate"):
        text = f'data = "yinyang"\n{name} = 0.5'
        assert configured(tmp_path, text).learning_rate == 0.5
    with pytest.raises(UsageError, match="twice"):
        options_with(None, {"lr": 0.5, "learning_rate": 0.5})
