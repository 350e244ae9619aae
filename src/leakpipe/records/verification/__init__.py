"""Verification that results on disk are those that the recorded parameters, code, data and environment produce."""
