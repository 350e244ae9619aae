"""How an attack differentiates local training: by autograd, or by the double backward written by hand."""
