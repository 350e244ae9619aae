"""Engines: how an attack simulates local training on candidates and differentiates it."""
