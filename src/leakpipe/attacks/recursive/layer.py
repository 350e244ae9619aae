"""All that an update tells about one convolution and the batch normalisation behind it."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, fold, unfold

PRECISION = 1e-4  # relative, of gradients that float32 weights give away where the update is large
ROUNDED = 2e-5  # of the weight's gradient, from which on its noise is worth weighing


@dataclass(frozen=True)
class Layer:
    """A convolution and its batch normalisation, with what is known of the client's one local step. All float64.

    Maps have shape (batch, channels, height, width); "positions" are those of a whole batch.

    Attributes:
        name: The convolution's module.
        weight: Shape (channels out, channels in, kernel, kernel).
        gradient: Of the loss with respect to `weight`, same shape.
        weight_noise: Deviation of what rounding leaves on `gradient`, and of other noise; same shape.
        stride: Of the convolution.
        padding: Zeros on each side.
        scale: Batch normalisation's weight γ, shape (channels out,).
        shift: Its bias β.
        scale_gradient: Of the loss with respect to γ.
        shift_gradient: Of the loss with respect to β.
        gradient_noise: Likewise of the last two, shape (channels out, 2): of the bias's and of the weight's.
        mean: What it subtracted: the batch's mean of the convolution's output.
        variance: The batch's biased variance; it divided by √(variance + ε).
        epsilon: ε.
        input_shape: Of the map that the convolution reads.
        output_shape: Of the map that it gives.
    """

    name: str
    weight: Tensor
    gradient: Tensor
    weight_noise: Tensor
    stride: int
    padding: int
    scale: Tensor
    shift: Tensor
    scale_gradient: Tensor
    shift_gradient: Tensor
    gradient_noise: Tensor
    mean: Tensor
    variance: Tensor
    epsilon: float
    input_shape: tuple[int, int, int, int]
    output_shape: tuple[int, int, int, int]

    def to(self, dtype: torch.dtype) -> "Layer":
        """Returns the same in another precision."""
        changed: dict[str, Any] = {
            name: value.to(dtype) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)

    def of_one_image(self) -> "Layer":
        """Returns the same for maps of a single image of the batch."""
        return replace(self, input_shape=(1, *self.input_shape[1:]), output_shape=(1, *self.output_shape[1:]))

    @property
    def deviation(self) -> Tensor:
        """The divisor of batch normalisation."""
        return (self.variance + self.epsilon).sqrt()

    @property
    def kernel(self) -> int:
        """Height and width of the kernel."""
        return self.weight.shape[-1]

    @property
    def positions(self) -> int:
        """Of the output, over the batch: n."""
        batch, _, height, width = self.output_shape
        return batch * height * width

    @property
    def has_null_space(self) -> bool:
        """Returns whether the gradient's rows span the centred patches: n − 1 is below both sides of the matrix."""
        return 0 < self.positions - 1 < min(self.weight.flatten(1).shape)

    @property
    def noise(self) -> float:
        """The length of the noise on the weight's gradient, relative to the gradient's."""
        return float(self.weight_noise.norm() / self.gradient.norm())

    @property
    def is_rounded(self) -> bool:
        """Returns whether rounding, or other noise, is no small part of the weight's gradient."""
        return self.noise > ROUNDED

    def convolve(self, features: Tensor) -> Tensor:
        """Returns the convolution's output, before batch normalisation."""
        return conv2d(features, self.weight, stride=self.stride, padding=self.padding)

    def convolve_back(self, gradient: Tensor) -> Tensor:
        """Returns the gradient at the convolution's input, of that at its output: the adjoint of `convolve`."""
        height = self.input_shape[2] - ((self.output_shape[2] - 1) * self.stride - 2 * self.padding + self.kernel)
        width = self.input_shape[3] - ((self.output_shape[3] - 1) * self.stride - 2 * self.padding + self.kernel)
        return conv_transpose2d(
            gradient, self.weight, stride=self.stride, padding=self.padding, output_padding=(height, width)
        )

    def normalise(self, output: Tensor) -> Tensor:
        """Returns ẑ, the convolution's output with the batch's known mean and deviation taken out."""
        return (output - by_channel(self.mean)) / by_channel(self.deviation)

    def rescale(self, normalised: Tensor) -> Tensor:
        """Returns γ·ẑ + β."""
        return normalised * by_channel(self.scale) + by_channel(self.shift)

    def unscale(self, value: Tensor) -> Tensor:
        """Returns ẑ of γ·ẑ + β."""
        return (value - by_channel(self.shift)) / by_channel(self.scale)

    def forward(self, features: Tensor) -> Tensor:
        """Returns what the convolution and its batch normalisation make of `features`."""
        return self.rescale(self.normalise(self.convolve(features)))

    def enter(self, received: Tensor, normalised: Tensor, *, own_means: bool = False) -> Tensor:
        """Returns Δ, the gradient before batch normalisation, of that behind it.

        Args:
            received: Gradient behind batch normalisation, shape of the output.
            normalised: ẑ, same shape.
            own_means: Take both means from the arguments, which is more precise where these are exact, instead of
                from the update, which is stable where these are guesses.
        """
        if own_means:
            means = received.mean(dim=(0, 2, 3)), (received * normalised).mean(dim=(0, 2, 3))
        else:
            means = self.shift_gradient / self.positions, self.scale_gradient / self.positions
        inner = received - by_channel(means[0]) - normalised * by_channel(means[1])
        return inner * by_channel(self.scale / self.deviation)

    def leave(self, before: Tensor, normalised: Tensor, off: Tensor) -> Tensor:
        """Returns the gradient behind batch normalisation, of Δ: the inverse of `enter`.

        What `enter` took away, a + b·ẑ in every channel, is known twice: a and b are the means that the update gives
        (up to the rounding of float32 parameters), and at units that are off the result is 0. Both count by their
        precision.

        Args:
            before: Δ.
            normalised: ẑ.
            off: Where the ReLU behind is known to be off, of 0 and 1.
        """
        inner = before / by_channel(self.scale / self.deviation)
        noise = PRECISION * inner.square().mean(dim=(0, 2, 3)).sqrt() + 1e-30
        columns = torch.stack([off, off * normalised]).transpose(1, 2).flatten(2)  # (2, channels, positions)
        normal = torch.einsum("icp,jcp->cij", columns, columns)
        right = -torch.einsum("icp,cp->ci", columns, inner.transpose(0, 1).flatten(1))
        known = torch.stack([self.shift_gradient, self.scale_gradient], dim=1) / self.positions
        precision = (noise[:, None] / (self.gradient_noise / self.positions)).square()
        normal = normal + torch.diag_embed(precision)
        right = right + precision * known
        try:
            means = torch.linalg.solve(normal, right)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            # A channel whose gradient is 0 and that has no unit off: nothing is known of it.
            means = (torch.linalg.pinv(normal, hermitian=True) @ right[..., None])[..., 0]
        return inner + by_channel(means[:, 0]) + normalised * by_channel(means[:, 1])

    def patches(self, features: Tensor) -> Tensor:
        """Returns what the weight matrix multiplies, shape (positions, channels in · kernel²)."""
        found = unfold(features, self.kernel, padding=self.padding, stride=self.stride)
        return found.transpose(1, 2).reshape(-1, found.shape[1])

    def gather(self, patches: Tensor) -> Tensor:
        """Returns the adjoint of `patches`: each entry added to the pixel that it was read from."""
        batch, _, height, width = self.input_shape
        columns = patches.reshape(batch, -1, patches.shape[1]).transpose(1, 2)
        return fold(columns, (height, width), self.kernel, padding=self.padding, stride=self.stride)

    def by_position(self, output: Tensor) -> Tensor:
        """Returns a map of the output's shape as a matrix, (positions, channels out)."""
        return output.transpose(0, 1).flatten(1).T

    def as_map(self, matrix: Tensor) -> Tensor:
        """Returns the inverse of `by_position`."""
        batch, _, height, width = self.output_shape
        return matrix.T.reshape(-1, batch, height, width).transpose(0, 1)

    def weight_gradient(self, before: Tensor, features: Tensor) -> Tensor:
        """Returns the weight's gradient Σ_p Δ_p ⊗ P_p, as a matrix."""
        return self.by_position(before).T @ self.patches(features)


def by_channel(values: Tensor) -> Tensor:
    """Returns one value a channel, shape (channels,), in a shape that multiplies maps."""
    return values[None, :, None, None]
