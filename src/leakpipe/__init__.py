"""leakpipe: how much private training data leaks out of federated learning through gradient inversion."""

__version__ = "0.1.0"
