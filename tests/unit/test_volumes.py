"""Volumes: drawn, trained on, attacked, compared and shown."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from skimage.metrics import structural_similarity
from torch import nn

from leakpipe.attacks.optimise import invert
from leakpipe.attacks.plausible import plausible_images
from leakpipe.attacks.presets import PRESETS
from leakpipe.attacks.spectrum import from_coefficients, to_coefficients
from leakpipe.attacks.terms.images import anisotropic_total_variation, isotropic_total_variation
from leakpipe.data.datasets import DATASETS
from leakpipe.data.volume_phantom import make_volume
from leakpipe.errors import LeakpipeError
from leakpipe.figures.images import middle_slices
from leakpipe.metrics.leakage_map import leakage_map
from leakpipe.metrics.score import score_images
from leakpipe.metrics.similarity import registered_psnr, ssim
from leakpipe.models.state import ModelState, build_module, forward_training, initial_state
from leakpipe.params.data import ImagesParams
from leakpipe.params.models import ModelParams
from tests.unit.attacking import observe

SIZE = 16
RNG = np.random.default_rng(0)


def network(*, normalization: str = "batch", dtype: torch.dtype = torch.float32) -> ModelState:
    params = ModelParams(name="convnet3d", normalization=normalization)
    return initial_state(build_module(params, classes=2, image_size=SIZE), seed=0, dtype=dtype)


def volumes(count: int, *, first: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.stack([make_volume(first + index, SIZE)[None] for index in range(count)]))


def test_a_phantom_depends_on_its_number_alone_and_nodules_are_bright() -> None:
    params = ImagesParams(dataset="volume-phantom", image_size=SIZE, images=6)
    loaded, contents = DATASETS["volume-phantom"].load(params), DATASETS["volume-phantom"].contents(params)
    assert contents is not None
    assert (contents.images, contents.axes, contents.classes) == (6, 3, loaded.classes)
    assert loaded.images.shape == (6, 1, SIZE, SIZE, SIZE)
    assert loaded.images.dtype == np.float32
    assert loaded.labels.tolist() == [0, 1] * 3
    np.testing.assert_array_equal(loaded.images[4, 0], make_volume(4, SIZE))
    assert len({image.tobytes() for image in loaded.images}) == 6
    fine = make_volume(4, 2 * SIZE).reshape(SIZE, 2, SIZE, 2, SIZE, 2).mean(axis=(1, 3, 5))
    assert np.corrcoef(fine.ravel(), loaded.images[4, 0].ravel())[0, 1] > 0.97, "the patient is the same at any size"


def test_the_network_is_torchs_layers() -> None:
    """With batch normalisation as torch computes it, on a network that is built of the same layers by hand."""
    state, images = network(dtype=torch.float64), volumes(2).double()
    layers: list[nn.Module] = []
    channels = 1
    for width, stride in ((16, 1), (32, 2), (32, 1), (64, 2)):
        layers += [nn.Conv3d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm3d(width), nn.ReLU()]
        channels = width
    plain = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 4**3, 2)).double()
    renamed = {name.replace("head", "13").removeprefix("features."): value for name, value in state.weights.items()}
    plain.load_state_dict(renamed, strict=False)
    logits, statistics = forward_training(state, images)
    torch.testing.assert_close(logits, plain((images - 0.449) / 0.226))
    assert isinstance(plain[1], nn.BatchNorm3d)
    assert plain[1].running_var is not None
    torch.testing.assert_close(0.9 + 0.1 * statistics["features.1"].variance, plain[1].running_var)


def test_coefficients_are_scipys_cosine_transform_of_all_three_axes() -> None:
    given = torch.from_numpy(RNG.random((2, 1, 4, 6, 5)))
    found = to_coefficients(given, 0.0, axes=3)
    np.testing.assert_allclose(found.numpy(), dctn(given.numpy(), norm="ortho", axes=(-3, -2, -1)), atol=1e-12)
    torch.testing.assert_close(from_coefficients(to_coefficients(given, 0.7, axes=3), 0.7, axes=3), given)


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_total_variation_sees_every_axis(axis: int) -> None:
    step = torch.zeros(1, 1, 6, 6, 6)
    step.narrow(axis, 3, 3).fill_(1.0)
    assert float(anisotropic_total_variation(step)) == pytest.approx(1 / 5)
    assert float(isotropic_total_variation(step)) == pytest.approx(1 / 5, abs=1e-3)


def test_ssim_is_scikit_images_in_three_dimensions() -> None:
    first, second = RNG.random((1, 14, 16, 15)), RNG.random((1, 14, 16, 15))
    second = 0.7 * first + 0.3 * second
    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(first[0], second[0], data_range=1.0, **options)
    assert ssim(first, second, data_range=1.0) == pytest.approx(expected, abs=1e-12)
    gained = leakage_map(first, second, RNG.random(first.shape), data_range=1.0)
    assert gained.shape == first.shape[1:]
    with pytest.raises(LeakpipeError, match="windows of 11×11×11 pixels, which do not fit into an image of 16×10×16"):
        ssim(np.zeros((1, 16, 10, 16)), np.zeros((1, 16, 10, 16)), data_range=1.0)


@pytest.mark.parametrize("shift", [(2, 0, 0), (0, -1, 2)])
def test_registration_finds_a_shift_along_any_axis(shift: tuple[int, ...]) -> None:
    original = RNG.random((1, 14, 14, 14))
    assert registered_psnr(np.roll(original, shift, axis=(1, 2, 3)), original, data_range=1.0) == np.inf


def test_scores_of_volumes_have_every_column() -> None:
    truth = volumes(2).numpy()
    rows = score_images(truth[::-1].copy(), truth, np.full_like(truth, 0.5))
    assert [row["reconstruction"] for row in rows] == [1, 0]
    assert all(row["ssim"] == pytest.approx(1.0) and np.isnan(row["ms_ssim"]) for row in rows)


def test_figures_show_the_middle_slice() -> None:
    stack = RNG.random((3, 1, 7, 5, 4))
    np.testing.assert_array_equal(middle_slices(stack), stack[:, :, 3])
    flat = RNG.random((3, 1, 5, 4))
    assert middle_slices(flat) is flat


def test_one_volume_leaks_from_its_update() -> None:
    truth, prior = volumes(1, first=3), volumes(20, first=10).mean(dim=0, keepdim=True)
    seen = observe(network(), truth, [1], prior=prior)
    settings = PRESETS["bn-cosine"].settings.model_copy(update={"iterations": 60})
    found = invert(seen, settings, seed=0)
    alike = [ssim(each[0].numpy(), truth[0].numpy(), data_range=1.0) for each in (found.images, prior)]
    assert alike[1] < 0.7
    assert alike[0] > 0.85
    assert any("it knows images, not volumes" in note for note in found.notes)
    assert plausible_images(seen, torch.Generator().manual_seed(0)).shape == truth.shape


@pytest.mark.parametrize(
    "changes", [{"start": "pattern"}, {"pyramid": (8, 16)}, {"bounds": "sigmoid"}, {"restarts": 2}]
)
def test_what_a_search_can_be_set_to_works_on_volumes(changes: dict[str, Any]) -> None:
    seen = observe(network(normalization="group"), volumes(1), [0])
    settings = PRESETS["bn-cosine"].settings.model_copy(
        update={"iterations": 12, "batch_norm_weight": 0.0, "batch_norm": "none", **changes}
    )
    found = invert(seen, settings, seed=0)
    assert found.images.shape == (1, 1, SIZE, SIZE, SIZE)
    assert min(found.curves["update_distance"][1:]) < found.curves["update_distance"][0]
