"""Running a network with either engine, and evaluating the result: verification, fidelity,
checks.
"""
