"""Figures: one function per figure, table in, matplotlib Figure out."""
