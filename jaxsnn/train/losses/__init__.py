"""Training objectives: losses, what they read of a simulation, regularisers, and remedies for
silent neurons.
"""
