"""`simulate` on the grid: inputs, options, results, and what is refused by name."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, Result, TimeStepped, lower, read, simulate
from jaxsnn.errors import LoweringError, SimulationError, UsageError
from jaxsnn.grid.stepped_solution import SteppedSolution
from jaxsnn.network.spikes import dense_to_events
from jaxsnn.nir import build
from tests.helpers.refusals import assert_refused

DT = 1e-3


@pytest.fixture(scope="module")
def network():
    graph = build.sequential(
        build.input(4),
        build.linear(6),
        build.cubalif(tau_mem="10ms", tau_syn="5ms", v_threshold=0.4),
        build.linear(2),
        build.cubali(tau_mem="10ms", tau_syn="5ms"),
        seed=1,
    )
    return lower(graph)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).random((20, 3, 4)) < 0.5


def test_arrays_and_events_are_one_input(network, x):
    dense = simulate(network, x, engine=TimeStepped(dt=DT, record=True))
    events = dense_to_events(x, DT)
    sorted_in = simulate(network, events, 20 * DT, engine=TimeStepped(dt=DT, record=True))
    np.testing.assert_array_equal(dense.output(), sorted_in.output())
    assert dense.output().shape == (20, 3, 2)
    assert dense.spikes["2"].shape == dense.voltages["2"].shape == (20, 3, 6)
    assert 0 < dense.spikes["2"].mean() < 1
    assert (sorted_in.rounded["input"], sorted_in.late["input"]) == (0, 0)
    assert dense.rounded == {}
    assert dense.dt == DT


def test_what_is_rounded_or_late_is_counted(network):
    time = np.array([[0.0, 0.4, 1.6, 19.4, 19.6, np.inf]]) * DT
    events = Events(time=time, index=np.array([[0, 1, 2, 3, 0, 4]]))
    solution = simulate(network, events, 20 * DT, engine=TimeStepped(dt=DT))
    assert (int(solution.rounded["input"]), int(solution.late["input"])) == (4, 1)
    dense = np.zeros((20, 1, 4))
    dense[[0, 0, 2, 19], 0, [0, 1, 2, 3]] = 1
    same = simulate(network, dense, engine=TimeStepped(dt=DT))
    np.testing.assert_array_equal(solution.output(), same.output())


def test_two_events_in_one_step_are_two(network):
    voltages = []
    for count in (1, 2):
        events = Events(time=np.full((1, count), 2 * DT), index=np.ones((1, count), int))
        solution = simulate(network, events, 8 * DT, engine=TimeStepped(dt=DT, record=True))
        voltages.append(solution.voltages["2"][3])
    np.testing.assert_allclose(2 * voltages[0], voltages[1], rtol=1e-5)


ZEROS, SPIKE = np.zeros((5, 2, 4)), Events(time=np.zeros((1, 1)), index=np.zeros((1, 1), int))


class Unhashable:
    __hash__ = None

    def derivative(self, u):
        return u


def stepped(**options):
    return {"engine": TimeStepped(**{"dt": DT} | options)}


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (
            np.zeros((5, 2, 3)),
            {},
            r"input 'input' has shape \(5, 2, 3\): pass an array of shape \(time, batch, 4\)",
        ),
        (np.zeros((5, 4)), {}, r"input 'input' has shape \(5, 4\)"),
        (np.zeros((0, 2, 4)), {}, "0 time steps, 2 samples"),
        ({"x": ZEROS}, {}, "no input 'x'"),
        ({}, {}, "input 'input'"),
        (ZEROS, {"t_end": 7 * DT}, "'t_end': 7"),
        (ZEROS, {"t_end": 0.1 * DT}, "less than half a time step"),
        (SPIKE, {}, "pass t_end"),
        (SPIKE, {"engine": EventDriven()}, "t_end is missing"),
        (
            Events(time=SPIKE.time, index=SPIKE.index + 4),
            {"t_end": DT},
            r"4 channels \(0 to 3\), but an event has channel 4",
        ),
        (Events(time=SPIKE.time - 1, index=SPIKE.index), {"t_end": DT}, "at time -1 s"),
        (ZEROS, {"sample_times": [0.0]}, "does not support sample_times"),
        (ZEROS, stepped(record=("3",)), "record contains '3', which is not a population"),
        (ZEROS, stepped(dt=-1.0), "dt = -1 s: pass a positive dt"),
        (ZEROS, stepped(record=1), r"record is 1: pass a tuple of names"),
        (ZEROS, stepped(record="2"), r"record is '2': pass a tuple of names, \(\"2\",\)"),
        (ZEROS, stepped(surrogate=5), r"surrogate is 5: Available: fast-sigmoid"),
        (ZEROS, stepped(surrogate=["atan"]), r"surrogate is \['atan'\]: did you mean 'atan'"),
        (
            ZEROS,
            stepped(surrogate=Unhashable()),
            "is not hashable, which caching of compiled code requires: make it a",
        ),
    ],
)
def test_inputs_and_options_that_do_not_fit_are_refused(network, inputs, options, message):
    call = partial(simulate, network, inputs, **stepped() | options)
    assert_refused(call, UsageError, message)


def test_what_is_not_a_number_is_reported_with_its_node(network, x):
    weight = network.parameters["1"]["weight"].at[0, 0].set(jnp.nan)
    broken = network.with_parameters({**network.parameters, "1": {"weight": weight}})
    engine = TimeStepped(dt=DT)
    call = partial(simulate, broken, x, engine=engine)
    assert_refused(call, SimulationError, r"node '1': weight\[0, 0\] is nan and must")
    assert int(call(throw=False).result) == Result.NOT_FINITE
    infinite = partial(simulate, network, np.where(x, np.inf, 0.0), engine=engine)
    says = r"'input': the value in step \d+, sample \d+, channel \d+ is inf"
    assert_refused(infinite, SimulationError, says)


def test_bad_events_are_reported_under_jit(network):
    @jax.jit
    def result(time, index):
        events = Events(time=time, index=index)
        return simulate(network, events, 5 * DT, engine=TimeStepped(dt=DT), throw=False).result

    index = jnp.zeros((1, 1), int)
    assert result(jnp.zeros((1, 1)), index) == Result.SUCCESS
    assert result(jnp.full((1, 1), -DT), index) == Result.INVALID_INPUT
    assert result(jnp.zeros((1, 1)), index - 1) == Result.INVALID_INPUT


def test_output_is_looked_up_by_name(network, x):
    solution = simulate(network, x, engine=TimeStepped(dt=DT))
    assert solution.output("output") is solution.output()
    assert solution.message == "success"
    assert_refused(lambda: solution.output("6"), UsageError, "'6' is not an Output")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("snntorch_v_leaky_sub", {}, "node '1': the neuron model needs reset, .* pass reset="),
        ("snntorch_v_leaky_sub", {"reset": "zero"}, "needs reset_delay, .* pass reset_delay="),
        (
            "snntorch_v_leaky_sub",
            {"reset": ["1:zero"], "reset_delay": True},
            "node '3': .* reset=",
        ),
        ("norse_v_lifbox", {}, "pass dt_export="),
        ("norse_v_lifbox", {"dt_export": DT}, "needs dt, .* pass dt="),
        ("sinabs_v_lif", {"dialect": "sinabs"}, "needs norm_input, .* pass norm_input="),
        ("spikingjelly_v_lif", {"dialect": "spikingjelly"}, "needs dt, .* pass dt="),
        ("jaxsnn_b_cubalif", {"dialect": "hxtorch"}, "unit of time: pass time_unit="),
        ("jaxsnn_b_cubalif", {"dialect": "hxtorch", "time_unit": "ms"}, "needs dt"),
    ],
)
def test_what_nobody_said_is_refused_by_its_option(zoo, name, options, message):
    network = lower(read(zoo[name], **{"dialect": name.split("_")[0], **options}))
    x = np.zeros((2, 1, network.inputs[next(iter(network.inputs))]))
    assert_refused(partial(simulate, network, x, engine=TimeStepped()), LoweringError, message)


def test_nothing_is_asked_for_that_is_not_needed(zoo):
    # Spyx's IF has neither dt nor a unit of time, Sinabs counts steps, and a readout needs no
    # reset.
    for name, options in (
        ("spyx_v_if", {"dialect": "spyx"}),
        ("sinabs_v_iaf", {"dialect": "sinabs"}),
        ("snntorch_v_li", {"reset": ["1:zero"], "reset_delay": ["1:false"], "readout": ["3"]}),
    ):
        simulate(lower(read(zoo[name], **options)), np.zeros((2, 1, 5)), engine=TimeStepped())


def test_a_length_of_a_step_may_be_said_once(zoo):
    x = np.zeros((2, 1, 5))
    for options in ({}, {"dt": DT}):
        network = lower(read(zoo["norse_v_lifbox"], dialect="norse", dt_export=DT, **options))
        assert simulate(network, x, engine=TimeStepped(dt=DT)).dt == DT
    call = partial(simulate, network, x, engine=TimeStepped(dt=2e-3))
    assert_refused(call, UsageError, r"dt = 0.002 s, but node '1' has a time step of 0.001 s")


def test_membranes_of_spiking_populations_are_those_after_the_reset(zoo):
    network = lower(read(zoo["norse_v_lifbox"], dialect="norse", dt_export=DT, dt=DT))
    x = np.random.default_rng(0).random((50, 4, 5)) < 0.3
    solution = simulate(network, x, engine=TimeStepped(record=("1",)))
    assert list(solution.spikes) == list(solution.voltages) == ["1"]
    fired = np.asarray(solution.spikes["1"]) > 0
    assert fired.any()
    assert (np.asarray(solution.voltages["1"])[fired] == 0).all()


def test_populations_of_several_dimensions(zoo):
    graph = read(zoo["snntorch_d_conv_avgpool_vec"], reset="zero", reset_delay=True)
    network = lower(graph)
    shapes = {wire.name: wire.shape for wire in network.wires}
    x = np.ones((4, 2, *network.wires[0].shape))
    solution = simulate(network, x, engine=TimeStepped(record=True))
    for name, spikes in solution.spikes.items():
        assert spikes.shape == (4, 2, *shapes[name])
        assert len(shapes[name]) in (1, 3)


def test_an_engine_is_a_value():
    assert TimeStepped() == TimeStepped()
    assert hash(TimeStepped(record=("a",))) == hash(TimeStepped(record=("a",)))
    assert dataclasses.replace(TimeStepped(), dt=1.0) != TimeStepped()


def solution_of(spikes, v, **changes):
    """A solution by hand: "n" fires, "r" is read out."""
    fields = {"y": {"out": v}, "spikes": {"n": spikes}, "voltages": {"v": v}, "finite": {}}
    fields |= {"rounded": {}, "late": {}, "dt": DT, "feeding": (("out", ("r",)),)}
    fields |= {"result": jnp.asarray(Result.SUCCESS), "spiking": ("n",), "approximations": ()}
    return SteppedSolution(**fields | changes)


def test_what_losses_read_is_of_all_steps():
    rng = np.random.default_rng(0)
    spikes, v = rng.integers(0, 3, (6, 2, 3)).astype(float), rng.normal(size=(6, 2, 1))
    spikes[:, 1, 2], spikes[:2, 0, 0] = 0, 0
    solution = solution_of(jnp.asarray(spikes), jnp.asarray(v))
    first = np.where(spikes.any(0), (spikes > 0).argmax(0) * DT, np.inf)
    weight = np.exp(-np.arange(6)[:, None, None] * DT / 2e-3)
    for value, expected in (
        (solution.first_spike("n"), first),
        (solution.count("n"), spikes.sum(0)),
        (solution.counts["n"], spikes.sum(0)),
        (solution.spikes_recorded, spikes.sum()),
        (solution.spike_sum("n", 2e-3), (spikes * weight).sum(0)),
        (solution.maximum("r"), v.max(0)),
        (solution.maximum("v"), v.max(0)),
        (solution.integral("r"), v.sum(0) * DT),
        (solution.integral("r", 2e-3), (v * weight).sum(0) * DT),
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert solution.outputs == {"out": ("r",)}
    assert_refused(
        lambda: solution.count("x"), UsageError, "neither spikes nor voltages of 'x' are recorded"
    )


def test_a_solution_describes_itself():
    spikes, v = jnp.zeros((6, 2, 3)), jnp.zeros((6, 2, 1))
    fine = solution_of(spikes, v, late={"in": jnp.asarray(2)}, approximations=("rough",))
    assert (fine.message, fine.problem) == ("success", None)
    late = "input 'in': events after the last time step that are ignored: 2 (times are in seconds)"
    assert fine.notes == ("rough", late)
    lines = ["SteppedSolution(SUCCESS, 6 steps of 1 ms, 2 samples", "  out: (6, 2, 1)"]
    assert repr(fine).splitlines() == [*lines, "  notes: 2)"]
    counted = solution_of(spikes, v, dt=None)
    assert repr(counted).startswith("SteppedSolution(SUCCESS, 6 steps, 2 samples")
    traced = []
    jax.jit(lambda s: traced.append((repr(s), s._repr_html_(), s.notes)) or s)(fine)
    assert traced == [("SteppedSolution(out; traced)", None, ("rough",))]


@pytest.mark.parametrize(
    ("result", "finite", "message"),
    [
        (Result.NOT_FINITE, {"n": jnp.asarray(False)}, "the membrane potential of 'n' is NaN"),
        (Result.NOT_FINITE, {}, "an input or a parameter is NaN"),
        (Result.INVALID_INPUT, {}, "an event has a negative time"),
    ],
)
def test_a_solution_says_what_failed(result, finite, message):
    spikes, v = jnp.zeros((6, 2, 3)), jnp.zeros((6, 2, 1))
    solution = solution_of(spikes, v, result=jnp.asarray(result), finite=finite)
    assert message in solution.message


def test_spikes_are_of_neurons_that_fire_and_voltages_of_what_has_them():
    spikes, v = jnp.ones((6, 2, 3)), jnp.full((6, 2, 1), 0.5)
    solution = solution_of(spikes, v, finite={"n": jnp.array(True), "r": jnp.array(True)})
    for read_spikes in (solution.count, solution.first_spike, solution.events):
        says = "'r' transmits its membrane potential and has no spikes"
        assert_refused(partial(read_spikes, "r"), UsageError, says)
    for read_voltage in (solution.maximum, solution.integral):
        says = "the voltages of 'n' are not recorded"
        assert_refused(partial(read_voltage, "n"), UsageError, says)
    # A Threshold, for example, is not a population: its output is summed.
    np.testing.assert_array_equal(solution_of(spikes, v).count("r"), [[3.0], [3.0]])


@pytest.mark.parametrize(
    ("t_end", "steps", "noted"), [(20.4, 20, True), (19.6, 20, True), (20.001, 20, False)]
)
def test_an_end_between_steps_is_noted(network, t_end, steps, noted):
    solution = simulate(network, SPIKE, t_end * DT, engine=TimeStepped(dt=DT))
    assert len(solution.output()) == steps
    notes = [note for note in solution.notes if "is not a multiple of the time step, 1 ms" in note]
    assert len(notes) == noted


@pytest.mark.parametrize("record", [["2", "4"], {"4", "2"}, ("2", "4")])
def test_names_to_record_are_taken_in_any_collection(network, x, record):
    solution = simulate(network, x, engine=TimeStepped(dt=jnp.float32(DT), record=record))
    assert set(solution.voltages) == {"2", "4"}


def test_time_constants_that_are_changed_without_what_is_tied_to_them_are_noted():
    """snnTorch's steps take beta from r: a change of tau alone does nothing."""
    layers = build.linear(weight=[[0.4, 0.3]]), build.lif(1, tau=1e-3, r=10.0)
    options = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
    network = lower(build.sequential(build.input(2), *layers, **options))

    def run(**factors):
        neuron = {
            key: value * factors.get(key, 1) for key, value in network.parameters["2"].items()
        }
        changed = network.with_parameters({**network.parameters, "2": neuron})
        return simulate(changed, np.ones((8, 1, 2)), engine=TimeStepped())

    alone, both, neither = run(tau=2.0), run(tau=2.0, r=2.0), run()
    np.testing.assert_array_equal(alone.output(), neither.output())
    (note,) = [note for note in alone.notes if "node '2': tau and r of neuron 0" in note]
    assert "are 0.002 s and 10, which do not match a time step of 100 us" in note
    assert both.notes == neither.notes == ()
