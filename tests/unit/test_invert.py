"""The attack, whole: it rebuilds an image, gives the same bytes twice, and survives bad observations."""

from typing import Any

import numpy as np
import pytest
import torch

from leakpipe.attacks.labels import LabelCounts
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.presets import PRESETS
from leakpipe.client.update import ClientUpdate
from leakpipe.data.datasets import DATASETS
from leakpipe.errors import LeakpipeError
from leakpipe.metrics.similarity import ssim
from leakpipe.models.state import build_module, initial_state
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.data import ImagesParams
from leakpipe.params.models import ModelParams
from tests.unit.attacking import changed, observe, observe_small, random_images, searching, small_model

LEAKPIPE = PRESETS["bn-cosine"].settings


def leakpipe_with(**changes: Any) -> AttackSettings:
    return LEAKPIPE.model_copy(update=changes)


def test_rebuilds_one_face_from_one_update() -> None:
    faces = torch.from_numpy(DATASETS["lfw-faces"].load(ImagesParams(dataset="lfw-faces", image_size=16)).images[:100])
    face, prior = faces[7:8], faces[50:].mean(dim=0, keepdim=True)
    state = initial_state(build_module(ModelParams(name="convnet-bn"), classes=2, image_size=16), seed=3)
    observation = observe(state, face, [0], prior=prior)
    result = invert(observation, leakpipe_with(iterations=150, total_variation_weight=1e-4), seed=0)
    true, start, found = (images[0].numpy() for images in (face, prior, result.images))
    assert ssim(start, true, data_range=1.0) < 0.7
    assert ssim(found, true, data_range=1.0) > 0.95
    assert result.curves["update_distance"][-1] < 0.1 * result.curves["update_distance"][0]
    assert result.notes == []
    distances = result.curves["update_distance"]
    assert result.explained == pytest.approx(1 - min(distances) / distances[0], abs=0.01)


def test_same_seed_same_bytes() -> None:
    observation = observe_small(images=2)
    first, second, other = (invert(observation, leakpipe_with(iterations=5), seed=seed) for seed in (0, 0, 1))
    assert first.images.numpy().tobytes() == second.images.numpy().tobytes() != other.images.numpy().tobytes()
    assert first.curves == second.curves


def test_tells_what_each_iteration_reached() -> None:
    reached: dict[int, float] = {}
    result = invert(observe_small(images=1), leakpipe_with(iterations=4), seed=0, on_iteration=reached.__setitem__)
    assert list(reached) == [1, 2, 3, 4]
    assert list(reached.values()) == pytest.approx(result.curves["objective"])
    assert result.objective == min(reached.values())


def test_labels_are_granted_recovered_or_searched() -> None:
    images = random_images(3, dtype=torch.float32)
    observation = observe(small_model(), images, [2, 0, 2])
    granted = invert(observation, leakpipe_with(iterations=2), seed=0)
    assert granted.labels.tolist() == [2, 0, 2]
    assert "Labels" not in " ".join(granted.notes)
    for settings, seen in (("recovered", observation), ("granted", changed(observation, labels=None))):
        recovered = invert(seen, leakpipe_with(iterations=2, labels=settings), seed=0)
        assert recovered.labels.tolist() == [0, 2, 2]
        assert "Labels were recovered from the head's gradient: 1 of class 0, 2 of class 2." in recovered.notes
    joint = invert(changed(observation, labels=None), leakpipe_with(iterations=2, labels="joint"), seed=0)
    assert joint.labels.shape == (3,)
    assert "Labels" not in " ".join(joint.notes)


def test_labels_searched_jointly_are_found() -> None:
    """Deep Leakage from Gradients on one image: the update tells its label."""
    settings = AttackSettings(labels="joint", iterations=60, start="noise", objective="l2", step_size=0.3)
    for label in range(3):
        observation = observe(small_model(), random_images(1, dtype=torch.float32), [label])
        assert invert(observation, settings, seed=0).labels.tolist() == [label]


def test_ambiguous_labels_are_those_that_explain_the_update_best(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(3, dtype=torch.float32)
    observation = changed(observe(small_model(), images, [0, 2, 2], prior=images), labels=None)
    doubtful = LabelCounts(torch.tensor([1.5, 0.2, 1.3]), [(2, 0, 1), (1, 0, 2), (1, 1, 1)])
    monkeypatch.setattr("leakpipe.attacks.optimise.recover_label_counts", lambda *_: doubtful)
    result = invert(observation, AttackSettings(iterations=2), seed=0)
    assert result.labels.tolist() == [0, 2, 2]


def silenced(observation: Observation) -> Observation:
    """Of a client whose loss is zero: ΔW = 0, while its running statistics still move."""
    silent = {name: torch.zeros_like(value) for name, value in observation.update.weights.items()}
    update = ClientUpdate(silent, observation.update.statistics, observation.update.steps)
    return changed(observation, update=update)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_zero_update_still_uses_batch_statistics(weight: float) -> None:
    observation = silenced(observe_small(images=1))
    result = invert(observation, AttackSettings(iterations=60, batch_norm_weight=weight), seed=0)
    assert "all zero" in result.notes[0]
    assert any("fell back" in note for note in result.notes) == (weight == 0)
    assert "update_distance" not in result.curves
    statistics = result.curves["batch_statistics"]
    assert result.explained == pytest.approx(1 - min(statistics) / statistics[0], abs=0.05)
    assert result.curves["batch_statistics"][-1] < 0.5 * result.curves["batch_statistics"][0]
    assert not torch.equal(result.images, observation.client.prior)


def test_labels_are_not_recovered_from_a_zero_update() -> None:
    """It has no sign of any class: no note may claim that labels were recovered, and granted ones are taken."""
    observation = silenced(observe(small_model(), random_images(1, dtype=torch.float32), [2]))
    result = invert(observation, AttackSettings(iterations=2, labels="recovered"), seed=0)
    assert not any("were recovered" in note for note in result.notes)
    assert result.labels.tolist() == [2]


def test_a_zero_update_needs_no_labels() -> None:
    """Batch statistics, all that is left to match, do not depend on them."""
    observation = silenced(observe_small(images=1))
    blind = invert(changed(observation, labels=None), leakpipe_with(iterations=2), seed=0)
    assert torch.equal(blind.images, invert(observation, leakpipe_with(iterations=2), seed=0).images)
    assert any("No labels" in note for note in blind.notes)


def test_a_zero_update_without_statistics_is_refused() -> None:
    silent = silenced(observe_small(images=1)).update
    observation = changed(observe_small(images=1), update=ClientUpdate(silent.weights, {}, 1))
    with pytest.raises(LeakpipeError, match="nothing is left to attack"):
        invert(observation, LEAKPIPE.model_copy(update={"batch_norm_weight": 0.0}), seed=0)


def test_an_objective_that_is_not_finite_ends_the_search() -> None:
    seen = observe_small(images=1)
    huge = {name: value * 1e38 for name, value in seen.before.weights.items()}
    observation = changed(seen, before=seen.before.with_tensors(huge, seen.before.statistics))
    result = invert(observation, leakpipe_with(iterations=20), seed=0)
    assert "Diverged" in result.notes[-1]
    assert result.stopped == "diverged"
    assert result.iterations < 20
    assert result.explained == 0
    assert any("nothing better than its start" in note for note in result.notes)
    assert result.objective is None
    assert np.isfinite(result.images.numpy()).all()


def test_a_search_that_only_gets_worse_explains_nothing() -> None:
    """Steps of 1 from a good start lead nowhere: the start itself is returned, and the result says so."""
    images = random_images(1, dtype=torch.float32)
    observation = observe(small_model(), images, [0], prior=images)
    result = invert(observation, leakpipe_with(iterations=3, step_size=1.0, start_jitter=0.0), seed=0)
    assert torch.allclose(result.images, images, atol=1e-6)
    assert result.explained == 0
    assert [note for note in result.notes if "nothing better than its start" in note]


def test_the_share_explained_is_that_of_the_restart_that_is_returned() -> None:
    search = searching(observe_small(images=1), restarts=3, start="noise", iterations=6)
    state = first = search.advance(search.start())
    while not state.stopped:
        state = search.advance(state)
    winner = state.best_objective.argmin()
    assert search.explained(first) == 0
    assert search.explained(state) == pytest.approx(
        float(1 - state.best_objective[winner] / first.best_objective[winner])
    )


def test_channels_with_impossible_variance_are_noted() -> None:
    seen = observe_small(images=1)
    noisy = dict(seen.update.statistics)
    noisy["features.1.running_var"] = noisy["features.1.running_var"] - 1.0
    observation = changed(seen, update=ClientUpdate(seen.update.weights, noisy, seen.update.steps))
    result = invert(observation, leakpipe_with(iterations=2), seed=0)
    doubt, note, *_ = result.notes
    assert "The batch variances of 3 channels come out below 0" in doubt
    assert "3 channels with a recovered variance that is not positive" in note


def test_batch_statistics_alone_do_not_explain_an_update() -> None:
    observation = observe_small(images=1)
    result = invert(observation, leakpipe_with(iterations=60, objective_weight=0.0), seed=0)
    assert result.curves["batch_statistics"][-1] < 0.5 * result.curves["batch_statistics"][0]
    assert result.explained is None
