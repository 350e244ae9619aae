"""Two files of a federation become the update that torch's own training made; wrong files are refused in a sentence."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from leakpipe.captured.matching import match_update
from leakpipe.captured.pairs import find_pairs
from leakpipe.captured.reading import read_state
from leakpipe.captured.state import Kind
from leakpipe.captured.writing import Recorder
from leakpipe.errors import LeakpipeError

STEPS = 3
State = dict[str, Tensor]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3))
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.features(images)).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def trained(optimizer: type[torch.optim.Optimizer] = torch.optim.SGD) -> tuple[State, State]:
    """States before and after local training by torch itself."""
    torch.manual_seed(3)
    network = Network()
    before = copy.deepcopy(network.state_dict())
    steps = optimizer(network.parameters(), lr=0.01)  # type: ignore[call-arg]
    for _ in range(STEPS):
        steps.zero_grad()
        nn.functional.cross_entropy(network(torch.rand(4, 1, 8, 8)), torch.tensor([0, 1, 1, 0])).backward()
        steps.step()
    return before, network.state_dict()


BEFORE, AFTER = trained()
DIFFERENCE = {name: AFTER[name] - BEFORE[name] for name in AFTER}
BN = ("features.1.", "norm.")


def without(state: State, *marks: str) -> State:
    return {name: value for name, value in state.items() if not any(mark in name for mark in marks)}


def save(path: Path, state: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".npz" and isinstance(state, dict):
        np.savez(path, **{name: value.numpy() for name, value in state.items()})
    elif path.suffix == ".npz":
        np.savez(path, *(value.numpy() for value in state))
    else:
        torch.save(state, path)
    return path


def check_update(before: Path, after: Path, **options: Any) -> list[str]:
    """The matched update is torch's difference, with its steps; returns the notes."""
    matched = match_update(Network(), read_state(before), read_state(after), **options)
    assert matched.update.steps == STEPS
    assert matched.update.removed == frozenset()
    names = {**matched.update.weights, **matched.update.statistics}
    assert names.keys() == without(DIFFERENCE, "num_batches").keys()
    for name, value in names.items():
        torch.testing.assert_close(value, DIFFERENCE[name])
        held = {**matched.state.weights, **matched.state.statistics}[name]
        assert torch.equal(held, BEFORE[name])
        assert value.dtype == held.dtype == torch.float32
    return list(matched.notes)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".safetensors", ".npz"])
@pytest.mark.parametrize("kind", ["full", "difference", "reversed-difference", None])
def test_every_format_and_kind_gives_torchs_difference(suffix: str, kind: Kind | None, tmp_path: Path) -> None:
    sent = {"full": AFTER, "difference": DIFFERENCE, "reversed-difference": {n: -v for n, v in DIFFERENCE.items()}}
    before = save(tmp_path / f"before{suffix}", BEFORE)
    check_update(before, save(tmp_path / f"sent{suffix}", sent[kind or "full"]), kind=kind)


WRAPPED: dict[str, tuple[Callable[[State], Any], str]] = {
    "DataParallel": (lambda state: {f"module.{name}": value for name, value in state.items()}, "'module.'"),
    "Opacus, compiled": (lambda state: {f"_module._orig_mod.{name}": v for name, v in state.items()}, "'_module.'"),
    "compiled inside": (
        lambda state: {name.replace("features.", "features._orig_mod."): value for name, value in state.items()},
        "",
    ),
    "Lightning": (
        lambda state: {
            "state_dict": {f"model.{name}": value for name, value in state.items()} | {"loss.weight": torch.ones(2)},
            "epoch": 3,
            "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(2)}}}],
        },
        "1 tensors beside the network",
    ),
    "NVFlare": (lambda state: {"model": state, "train_conf": {"train": {"model": "Network"}}}, "under 'model'"),
    "MONAI": (lambda state: {"model": state, "optimizer": {"param_groups": [{"lr": 0.1}]}}, "under 'model'"),
    "two copies": (
        lambda state: (
            {f"model.{name}": v for name, v in state.items()}
            | {f"ema.module.{name}": v + 1 for name, v in state.items()}
        ),
        "'model.'",
    ),
    "parameters": (lambda s: {n: nn.Parameter(v) if v.is_floating_point() else v for n, v in s.items()}, ""),
    "float64 counters": (lambda state: {n: v.double() if not v.ndim else v for n, v in state.items()}, ""),
    "list": (lambda state: [*state.values()], "without names were taken for the whole state"),
}


@pytest.mark.parametrize("how", WRAPPED)
def test_what_frameworks_wrap_around_a_state_is_taken_off_and_said(how: str, tmp_path: Path) -> None:
    wrap, said = WRAPPED[how]
    before = save(tmp_path / "before.pt", wrap(BEFORE))
    notes = check_update(before, save(tmp_path / "after.pt", wrap(AFTER)))
    assert said in " ".join(notes)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = Network()


def test_a_prefix_of_the_network_itself_is_not_needed_in_the_files(tmp_path: Path) -> None:
    before, after = save(tmp_path / "before.pt", BEFORE), save(tmp_path / "after.pt", AFTER)
    matched = match_update(Outer(), read_state(before), read_state(after))
    assert torch.equal(matched.state.weights["network.head.bias"], BEFORE["head.bias"])


POSITIONAL: dict[str, tuple[Callable[[State], State], str, int | None]] = {
    "whole": (dict, "the whole state", None),
    "uncounted": (lambda state: without(state, "num_batches"), "the state without counters", STEPS),
    "parameters": (lambda state: without(state, "num_batches", "running"), "the parameters", STEPS),
    "FedBN": (lambda state: without(state, *BN), "the parameters without batch normalisation", STEPS),
}


@pytest.mark.parametrize("selection", POSITIONAL)
def test_arrays_without_names_are_taken_in_the_networks_order(selection: str, tmp_path: Path) -> None:
    select, said, steps = POSITIONAL[selection]
    before = save(tmp_path / "before.npz", BEFORE)
    after = save(tmp_path / "after.npz", list(select(AFTER).values()))
    matched = match_update(Network(), read_state(before), read_state(after), steps=steps)
    assert any(f"were taken for {said}" in note for note in matched.notes)
    assert {*matched.update.weights, *matched.update.statistics} == without(select(AFTER), "num_batches").keys()
    for name, value in matched.update.weights.items():
        torch.testing.assert_close(value, DIFFERENCE[name])


def test_missing_running_statistics_and_withheld_weights_are_said(tmp_path: Path) -> None:
    before = read_state(save(tmp_path / "before.pt", BEFORE))
    after = read_state(save(tmp_path / "after.pt", without(AFTER, "running", "num_batches", "head.bias")))
    matched = match_update(Network(), before, after, steps=STEPS)
    assert matched.update.statistics == {}
    assert matched.update.removed == {"head.bias"}
    assert "head.bias" not in matched.update.weights
    notes = " ".join(matched.notes)
    assert "4 of 4 running statistics" in notes
    assert "1 of 10 weights were not shared (head.bias)" in notes


def test_an_averaged_counter_is_cut_off_as_a_client_does(tmp_path: Path) -> None:
    averaged = {name: value + 7.5 if "num_batches" in name else value for name, value in BEFORE.items()}
    after = {name: value + 7 if "num_batches" in name else value for name, value in AFTER.items()}
    check_update(save(tmp_path / "before.pt", averaged), save(tmp_path / "after.pt", after))


def counted(state: State, *counts: float) -> State:
    """The state with other counters."""
    names = [name for name in state if "num_batches" in name]
    return {**state, **{name: torch.tensor(count) for name, count in zip(names, counts, strict=True)}}


@pytest.mark.parametrize("counts", [(3.0, 6.0), (3.2, 2.9), (-1.0, 4.0), (0.0, 0.0)])
def test_counters_of_layers_passed_twice_or_changed_by_noise_leave_it_to_the_declared(
    counts: tuple[float, float], tmp_path: Path
) -> None:
    before = save(tmp_path / "before.pt", BEFORE)
    after = save(tmp_path / "after.pt", counted(AFTER, *counts))
    check_update(before, after, steps=STEPS)
    with pytest.raises(LeakpipeError, match="declare it"):
        check_update(before, after)


def test_steps_that_only_the_file_says_are_taken_and_said(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "torch")
    recorder.write(BEFORE, direction="global", kind="full", round_number=1)
    recorder.write(
        without(AFTER, "num_batches"), direction="sent", kind="full", round_number=1, client="a", steps=STEPS
    )
    (pair,) = find_pairs(tmp_path)
    assert "neither the file's own 3 local steps" in " ".join(check_update(pair.before, pair.shared))


@pytest.mark.parametrize(
    ("kind", "parts"),
    [(torch.float16, 2048), (torch.bfloat16, 256), (torch.float8_e4m3fn, 16), (torch.float8_e5m2, 8)],
)
def test_low_precision_is_read_and_its_coarseness_said(kind: torch.dtype, parts: int, tmp_path: Path) -> None:
    """Numbers of p bits round to 1 part in 2 to the power of p."""
    half = {name: value.to(kind) if value.is_floating_point() else value for name, value in AFTER.items()}
    before = read_state(save(tmp_path / "before.pt", BEFORE))
    matched = match_update(Network(), before, read_state(save(tmp_path / "after.pt", half)))
    assert f"1 part in {parts}," in " ".join(matched.notes)
    for name, value in matched.update.weights.items():
        torch.testing.assert_close(value, half[name].float() - BEFORE[name])


def nan(state: State) -> State:
    return {**state, "head.bias": torch.tensor([1.0, float("nan")])}


def other_axes(state: State) -> State:
    return {name: value.permute(2, 3, 1, 0).contiguous() if value.ndim == 4 else value for name, value in state.items()}


def renamed(state: State) -> State:
    return {name.replace("features", "encoder"): value for name, value in state.items()}


WRONG: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "swapped": (AFTER, BEFORE, {}, "counts 3 local steps fewer than before.pt: the two files are swapped"),
    "full as a difference": (BEFORE, AFTER, {"kind": "difference"}, "no difference but a full state"),
    "difference as full": (BEFORE, DIFFERENCE, {"kind": "full"}, "is no full state near before.pt"),
    "reversed": (BEFORE, {n: -v for n, v in DIFFERENCE.items()}, {}, "the difference is before minus after"),
    "another model": (Network().state_dict(), AFTER, {}, "is neither near before.pt nor a small difference"),
    "wrong steps": (BEFORE, AFTER, {"steps": 4}, "counters say 3 local steps, but 4 were declared"),
    "steps unknown": (BEFORE, without(AFTER, "num_batches"), {}, "are not in both files, so the number of local steps"),
    "untrained": (BEFORE, BEFORE, {"steps": 1}, "no weight differs from before.pt"),
    "NaN": (BEFORE, nan(AFTER), {}, "'head.bias' holds values that are not finite"),
    "another layout": (BEFORE, other_axes(AFTER), {}, "its axes are in another order, as TensorFlow and JAX have them"),
    "another network": (BEFORE, nn.Linear(3, 2).state_dict(), {}, "it is of another network"),
    "a layer more": (BEFORE, {**AFTER, "tail.weight": torch.ones(2)}, {}, "'tail.weight' is not one of the network's"),
    "part of the names": (
        BEFORE,
        renamed(AFTER),
        {},
        "'encoder.0.weight' is not one of the network's, nor are 8 others",
    ),
    "another width": (BEFORE, {**AFTER, "head.bias": torch.ones(3)}, {}, "'head.bias' has shape (3,), expected (2,)"),
    "no whole model before": (without(BEFORE, "head"), AFTER, {}, "'head.weight' is missing, and 1 others"),
    "no statistics but weights": (
        BEFORE,
        {n: v for n, v in AFTER.items() if "running" in n},
        {},
        "none of the network's",
    ),
    "a list too short": (BEFORE, [*AFTER.values()][1:], {}, "15 tensors without names, expected one of 16 (the whole"),
    "a list out of order": (BEFORE, [*AFTER.values()][::-1], {}, "has shape (2,), expected (4, 1, 3, 3)"),
    "no state": (BEFORE, {"epoch": 3}, {}, "holds no state"),
    "sparse": (BEFORE, {**AFTER, "head.bias": torch.ones(2).to_sparse()}, {}, "is sparse_coo, expected a dense tensor"),
    "quantised": (
        BEFORE,
        {**AFTER, "head.weight": (50 * AFTER["head.weight"]).to(torch.int8)},
        {},
        "'head.weight' holds int8, expected floating-point numbers",
    ),
    "quantised difference": (
        BEFORE,
        {name: (9e3 * value).to(torch.int8) for name, value in DIFFERENCE.items()},
        {"kind": "difference"},
        "holds int8, expected floating-point numbers",
    ),
    "quantised before": (
        {**BEFORE, "head.bias": torch.ones(2, dtype=torch.int64)},
        AFTER,
        {},
        "'head.bias' holds int64, expected floating-point numbers",
    ),
    "truth values": (BEFORE, {**AFTER, "head.bias": torch.ones(2).bool()}, {}, "'head.bias' holds bool, expected"),
    "complex": (BEFORE, {**AFTER, "head.bias": torch.ones(2) * 1j}, {}, "is complex64, expected a dense tensor"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_files_are_refused_in_one_sentence(what: str, tmp_path: Path) -> None:
    first, second, options, said = WRONG[what]
    before, after = save(tmp_path / "before.pt", first), save(tmp_path / "after.pt", second)
    with pytest.raises(LeakpipeError, match=re.escape(said)) as error:
        match_update(Network(), read_state(before), read_state(after), **options)
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)


def test_other_buffers_come_from_the_file(tmp_path: Path) -> None:
    network = Network()
    network.register_buffer("scale", torch.tensor(1.0))
    before = save(tmp_path / "before.pt", {**BEFORE, "scale": torch.tensor(3.0)})
    matched = match_update(network, read_state(before), read_state(save(tmp_path / "after.pt", AFTER)))
    assert matched.state.module.get_buffer("scale") == 3
    assert network.get_buffer("scale") == 1


def test_frozen_batch_normalisation_is_said(tmp_path: Path) -> None:
    frozen = {name: BEFORE[name] if "running" in name or "num_b" in name else value for name, value in AFTER.items()}
    before, after = save(tmp_path / "before.pt", BEFORE), save(tmp_path / "after.pt", frozen)
    matched = match_update(Network(), read_state(before), read_state(after), steps=STEPS)
    assert "with batch normalisation frozen" in " ".join(matched.notes)
