"""The attack's step by hand: forward, backward, tangent and reverse pass of a network, layer by layer."""
