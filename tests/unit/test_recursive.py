"""Recursive inversion against oracles: true maps in float64, counting arguments, masks flipped on purpose."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import generic_filter
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from torch import Tensor

from leakpipe.attacks.recursive import block, gradients, nullspace
from leakpipe.attacks.recursive.below import Arrived, InputGradients
from leakpipe.attacks.recursive.descent import descend
from leakpipe.attacks.recursive.forward import soft_max_pool
from leakpipe.attacks.recursive.found import Descent
from leakpipe.attacks.recursive.gradients import read_gradient, refine_inner, restore_means, solve_inner
from leakpipe.attacks.recursive.inputs import convolution_equations, null_space_equations, solve_map
from leakpipe.attacks.recursive.layer import Layer
from leakpipe.attacks.recursive.masks import Mask, choose_mask, guess_mask, read_mask, trust_channels
from leakpipe.attacks.recursive.nonnegative import solve_nonnegative
from leakpipe.attacks.recursive.nullspace import find_null_space, scale_maps
from leakpipe.attacks.recursive.structure import Block, Chain, Unit
from leakpipe.attacks.recursive.unmixing import order_like, unmix

EPSILON = 1e-5


class Truth:
    """One convolution with batch normalisation and a ReLU, as a client trains it, in float64.

    Attributes:
        layer: What the update tells.
        features: What the convolution read: nonnegative, about half of it 0.
        before: Gradient at the convolution's output.
        passed: Gradient behind batch normalisation.
        arriving: Gradient behind the ReLU.
    """

    def __init__(
        self,
        *,
        batch: int = 1,
        channels: int = 12,
        width: int = 24,
        size: int = 4,
        stride: int = 1,
        kernel: int = 3,
        spared: bool = False,
    ) -> None:
        padding = kernel // 2
        generator = torch.Generator().manual_seed(channels + width + size)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.features = draw(batch, channels, size, size).clamp_min(0)
        if spared:  # a channel that is on everywhere, and one that is off
            self.features[:, 0] += 1
            self.features[:, 1] = 0
        weight = (draw(width, channels, kernel, kernel) / 10).requires_grad_()
        scale, shift = (1 + draw(width) / 10).requires_grad_(), (draw(width) / 10).requires_grad_()
        convolved = torch.nn.functional.conv2d(self.features, weight, stride=stride, padding=padding)
        convolved.retain_grad()
        normalised = torch.nn.functional.batch_norm(convolved, None, None, scale, shift, True, 0.0, EPSILON)
        normalised.retain_grad()
        self.output = normalised.relu()
        self.arriving = draw(*self.output.shape)
        (self.output * self.arriving).sum().backward()
        assert convolved.grad is not None
        assert normalised.grad is not None
        assert weight.grad is not None
        assert scale.grad is not None
        assert shift.grad is not None
        self.before, self.passed = convolved.grad, normalised.grad
        self.output = self.output.detach()
        variance, mean = torch.var_mean(convolved.detach(), dim=(0, 2, 3), correction=0)
        self.layer = Layer(
            name="convolution",
            weight=weight.detach(),
            gradient=weight.grad,
            weight_noise=torch.zeros_like(weight.grad),
            stride=stride,
            padding=padding,
            scale=scale.detach(),
            shift=shift.detach(),
            scale_gradient=scale.grad,
            shift_gradient=shift.grad,
            gradient_noise=torch.full((width, 2), 1e-12, dtype=torch.float64),
            mean=mean,
            variance=variance,
            epsilon=EPSILON,
            input_shape=tuple(self.features.shape),  # type: ignore[arg-type]
            output_shape=tuple(convolved.shape),  # type: ignore[arg-type]
        )

    @property
    def normalised(self) -> Tensor:
        return self.layer.normalise(self.layer.convolve(self.features))


def relative(found: Tensor, true: Tensor) -> float:
    return float((found - true).norm() / true.norm())


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_null_space_is_the_map_up_to_its_scale() -> None:
    truth = Truth()
    space = find_null_space(truth.layer, generator())
    assert space is not None
    assert space.gap > 1e6
    assert relative(scale_maps(truth.layer, space.vectors[:1]), truth.features) < 1e-8


@pytest.mark.parametrize("batch", [2, 3])
def test_null_space_of_one_images_positions_is_spanned_by_the_batch(batch: int) -> None:
    truth = Truth(batch=batch, channels=24, width=60)
    space = find_null_space(truth.layer, generator())
    assert space is not None
    assert space.eigenvalues[:batch].abs().max() < 1e-9
    assert space.eigenvalues[batch] > 1e-3
    basis, maps = space.vectors[:batch].flatten(1), truth.features.flatten(1)
    assert relative(maps @ basis.T @ basis, maps) < 1e-8


@pytest.mark.parametrize("batch", [2, 3])
def test_images_of_a_batch_are_told_apart_with_their_scales(batch: int) -> None:
    truth = Truth(batch=batch, channels=24, width=60)
    space = find_null_space(truth.layer, generator())
    assert space is not None
    maps = unmix(truth.layer, space)
    assert maps is not None
    found = scale_maps(truth.layer, maps)
    order = order_like(truth.features, found)
    assert sorted(order.tolist()) == list(range(batch))
    assert relative(found[order], truth.features) < 1e-6


@pytest.mark.parametrize("spoil", ["signs", "one image twice", "never alone"])
def test_images_that_cannot_be_told_apart_have_no_maps(spoil: str) -> None:
    truth = Truth(batch=2, channels=24, width=60)
    space = find_null_space(truth.layer, generator())
    assert space is not None
    noise = torch.randn(space.vectors.shape, generator=generator(), dtype=torch.float64)
    first, _, third = space.vectors.unbind()
    vectors = {
        "signs": noise,  # no plane cuts off all units: they fill no cone
        "one image twice": torch.stack([first, first, third]),
        "never alone": torch.stack([1 + noise[0].abs(), 1 + noise[1].abs(), third]),  # no image is ever off
    }[spoil]
    assert unmix(truth.layer, replace(space, vectors=vectors)) is None


@pytest.mark.parametrize(("failures", "comes_out"), [(1, True), (2, False)])
def test_lanczos_iterations_that_do_not_converge_are_tried_anew_and_then_given_up(
    monkeypatch: pytest.MonkeyPatch, failures: int, comes_out: bool
) -> None:
    truth, calls = Truth(), []

    def fail_at_first(*arguments: Any, **options: Any) -> Any:
        calls.append(options["ncv"])
        if len(calls) <= failures:
            raise ArpackNoConvergence("no convergence", np.array([]), np.array([]))
        return eigsh(*arguments, **options)

    monkeypatch.setattr(nullspace, "eigsh", fail_at_first)
    space = find_null_space(truth.layer, generator())
    assert calls == [40, 120]
    assert (space is not None) == comes_out
    if space is not None:
        assert relative(scale_maps(truth.layer, space.vectors[:1]), truth.features) < 1e-6


def test_map_whose_null_space_does_not_converge_is_missing_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "find_null_space", lambda *_: None)
    layers = {"first": Truth().layer, "second": Truth().layer}
    step = block.BlockStep(
        Block("last", (Unit("first", "first.norm"), Unit("second", "second.norm")), None),
        layers,
        Descent(),
        generator(),
        above=None,
    )
    assert "Lanczos iterations for its null space did not converge" in step.run(lambda *_: None)


def test_block_of_one_convolution_is_named() -> None:
    chain = Chain(Unit("stem", "norm"), pooled=False, blocks=(Block("only", (Unit("conv", "norm"),), None),))
    found = descend(chain, {}, generator())
    assert (found.maps, found.stopped) == ({}, "only: a block of 1 convolution is not inverted.")


def test_nothing_is_known_of_a_map_without_targets() -> None:
    layer = Truth().layer
    equations = convolution_equations(layer, torch.zeros(layer.output_shape), torch.zeros(layer.output_shape))
    assert solve_map(layer.input_shape, [equations])[1] == float("inf")


def test_layer_with_too_many_positions_has_no_null_space() -> None:
    assert not Truth(size=6).layer.has_null_space  # 36 positions, 24 channels


def test_gradient_is_read_without_masks() -> None:
    truth = Truth(size=6)
    assert relative(read_gradient(truth.layer, truth.features), truth.before) < 1e-8


def test_batch_normalisations_backward_pass_and_its_inverse() -> None:
    truth = Truth(size=6)
    layer, off = truth.layer, (truth.output == 0).double()
    assert relative(layer.enter(truth.passed, truth.normalised), truth.before) < 1e-8
    assert relative(layer.enter(truth.passed, truth.normalised, own_means=True), truth.before) < 1e-8
    assert relative(layer.leave(truth.before, truth.normalised, off), truth.passed) < 1e-8


def test_inverse_of_the_backward_pass_bears_a_coarse_weight_gradient() -> None:
    truth = Truth(size=6)
    noisy = {**vars(truth.layer), "scale_gradient": truth.layer.scale_gradient + 0.1}
    noisy["gradient_noise"] = torch.tensor([[1e-12, 0.1]], dtype=torch.float64).expand(24, 2)
    passed = Layer(**noisy).leave(truth.before, truth.normalised, (truth.output == 0).double())
    assert relative(passed, truth.passed) < 1e-6


def test_map_of_more_positions_than_channels_comes_from_the_gradient_behind_it() -> None:
    truth = Truth(size=8)  # 64 positions, 216 equations
    everywhere = torch.ones_like(truth.layer.scale)
    found, _ = solve_inner(truth.layer, truth.passed, everywhere)
    assert relative(found, truth.features) < 1e-4
    refined, _ = refine_inner(truth.layer, truth.passed, everywhere, found)
    assert relative(refined, truth.features) < 1e-8


@pytest.mark.parametrize("case", [{"kernel": 1}, {"kernel": 1, "width": 8}, {"stride": 2, "size": 8, "width": 12}])
def test_means_that_the_gradient_does_not_tell(case: dict[str, int]) -> None:
    """More channels than it reads, fewer, as many; one channel is on everywhere and one is off."""
    truth = Truth(**case, channels=12, spared=True)
    step = case.get("stride", 1)
    shifted = truth.features.clone()
    shifted[:, :, ::step, ::step] += torch.randn(1, 12, 1, 1, generator=generator(), dtype=torch.float64)
    gradient = truth.layer.weight_gradient(truth.before, shifted)
    assert relative(gradient, truth.layer.gradient.flatten(1)) < 1e-8
    assert relative(restore_means(truth.layer, shifted), truth.features) < 1e-4  # units below 1e-3 count as off


def test_means_whose_additions_do_not_converge_are_those_of_channels_that_are_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr(gradients, "nnls", fail)
    truth = Truth(kernel=1, width=8)
    assert relative(restore_means(truth.layer, truth.features + 1), truth.features) < 1e-8


def test_map_of_a_1x1_convolution_comes_from_the_gradient_behind_it() -> None:
    truth = Truth(kernel=1, width=40)
    found, raw = solve_inner(truth.layer, truth.passed, torch.ones_like(truth.layer.scale))
    assert relative(found, truth.features) < 1e-4
    assert relative(raw, truth.features) < 1e-4


def test_channels_with_a_wrong_unit_are_not_trusted_and_the_unit_is_put_right() -> None:
    truth = Truth(size=8)
    values = truth.output + 1e-6 * torch.randn(truth.output.shape, generator=generator(), dtype=torch.float64)
    mask = guess_mask(values)
    assert torch.equal(mask.on, (truth.output > 0).double())
    mask.on[0, 3, 2, 2] = 1 - mask.on[0, 3, 2, 2]
    mask.on[0, 5, 4, 1] = 1 - mask.on[0, 5, 4, 1]
    mask.near[0, (3, 5), (2, 4), (2, 1)] = True
    trusted = trust_channels(truth.layer, truth.arriving * mask.on)
    assert trusted.nonzero().flatten().tolist() == [channel for channel in range(24) if channel not in (3, 5)]
    found, _ = solve_inner(truth.layer, truth.arriving * mask.on, trusted)
    normalised = truth.layer.normalise(truth.layer.convolve(found))
    passed = truth.layer.leave(read_gradient(truth.layer, found), normalised, 1 - mask.on)
    repaired = read_mask(mask, passed, truth.arriving, truth.layer)
    assert torch.equal(repaired.on, (truth.output > 0).double())


def test_channels_that_keep_the_sum_of_their_gradients_are_left_as_they_are() -> None:
    truth = Truth(size=8)
    on = (truth.output > 0).double()
    mask = Mask(on, torch.zeros_like(on), near=torch.ones_like(on) > 0)
    misread = truth.passed.clone()
    unit = int(truth.arriving[0, 3].abs().argmax())
    misread[0, 3].view(-1)[unit] = truth.arriving[0, 3].view(-1)[unit] * (1 - on[0, 3].view(-1)[unit])
    assert torch.equal(read_mask(mask, misread, truth.arriving, truth.layer).on, on)
    shift = truth.layer.shift_gradient.clone()
    shift[3] += 1  # its sum no longer holds
    broken = Layer(**{**vars(truth.layer), "shift_gradient": shift})
    assert int((read_mask(mask, misread, truth.arriving, broken).on != on).sum()) == 1


def test_mask_is_the_one_that_most_sums_of_gradients_bear_out() -> None:
    """A wide gap among units that are on misleads `guess_mask`."""
    truth = Truth(size=8)
    on = (truth.output > 0).double()
    values = truth.output.clamp_min(0.5) * on
    values[0, :6, 3, 3] = on[0, :6, 3, 3] * 1e-3
    values = values + 1e-4 * torch.randn(values.shape, generator=generator(), dtype=torch.float64)
    assert int((guess_mask(values).on != on).sum()) > 1
    assert torch.equal(choose_mask(values, truth.layer, truth.arriving).on, on)


def test_weight_gradients_of_the_true_input_agree_wherever_what_passed_is_right() -> None:
    truth = Truth(size=6)
    passed, on = truth.passed.clone(), (truth.output > 0).double()
    passed[0, 3, 2, 2] += 1
    everywhere = torch.ones_like(truth.layer.scale)

    def distance(trusted: Tensor, features: Tensor) -> float:
        arrived = Arrived(truth.layer, passed, truth.normalised, on, trusted, None, passed, error=0.0)
        return float(InputGradients(arrived, torch.float64).distance(features))

    assert distance(everywhere, truth.features) > 1e-4
    trusted = everywhere.clone()
    trusted[3] = 0
    assert distance(trusted, truth.features) < 1e-20
    assert distance(trusted, truth.features.flip(-1)) > 0.1


@pytest.mark.parametrize("softness", [0.0, 0.1, 2.0])
def test_soft_max_pool_is_a_weighted_mean_of_each_window(softness: float) -> None:
    def weighted(window: np.ndarray) -> float:
        inside = window[np.isfinite(window)]
        weights = np.exp((inside - inside.max()) / softness) if softness else inside == inside.max()
        return float((weights * inside).sum() / weights.sum())

    drawn = torch.randn(2, 3, 7, 8, generator=generator(), dtype=torch.float64)
    found = soft_max_pool(drawn, softness)
    for image, pooled in zip(drawn.flatten(0, 1), found.flatten(0, 1), strict=True):
        expected = generic_filter(image.numpy(), weighted, size=3, mode="constant", cval=-np.inf)[::2, ::2]
        assert torch.allclose(pooled, torch.from_numpy(expected))


def test_input_of_a_stride_comes_from_its_output_where_that_is_on_and_the_null_space() -> None:
    truth = Truth(size=8, stride=2, width=40, channels=12)
    known = (truth.output > 0).double()
    equations = [convolution_equations(truth.layer, truth.normalised, known), null_space_equations(truth.layer)]
    found, residual = solve_map(truth.layer.input_shape, equations)
    assert residual < 1e-6
    assert relative(found, truth.features) < 1e-5


def test_nonnegative_least_squares_agree_with_scipy() -> None:
    from scipy.optimize import nnls

    drawn = torch.randn(30, 12, generator=generator(), dtype=torch.float64)
    targets = torch.randn(30, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = solve_nonnegative(drawn.T @ drawn, drawn.T @ targets)
    for column in range(5):
        expected, _ = nnls(drawn.numpy(), targets[:, column].numpy())
        assert torch.allclose(found[:, column], torch.from_numpy(expected), atol=1e-8)


def test_a_channel_of_which_nothing_is_known_does_not_end_the_inversion() -> None:
    """Low precision leaves channels whose gradient is 0 and that have no unit off."""
    ones, zeros = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    shape, nothing = (1, 2, 3, 3), torch.zeros(2, 2, 3, 3)
    layer = Layer(
        name="c", stride=1, padding=1, weight=nothing, gradient=nothing, weight_noise=nothing,
        scale=ones, shift=zeros, scale_gradient=zeros, shift_gradient=zeros, gradient_noise=torch.ones(2, 2).double(),
        mean=zeros, variance=ones, epsilon=0.0, input_shape=shape, output_shape=shape,
    )  # fmt: skip
    left = layer.leave(*(torch.zeros(shape, dtype=torch.float64) for _ in range(3)))
    assert not bool(left.any())
