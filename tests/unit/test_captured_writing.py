"""Captures of a federation: files that are read back, never overwritten, and no reason for training to end."""

import json
import logging
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from leakpipe.captured.pairs import CapturedPair, find_pairs
from leakpipe.captured.reading import read_state
from leakpipe.captured.writing import Recorder, file_name
from leakpipe.errors import LeakpipeError

STATE = {"a": torch.arange(3.0), "b": torch.tensor(2), "c": torch.tensor([0.5], dtype=torch.bfloat16)}


def record(folder: Path, number: int = 1, **changes: object) -> None:
    settings = {"direction": "sent", "kind": "difference", "client": "site-1", "steps": 3} | changes
    Recorder(folder, "torch").write(STATE, round_number=number, **settings)  # type: ignore[arg-type]


def test_what_was_written_is_read_with_its_facts(tmp_path: Path) -> None:
    record(tmp_path)
    state = read_state(tmp_path / "round-0001" / "site-1-sent.safetensors")
    assert not state.positional
    assert state.kind == "difference"
    assert all(torch.equal(state.tensors[name], value.to(state.tensors[name].dtype)) for name, value in STATE.items())
    facts = {name: state.facts[name] for name in ("round", "client", "direction", "steps")}
    assert facts == {"round": 1, "client": "site-1", "direction": "sent", "steps": 3}
    assert state.facts["versions"] == {name: version(name) for name in ("leakpipe", "torch")}


def test_arrays_without_names_keep_their_order(tmp_path: Path) -> None:
    values = [torch.full((2,), float(at)) for at in range(12)]
    named = {str(at): value for at, value in enumerate(values)}
    Recorder(tmp_path, "torch").write(named, direction="global", kind="full", round_number=1)
    state = read_state(tmp_path / "round-0001" / "global.safetensors")
    assert state.positional
    assert [float(value[0]) for value in state.tensors.values()] == [*map(float, range(12))]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    record(tmp_path)
    with pytest.raises(LeakpipeError, match="exists already, and captures are not overwritten"):
        record(tmp_path)


def test_values_that_are_not_finite_are_logged_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        Recorder(tmp_path, "torch").write(
            {"a": torch.tensor([float("nan")])}, direction="global", kind="full", round_number=5
        )
    assert "round 5 was not captured" in caplog.text
    assert not [*tmp_path.rglob("*.safetensors")]


def test_pairs_are_found_by_round_and_client(tmp_path: Path) -> None:
    for number in (2, 1):
        for client in ("b", "a"):
            record(tmp_path, number, client=client)
        record(tmp_path, number, client=None, direction="global", kind="full")
    record(tmp_path, 1, client="a", direction="received", kind="full")
    first, second = tmp_path / "round-0001", tmp_path / "round-0002"
    assert find_pairs(tmp_path) == [
        CapturedPair(1, "a", first / "a-received.safetensors", first / "a-sent.safetensors"),
        CapturedPair(1, "b", first / "global.safetensors", first / "b-sent.safetensors"),
        CapturedPair(2, "a", second / "global.safetensors", second / "a-sent.safetensors"),
        CapturedPair(2, "b", second / "global.safetensors", second / "b-sent.safetensors"),
    ]


def test_what_is_missing_or_damaged_is_said(tmp_path: Path) -> None:
    with pytest.raises(LeakpipeError, match="holds no update that leakpipe captured"):
        find_pairs(tmp_path)
    record(tmp_path)
    with pytest.raises(LeakpipeError, match="the global model of round 1 is not beside it"):
        find_pairs(tmp_path)
    sidecar = tmp_path / "round-0001" / "site-1-sent.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"metadata": {}}))
    with pytest.raises(LeakpipeError, match="metadata does not describe a capture: KeyError"):
        find_pairs(tmp_path)


@pytest.mark.parametrize(
    ("client", "expected"),
    [("site-1", "site-1"), ("../../etc", "_.._etc"), ("Klinik Süd/2", "Klinik_S_d_2"), ("..", "client")],
)
def test_a_clients_name_cannot_lead_out_of_the_folder(client: str, expected: str, tmp_path: Path) -> None:
    assert file_name(client) == expected
    record(tmp_path, client=client)
    assert [path.parent.name for path in tmp_path.rglob("*.safetensors")] == ["round-0001"]
