"""The schema of params.yaml, one module per section. No code that computes results: it would not be tracked."""
