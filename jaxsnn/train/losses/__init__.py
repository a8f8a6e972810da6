"""What training makes small: losses, what they read of a simulation, regularisers, remedies for
silent neurons.
"""
