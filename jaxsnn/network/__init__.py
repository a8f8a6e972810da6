"""What the engines run: the network, its populations, what connects them, and the events between
them.
"""
