"""How V and J of a current-based neuron decay, and the derivatives by its time constants, from the
exponential of the matrix of the ODE tau_mem V' = -V + J, tau_syn J' = -J.
"""

import numpy as np
from scipy.linalg import expm, expm_frechet


def decay(tau_mem, tau_syn, t):
    """em, es, k after a time, V = em V + k J and J = es J, and the derivatives of k by tau_mem and
    tau_syn.

    The matrix is turned first: SciPy exponentiates a triangular one by a formula that loses digits
    at equal taus.
    """
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    turned = lambda matrix: turn @ np.array(matrix) @ turn.T * t  # noqa: E731
    matrix = turned([[-1 / tau_mem, 1 / tau_mem], [0.0, -1 / tau_syn]])
    by_tau_mem = expm_frechet(
        matrix, turned([[1.0, -1.0], [0.0, 0.0]]) / tau_mem**2, compute_expm=False
    )
    by_tau_syn = expm_frechet(
        matrix, turned([[0.0, 0.0], [0.0, 1.0]]) / tau_syn**2, compute_expm=False
    )
    flow, by_tau_mem, by_tau_syn = (
        turn.T @ array @ turn for array in (expm(matrix), by_tau_mem, by_tau_syn)
    )
    return flow[0, 0], flow[1, 1], flow[0, 1], by_tau_mem[0, 1], by_tau_syn[0, 1]
