"""The row-space term: what a layer read must be made of the rows of its weight gradient.

A convolution's weight gradient is a sum over positions of (gradient of the loss at its output) ⊗ (patch of its input).
Its row space therefore lies in the span of the true patches; where there are fewer positions than output channels it
is, in general, all of their span, known without knowing the loss, the labels or any other layer. Before batch
normalisation in training mode the output gradients sum to zero over the positions, so it is the span of the patches
less their mean ("centred"). (Linear layers: SPEAR, Dimitrov et al. 2024; DAGER, Petrov et al. 2024.)

A candidate's patches outside of that space cannot be the client's. How much of them is outside is smooth in the
candidate and needs one backward pass, where the distance of updates needs two and is rough in deep networks.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from leakpipe.attacks.problem import Problem
from leakpipe.attacks.terms.term import Candidates
from leakpipe.models.batchnorm import batch_norm_layers
from leakpipe.models.layers import record_layer_inputs
from leakpipe.models.state import Tensors, measure_statistics

CLEARLY_ABOVE = 2.0  # times the largest singular value that noise of the measured size can have by itself
ROUNDING = 1e-6  # of the largest singular value; float32 gradients of exact rank leave 1e-7

Seen = Mapping[str, Sequence[Tensor]]


class RowSpaceTerm:
    """Share of what convolutions read of the candidates that lies outside of the row space of their weight gradient.

    Attributes:
        spaces: Row spaces by layer, as `find_row_spaces` returns them.
    """

    name = "row_space"

    def __init__(self, problem: Problem) -> None:
        self.problem, self.weight = problem, problem.settings.row_space_weight
        model, observation = problem.model, problem.observation
        # Gradients of convolutions' outputs sum to zero before batch normalisation in training mode.
        training = problem.assumed_training.batch_norm == "training"
        self.centred = training and bool(batch_norm_layers(model.module))
        like = next(iter(model.weights.values()))
        blank = like.new_zeros(observation.client.images, *observation.image_shape)
        with torch.no_grad():
            seen = self._look(blank, plain_convolutions(model.module))
        told = {name: problem.reading.drifted(name, value) for name, value in observation.update.weights.items()}
        self.spaces = find_row_spaces(model.module, told, seen, centred=self.centred)

    def value(self, candidates: Candidates) -> Tensor:
        """A scalar in [0, 1], 0 where all patches are made of the rows of their layer's update."""
        one_step = self.problem.one_step
        seen = candidates.forward[1] if one_step else self._look(candidates.network_images, self.spaces)
        return row_space_distance(self.problem.model.module, seen, self.spaces, centred=self.centred)

    @property
    def notes(self) -> list[str]:
        """Notes that a reader needs on the row spaces."""
        return [f"The update gives away the row space of what {len(self.spaces)} convolutions read."]

    def _look(self, images: Tensor, layers: Iterable[str]) -> Seen:
        """Returns what convolutions read of images, one tensor per local step.

        Before the k-th of n steps the client's model is assumed to have gone (k − 1)/n of the way of the update.
        """
        before, moved = self.problem.model, self.problem.observation.update.weights
        frozen = self.problem.assumed_training.batch_norm == "frozen"
        with record_layer_inputs(before.module, layers) as seen:
            schedule = self.problem.trainings[0][0]
            for step, positions in enumerate(schedule):
                model, share = before, step / len(schedule)
                if step:
                    weights = {name: value + share * moved.get(name, 0) for name, value in before.weights.items()}
                    model = before.with_tensors(weights, before.statistics)
                measure_statistics(model, images[positions], frozen=frozen)
        return seen


def plain_convolutions(module: nn.Module) -> list[str]:
    """Names of the convolutions that multiply every patch with one matrix: no groups, no dilation, zeros around."""
    convolutions = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)}
    wanted = (1, (1, 1), "zeros")
    return [n for n, layer in convolutions.items() if (layer.groups, layer.dilation, layer.padding_mode) == wanted]


def patches(layer: nn.Conv2d, features: Tensor, *, centred: bool) -> Tensor:
    """Returns what the convolution multiplies its matrix with, less the mean over batch and positions if `centred`.

    Args:
        features: Its input in one forward pass, shape (batch, channels, height, width).

    Returns:
        Shape (batch · positions, channels · kernel height · kernel width), in the order of the flattened weight.
    """
    size, padding, stride = layer.kernel_size, layer.padding, layer.stride
    found = nn.functional.unfold(features, size, padding=padding, stride=stride).transpose(1, 2).flatten(0, 1)  # type: ignore[arg-type]
    return found - found.mean(dim=0) if centred else found


def find_row_spaces(module: nn.Module, update: Tensors, seen: Seen, *, centred: bool) -> dict[str, Tensor]:
    """Row spaces of the layers whose update gives away the span of their patches.

    The rank r of a layer's update is at most the number of positions (less one if `centred`), summed over the forward
    passes (local steps). A layer has something to say where this is less than both sides m, n of its weight matrix.
    Singular values beyond it would be zero: those that are there are noise, whose deviation per entry is the root of
    their squares' sum over (m − r)(n − r). Noise alone has singular values up to about that times √m + √n; directions
    that are not clearly above are left out.

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
        if f"{name}.weight" not in update:
            continue
        matrix = update[f"{name}.weight"].flatten(1)
        rank = sum(len(patches(layer, each[:, :1], centred=False)) - centred for each in features)
        if not 0 < rank < min(matrix.shape):
            continue
        _, values, rows = torch.linalg.svd(matrix.double(), full_matrices=False)
        height, width = matrix.shape
        noise = float(values[rank:].square().sum() / ((height - rank) * (width - rank))) ** 0.5
        floor = max(CLEARLY_ABOVE * noise * (height**0.5 + width**0.5), ROUNDING * float(values[0]))
        kept = int((values[:rank] > floor).sum())
        if kept:
            spaces[name] = rows[:kept].T.to(matrix.dtype).contiguous()
    return spaces


def row_space_distance(module: nn.Module, seen: Seen, spaces: Mapping[str, Tensor], *, centred: bool) -> Tensor:
    """Share of the patches' squared length that lies outside of the row space, averaged over layers.

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
        read = torch.cat([patches(layer, features, centred=centred) for features in seen[name]])
        total = read.square().sum()
        shares.append(1 - (read @ basis).square().sum() / total.clamp_min(torch.finfo(total.dtype).tiny))
    return torch.stack(shares).mean()
