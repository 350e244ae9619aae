"""The implications of a model's parameters. Importing this needs no torch."""

from pathlib import Path

from leakpipe.files.quoting import as_path
from leakpipe.params.models import WEIGHTS_FILES, ArchitectureParams, ModelParams

LAYER_NORMALIZED = ("convnext_tiny", "vit_tiny", "vit_b_32")  # `model.normalization` has no effect on them


def has_batch_norm(architecture: ArchitectureParams) -> bool:
    """Returns whether updates of the network hold running statistics."""
    return architecture.normalization == "batch" and architecture.name not in LAYER_NORMALIZED


def why_no_batch_norm(architecture: ArchitectureParams) -> str:
    """Returns why a network has no batch normalisation, as a clause that follows those words."""
    if architecture.name in LAYER_NORMALIZED:
        return f"which {architecture.name!r} does not have"
    return f"which model.normalization: {architecture.normalization} replaces"


def starting_weights(model: ModelParams) -> str:
    """Returns the weights that the first training starts with, never `public`."""
    return model.pretraining.start if model.weights == "public" else model.weights


def weights_file(model: ModelParams) -> Path | None:
    """Returns the file that the first training starts with; None if the parameters name no file."""
    weights = starting_weights(model)
    return as_path(weights) if weights.endswith(WEIGHTS_FILES) else None
