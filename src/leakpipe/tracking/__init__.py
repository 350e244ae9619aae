"""Uploads run records and the curves of running attacks to MLflow."""
