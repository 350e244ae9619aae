"""The row-space term: what the rank of a convolution's weight gradient says of its input."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity as ssim
from torch import nn

from leakpipe.attacks.objective import Objective
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.presets import PRESETS
from leakpipe.attacks.terms.row_space import find_row_spaces, patches, plain_convolutions, row_space_distance
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.data.datasets import DATASETS
from leakpipe.errors import LeakpipeError
from leakpipe.models.layers import record_layer_inputs
from leakpipe.models.state import ModelState, build_module, initial_state
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.data import ImagesParams
from leakpipe.params.models import ModelParams
from tests.unit.attacking import observe, observe_small, random_images

ALONE = AttackSettings(row_space_weight=1.0, objective_weight=0.0, iterations=3)


def wide_model(*, size: int = 8, seed: int = 0, normalization: str = "batch") -> ModelState:
    """Positions of the three convolutions at 8×8: 64, 16, 4; channels: 3, 24, 24."""
    params = ModelParams(name="convnet-bn", widths=(3, 24, 24), strides=(1, 2, 2), normalization=normalization)
    return initial_state(build_module(params, classes=3, image_size=size), seed=seed, dtype=torch.float64)


def term(images: torch.Tensor, terms: Objective) -> float:
    return terms.evaluate(images, torch.zeros(len(images), dtype=torch.long)).terms["row_space"]


def test_patches_are_what_the_convolution_multiplies() -> None:
    generator = torch.Generator().manual_seed(0)
    for layer in (nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False), nn.Conv2d(3, 5, 1, stride=2, bias=False)):
        features = torch.randn(2, 3, 7, 7, generator=generator)
        outputs = layer(features).permute(0, 2, 3, 1).reshape(-1, 5)
        for centred, expected in ((False, outputs), (True, outputs - outputs.mean(dim=0))):
            product = patches(layer, features, centred=centred) @ layer.weight.flatten(1).T
            torch.testing.assert_close(product, expected, atol=1e-5, rtol=0)


def test_only_layers_with_fewer_positions_than_channels_have_something_to_say() -> None:
    state = wide_model()
    images = random_images(1, dtype=torch.float64)
    spaces = Objective(observe(state, images, [0]), ALONE, seed=0).rows.spaces
    assert {name: space.shape for name, space in spaces.items()} == {"features.3": (27, 15), "features.6": (216, 3)}
    two = random_images(2, dtype=torch.float64)  # 32 positions are too many for 24 channels
    assert set(Objective(observe(state, two, [0, 1]), ALONE, seed=0).rows.spaces) == {"features.6"}


@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_it_is_zero_at_the_true_image_whatever_the_labels_and_nowhere_else(normalization: str) -> None:
    state = wide_model(normalization=normalization)
    images = random_images(1, dtype=torch.float64)
    terms = Objective(observe(state, images, [2]), ALONE, seed=0)
    assert term(images, terms) < 1e-12
    others = [term(random_images(1, seed=seed, dtype=torch.float64), terms) for seed in range(2, 7)]
    assert min(others) > 0.05


def test_it_is_the_residual_of_least_squares_on_the_rows_of_the_update() -> None:
    """Naive oracle: regress every centred patch on the rows of the weight differences, layer by layer."""
    state = wide_model()
    observation = observe(state, random_images(1, dtype=torch.float64), [0])
    other = random_images(1, seed=9, dtype=torch.float64)
    terms = Objective(observation, ALONE, seed=0)
    seen = terms.rows._look(other, terms.rows.spaces)
    shares = []
    for name, (features,) in seen.items():
        rows = observation.update.weights[f"{name}.weight"].flatten(1).numpy()
        read = patches(dict(state.module.named_modules())[name], features, centred=True).detach().numpy()
        fitted = np.linalg.lstsq(rows.T, read.T, rcond=1e-9)[0]
        residual = read.T - rows.T @ fitted
        shares.append((residual**2).sum() / (read**2).sum())
    assert term(other, terms) == pytest.approx(np.mean(shares), rel=1e-9)


@pytest.mark.parametrize("statistics_model", ["global", "updated"])
def test_it_looks_through_the_model_that_the_client_was_sent(statistics_model: str) -> None:
    """Whichever model the statistics are measured in."""
    state = wide_model()
    images = random_images(1, dtype=torch.float64)
    settings = ALONE.model_copy(update={"batch_norm_weight": 1.0, "statistics_model": statistics_model})
    assert term(images, Objective(observe(state, images, [0]), settings, seed=0)) < 1e-12


def test_several_steps_leave_little_of_the_true_images_outside() -> None:
    state = wide_model()
    images = random_images(2, dtype=torch.float64)
    labels, client = torch.tensor([0, 1]), LocalSettings(learning_rate=0.002)
    update = local_update(state, make_batches(images, labels, [[0], [1]]), client)
    terms = Objective(observe(state, images, labels, batch_size=1, update=update, settings=client), ALONE, seed=0)
    other = term(random_images(2, seed=5, dtype=torch.float64), terms)
    assert term(images, terms) < 0.03 * other, other


def test_directions_that_noise_drowns_are_left_out() -> None:
    state = wide_model()
    observation = observe(state, random_images(1, dtype=torch.float64), [0])
    generator = torch.Generator().manual_seed(0)

    def kept(noise: float) -> int:
        noisy = {
            n: v + noise * torch.randn(v.shape, generator=generator) for n, v in observation.update.weights.items()
        }
        update = ClientUpdate(noisy, observation.update.statistics, 1)
        other = observe(state, random_images(1, dtype=torch.float64), [0], update=update)
        return sum(space.shape[1] for space in Objective(other, ALONE, seed=0).rows.spaces.values())

    counts = [kept(noise) for noise in (0.0, 1e-5, 1e-3)]
    assert counts[0] == 18
    assert counts == sorted(counts, reverse=True)
    assert 0 < counts[-1] < 18
    with pytest.raises(LeakpipeError, match="noise drowns all"):
        kept(1.0)


def test_grouped_convolutions_are_passed_over_and_hooks_do_not_stay() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, dilation=2))
    assert plain_convolutions(module) == ["0"]
    with record_layer_inputs(module, ["1"]) as seen:
        module(torch.zeros(1, 4, 12, 12))
    module(torch.zeros(1, 4, 12, 12))
    assert [features.shape for features in seen["1"]] == [(1, 4, 10, 10)]
    assert find_row_spaces(module, {"1.weight": torch.zeros(4, 2, 3, 3)}, {"1": []}, centred=True) == {}


def test_an_attack_with_nothing_else_to_match_is_refused_where_no_layer_speaks() -> None:
    with pytest.raises(LeakpipeError, match="no convolution has fewer positions than channels"):
        Objective(observe_small(), ALONE, seed=0)


def test_a_candidate_without_contrast_has_a_finite_gradient() -> None:
    layer = nn.Sequential(nn.Conv2d(1, 4, 3))
    flat = torch.full((1, 1, 5, 5), 0.5, requires_grad=True)
    distance = row_space_distance(layer, {"0": [flat]}, {"0": torch.eye(9)[:, :2]}, centred=True)
    (gradient,) = torch.autograd.grad(distance, flat)
    assert gradient.isfinite().all()


def test_the_preset_gets_closer_to_an_image_than_its_prior() -> None:
    model = ModelParams(name="convnet-bn", widths=(16, 80, 80), strides=(2, 2, 1))
    state = initial_state(build_module(model, classes=2, image_size=32), seed=0)
    faces = DATASETS["lfw-faces"].load(ImagesParams(dataset="lfw-faces", image_size=32)).images[:100]
    image, prior = torch.from_numpy(faces[:1]), torch.from_numpy(faces[1:].mean(axis=0, keepdims=True))
    settings = PRESETS["row-space"].settings.model_copy(update={"iterations": 200})
    result = invert(observe(state, image, [1], prior=prior), settings, seed=0)
    assert "2 convolutions" in result.notes[0]
    before, after = (structural_similarity(image, guess) for guess in (prior, result.images))
    assert after > before + 0.2, (before, after)


def structural_similarity(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(ssim(first[0, 0].numpy(), second[0, 0].numpy(), data_range=1, gaussian_weights=True))
