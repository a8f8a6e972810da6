"""Large weights transposed by a kernel: the same numbers, gradients and spikes as by XLA."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.event.native import native_weights
from jaxsnn.event.native.native_build import target_name
from jaxsnn.nir import build
from tests.event.agreement import assert_trees_equal, finite_times

pytestmark = pytest.mark.usefixtures("x64", "native_kernels")
TAU, T_END = 5e-3, 0.06


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 70),
    columns=st.integers(0, 70),
    threads=st.integers(1, 3),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_every_number_goes_to_its_place(rows, columns, threads, dtype):
    matrix = np.arange(rows * columns, dtype=dtype).reshape(rows, columns)
    transposed = native_weights._transpose(threads, jnp.asarray(matrix))
    np.testing.assert_array_equal(transposed, matrix.T)


def test_derivatives_of_any_order_are_those_of_turning():
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))

    def value(turn, matrix):
        return (jnp.arange(5.0) * turn(matrix) ** 3).sum()

    by_kernel, by_xla = partial(native_weights._transpose, 1), jnp.transpose
    for derivative in (jax.grad, jax.hessian):
        derivatives, expected = (
            derivative(partial(value, by))(matrix) for by in (by_kernel, by_xla)
        )
        np.testing.assert_allclose(derivatives, expected, rtol=1e-14)
    many = jnp.stack([matrix, 2 * matrix])
    np.testing.assert_array_equal(jax.vmap(by_kernel)(many), many.swapaxes(1, 2))


def test_a_result_that_does_not_fit_is_an_error():
    call = jax.ffi.ffi_call(
        target_name("jaxsnn_transpose", "float64"), jax.ShapeDtypeStruct((2, 3), jnp.float64)
    )
    for shape in ((2, 3), (6,), (3, 2, 1)):
        with pytest.raises(Exception, match="matrix"):
            call(jnp.zeros(shape), threads=np.int64(1))


def network(recurrent):
    rng = np.random.default_rng(1)
    neurons = {"tau_mem": 2 * TAU, "tau_syn": TAU}
    nodes = {
        "in": build.input(12),
        "to": build.linear(weight=rng.normal(0.4, 0.8, (9, 12))),
        "hidden": build.cubalif(9, **neurons),
        "back": build.linear(weight=rng.normal(0, 0.2, (9, 9))),
        "on": build.affine(weight=rng.normal(0.5, 0.8, (4, 9)), bias=rng.normal(0, 0.1, 4)),
        "out": build.cubalif(4, **neurons),
    }
    ways = [("in", "to", "hidden", "on", "out")]
    if not recurrent:
        del nodes["back"]
        return lower(build.network(nodes, ways), dtype="float64")
    return lower(build.network(nodes, [*ways, ("hidden", "back", "hidden")]), dtype="float64")


@pytest.mark.parametrize("recurrent", [False, True])
def test_networks_with_transposed_weights_give_the_same_bits(
    recurrent, monkeypatch, auto_is_native
):
    rng = np.random.default_rng(2)
    events = Events(
        time=jnp.asarray(np.sort(rng.uniform(0, 0.05, (3, 60)), axis=1)),
        index=jnp.asarray(rng.integers(0, 12, (3, 60)), jnp.int32),
    )
    net = network(recurrent)

    def value(engine, parameters):
        solution = simulate(net.with_parameters(parameters), events, T_END, engine=engine)
        times = solution.spikes["out"].time
        return finite_times(times).sum(), times

    transposed, by_kernel = [], native_weights.transpose_by_kernel

    def counted(threads, matrix):
        transposed.append(matrix.shape)
        return by_kernel(threads, matrix)

    monkeypatch.setattr(native_weights, "transpose_by_kernel", counted)
    results = []
    for large, threads in ((2**16, 1), (0, 2)):  # different engines share no program
        monkeypatch.setattr(native_weights, "_LARGE", large)
        monkeypatch.setattr(native_weights, "_WIDE", large)
        run = partial(value, EventDriven(max_spikes=40, threads=threads))
        results.append(jax.value_and_grad(run, has_aux=True)(net.parameters))
        assert bool(transposed) == (large == 0)
    ((_, times), _), _ = results
    assert np.isfinite(np.asarray(times)).sum() > 20
    assert_trees_equal(*results)
