"""The inversion loop: it rebuilds an image, gives the same bytes twice, and survives bad observations."""

import numpy as np
import pytest
import torch

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimise import _Adam, invert, step_size
from leakpipe.attacks.presets import PRESETS
from leakpipe.data.datasets import DATASETS
from leakpipe.federation.local import ClientUpdate, LocalSettings, local_update, make_batches
from leakpipe.metrics.similarity import ssim
from leakpipe.models.state import ModelState, build_module, initial_state
from leakpipe.params import AttackSettings, ModelParams

SETTINGS = LocalSettings(learning_rate=0.01)
BN_AWARE = PRESETS["bn-aware"].settings


def observe(images: np.ndarray, prior: np.ndarray, state: ModelState, schedule: list[list[int]]) -> Observation:
    labels = torch.zeros(len(images), dtype=torch.int64)
    update = local_update(state, make_batches(torch.from_numpy(images), labels, schedule), SETTINGS)
    start = torch.from_numpy(np.repeat(prior[None], len(images), axis=0))
    return Observation(before=state, update=update, labels=labels, schedule=schedule, settings=SETTINGS, prior=start)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return DATASETS["lfw-faces"].load(32)[0][:100]


@pytest.fixture(scope="module")
def untrained() -> ModelState:
    return initial_state(build_module(ModelParams(name="convnet-bn"), classes=2, image_size=32), seed=3)


def test_rebuilds_one_face_from_one_update(faces: np.ndarray, untrained: ModelState) -> None:
    face, prior = faces[7:8], faces[50:].mean(axis=0)
    result = invert(observe(face, prior, untrained, [[0]]), BN_AWARE, seed=0)
    assert ssim(prior, face[0], data_range=1.0) < 0.7
    assert ssim(result.images[0].numpy(), face[0], data_range=1.0) > 0.95
    assert result.curves["update_distance"][-1] < 0.1 * result.curves["update_distance"][0]


def test_same_seed_same_bytes(faces: np.ndarray, untrained: ModelState) -> None:
    observation = observe(faces[:2], faces[50:].mean(axis=0), untrained, [[1, 0]])
    short = BN_AWARE.model_copy(update={"iterations": 5})
    first, second, other = (invert(observation, short, seed=seed) for seed in (0, 0, 1))
    assert first.images.numpy().tobytes() == second.images.numpy().tobytes() != other.images.numpy().tobytes()
    assert first.curves == second.curves


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_runs_on_several_steps(preset: str, faces: np.ndarray, untrained: ModelState) -> None:
    observation = observe(faces[:3], faces[50:].mean(axis=0), untrained, [[0, 2], [1], [1, 2], [0]])
    result = invert(observation, PRESETS[preset].settings.model_copy(update={"iterations": 4}), seed=0)
    assert result.images.shape == (3, 1, 32, 32)
    assert 0 <= result.images.min() <= result.images.max() <= 1
    assert result.iterations == 4
    assert result.curves["iteration"] == [1, 2, 3, 4]


def test_keeps_the_best_iterate_by_its_own_objective(faces: np.ndarray, untrained: ModelState) -> None:
    reached: list[float] = []
    wild = BN_AWARE.model_copy(update={"iterations": 3, "step_size": 5.0})
    observation = observe(faces[:1], faces[50:].mean(axis=0), untrained, [[0]])
    result = invert(observation, wild, seed=0, on_iteration=lambda _, objective: reached.append(objective))
    assert result.objective == min(reached) < reached[-1]


def test_a_zero_update_still_uses_batch_statistics(faces: np.ndarray, untrained: ModelState) -> None:
    """A client whose loss is zero sends ΔW = 0; its running statistics still move."""
    seen = observe(faces[:1], faces[50:].mean(axis=0), untrained, [[0]])
    silent = ClientUpdate({k: torch.zeros_like(v) for k, v in seen.update.weights.items()}, seen.update.statistics, 1)
    observation = Observation(**{**vars(seen), "update": silent})
    result = invert(observation, BN_AWARE.model_copy(update={"iterations": 20}), seed=0)
    assert "all zero" in result.notes[0]
    assert "update_distance" not in result.curves
    assert result.curves["batch_statistics"][-1] < 0.5 * result.curves["batch_statistics"][0]


def test_an_objective_that_is_not_finite_ends_the_search(faces: np.ndarray, untrained: ModelState) -> None:
    seen = observe(faces[:1], faces[50:].mean(axis=0), untrained, [[0]])
    huge = {name: value * 1e38 for name, value in untrained.weights.items()}
    observation = Observation(**{**vars(seen), "before": untrained.with_tensors(huge, untrained.statistics)})
    result = invert(observation, BN_AWARE.model_copy(update={"iterations": 20}), seed=0)
    assert "Diverged" in result.notes[-1]
    assert result.iterations < 20
    assert torch.isfinite(result.images).all()


def test_channels_with_impossible_variance_are_noted(faces: np.ndarray, untrained: ModelState) -> None:
    seen = observe(faces[:1], faces[50:].mean(axis=0), untrained, [[0]])
    noisy = dict(seen.update.statistics)
    noisy["features.1.running_var"] = noisy["features.1.running_var"] - 1.0
    observation = Observation(**{**vars(seen), "update": ClientUpdate(seen.update.weights, noisy, seen.update.steps)})
    result = invert(observation, BN_AWARE.model_copy(update={"iterations": 2}), seed=0)
    assert "recovered variance that is not positive" in result.notes[0]


@pytest.mark.parametrize("optimizer", ["adam", "signed-adam"])
def test_adam_equals_torchs(optimizer: str) -> None:
    settings = AttackSettings(optimizer=optimizer, step_size=0.1, iterations=10, schedule="cosine")  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    ours = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    theirs = ours.clone().requires_grad_()
    reference = torch.optim.Adam([theirs], lr=0.1)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(reference, 10)
    stepper = _Adam(settings, ours)
    for iteration in range(1, 11):
        gradient = torch.randn(3, 4, generator=generator, dtype=torch.float64)
        ours = stepper.step(ours, gradient, iteration)
        theirs.grad = gradient.sign() if optimizer == "signed-adam" else gradient
        reference.step()
        decay.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-10, atol=1e-12)


def test_step_schedule_decays_at_published_milestones() -> None:
    settings = AttackSettings(schedule="steps", step_size=1.0, iterations=80)
    sizes = [step_size(settings, iteration) for iteration in range(1, 81)]
    assert [round(size, 6) for size in (sizes[0], sizes[29], sizes[30], sizes[50], sizes[70])] == [
        1,
        1,
        0.1,
        0.01,
        0.001,
    ]


def test_observation_has_no_place_for_true_images() -> None:
    assert set(Observation.__dataclass_fields__) == {"before", "update", "labels", "schedule", "settings", "prior"}
