"""The lowered network that the engines run: populations, their connections, and the events between
them.
"""
