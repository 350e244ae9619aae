"""Run records to MLflow."""
