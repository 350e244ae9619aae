"""The terms of an attack's objective, one module per subject."""
