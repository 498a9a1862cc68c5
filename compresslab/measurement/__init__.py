"""Measurement: accuracy, bytes, MACs, activation memory and time of a network, and reports on them."""
