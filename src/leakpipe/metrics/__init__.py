"""Measures of leakage: similarity, matching of reconstructions to originals, RDLV."""
