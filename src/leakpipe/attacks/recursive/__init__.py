"""Recursive inversion: a residual network's feature maps by linear algebra, then the image below them."""
