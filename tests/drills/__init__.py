"""Drills: what breaks in real life, broken on purpose. `make drill` runs the quick ones; see docs/reliability.md."""
