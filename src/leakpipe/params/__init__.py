"""What params.yaml may say: one file per section, schema only."""
