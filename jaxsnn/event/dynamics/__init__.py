"""Neuron models of the event engine: one file for each, with its flow, arrivals, crossings and
derivatives.
"""
