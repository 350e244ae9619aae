"""Recursive inversion of rounded updates, against maps that are known in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from leakpipe.attacks.recursive import block
from leakpipe.attacks.recursive.found import Descent
from leakpipe.attacks.recursive.gradients import read_gradient, refine_inner, settle_gradient
from leakpipe.attacks.recursive.layer import Layer
from leakpipe.attacks.recursive.masks import Mask, choose_mask
from leakpipe.attacks.recursive.nullspace import find_null_space, scale_maps
from leakpipe.attacks.recursive.refine import add_measured_noise, can_refine, refine_map
from leakpipe.attacks.recursive.structure import Block, Unit
from leakpipe.attacks.rounding import spacing
from tests.unit.test_recursive import Truth, generator, relative


def rounded(layer: Layer, noise: float) -> Layer:
    """The layer with noise on its gradient whose deviation differs between entries by orders of magnitude."""
    drawn = torch.randn((2, *layer.gradient.shape), generator=generator(), dtype=torch.float64)
    spread = drawn[0].square().clamp_max(9)
    deviation = noise * layer.gradient.square().mean().sqrt() * spread / spread.square().mean().sqrt()
    return replace(layer, gradient=layer.gradient + deviation * drawn[1], weight_noise=deviation)


def test_refined_map_is_nearer_than_its_null_space() -> None:
    truth = Truth(channels=24, width=60)
    layer = rounded(truth.layer, 1e-3)
    assert can_refine(layer)
    assert not can_refine(truth.layer)
    space = find_null_space(layer, generator())
    assert space is not None
    start = scale_maps(layer, space.vectors[:1])
    found, left = refine_map(layer, start)
    rough, fine = (relative(scale_maps(layer, each), truth.features) for each in (start, found))
    assert fine < rough / 10
    assert 0.5 < left < 1.1


def test_noise_that_rounding_does_not_explain_is_measured() -> None:
    truth = Truth(channels=24, width=60)
    layer = replace(rounded(truth.layer, 1e-2), weight_noise=truth.layer.weight_noise)
    tall = replace(layer, name="no null space", output_shape=(1, 60, 100, 100))
    layer, tall = add_measured_noise({"c": layer, "tall": tall}).values()
    for each in (layer, tall):
        assert float(each.weight_noise.norm() / each.gradient.norm()) == pytest.approx(1e-2, rel=0.2)
    space = find_null_space(layer, generator())
    assert space is not None
    start = scale_maps(layer, space.vectors[:1])
    found, _ = refine_map(layer, start)
    assert relative(scale_maps(layer, found), truth.features) < relative(start, truth.features) * 0.9


@pytest.mark.parametrize(("noise", "comes_out"), [(0.3, True), (0.8, True), (1.5, False)])
def test_map_is_believed_by_what_its_units_that_are_off_show(noise: float, comes_out: bool) -> None:
    """A null space with a small gap is still a start, from which the refined map is right or is not believed."""
    truth, kept = Truth(channels=24, width=60), []
    deviation = noise * truth.layer.gradient.square().mean().sqrt()
    drawn = deviation * torch.randn(truth.layer.gradient.shape, generator=generator(), dtype=torch.float64)
    layer = replace(
        truth.layer, gradient=truth.layer.gradient + drawn, weight_noise=deviation.expand_as(drawn).contiguous()
    )
    space = find_null_space(layer, generator())
    assert space is not None
    assert (space.gap > block.LEAST_GAP) == (noise < 0.5)
    only = Block("last", (Unit("first", "first.norm"), Unit("second", "second.norm")), None)
    step = block.BlockStep(only, {"first": layer, "second": layer}, Descent(), generator(), above=None)
    step.run(lambda report, raw: kept.append((report, raw)))
    assert bool(kept) == comes_out
    for report, raw in kept:
        assert 0.5 < report.error / relative(raw.clamp_min(0), truth.features) < 2


def test_within_noise_no_mask_is_chosen_only_because_little_passes_it() -> None:
    truth, drawn = Truth(), torch.Generator().manual_seed(1)

    def blur(value: torch.Tensor, share: float) -> torch.Tensor:
        noise = torch.randn(value.shape, generator=drawn, dtype=torch.float64)
        return value + share * value.square().mean().sqrt() * noise

    spread = (0.6 * truth.layer.shift_gradient.square().mean().sqrt()).expand(24, 2)
    shift = blur(truth.layer.shift_gradient, 0.6)
    layer = replace(rounded(truth.layer, 0.1), shift_gradient=shift, gradient_noise=spread)
    arriving, values, on = blur(truth.arriving, 0.1), blur(truth.output, 0.1), (truth.output > 0).double()
    counting = replace(layer, weight_noise=torch.zeros_like(layer.weight_noise))  # channels that hold are counted
    by_size, by_count = (choose_mask(values, each, arriving).on for each in (layer, counting))
    assert float((by_size != on).double().mean()) < 0.2
    assert float(by_count.mean()) < 0.1  # nearly all off


def test_gradient_is_read_best_with_weights() -> None:
    truth = Truth(channels=24, width=60)
    layer = rounded(truth.layer, 1e-3)
    patches = layer.patches(truth.features)
    plain = torch.linalg.pinv((patches - patches.mean(dim=0)).T) @ layer.gradient.flatten(1).T
    plain = layer.as_map(plain)
    assert relative(read_gradient(layer, truth.features), truth.before) < relative(plain, truth.before) / 5


def test_inner_map_does_not_need_the_weights_gradient_of_batch_normalisation() -> None:
    """γ is near 1, so that its update is rounded most."""
    truth = Truth(channels=12, width=24)
    spoiled = truth.layer.scale_gradient + truth.layer.scale_gradient.abs().mean() / 20
    layer = replace(rounded(truth.layer, 2e-4), scale_gradient=spoiled)
    exact = replace(layer, weight_noise=torch.zeros_like(layer.weight_noise))
    start, trusted = truth.features * 1.05, torch.ones(24, dtype=torch.float64)
    found, plain = (refine_inner(each, truth.passed, trusted, start)[1] for each in (layer, exact))
    assert relative(found, truth.features) < 2e-3
    assert relative(found, truth.features) < relative(plain, truth.features) / 5


def test_settled_gradient_is_exact_where_channels_keep_their_sums() -> None:
    truth = Truth(channels=24, width=60)
    layer = rounded(truth.layer, 1e-2)
    on = (truth.output > 0).double()
    wrong = on.clone()
    wrong[0, 3, 1, 1], wrong[0, 7, 2, 2] = 1 - on[0, 3, 1, 1], 1 - on[0, 7, 2, 2]
    near = torch.zeros_like(on, dtype=torch.bool)
    near[0, :, 1:3, 1:3] = True
    before, passed, mask = settle_gradient(layer, truth.features, truth.arriving, Mask(wrong, on, near))
    assert bool((mask.on == on).all())
    assert relative(before, truth.before) < 1e-4  # batch normalisation's ε
    assert relative(passed, truth.passed) < 1e-9
    near[0, 7] = False  # one that stays wrong: its channel is read
    before, passed, _ = settle_gradient(layer, truth.features, truth.arriving, Mask(wrong, on, near))
    assert relative(passed[:, 7], truth.passed[:, 7]) < 0.2
    assert relative(before[:, 7], truth.before[:, 7]) < 0.2


@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_spacing_is_numpys(kind: str) -> None:
    values = np.array([1.0, 0.75, 1e-3, -0.3, 6e-5, 1e-6], dtype=kind)
    assert np.allclose(spacing(torch.from_numpy(values)).numpy(), np.abs(np.spacing(values)).astype(float))
