"""The gradient step: G = Σ_p Δ_p ⊗ P_p is linear in Δ for a known map, and linear in the map for a known Δ.

Where a layer has no more positions than its patches have entries, a known map gives Δ without knowing any ReLU's mask:
`read_gradient`. Where 9·(channels out) is at least the number of positions, a known gradient behind batch
normalisation gives the map: `solve_inner`.
"""

import torch
from scipy.optimize import nnls
from torch import Tensor
from torch.nn.functional import unfold

from leakpipe.attacks.recursive.inputs import ROUNDED_TOLERANCE, TOLERANCE, Equations, solve_map
from leakpipe.attacks.recursive.layer import Layer, by_channel
from leakpipe.attacks.recursive.masks import Mask, read_mask, sums_hold
from leakpipe.attacks.recursive.nonnegative import solve_nonnegative
from leakpipe.attacks.recursive.refine import EVEN, can_refine, entry_noise, explain_gradient

RIDGE = 1e-13  # of the largest eigenvalue of a normal matrix: rounding, not a regulariser
ROUNDS = 12  # of the fixed-point iteration for ẑ, in one call
ENOUGH = 1.03  # equations per unknown, below which channels that are not trusted have to help
SPARE = 1.15  # equations per unknown that need no constraint
MANY = 1.3
STEPS = 12  # of Gauss–Newton
SETTLED_STEP = 0.02  # least relative gain of a step
SETTLED = 1e-5  # relative change of the map that ends it
SQUARE = 1.5  # channels out for each channel in, from which on W·m = μ is well-conditioned
OFF = 1e-3  # of a channel's mean above its least unit: what is less is off as that one is
NEVER_OFF = 0.01  # likewise, of an addition that is none of noise
BEYOND = 4.0  # likewise, in relative errors of the gradient, where that is more


def can_read_gradient(layer: Layer) -> bool:
    """Returns whether the centred patches of a known map are, in general, linearly independent."""
    return layer.positions - 1 <= layer.weight[0].numel()


def read_gradient(layer: Layer, features: Tensor) -> Tensor:
    """Returns Δ, the gradient before batch normalisation, shape of the output, given what the layer reads.

    Least squares on G = Δᵀ·(P − mean P): centring changes nothing where Δ sums to zero over the positions, as batch
    normalisation makes it, and the solution of least norm then does so as well. Where rounding is no small part of G,
    every entry is weighted by its own.
    """
    if can_refine(layer):
        return explain_gradient(layer, features)
    patches = layer.patches(features)
    centred = patches - patches.mean(dim=0)
    inverse = torch.linalg.pinv(centred @ centred.T, hermitian=True, rtol=RIDGE)
    return layer.as_map(inverse @ (centred @ layer.gradient.flatten(1).T))


def settle_gradient(layer: Layer, features: Tensor, arriving: Tensor, mask: Mask) -> tuple[Tensor, Tensor, Mask]:
    """Returns Δ, the gradient behind batch normalisation and the mask, where rounding spoils what is read.

    What is read settles the mask. Channels that then keep the sum of their gradients have what arrives, masked: batch
    normalisation's means are taken from it, as that of its weight is rounded by far the most (γ is near 1, while the
    bias is near 0). The others have what is read.

    Args:
        layer: As for `read_gradient`.
        features: What it reads.
        arriving: Gradient at the output of the ReLU behind.
        mask: Of that ReLU, a guess.
    """
    normalised, read = layer.normalise(layer.convolve(features)), read_gradient(layer, features)
    passed = layer.leave(read, normalised, 1 - mask.on)
    mask = read_mask(mask, passed, arriving, layer)
    masked = arriving * mask.on
    known = by_channel(sums_hold(layer, masked, adapt=True))
    before = torch.where(known, layer.enter(masked, normalised, own_means=True), read)
    return before, torch.where(known, masked, layer.leave(read, normalised, 1 - mask.on)), mask


def can_solve_inner(layer: Layer) -> bool:
    """Returns whether there are at least as many gradient equations as unknowns, for every channel."""
    return layer.stride == 1 and layer.weight[:, 0].numel() >= layer.positions


def restore_means(layer: Layer, features: Tensor) -> Tensor:
    """Returns a map with the mean of each channel over the pixels that one tap alone reads.

    These are all pixels of a 1×1 convolution, and every second one, in both directions, of a 3×3 convolution of stride
    2. As Δ sums to 0 over the positions, G does not change with their mean. Batch normalisation's mean tells it,
    W·m = μ, where the convolution gives many more channels than it reads. Elsewhere most channels are off at some
    pixel, where they are 0, from which their means follow; those of the others are the smallest nonnegative additions
    that satisfy W·m = μ.

    Args:
        layer: Of kernel 1, or of kernel 3 and stride 2.
        features: Its map, nonnegative up to noise but for those means.
    """
    step, tap = layer.stride, layer.kernel // 2
    others, alone = features.clone(), features[:, :, ::step, ::step]
    others[:, :, ::step, ::step] = 0
    weight, mean = layer.weight[:, :, tap, tap], layer.mean - layer.convolve(others).mean(dim=(0, 2, 3))
    raised = alone - alone.amin(dim=(0, 2, 3), keepdim=True)
    if len(weight) >= SQUARE * weight.shape[1]:
        wanted = mean - weight @ raised.mean(dim=(0, 2, 3))
        added = torch.linalg.lstsq(weight, wanted[:, None]).solution[:, 0]
    else:
        limit = max(OFF, BEYOND * layer.noise) * raised.mean(dim=(0, 2, 3))
        off = raised <= by_channel(limit)  # a channel that is off everywhere has a limit of 0
        raised = raised - (raised * off).sum(dim=(0, 2, 3), keepdim=True) / off.sum(dim=(0, 2, 3), keepdim=True)
        wanted = mean - weight @ raised.mean(dim=(0, 2, 3))
        try:
            added = torch.from_numpy(nnls(weight.numpy(force=True), wanted.numpy(force=True))[0]).to(raised)
        except RuntimeError:  # no convergence: every channel counts as off somewhere
            added = torch.zeros_like(wanted[:1]).expand(weight.shape[1])
        never_off = added > NEVER_OFF * raised.mean(dim=(0, 2, 3))
        added = torch.zeros_like(added)
        added[never_off] = torch.linalg.lstsq(weight[:, never_off], wanted[:, None]).solution[:, 0]
    others[:, :, ::step, ::step] = raised + by_channel(added)
    return others


def has_spare_equations(layer: Layer) -> bool:
    """Returns whether so many gradient equations are left over that the fixed-point iteration suffices."""
    return layer.weight[:, 0].numel() > MANY * layer.positions


def gradient_matrix(layer: Layer, before: Tensor) -> Tensor:
    """Returns the matrix whose product with one channel of a map is its part of the weight gradient.

    Args:
        layer: Of stride 1, so that input and output have the same positions.
        before: Δ, shape of the output.

    Returns:
        Shape (channels out, kernel², positions); every channel in has the same.
    """
    kernel, channels = layer.kernel, before.shape[1]
    taps = unfold(before, kernel, padding=kernel - 1 - layer.padding).transpose(1, 2).flatten(0, 1)
    return taps.view(-1, channels, kernel**2).flip(-1).permute(1, 2, 0)


def solve_inner(layer: Layer, received: Tensor, trusted: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns the map that the layer read, given the gradient behind its batch normalisation.

    Δ depends on the map through ẑ, so that least squares and a forward pass take turns until nothing changes. Where
    there are few more equations than unknowns, least squares are nonnegative ones, which take longer.

    Args:
        layer: With enough equations (`can_solve_inner`).
        received: Gradient behind batch normalisation, shape of the output.
        trusted: Weight of each channel's equations, shape (channels out,): 0 where `received` may be wrong.
        start: Of the map; without one, ẑ starts at 0.

    Returns:
        The nonnegative map, and the solution without that constraint, whose entries below 0 tell its noise.
    """
    features, normalised = start, torch.zeros_like(received)
    wanted = layer.gradient.permute(0, 2, 3, 1) * trusted[:, None, None, None]
    normal = right = wanted.new_empty(0)
    equations = float(trusted.sum()) * layer.kernel**2
    if equations < ENOUGH * layer.positions and has_spare_equations(layer):
        trusted = torch.ones_like(trusted)
        wanted = layer.gradient.permute(0, 2, 3, 1)
    spare = has_spare_equations(layer) or equations > SPARE * layer.positions
    for _ in range(ROUNDS):
        if features is not None:
            normalised = layer.normalise(layer.convolve(features))
        before = layer.enter(received, normalised, own_means=layer.is_rounded and start is not None)
        matrix = gradient_matrix(layer, before) * trusted[:, None, None]
        rows = matrix.flatten(0, 1)
        normal, right = rows.T @ rows, rows.T @ wanted.flatten(0, 2)
        normal.diagonal().add_(RIDGE * normal.diagonal().mean() + 1e-300)
        if layer.kernel == 1:  # nothing tells the means
            normal = normal + normal.diagonal().mean() / len(normal)
            found = restore_means(layer, _as_input(layer, torch.linalg.solve(normal, right))).clamp_min(0)
        elif spare:
            found = _as_input(layer, torch.linalg.solve(normal, right)).clamp_min(0)
        else:
            guess = None if features is None else features.transpose(0, 1).flatten(1).T
            found = _as_input(layer, solve_nonnegative(normal, right, guess))
        settled = features is not None and float((found - features).norm()) < SETTLED * float(found.norm())
        features = found
        if settled:
            break
    assert features is not None
    raw = _as_input(layer, torch.linalg.solve(normal, right))
    return features, restore_means(layer, raw) if layer.kernel == 1 else raw


def refine_inner(layer: Layer, received: Tensor, trusted: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the map that the layer read, by Gauss–Newton steps on G = Δ(map)ᵀ·P(map).

    Where the fixed-point iteration of `solve_inner` is slow, or ends beside the solution, this is not. Entries at 0
    that the equations do not pull up stay at 0.

    Args:
        layer: As for `solve_inner`, like the next two.
        received: Gradient behind batch normalisation.
        trusted: Weight of each channel's equations.
        start: A map near the solution.

    Returns:
        As `solve_inner`.
    """
    features, best = start, float("inf")
    for _ in range(STEPS):
        system = _Linearised(layer, received, trusted, features)
        if float(system.misfit.norm()) > best * (1 - SETTLED_STEP):
            break
        best = float(system.misfit.norm())
        features = features + system.solve((features > 0) | (system.back(system.misfit) > 0))
        features = (restore_means(layer, features) if layer.kernel == 1 else features).clamp_min(0)
    last = _Linearised(layer, received, trusted, features)
    raw = features + last.solve(torch.ones_like(features, dtype=torch.bool))
    return features, restore_means(layer, raw) if layer.kernel == 1 else raw


class _Linearised:
    """The equations G = Δ(map)ᵀ·P(map) around a map, in units of Δ.

    Where rounding is no small part of G, every entry is weighted by its own, and batch normalisation's means are those
    of the map.
    """

    def __init__(self, layer: Layer, received: Tensor, trusted: Tensor, features: Tensor) -> None:
        self.layer, self.received, self.own_means = layer, received, layer.is_rounded
        self.normalised = layer.normalise(layer.convolve(features))
        before = layer.enter(received, self.normalised, own_means=self.own_means)
        self.scale = (trusted / before.square().sum(dim=(0, 2, 3)).mean().sqrt())[:, None]
        if layer.is_rounded:
            noise = entry_noise(layer, EVEN)
            self.scale = self.scale * (noise.square().mean().sqrt() / noise)
        mean = (
            (received * self.normalised).mean(dim=(0, 2, 3))
            if self.own_means
            else layer.scale_gradient / layer.positions
        )
        self.factor = by_channel(layer.scale / layer.deviation.square())
        self.mean = by_channel(mean)
        self.patches, self.matrix = layer.patches(features), layer.by_position(before)
        self.misfit = self.scale * (layer.gradient.flatten(1) - self.matrix.T @ self.patches)

    def forward(self, step: Tensor) -> Tensor:
        layer = self.layer
        output = layer.convolve(step)
        change = -self.mean * output
        if self.own_means:
            change = change - self.normalised * by_channel((self.received * output).mean(dim=(0, 2, 3)))
        moved = layer.by_position(self.factor * change).T @ self.patches
        return self.scale * (self.matrix.T @ layer.patches(step) + moved)

    def back(self, residual: Tensor) -> Tensor:
        layer, weighted = self.layer, self.scale * residual
        change = self.factor * layer.as_map(self.patches @ weighted.T)
        output = -self.mean * change
        if self.own_means:
            output = output - self.received * by_channel((change * self.normalised).mean(dim=(0, 2, 3)))
        return layer.gather(self.matrix @ weighted) + layer.convolve_back(output)

    def solve(self, free: Tensor) -> Tensor:
        """Returns the step that solves them in the least-squares sense, with the entries that are not free at 0."""
        equations = Equations(
            lambda step: self.forward(step * free), lambda residual: self.back(residual) * free, self.misfit
        )
        tolerance = ROUNDED_TOLERANCE if self.layer.is_rounded else TOLERANCE
        return solve_map(self.layer.input_shape, [equations], tolerance=tolerance)[0] * free


def _as_input(layer: Layer, columns: Tensor) -> Tensor:
    batch, channels, height, width = layer.input_shape
    return columns.T.reshape(channels, batch, height, width).transpose(0, 1)
