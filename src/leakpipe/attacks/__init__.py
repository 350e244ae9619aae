"""Gradient inversion: what an attacker has seen, what it minimises, and the loop that does it."""
