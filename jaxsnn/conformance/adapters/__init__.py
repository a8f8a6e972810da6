"""Adapters, one file for each framework; `jaxsnn.conformance.adapter.Adapter` describes them."""
