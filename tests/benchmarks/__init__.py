"""How near the attack's step is to what the machine could do: `python -m tests.benchmarks --help`."""
