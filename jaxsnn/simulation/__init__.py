"""Running a network with either engine, and what is made of the result: verification, fidelity,
checks.
"""
