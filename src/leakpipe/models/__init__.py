"""Networks as pure functions of their state, and batch normalisation that shows its statistics."""
