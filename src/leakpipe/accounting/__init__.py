"""What noise guarantees: ε of a federation under differential privacy, and bounds on what any attack can rebuild."""
