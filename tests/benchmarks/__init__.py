"""The attack's step beside what the machine could do: `python -m tests.benchmarks --help`."""
