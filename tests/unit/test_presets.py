"""Published attacks: every one runs, hangs together, and is overridden field by field."""

from typing import Any

import pytest
import torch

from leakpipe.attacks.engines.released_tool import DEVIATIONS, find_deviations
from leakpipe.attacks.observation import usable_settings
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.presets import PRESETS, resolve_settings
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.attacks import AttackParams
from tests.unit.attacking import changed, observe, observe_small, random_images, small_model


def differing(first: str, second: str) -> set[str]:
    mine, theirs = (PRESETS[name].settings.model_dump() for name in (first, second))
    return {field for field in mine if mine[field] != theirs[field]}


SEARCHES = [name for name, preset in PRESETS.items() if preset.settings.method == "search"]
CLIENTS = {
    "one step": lambda: observe_small(images=1),
    "in colour": lambda: observe(small_model(), random_images(1, channels=3, dtype=torch.float32), [2]),
    "unknown order": lambda: observe_small(images=3, batch_size=2, epochs=2),
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("preset", SEARCHES)
def test_every_search_runs(preset: str, client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leakpipe.attacks.optimise.TRIAL", (2, 2))
    seen = CLIENTS[client]()
    prior = random_images(seen.client.images, channels=seen.image_shape[0], seed=9, dtype=torch.float32)
    observation = changed(seen, prior=prior)
    settings = PRESETS[preset].settings.model_copy(update={"iterations": 3})
    result = invert(observation, settings, seed=0)
    assert result.images.shape == (observation.client.images, *observation.image_shape)
    assert 0 <= result.images.min() < result.images.max() <= 1
    assert result.labels.shape == (observation.client.images,)
    assert (result.iterations, result.stopped) == (3, "finished")
    assert result.objective == pytest.approx(min(result.curves["objective"]))
    assert result.curves["iteration"] == [1, 2, 3]


@pytest.mark.parametrize("preset", SEARCHES)
def test_every_search_uses_batch_statistics_of_a_zero_update(preset: str) -> None:
    seen = observe_small(images=1)
    silent = {name: torch.zeros_like(value) for name, value in seen.update.weights.items()}
    observation = changed(seen, update=ClientUpdate(silent, seen.update.statistics, 1))
    settings = PRESETS[preset].settings.model_copy(update={"iterations": 3, "start": "prior"})
    result = invert(observation, settings, seed=0)
    assert "all zero" in result.notes[0]
    fell_back = settings.batch_norm_weight == 0 or settings.batch_norm == "frozen"
    assert any("fell back" in note for note in result.notes) == fell_back
    assert "update_distance" not in result.curves
    assert result.curves["batch_statistics"][0] > 0
    assert not torch.equal(result.images, observation.client.prior)


def test_every_preset_is_published() -> None:
    assert all(preset.paper for preset in PRESETS.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_do_not_contradict_themselves(preset: str) -> None:
    """`model_copy`, with which some are derived, checks nothing."""
    settings = PRESETS[preset].settings
    assert AttackSettings.model_validate(settings.model_dump()) == settings
    assert settings.warmup < settings.iterations
    assert usable_settings(observe_small(images=1), settings) == (settings, [])


def test_only_the_released_tool_deviates_and_in_seven_fields() -> None:
    assert differing("published-tool", "bn-aware") == set(DEVIATIONS)
    deviating = {name: len(find_deviations(preset.settings)) for name, preset in PRESETS.items()}
    assert deviating == {**dict.fromkeys(PRESETS, 0), "published-tool": 7}


def test_presets_relate_as_their_papers_do() -> None:
    assert differing("idlg", "dlg") == {"labels"}
    settings = {name: preset.settings for name, preset in PRESETS.items()}
    before_the_paper = ("inverting-gradients", "see-through-gradients", "modern")
    assert {settings[name].batch_norm for name in before_the_paper} == {"frozen"}
    assert settings["bn-aware"].batch_norm == settings["bn-cosine"].batch_norm == "update"
    assert {name for name in settings if settings[name].surrogate_slope > 0} == {"bn-cosine"}
    assert {name for name in settings if settings[name].start == "prior"} == {
        "bn-aware", "published-tool", "bn-cosine", "row-space", "recursive",
    }  # fmt: skip


def test_the_old_name_of_a_preset_is_read_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="'leakpipe' is now called 'bn-cosine'"):
        old = attack("leakpipe")
    assert resolve_settings(old, "a") == PRESETS["bn-cosine"].settings


def attack(preset: str, *, client: str = "a", iterations: int | None = None, **fields: Any) -> AttackParams:
    return AttackParams.model_validate({"preset": preset, "targets": {client: {"iterations": iterations}}, **fields})


@pytest.mark.parametrize("preset", PRESETS)
def test_unset_fields_are_the_presets(preset: str) -> None:
    assert resolve_settings(attack(preset), "a") == PRESETS[preset].settings


def test_set_fields_replace_the_presets_even_by_defaults() -> None:
    default = AttackSettings().total_variation_weight
    assert PRESETS["modern"].settings.total_variation_weight != default
    found = resolve_settings(attack("modern", total_variation_weight=default, restarts=7), "a")
    expected = {**PRESETS["modern"].settings.model_dump(), "total_variation_weight": default, "restarts": 7}
    assert found.model_dump() == expected
    assert type(found) is AttackSettings


def test_a_client_may_have_iterations_of_its_own() -> None:
    chosen = AttackParams.model_validate(
        {"preset": "bn-aware", "iterations": 50, "targets": {"a": {"iterations": 9}, "b": {}}}
    )
    assert resolve_settings(chosen, "a").iterations == 9
    assert resolve_settings(chosen, "b").iterations == 50


CONTRADICTIONS = {
    "statistics that are not known": ("bn-aware", {"batch_norm": "none"}, "batch_norm_weight"),
    "a group of one": ("see-through-gradients", {"restarts": 1}, "group_weight"),
    "clamping for L-BFGS": ("dlg", {"bounds": "clamp"}, "bounds: clamp"),
    "a loss without labels": ("dlg", {"client_loss": "saturated-bce"}, "labels: joint"),
}


@pytest.mark.parametrize(("preset", "fields", "named"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_fields_that_contradict_the_preset_are_refused(preset: str, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(LeakpipeError, match=named) as refusal:
        resolve_settings(attack(preset, **fields), "a")
    message = str(refusal.value)
    assert f"'{preset}'" in message
    assert "\n" not in message
    assert "Value error" not in message
