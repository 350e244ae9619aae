"""Inputs that nobody would write: a value that is right, or a refusal in a sentence; never anything else."""
