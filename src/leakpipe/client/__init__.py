"""One client's local training as a pure, differentiable function."""
