"""The hand-written double backward: forward, backward, tangent and reverse pass of a network, layer by layer."""
