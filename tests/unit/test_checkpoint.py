"""An attack that is killed at any iteration and continued ends with the same bytes as an undisturbed one."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leakpipe.attacks.checkpoint import Checkpoint
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.progress import CHECKPOINT, read_progress
from leakpipe.attacks.reconstruction import Reconstruction
from leakpipe.attacks.search_state import SearchState
from leakpipe.files.storage import read_arrays, sidecar_path, write_arrays
from leakpipe.params.attack_settings import AttackSettings
from tests.unit.attacking import observe_small, searching

ITERATIONS = 4
CASES: dict[str, dict[str, Any]] = {
    "adam": {"batch_norm_weight": 0.1},
    "lbfgs": {"optimizer": "lbfgs", "bounds": "none"},
    "lbfgs on a pyramid": {"optimizer": "lbfgs", "bounds": "sigmoid", "pyramid": (4, 8), "start": "noise"},
    "pyramid": {"pyramid": (2, 4, 8), "start": "noise"},
    "sigmoid": {"bounds": "sigmoid", "optimizer": "soft-signed-adam"},
    "smoothing": {"smoothing": 0.1},
    "halving": {"restarts": 4, "rungs": 3, "start": "noise"},
    "coefficients": {"spectrum_decay": 0.5},
    "averages": {"averaging": 0.9, "restarts": 2, "start": "noise", "pyramid": (4, 8)},
    "joint labels": {"labels": "joint", "start": "noise"},
    "recovered labels": {"labels": "recovered"},
    "drifting": {"global_model": "drifting", "update_gradient": "detached"},
    "group of two": {"restarts": 2, "group_weight": 0.5, "start": "noise"},
    "converging": {"tolerance": 0.5, "patience": 2, "step_size": 1e-6},
}


@pytest.fixture(autouse=True)
def averages_are_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leakpipe.attacks.search.AVERAGE_EVERY", 2)


@pytest.fixture(scope="module")
def observation() -> Observation:
    return observe_small(images=2, batch_size=1, epochs=2)


def facts(result: Reconstruction) -> dict[str, Any]:
    """All of a reconstruction, tensors as bytes."""
    tensors = {"images": result.images.numpy().tobytes(), "labels": result.labels.numpy().tobytes()}
    return {**vars(result), **tensors, "curves": dict(result.curves), "notes": list(result.notes)}


def interrupted(observation: Observation, settings: AttackSettings, path: Path, at: int, error: BaseException) -> None:
    def interrupt(iteration: int, _objective: float) -> None:
        if iteration == at:
            raise error

    # Killed by surprise, only what was saved after the iteration before is left.
    seconds = 1e9 if isinstance(error, KeyboardInterrupt) else 0.0
    checkpoint = Checkpoint(path, key="same", seconds=seconds)
    with pytest.raises(type(error)):
        invert(observation, settings, seed=3, on_iteration=interrupt, checkpoint=checkpoint)


def continued(observation: Observation, settings: AttackSettings, path: Path) -> tuple[list[int], dict[str, Any]]:
    """Iterations that were still taken, and what came out."""
    taken: list[int] = []
    result = invert(
        observation,
        settings,
        seed=3,
        on_iteration=lambda iteration, _: taken.append(iteration),
        checkpoint=Checkpoint(path, key="same"),
    )
    return taken, facts(result)


@pytest.mark.parametrize("case", CASES)
def test_continues_with_the_same_bytes_after_an_interrupt_at_every_iteration(
    case: str, observation: Observation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leakpipe.attacks.optimise.TRIAL", (2, 2))
    settings = AttackSettings(iterations=ITERATIONS, **CASES[case])
    undisturbed = invert(observation, settings, seed=3)
    last = undisturbed.iterations
    for at in range(1, last + 1):
        path = tmp_path / f"{at}.safetensors"
        interrupted(observation, settings, path, at, KeyboardInterrupt())
        assert continued(observation, settings, path) == (list(range(at + 1, last + 1)), facts(undisturbed))


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("case", ["pyramid", "group of two", "lbfgs"])
def test_continues_from_the_last_save_where_it_was_killed(
    case: str, at: int, observation: Observation, tmp_path: Path
) -> None:
    settings = AttackSettings(iterations=ITERATIONS, **CASES[case])
    interrupted(observation, settings, tmp_path / "s.safetensors", at, RuntimeError("killed"))
    taken, found = continued(observation, settings, tmp_path / "s.safetensors")
    assert taken == list(range(at, ITERATIONS + 1))
    assert found == facts(invert(observation, settings, seed=3))


def test_interrupted_again_and_again(observation: Observation, tmp_path: Path) -> None:
    settings = AttackSettings(iterations=ITERATIONS, **CASES["group of two"])
    path = tmp_path / "search.safetensors"
    for at in range(1, ITERATIONS):
        interrupted(observation, settings, path, at, KeyboardInterrupt())
    assert continued(observation, settings, path) == ([ITERATIONS], facts(invert(observation, settings, seed=3)))


def test_a_restart_that_diverged_stays_so(observation: Observation, tmp_path: Path) -> None:
    search = searching(observation, restarts=2, start="noise", iterations=4, optimizer="lbfgs", bounds="none")
    state = search.advance(search.advance(search.start()))
    state = replace(state, alive=torch.tensor([False, True]), notes=("Diverged: not finite.",))
    checkpoint = Checkpoint(tmp_path / "search.safetensors", key="k")
    checkpoint.save(state)
    again = checkpoint.load()
    assert again is not None
    for _ in range(2):
        state, again = search.advance(state), search.advance(again)
    assert_same(again, state)
    assert again.notes == ("Diverged: not finite.",)


def assert_same(found: SearchState, expected: SearchState) -> None:
    for field in fields(SearchState):
        mine, theirs = getattr(found, field.name), getattr(expected, field.name)
        if field.name in ("optimizer_state", "memory"):
            assert mine.keys() == theirs.keys(), field.name
            for name in theirs:
                assert mine[name].dtype == theirs[name].dtype
                assert torch.equal(mine[name], theirs[name]), (field.name, name)
        elif isinstance(theirs, torch.Tensor):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs), field.name
        else:
            assert mine == theirs, field.name


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("case", CASES)
def test_every_field_survives_the_disk(case: str, steps: int, observation: Observation, tmp_path: Path) -> None:
    search = searching(observation, iterations=ITERATIONS, **CASES[case])
    state = search.start()
    for _ in range(steps):
        state = search.advance(state)
    state = replace(state, notes=("Ünusual – note.",), stopped="converged" if steps == 3 else "")
    checkpoint = Checkpoint(tmp_path / "search.safetensors", key="k")
    checkpoint.save(state)
    found = checkpoint.load()
    assert found is not None
    assert_same(found, state)


def saved(path: Path, observation: Observation) -> Checkpoint:
    search = searching(observation, iterations=ITERATIONS)
    checkpoint = Checkpoint(path, key="mine")
    checkpoint.save(search.advance(search.start()))
    return checkpoint


def test_another_key_is_another_search(observation: Observation, tmp_path: Path) -> None:
    path = tmp_path / "search.safetensors"
    assert saved(path, observation).load() is not None
    other = Checkpoint(path, key="other")
    assert other.load() is None
    settings = AttackSettings(iterations=ITERATIONS)
    result = invert(observation, settings, seed=3, checkpoint=other)
    assert facts(result) == facts(invert(observation, settings, seed=3))


@pytest.mark.parametrize("part", ["tensors", "sidecar"])
@pytest.mark.parametrize("length", [0, 10, -1])
def test_a_damaged_file_is_ignored(part: str, length: int, observation: Observation, tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "search.safetensors", observation)
    path = checkpoint.path if part == "tensors" else sidecar_path(checkpoint.path)
    content = path.read_bytes().rstrip()
    path.write_bytes(content[:length])
    assert checkpoint.load() is None


@pytest.mark.parametrize("part", ["tensors", "sidecar"])
def test_a_missing_file_is_no_checkpoint(part: str, observation: Observation, tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "search.safetensors", observation)
    (checkpoint.path if part == "tensors" else sidecar_path(checkpoint.path)).unlink()
    assert checkpoint.load() is None


def altered(path: Path) -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, Any]]]:
    """Each field of a checkpoint missing or of another kind, each tensor missing, of another shape or another dtype."""
    arrays, metadata = read_arrays(path, CHECKPOINT)
    for name in metadata.keys() - {"labels"}:
        yield f"no {name}", arrays, {key: value for key, value in metadata.items() if key != name}
        for value in (None, {"x": 1}, [[1]], 10**400, "x"):
            yield f"{name} {str(value)[:9]}", arrays, {**metadata, name: value}
    for name in ("improved", "alive", "best_objective"):
        yield f"too many {name}", arrays, {**metadata, name: metadata[name] * 2}
    changes: list[dict[str, Any]] = [{"iteration": ITERATIONS}, {"iteration": 99}, {"optimizer_start": 2}]
    for change in (*changes, {"curves": {"objective": [1]}}):
        yield f"{change}", arrays, metadata | change
    for name, array in arrays.items():
        yield f"no {name}", {key: value for key, value in arrays.items() if key != name}, metadata
        for value in (array[..., None], array.astype(np.float16), np.concatenate([array, array], axis=-1)):
            if value.shape != array.shape or value.dtype != array.dtype:
                yield f"{name} {value.dtype} {value.shape}", arrays | {name: value}, metadata
    yield "another tensor", arrays | {"optimizer/other": arrays["best"]}, metadata


@pytest.mark.parametrize("case", ["adam", "lbfgs on a pyramid", "drifting"])
def test_a_file_of_another_format_is_ignored(case: str, observation: Observation, tmp_path: Path) -> None:
    settings = AttackSettings(iterations=ITERATIONS, **CASES[case])
    path = tmp_path / "search.safetensors"
    interrupted(observation, settings, path, 1, KeyboardInterrupt())
    search = searching(observation, iterations=ITERATIONS, **CASES[case])
    checkpoint = Checkpoint(path, key="same")
    kept = checkpoint.load()
    assert kept is not None
    assert search.fits(kept)
    for what, arrays, metadata in altered(path):
        write_arrays(path, CHECKPOINT, arrays, metadata)
        assert read_progress(tmp_path) == []  # for `leakpipe watch`
        state = checkpoint.load()
        assert state is None or not search.fits(state), what
    taken, found = continued(observation, settings, path)  # the last of them
    assert taken == list(range(1, ITERATIONS + 1))
    assert found == facts(invert(observation, settings, seed=3))


def test_saves_only_when_due_and_removes_all_it_wrote(
    observation: Observation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("leakpipe.attacks.checkpoint.time.monotonic", lambda: now[0])
    checkpoint = Checkpoint(tmp_path / "search.safetensors", key="k", seconds=30)
    state = searching(observation).start()
    for passed, due in ((29.0, False), (1.0, True), (29.9, False), (0.2, True)):
        now[0] += passed
        checkpoint.path.unlink(missing_ok=True)
        checkpoint.save_if_due(state)
        assert checkpoint.path.exists() == due
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []
    checkpoint.remove()
