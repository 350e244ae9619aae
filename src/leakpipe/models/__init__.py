"""Networks as pure functions of their tensors, the batch statistics on the way, and the weights they start from."""
