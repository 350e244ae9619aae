"""What the parameters of a model imply. Importing this needs no torch."""

from leakpipe.params.models import ArchitectureParams, ModelParams


def has_batch_norm(architecture: ArchitectureParams) -> bool:
    """Whether updates of the network hold running statistics."""
    return architecture.normalization == "batch"


def starting_weights(model: ModelParams) -> str:
    """Returns the weights that the first training starts with, never `public`."""
    return model.pretraining.start if model.weights == "public" else model.weights
