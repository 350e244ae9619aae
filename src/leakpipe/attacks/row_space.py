"""The row-space term: what a layer read must be made of the rows of its weight gradient.

A convolution's weight gradient is a sum over positions of (gradient of the loss at its output) ⊗ (patch of its input).
Its row space therefore lies in the span of the true patches; where there are fewer positions than output channels it
is, in general, all of their span, known without knowing the loss, the labels or any other layer. Behind batch
normalisation in training mode the output gradients sum to zero over the positions, so it is the span of the centred
patches; centred patches lie in it in any case. (Linear layers: SPEAR, Dimitrov et al. 2024; DAGER, Petrov et al. 2024.)

A candidate's patches outside of that space cannot be the client's. How much of them is outside is smooth in the
candidate and needs one backward pass, where the distance of updates needs two and is rough in deep networks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from leakpipe.models.state import Tensors

CLEARLY_ABOVE = 2.0  # times the largest singular value that would be zero without noise
ROUNDING = 1e-6  # of the largest singular value; float32 gradients of exact rank leave 1e-7

Seen = Mapping[str, Sequence[Tensor]]


@contextmanager
def record_layer_inputs(module: nn.Module, names: Iterable[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Collect what the named layers read in every forward pass made inside the block, by layer name."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    layers = dict(module.named_modules())
    handles = [
        layers[name].register_forward_pre_hook(lambda _layer, inputs, kept=kept: kept.append(inputs[0]))
        for name, kept in seen.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def plain_convolutions(module: nn.Module) -> list[str]:
    """Names of the convolutions that multiply every patch with one matrix: no groups, no dilation, zeros around."""
    convolutions = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)}
    wanted = (1, (1, 1), "zeros")
    return [n for n, layer in convolutions.items() if (layer.groups, layer.dilation, layer.padding_mode) == wanted]


def centred_patches(layer: nn.Conv2d, features: Tensor) -> Tensor:
    """What the convolution multiplies its matrix with, less the mean over batch and positions.

    Args:
        features: Its input in one forward pass, shape (batch, channels, height, width).

    Returns:
        Shape (batch · positions, channels · kernel height · kernel width), in the order of the flattened weight.
    """
    size, padding, stride = layer.kernel_size, layer.padding, layer.stride
    patches = nn.functional.unfold(features, size, padding=padding, stride=stride).transpose(1, 2).flatten(0, 1)  # type: ignore[arg-type]
    return patches - patches.mean(dim=0)


def find_row_spaces(module: nn.Module, update: Tensors, seen: Seen) -> dict[str, Tensor]:
    """Row spaces of the layers whose update gives away the span of their patches.

    The rank of a layer's update is at most the number of positions less one, summed over the forward passes (local
    steps). A layer has something to say where this is less than both sides of its weight matrix. Singular values beyond
    it would be zero: those that are there measure the noise in the update, and directions that are not clearly above
    it are left out.

    Args:
        update: Weight differences by parameter name.
        seen: What each layer read, one tensor per local step, of any image: only shapes are used.

    Returns:
        Orthonormal columns, shape (channels · kernel height · kernel width, directions), by layer.
    """
    layers = dict(module.named_modules())
    spaces = {}
    for name, features in seen.items():
        layer = layers[name]
        assert isinstance(layer, nn.Conv2d)
        matrix = update[f"{name}.weight"].flatten(1)
        rank = sum(_positions(layer, each) - 1 for each in features)
        if not 0 < rank < min(matrix.shape):
            continue
        _, values, rows = torch.linalg.svd(matrix.double(), full_matrices=False)
        floor = max(CLEARLY_ABOVE * float(values[rank]), ROUNDING * float(values[0]))
        kept = int((values[:rank] > floor).sum())
        if kept:
            spaces[name] = rows[:kept].T.to(matrix.dtype).contiguous()
    return spaces


def row_space_distance(module: nn.Module, seen: Seen, spaces: Mapping[str, Tensor]) -> Tensor:
    """Share of the centred patches' squared length that lies outside of the row space, averaged over layers.

    Args:
        seen: What each layer read of the candidates, one tensor per local step; may require a gradient.
        spaces: As `find_row_spaces` returns them; at least one.

    Returns:
        A scalar in [0, 1]; 0 where the patches of every layer are made of the rows of its update.
    """
    layers = dict(module.named_modules())
    shares = []
    for name, basis in spaces.items():
        layer = layers[name]
        assert isinstance(layer, nn.Conv2d)
        patches = torch.cat([centred_patches(layer, features) for features in seen[name]])
        total = patches.square().sum()
        shares.append(1 - (patches @ basis).square().sum() / total.clamp_min(torch.finfo(total.dtype).tiny))
    return torch.stack(shares).mean()


def _positions(layer: nn.Conv2d, features: Tensor) -> int:
    """Patches in one forward pass."""
    return len(centred_patches(layer, features[:, :1]))
