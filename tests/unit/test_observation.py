"""The attacker's observation: contradictions are refused, true images have no place, orders are as assumed."""

from typing import Any, get_type_hints

import pytest
import torch

from leakpipe.attacks.observation import KnownClient, Observation, usable_settings
from leakpipe.attacks.problem import assumed_schedules
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.models.state import ModelState
from leakpipe.params.attack_settings import AttackSettings
from tests.unit import attacking
from tests.unit.attacking import observe_small

SEEN = observe_small(images=3, batch_size=2, epochs=2)


def edited(part: str, **tensors: torch.Tensor | None) -> ClientUpdate:
    """The update with tensors of one part replaced or (None) left out; `__` stands for a dot."""
    new = {name.replace("__", "."): value for name, value in tensors.items()}
    kept = {name: value for name, value in {**getattr(SEEN.update, part), **new}.items() if value is not None}
    return ClientUpdate(**{**vars(SEEN.update), part: kept})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a missing weight": ({"update": edited("weights", head__bias=None)}, "update: weights: 'head.bias' is missing"),
    "an unknown weight": ({"update": edited("weights", tail=torch.ones(1))}, "update: weights: 'tail' is not one of"),
    "a weight's shape": (
        {"update": edited("weights", head__bias=torch.ones(2))},
        r"update: weights: 'head.bias' has shape \(2,\), expected \(3,\)",
    ),
    "a missing statistic": (
        {"update": edited("statistics", features__1__running_var=None)},
        "update: statistics: 'features.1.running_var' is missing",
    ),
    "a statistic's shape": (
        {"update": edited("statistics", features__1__running_var=torch.ones(4))},
        r"update: statistics: 'features.1.running_var' has shape \(4,\), expected \(3,\)",
    ),
    "too few steps": (
        {"update": ClientUpdate(SEEN.update.weights, SEEN.update.statistics, 3)},
        "update: 3 local steps, expected 4 for 3 images, batch size 2 and 2 epochs",
    ),
    "a schedule of other length": (
        {"schedule": [[0, 1, 2], [0, 1], [2]]},
        "update: 4 local steps, expected 3",
    ),
    "a schedule of other images": ({"schedule": [[0, 1], [3], [0, 1], [3]]}, "schedule: not every position below 3"),
    "a schedule that leaves one out": ({"schedule": [[0, 1], [2], [0, 1], [0]]}, "schedule: not every position"),
    "no batch size": ({"batch_size": 0}, "batch_size: 0, expected 1 or more"),
    "no images": ({"images": 0}, "images: 0, expected 1 or more"),
    "no epochs": ({"epochs": 0}, "epochs: 0, expected 1 or more"),
    "other epochs": ({"epochs": 1}, "update: 4 local steps, expected 2"),
    "labels of other images": ({"labels": torch.tensor([0, 1])}, r"labels: shape \(2,\), expected \(3,\)"),
    "shares as labels": ({"labels": torch.ones(3, 3)}, r"labels: shape \(3, 3\), expected \(3,\)"),
    "a prior of other images": (
        {"prior": torch.zeros(2, 1, 8, 8)},
        r"prior: shape \(2, 1, 8, 8\), expected \(3, 1, 8, 8\)",
    ),
    "a prior of other size": (
        {"prior": torch.zeros(3, 3, 8, 8)},
        r"prior: shape \(3, 3, 8, 8\), expected \(3, 1, 8, 8\)",
    ),
}


def changed(**changes: Any) -> Observation:
    return attacking.changed(SEEN, **changes)


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_contradictions_are_refused_in_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LeakpipeError, match=message) as refusal:
        changed(**changes)
    assert "\n" not in str(refusal.value)


def test_what_is_not_granted_may_be_missing() -> None:
    withheld = ClientUpdate(SEEN.update.weights, {}, SEEN.update.steps)
    observation = changed(update=withheld, labels=None, prior=None, schedule=None)
    assert observation.client.assumed_schedule == [[0, 1], [2], [0, 1], [2]]
    assert observation.has_signal


def test_true_images_have_no_place() -> None:
    assert get_type_hints(Observation).keys() == {
        "before", "update", "settings", "image_shape", "client", "cohort", "exact_statistics", "defense",
        "public", "notes",  # images that no client holds
    }  # fmt: skip
    known = get_type_hints(KnownClient)
    may_hold_tensors = {name for name, hint in known.items() if "Tensor" in str(hint)}
    assert may_hold_tensors == {"labels", "prior"}  # class indices, and what was guessed before the update
    assert known.keys() - may_hold_tensors == {"images", "batch_size", "epochs", "schedule", "multi_label"}


SILENT = ClientUpdate(
    {name: torch.zeros_like(value) for name, value in SEEN.update.weights.items()},
    SEEN.update.statistics,
    SEEN.update.steps,
)
WITHHELD = ClientUpdate(SEEN.update.weights, {}, SEEN.update.steps)
PLAIN = ModelState(torch.nn.Linear(1, 3), {"bias": torch.zeros(3)}, {})

LACKING: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a prior to start from": ({"prior": None}, {}, "needs a prior image"),
    "a prior to stay near": ({"prior": None}, {"start": "noise", "prior_weight": 0.1}, "needs a prior image"),
    "running statistics": (
        {"update": WITHHELD},
        {"batch_norm_weight": 1.0, "objective_weight": 0.0},
        "they are withheld",
    ),
    "exact statistics": ({}, {"batch_norm": "exact", "batch_norm_weight": 1.0}, "none are granted"),
    "batch normalisation": (
        {"before": PLAIN, "update": ClientUpdate({"bias": torch.ones(3)}, {}, 4)},
        {"batch_norm_weight": 1.0},
        "the model has no batch normalisation",
    ),
    "anything": (
        {"update": ClientUpdate(SILENT.weights, {}, SILENT.steps)},
        {},
        "nothing is left to attack",
    ),
}


@pytest.mark.parametrize(("changes", "settings", "message"), LACKING.values(), ids=LACKING)
def test_settings_that_need_what_is_missing(changes: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LeakpipeError, match=message) as refusal:
        usable_settings(changed(**changes), AttackSettings(**settings))
    assert "\n" not in str(refusal.value)


def test_settings_that_fit_stay_as_they_are() -> None:
    for settings in (
        AttackSettings(),
        AttackSettings(batch_norm_weight=1.0),
        AttackSettings(batch_norm="frozen", batch_norm_weight=1.0),
    ):
        assert usable_settings(SEEN, settings) == (settings, [])
    needs_none = AttackSettings(start="noise")
    assert usable_settings(changed(prior=None, update=WITHHELD), needs_none) == (needs_none, [])


@pytest.mark.parametrize("batch_norm", ["update", "none", "frozen"])
def test_a_zero_update_falls_back_on_batch_statistics(batch_norm: str) -> None:
    assert not changed(update=SILENT).has_signal
    settings, notes = usable_settings(changed(update=SILENT), AttackSettings(batch_norm=batch_norm))  # type: ignore[arg-type]
    assert (settings.batch_norm, settings.batch_norm_weight) == ("update", 1.0)
    assert len(notes) == 2
    assert "all zero" in notes[0]
    assert "fell back" in notes[1]


def test_a_zero_update_leaves_a_term_on_its_statistics_alone() -> None:
    wanted = AttackSettings(batch_norm_weight=0.3)
    settings, notes = usable_settings(changed(update=SILENT), wanted)
    assert settings == wanted
    assert len(notes) == 1
    frozen = AttackSettings(batch_norm="frozen", batch_norm_weight=0.3)  # matches the global ones: no news of images
    assert usable_settings(changed(update=SILENT), frozen)[0].batch_norm == "update"


def schedules(settings: dict[str, Any], *, seed: int = 0, **changes: Any) -> list[list[list[int]]]:
    return assumed_schedules(changed(**changes).client, AttackSettings(**settings), seed=seed)


def test_a_granted_order_is_taken() -> None:
    known = [[2, 0], [1], [1, 2], [0]]
    assert schedules({"orders": 3}, schedule=known) == [known]


def test_an_unknown_order_repeats_the_first_epoch() -> None:
    assert schedules({}) == [[[0, 1], [2], [0, 1], [2]]]


def test_several_orders_are_drawn_for_later_epochs() -> None:
    found = schedules({"orders": 5})
    assert len(found) == 5
    for schedule in found:
        assert [len(step) for step in schedule] == [2, 1, 2, 1]
        assert schedule[:2] == [[0, 1], [2]]  # the first epoch names the candidates
        assert sorted(schedule[2] + schedule[3]) == [0, 1, 2]
    assert len({str(schedule) for schedule in found}) > 1
    assert found == schedules({"orders": 5})
    assert found != schedules({"orders": 5}, seed=1)


def test_one_epoch_has_one_order_whatever_is_asked() -> None:
    one_epoch = observe_small(images=3, batch_size=2)
    assert assumed_schedules(one_epoch.client, AttackSettings(orders=4), seed=0) == [[[0, 1], [2]]]
