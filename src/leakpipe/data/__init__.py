"""Data sets, their partition over clients, and the prior image."""
