"""What noise guarantees: ε of a federation under differential privacy, and bounds on any attack's reconstruction."""
