"""Gradient inversion: the attacker's observation, the objective that an attack minimises, and the search."""
