"""What a simulation refuses of inputs, engines and recordings, in which words, and the way out."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import (
    Currents,
    EventDriven,
    Events,
    GradedEvents,
    Result,
    TimeStepped,
    lower,
    plot,
    simulate,
    stream,
    with_synaptic_delays,
)
from jaxsnn.bss2.emulate.emulated_chip import EmulatedChip
from jaxsnn.bss2.emulate.emulation import emulate
from jaxsnn.bss2.search.quantize import quantize
from jaxsnn.errors import FileError, LoweringError, UsageError
from jaxsnn.files.array_files import load_arrays
from jaxsnn.network.inputs import checked_inputs, plain_events
from jaxsnn.network.neuron_models import model_of
from jaxsnn.nir import build
from jaxsnn.nir.io.recorded_data import event_data, graph_data, gridded_data, in_steps, write_data
from jaxsnn.simulation.network_arrays import network_inputs
from jaxsnn.simulation.recordings import inputs_of, inputs_of_nir_data
from jaxsnn.train import FirstSpike, calibrated, evaluate, fit
from jaxsnn.train.loop.defaults import make_loss
from tests.helpers.refusals import assert_refused

DT = 1e-3
NEURONS = {"tau_mem": "20ms", "tau_syn": "10ms"}
SPIKE = Events(time=np.array([[0.01]]), index=np.array([[0]]))
TWO = Events(time=np.zeros((2, 1)), index=np.zeros((2, 1), int))
MASKED = np.ma.array([0.0, 0.01], mask=[False, True])
LATE = np.array([0.01, 0.0])


def one_input(**dialect):
    layers = build.input(2), build.linear(weight=np.ones((2, 2))), build.cubalif(**NEURONS)
    return lower(build.sequential(*layers, **dialect))


def two_inputs():
    nodes = {
        "a": build.input(2),
        "b": build.input(2),
        "n": build.cubalif(2, **NEURONS),
        "out": build.output(2),
    }
    return lower(build.network(nodes, [("a", "n", "out"), ("b", "n")]))


def values(**fields):
    return checked_inputs(
        one_input(), GradedEvents(**{"time": SPIKE.time, "index": SPIKE.index} | fields)
    )


def stepped(inputs, t_end=None, network=None, **options):
    return simulate(network or one_input(), inputs, t_end, engine=TimeStepped(**options))


def solved():
    return stepped(np.zeros((3, 1, 2)), dt=DT)


def without_dt():
    return replace(solved(), dt=None).events("2")


def with_other(key, value, engine=None, node="1"):
    """A run of a network with a parameter of its Affine, or of its neurons "2", changed past
    `with_parameters`.
    """
    layers = (
        build.input(2),
        build.affine(weight=np.ones((3, 2)), bias=1.0),
        build.cubalif(**NEURONS),
    )
    network = with_synaptic_delays(lower(build.sequential(*layers)), "1", np.zeros((3, 2)))
    network.parameters[node][key] = value
    if value is None:
        del network.parameters[node][key]
    return simulate(network, SPIKE, 0.03, engine=engine)


REFUSED = {
    "a transposed weight": (
        lambda: with_other("weight", np.ones((2, 3))),
        "node '1': weight has shape (2, 3)",
        "use shape (3, 2); use jax.vmap for several networks",
    ),
    "a weight without a column": (
        lambda: with_other("weight", np.ones((3, 1))),
        "node '1': weight has shape (3, 1)",
        "use shape (3, 2); use jax.vmap for several networks",
    ),
    "no weight": (
        lambda: with_other("weight", None),
        "node '1' has no weight",
        "add it, with shape (3, 2)",
    ),
    "no time constant": (
        lambda: with_other("tau_mem", None, node="2"),
        "node '2' has no tau_mem",
        "add it, with shape (3,)",
    ),
    "a complex weight": (
        lambda: with_other("weight", np.ones((3, 2), complex)),
        "node '1': weight is complex128",
        "use real numbers, for example its real part",
    ),
    "a bias of one number": (
        lambda: with_other("bias", np.ones(1)),
        "node '1': bias has shape (1,)",
        "use shape (3,); use jax.vmap for several networks",
    ),
    "delays of synapses with another shape": (
        lambda: with_other("delay", np.ones((3, 1))),
        "node '1': delay has shape (3, 1)",
        "use shape (3, 2) or (2,) or (); use jax.vmap for several networks",
    ),
    "in steps a bias of one number": (
        lambda: with_other("bias", np.ones(()), TimeStepped(dt=DT)),
        "node '1': bias has shape ()",
        "use shape (3,); use jax.vmap for several networks",
    ),
    "values in place of events": (
        lambda: checked_inputs(one_input(), np.zeros((3, 2))),
        "input 'input' has type ndarray",
        "pass jaxsnn.Events(time=..., index=...)",
    ),
    "events without samples": (
        lambda: checked_inputs(one_input(), Events(time=np.zeros((0, 1)), index=np.zeros((0, 1)))),
        "input 'input' has no samples (time has shape (0, 1))",
        "pass at least one",
    ),
    "values that are infinite": (
        lambda: values(value=np.array([[np.inf]])),
        "input 'input' has the value inf (sample 0",
        "pass finite values",
    ),
    "masked times": (
        lambda: checked_inputs(one_input(), Events(time=MASKED, index=TWO.index[:, 0])),
        "input 'input': time has masked entries",
        "remove masked entries, or replace them",
    ),
    "masked steps": (
        lambda: Events.of_steps(np.ma.array(np.ones((2, 1, 2)), mask=True), dt=DT),
        "x has masked entries",
        "remove masked entries, or replace them",
    ),
    "masked values": (
        lambda: Currents.constant(np.ma.array([[1.0, 2.0]], mask=[[False, True]])),
        "value has masked entries",
        "remove masked entries, or replace them",
    ),
    "currents that go back": (
        lambda: checked_inputs(one_input(), Currents(time=LATE, value=np.zeros((2, 2)))),
        "input 'input': a piece of the current starts before the previous one",
        "sort the pieces by time",
    ),
    "currents where spikes are wanted": (
        lambda: plain_events({"a": Currents(time=LATE, value=np.zeros((2, 2)))}, "the chip"),
        "input 'a' (Currents) is not supported: the chip supports only spikes",
        "encode the values as jaxsnn.Events",
    ),
    "batches": (
        lambda: checked_inputs(two_inputs(), {"a": SPIKE, "b": TWO}),
        "the inputs have different batch sizes {'a': 1, 'b': 2}",
        "pass the same batch size for all inputs",
    ),
    "no network": (
        lambda: simulate([1], SPIKE, 0.1),
        "an object of type list is not a network",
        "pass the result of jaxsnn.read or jaxsnn.lower",
    ),
    "samples in steps": (
        lambda: TimeStepped(dt=DT).run(one_input(), SPIKE, 0.1, sample_times=[0.05]),
        "does not support sample_times",
        "omit sample_times",
    ),
    "no step": (
        lambda: stepped(SPIKE, dt=0.0),
        "the engine has dt = 0 s",
        "pass a positive dt in seconds",
    ),
    "half a step": (
        lambda: stepped(SPIKE, 0.4 * DT, dt=DT),
        "t_end is 0.0004 s, less than half a time step of 0.001 s",
        "pass a larger t_end",
    ),
    "times without an end": (
        lambda: stepped(SPIKE, dt=DT),
        "input 'input' consists of events, which must be sorted into time steps",
        "pass t_end",
    ),
    "lengths": (
        lambda: stepped(
            {"a": np.zeros((3, 1, 2)), "b": np.zeros((4, 1, 2))}, network=two_inputs(), dt=DT
        ),
        "the inputs have different numbers of time steps, {'a': 3, 'b': 4}",
        "pass inputs with the same number of time steps",
    ),
    "what is not recorded": (
        lambda: solved().events("x"),
        "neither spikes nor voltages of 'x' are recorded",
        'pass TimeStepped(record=("x",))',
    ),
    "steps of no length": (
        without_dt,
        "the length of a time step is not specified",
        "pass TimeStepped(dt=1e-3)",
    ),
    "lengths of arrays": (
        lambda: network_inputs(
            {"a.x": np.zeros((3, 1, 2)), "b.x": np.zeros((4, 1, 2))}, two_inputs(), DT
        ),
        "the inputs have different numbers of time steps, {'a': 3, 'b': 4}",
        "pass inputs with the same number of time steps",
    ),
    "two ways": (
        lambda: network_inputs(
            {"a.x": np.zeros((3, 1, 2)), "b.time": SPIKE.time, "b.index": SPIKE.index},
            two_inputs(),
            DT,
        ),
        "inputs a are time-stepped, but inputs b are events",
        "jaxsnn.Events.of_steps(x, dt)",
    ),
    "events and steps": (
        lambda: in_steps(event_data(SPIKE, 2, 1.0), (2,), None, name="input"),
        "the input consists of events, and the length of a time step is not specified",
        "pass dt=",
    ),
    "events at no time": (
        lambda: event_data(Events(time=np.array([[np.nan]]), index=np.array([[0]])), 2, 1.0),
        "events have a time that is NaN",
        "set unused slots to inf",
    ),
    "values for other slots": (
        lambda: event_data(SPIKE, 2, 1.0, values=np.zeros((1, 2))),
        "values have the shape (1, 2), but events have the shape (1, 1)",
        "pass one value per slot",
    ),
    "a flat recording": (
        lambda: gridded_data(np.zeros((3, 2)), DT),
        "an array of shape (3, 2) is not a recording",
        "its shape must be (time, batch, ...)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_inputs_are_refused_with_a_way_out(case):
    call, message, fix = REFUSED[case]
    with pytest.raises(UsageError) as caught:
        call()
    assert message in caught.value.problem.message
    assert fix in caught.value.problem.fix


RECORDED = {
    "another node": ({"other": np.zeros((3, 1, 2))}, "has no recording of input 'input'"),
    "three neurons": (
        {"input": np.zeros((3, 1, 3))},
        "the recording of 'input' has 3 neurons, but the input has 2",
    ),
    "no sample": (
        {"input": np.zeros((3, 0, 2))},
        "x is empty, its shape is (3, 0, 2)",
    ),
    "slow steps": (
        {"input": np.zeros((3, 1, 2))},
        "the recording of 'input' has time steps of 0.001 s, but the network has 0.002 s",
    ),
}


@pytest.mark.parametrize("case", RECORDED)
def test_recordings_are_refused_by_name(case, tmp_path):
    arrays, message = RECORDED[case]
    data = {name: {"spikes": gridded_data(array, DT)} for name, array in arrays.items()}
    write_data(tmp_path / "data.nir", graph_data(data))
    step = 2 * DT if case == "slow steps" else DT
    with pytest.raises(UsageError) as caught:
        inputs_of_nir_data(tmp_path / "data.nir", one_input(), step)
    assert message in caught.value.problem.message
    assert caught.value.problem.fix


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("value", [None, np.array([[2.0]])])
def test_events_of_another_input_are_refused(size, value, tmp_path):
    data = event_data(SPIKE, size, 1.0, values=value)
    write_data(tmp_path / "data.nir", graph_data({"input": {"spikes": data}}))
    message = f"the recording of 'input' has {size} neurons, but the input has 2"
    assert_refused(
        lambda: inputs_of_nir_data(tmp_path / "data.nir", one_input(), None), UsageError, message
    )


def test_recordings_that_end_at_different_times_are_noted(tmp_path):
    for end in (1.0, 2.0):
        data = {name: {"x": event_data(SPIKE, 2, t)} for name, t in (("a", 1.0), ("b", end))}
        write_data(tmp_path / "data.nir", graph_data(data), force=True)
        _, _, last, notes = inputs_of_nir_data(tmp_path / "data.nir", two_inputs(), None)
        assert last == end
        assert list(notes) == (
            [
                "the recordings end at different times, 'a' at 1 s, 'b' at 2 s; inputs are silent after their end"
            ]
            * (end > 1)
        )


def test_a_damaged_file_of_arrays_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.arange(1000))
    content = bytearray(path.read_bytes())
    content[200:240] = bytes(40)
    path.write_bytes(content)
    assert_refused(lambda: load_arrays(path), FileError, r"x\.npz is not an .npz file of arrays")


def test_a_neuron_that_nobody_registered_is_refused():
    assert_refused(
        lambda: model_of("Izhikevich"),
        LoweringError,
        r"neuron model 'Izhikevich' is not registered\. Available: .*LIF",
    )


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "input.values",
            "array 'input.values' of input 'input' has an unknown name: did you mean 'value'",
        ),
        ("inputs.time", "array 'inputs.time': the network has no input 'inputs'"),
        ("inputs.value", "array 'inputs.value': the network has no input"),
    ],
)
def test_arrays_that_would_not_be_read_are_refused(key, message):
    graph = build.sequential(build.input(1), build.linear(1), build.lif(tau=10e-3), seed=0)
    arrays = {"input.time": np.zeros((1, 1)), "input.index": np.zeros((1, 1), int)}
    network = lower(graph)
    assert inputs_of(arrays, network)
    assert_refused(
        lambda: inputs_of(arrays | {key: np.zeros((1, 1))}, network), UsageError, message
    )


def test_the_integral_between_resets_is_refused():
    graph = build.sequential(build.input(1), build.linear(weight=[[3.0]]), build.lif(tau=10e-3))
    events = Events(time=np.zeros((1, 1)), index=np.zeros((1, 1), int))
    done = simulate(graph, events, 20e-3)
    assert_refused(
        lambda: done.integral("2"), UsageError, "the voltage integral of '2' is not available"
    )
    assert np.isfinite(done.maximum("2")).all()


def graph_with_readout():
    """Two channels into two CubaLIF neurons "n", and a leaky readout "r" behind them."""
    nodes = {
        "in": build.input(2),
        "w": build.linear(weight=np.full((2, 2), 9.0)),
        "n": build.cubalif(2, **NEURONS),
        "wr": build.linear(weight=np.ones((1, 2))),
        "r": build.cubali(1, **NEURONS),
        "out": build.output(1),
    }
    return build.network(nodes, [("in", "w", "n", "wr", "r", "out")])


CHAIN = build.sequential(
    build.input(2), build.linear(weight=np.ones((2, 2))), build.cubalif(**NEURONS)
)
QUANTIZED = quantize(CHAIN)
LABELLED = np.full((8, 2), 0.5), np.zeros(8, int)
#: Functions with the end of a simulation as an argument, called with that end.
TAKES_AN_END = {
    "event engine": lambda end: simulate(one_input(), SPIKE, end),
    "time steps": lambda end: stepped(SPIKE, end, dt=DT),
    "time steps of an array": lambda end: stepped(np.zeros((1000, 1, 2)), end, dt=DT),
    "stream": lambda end: stream(one_input()).push(Events(time=[0.0], index=[0]), until=end),
    "emulated chip": lambda end: emulate(
        QUANTIZED, None, SPIKE, end, chip=EmulatedChip(ideal=True)
    ),
    "raster": lambda end: plot.raster([TRAIN], t_end=end),
    "histogram": lambda end: plot.histogram([TRAIN], t_end=end),
    "fit": lambda end: fit(CHAIN, LABELLED, t_end=end, epochs=1),
    "evaluate": lambda end: evaluate(CHAIN, LABELLED, t_end=end),
    "calibrated": lambda end: calibrated(CHAIN, LABELLED, t_end=end),
    "loss by name": lambda end: make_loss("ttfs", one_input(), end),
    "loss": lambda end: FirstSpike(population="n", tau=1e-2, t_max=end),
}
TRAIN = {"n": plot.SpikeTrain(time=np.array([0.01]), index=np.array([0]), size=1)}


@pytest.mark.parametrize(
    "end",
    [True, np.True_, np.array(True), jnp.array(True), np.nan, -1.0, np.inf, "1s"],
    ids=["True", "np.True_", "array", "jax", "NaN", "negative", "infinite", "text"],
)
@pytest.mark.parametrize("taker", TAKES_AN_END)
def test_what_is_no_time_is_no_end(taker, end):
    with pytest.raises(UsageError) as caught:
        TAKES_AN_END[taker](end)
    openings = ("t_end is", "until is", "t_max is")
    assert any(name in caught.value.problem.message for name in openings)
    assert caught.value.problem.fix


@pytest.mark.parametrize("backend", ["native", "xla"])
def test_a_traced_end_that_is_none_gives_no_numbers(backend):
    """Eagerly each of these raises; inside jit nothing can, so that no number may look right."""
    network, engine = lower(graph_with_readout()), EventDriven(max_spikes=8, backend=backend)

    def numbers(weight, t_end):
        weights = network.parameters | {"w": {"weight": weight}}
        solution = simulate(network.with_parameters(weights), SPIKE, t_end, engine=engine)
        first, largest = solution.first_spike("n"), solution.maximum("r")
        return first.sum() + largest.sum() + solution.integral("r").sum(), solution

    weight = network.parameters["w"]["weight"]
    compiled = jax.jit(jax.value_and_grad(numbers, has_aux=True))
    for end in (np.inf, np.nan, -1.0, 0.0, 1e-40):
        assert_refused(lambda end=end: numbers(weight, end), UsageError, "t_end is")
        (value, solution), gradient = compiled(weight, end)
        assert solution.result == Result.INVALID_INPUT
        assert "t_end is" in solution.message
        assert np.isnan(value)
        assert (np.isnan(gradient) | (gradient == 0)).all()
        assert np.isnan(solution.spikes["n"].time).all()
        assert np.isnan(solution.voltages["r"]).all()
        assert (solution.counts["n"] == -1).all()
    (value, solution), gradient = compiled(weight, 0.3)
    assert solution.result == Result.SUCCESS
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_a_traced_truth_value_is_no_end():
    assert_refused(
        lambda: jax.jit(lambda end: simulate(one_input(), SPIKE, end).result)(True),
        UsageError,
        "t_end is a boolean",
    )


def test_time_steps_need_an_end_that_is_not_traced():
    """The number of steps is the length of an array, which is no number that jit may trace."""
    with pytest.raises(UsageError) as caught:
        jax.jit(lambda end: stepped(SPIKE, end, dt=DT).result)(0.03)
    assert "traced" in caught.value.problem.message
    assert "Tracer" not in caught.value.problem.message


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (
            lambda: checked_inputs(one_input(), Events(time=[[0.01]], index=[[4]])),
            {"input": "input", "size": 2, "maximum": 1, "channel": 4},
        ),
        (lambda: Events.of_steps(np.ones(3), dt=DT), {"shape": (3,)}),
        (
            lambda: with_synaptic_delays(one_input(), "2", 0.001),
            {"node": "2", "type": "neuron"},
        ),
        (
            lambda: simulate(one_input(), SPIKE, 0.1, sample_times=[0.05, 0.25]),
            {"count": 1, "size": 2, "time": 0.25},
        ),
    ],
)
def test_a_problem_has_its_numbers_as_facts(call, facts):
    with pytest.raises((UsageError, LoweringError)) as caught:
        call()
    there = dict(caught.value.problem.facts)
    assert {name: there[name] for name in facts} == facts


@pytest.mark.parametrize(
    ("case", "facts"),
    [
        ("lengths of arrays", {"steps": {"a": 3, "b": 4}}),
        ("two ways", {"stepped": "a", "events": "b"}),
    ],
)
def test_refused_inputs_have_their_sizes_as_facts(case, facts):
    with pytest.raises(UsageError) as caught:
        REFUSED[case][0]()
    assert caught.value.problem.facts == facts


def test_a_refused_array_has_its_place_and_value_as_facts():
    x = np.zeros((3, 1, 2))
    x[2, 0, 1] = np.inf
    with pytest.raises(UsageError) as caught:
        inputs_of({"x": x}, one_input())
    assert caught.value.problem.facts == {"node": "input", "value": np.inf, "index": (2, 0, 1)}
