"""Small files that NVFlare 2.9 and Flower 1.42 wrote (`tests/frameworks`) are read where neither is installed."""

import random
import re
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from leakpipe.captured.reading import read_state
from leakpipe.captured.state import CapturedState
from leakpipe.errors import LeakpipeError

RECORDED = Path(__file__).parent / "recorded"
STATE = {
    "head.weight": torch.arange(6.0).reshape(2, 3),
    "head.bias": torch.tensor([0.5, -0.5]),
    "norm.num_batches_tracked": torch.tensor(7),
}
NAMES = sorted(path.stem for path in RECORDED.glob("*.bin"))


def check(name: str, state: CapturedState) -> None:
    """The state is the one that was written, and so is what the file says of it."""
    assert state.positional == (name in ("flower-parameters", "flower-record-numbered"))
    names = [str(at) for at in range(3)] if state.positional else [*STATE]
    assert sorted(state.tensors) == sorted(names)
    for key, expected in zip(names, STATE.values(), strict=True):
        assert torch.equal(state.tensors[key], expected)
    assert state.kind == {"nvflare-arrays": "difference"}.get(name, "full" if "nvflare" in name else None)
    assert dict(state.facts) == ({"steps": 3} if name == "nvflare-arrays" else {})


def read(name: str, path: Path | None = None) -> CapturedState:
    pytest.importorskip("msgpack" if "nvflare" in name else "google.protobuf", reason="the extra `frameworks`")
    return read_state(path or RECORDED / f"{name}.bin")


@pytest.mark.parametrize("name", NAMES)
def test_recorded_messages_are_read(name: str) -> None:
    check(name, read(name))


@pytest.mark.parametrize("name", NAMES)
def test_damaged_messages_raise_nothing_but_a_sentence(name: str, tmp_path: Path) -> None:
    content, draw, path = (RECORDED / f"{name}.bin").read_bytes(), random.Random(name), tmp_path / "message"
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(draw.randrange(1, 9)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        for wrong in (damaged, content[: draw.randrange(len(content))]):
            path.write_bytes(wrong)
            with suppress(LeakpipeError):
                read(name, path)


@pytest.mark.parametrize(("name", "package"), [("nvflare-arrays", "msgpack"), ("flower-record", "google.protobuf")])
def test_a_missing_package_is_said(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from leakpipe.captured import flower_files

    flower_files._messages.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LeakpipeError, match=re.escape("pip install 'leakpipe[frameworks]'")):
        read_state(RECORDED / f"{name}.bin")
