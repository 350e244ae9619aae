"""A compiled step against the same step as it is; most of it without a compiler, by running the recorded graph."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from leakpipe.attacks import compiled, optimise, search
from leakpipe.attacks.checkpoint import Checkpoint
from leakpipe.attacks.labels import recover_label_counts
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.presets import PRESETS
from leakpipe.attacks.search import Search, SearchState
from leakpipe.errors import LeakpipeError
from leakpipe.params.attacks import AttackSettings
from leakpipe.params.defenses import DefenseSteps
from tests.unit.attacking import observe, observe_small, random_images, small_model, told

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # what is observed, and settings
    "several steps": ({"batch_size": 1, "epochs": 2}, {"orders": 2}),
    "labels": ({}, {"labels": "joint"}),
    "restarts": ({}, {"restarts": 3, "group_weight": 0.1}),
    "pyramid": ({}, {"pyramid": (4, 8), "iterations": 4}),
    "sigmoid": ({}, {"bounds": "sigmoid", "prior_weight": 0.1, "l2_weight": 0.1}),
    "layer-cosine": ({}, {"objective": "layer-cosine"}),
    "relative-l2": ({}, {"objective": "relative-l2"}),
    "noise": ({"defense": [{"kind": "gaussian", "sigma0": 0.1}]}, {}),
    "bounds": ({"defense": [{"kind": "quantize", "bits": 6}]}, {}),
}


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded graph is run as it is."""
    monkeypatch.setattr(compiled, "compile_graph", lambda graph, _tensors: graph)


def searched(observation: Observation, settings: AttackSettings, *, steps: int = 4) -> list[SearchState]:
    attack = Search(observation, settings, None if settings.labels == "joint" else observation.labels, seed=0)
    states = [attack.start()]
    for _ in range(steps):
        states.append(attack.advance(states[-1]))
    return states[1:]


def settings_of(preset: str, **changes: Any) -> AttackSettings:
    return AttackSettings.model_validate({**PRESETS[preset].settings.model_dump(), **changes})


def assert_same(observation: Observation, settings: AttackSettings) -> None:
    expected = searched(observation, settings)
    found = searched(observation, settings.model_copy(update={"compile": True}))
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine.variables, theirs.variables)
        assert torch.equal(mine.best, theirs.best)
        assert mine.curves == theirs.curves
        assert all(torch.equal(value, theirs.drift[name]) for name, value in mine.drift.items())


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("step", ["passes", "autograd"])
@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_can_be_compiled(preset: str, step: str) -> None:
    assert_same(observe_small(), settings_of(preset, step=step))


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("case", list(CASES))
def test_every_kind_of_attack_can_be_compiled(case: str) -> None:
    observed, changes = CASES[case]
    defense = DefenseSteps.model_validate(observed["defense"]) if "defense" in observed else None
    sizes = {name: value for name, value in observed.items() if name != "defense"}
    assert_same(told(observe_small(**sizes), defense=defense), settings_of("leakpipe", **changes))


@pytest.mark.usefixtures("no_compiler")
def test_a_restart_that_is_not_finite_stays_where_it_is() -> None:
    attack = Search(observe_small(), settings_of("leakpipe", compile=True), torch.tensor([0, 1]), seed=0)
    state = attack.advance(attack.start())
    broken = attack.advance(SearchState(**{**vars(state), "variables": state.variables * torch.nan}))
    assert broken.stopped == "diverged"


@pytest.mark.usefixtures("no_compiler")
def test_a_stopped_attack_continues_to_the_same_bytes(tmp_path: Path) -> None:
    settings = settings_of("leakpipe", compile=True, iterations=6)
    whole = invert(observe_small(), settings, seed=0)
    checkpoint = Checkpoint(tmp_path / "c.safetensors", key="k", seconds=0, labels={})

    def stop(iteration: int, _objective: float) -> None:
        if iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        invert(observe_small(), settings, seed=0, on_iteration=stop, checkpoint=checkpoint)
    continued = invert(observe_small(), settings, seed=0, checkpoint=checkpoint)
    assert torch.equal(continued.images, whole.images)


def test_short_attacks_that_try_labels_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_for: list[AttackSettings] = []

    class Noted(compiled.Compiled[Any]):
        def __init__(self, function: Callable[..., Any]) -> None:
            compiled_for.append(function.__self__.settings)  # type: ignore[attr-defined]
            super().__init__(function)

    monkeypatch.setattr(search, "Compiled", Noted)
    monkeypatch.setattr(compiled, "compile_graph", lambda graph, _tensors: graph)
    monkeypatch.setattr(optimise, "TRIAL", (2, 2))
    observation = observe_small(images=3, batch_size=2)
    assert len(recover_label_counts(observation, observation.prior).guesses) > 1  # so that several are tried
    settings = settings_of("leakpipe", compile=True, iterations=3, labels="recovered")
    invert(observation, settings, seed=0)
    assert compiled_for == [settings]


def test_what_depends_on_values_is_refused_in_one_sentence() -> None:
    with pytest.raises(LeakpipeError, match=r"compile: true, .* it reads a value .*; set compile: false$"):
        compiled.Compiled(lambda x: x * x.item())(torch.ones(()))


def test_steps_that_are_recomputed_are_not_compiled() -> None:
    with pytest.raises(ValidationError, match="compile: must be false with recompute_steps"):
        AttackSettings(compile=True, recompute_steps=True)


def test_no_compiler_is_said_with_what_to_do(tmp_path: Path) -> None:
    """In a process of its own, since torch remembers the compilers that it found."""
    code = "import torch; from leakpipe.attacks.compiled import Compiled; Compiled(torch.sin)(torch.ones(3))"
    environment = {"PATH": "", "CXX": "no-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = str(Path(compiled.__file__).parents[2])
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    said = "compile: true, expected a C++ compiler and found none; install g++, or set compile: false"
    assert ran.stderr.strip().splitlines()[-1] == f"leakpipe.errors.LeakpipeError: {said}"


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler (g++) on this machine")


@needs_compiler
def test_a_compiled_search_takes_the_same_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1e-10 over 50 steps in float64, without total variation (as `test_passes`); one program serves two victims."""
    from torch._dynamo.utils import counters

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    settings = settings_of("leakpipe", total_variation_weight=0.0, iterations=50)
    for victim in range(2):
        images = random_images(2, seed=victim, dtype=torch.float64)
        observation = observe(small_model(seed=victim, dtype=torch.float64), images, [0, victim])
        expected = searched(observation, settings, steps=50)
        found = searched(observation, settings.model_copy(update={"compile": True}), steps=50)
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine.variables, theirs.variables, rtol=0, atol=1e-10)
        assert counters["inductor"]["fxgraph_cache_miss"] == 1
        assert counters["inductor"]["fxgraph_cache_hit"] == victim
