"""An experiment: params.yaml read and checked, the cells of its design, and what they cost.

Everything here is cheap to import (no torch): the Snakefile does so on every start.
"""
