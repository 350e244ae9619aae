"""The losses that clients minimise."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from leakpipe.params.training import LossParams


def training_loss(logits: Tensor, labels: Tensor, loss: LossParams) -> Tensor:
    """Returns the loss of a batch, a scalar.

    Cross-entropy with class weights is averaged as torch does: over the weights of the images' classes where labels are
    indices, over the images where they are shares.

    Args:
        logits: Shape (batch, classes).
        labels: As in `leakpipe.client.batches.Batch`. For binary cross-entropy a share is the target of its class
            alone, and an index stands for one class with target 1.
        loss: Which loss.
    """
    weights = None if loss.class_weights is None else logits.new_tensor(loss.class_weights)
    if loss.kind == "cross-entropy":
        value = cross_entropy(
            logits, labels, weight=weights, reduction=loss.reduction, label_smoothing=loss.label_smoothing
        )
    else:
        targets = labels if labels.is_floating_point() else one_hot(labels, logits.shape[1]).to(logits.dtype)
        value = binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction=loss.reduction)
    return value if loss.factor == 1 else value * loss.factor
