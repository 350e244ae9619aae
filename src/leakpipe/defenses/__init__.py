"""Defences: pure functions from a client's update to the update that it shares."""
