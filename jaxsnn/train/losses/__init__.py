"""Training objectives: losses, the results that they read, regularisers, and remedies for
silent neurons.
"""
