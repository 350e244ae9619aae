"""Guarantees that noise gives: ε of a federation under differential privacy, and bounds on any reconstruction."""
