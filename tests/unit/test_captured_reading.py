"""Files from elsewhere are read as their framework wrote them; hostile and damaged ones run and write nothing."""

import io
import json
import os
import pickle
import random
import re
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib import format as npy
from safetensors.torch import save_file

from leakpipe.captured import limits
from leakpipe.captured.reading import read_state
from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import write_arrays

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2), "n": torch.tensor(7)}
ARRAYS = {name: value.numpy() for name, value in STATE.items()}


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


def npz(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy_bytes(array: Any, *, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def recompressed(path: Path) -> None:
    """Rewrites an archive so that its members are compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    npz(path, members, zipfile.ZIP_DEFLATED)


def save_scripted(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), str(path))


def save_compressed(path: Path) -> None:
    torch.save(STATE, path)
    recompressed(path)


def save_sparse_bomb(path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(2**40)}, path)


def write_lie(path: Path) -> None:
    """An archive whose member declares fewer bytes than it unpacks to."""
    npz(path, {"a.npy": npy_bytes(np.zeros(10**6, np.float32))}, zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    declared = struct.pack("<I", 4 * 10**6 + 128)
    assert content.count(declared) == 2
    path.write_bytes(content.replace(declared, struct.pack("<I", 128)))


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle in torch": (
        lambda p: torch.save({"a": Payload(p.with_suffix(".mark"))}, p),
        "posix.mkdir); nothing of it was run",
    ),
    "pickle in old torch": (
        lambda p: torch.save({"a": Payload(p.with_suffix(".mark"))}, p, _use_new_zipfile_serialization=False),
        "nothing of it was run",
    ),
    "bare pickle": (lambda p: p.write_bytes(pickle.dumps(Payload(p.with_suffix(".mark")))), "nothing of it was run"),
    "whole module": (lambda p: torch.save(torch.nn.Linear(2, 1), p), "torch.nn.modules.linear.Linear); nothing"),
    "pickle in npz": (
        lambda p: npz(p, {"a.npy": npy_bytes(np.array([Payload(p.with_suffix(".mark"))]), allow_pickle=True)}),
        "is of dtype object",
    ),
    "program": (save_scripted, "is a TorchScript program"),
    "compressed torch": (save_compressed, "is a compressed archive"),
    "view bomb": (save_sparse_bomb, "unpacks to 4194304 MiB, expected at most 256 MiB"),
    "zip bomb": (
        lambda p: npz(p, {f"{i}.npy": npy_bytes(np.zeros(2**24)) for i in range(3)}, zipfile.ZIP_DEFLATED),
        "unpacks to 384 MiB, expected at most 256 MiB",
    ),
    "lying zip": (write_lie, "damaged"),
    "huge array": (lambda p: npz(p, {"a.npy": header((10**9, 10**9))}), "expected 4000000000000000000 by its header"),
    "negative axis": (lambda p: npz(p, {"a.npy": header((-4, 1)) + bytes(16)}), "truncated or damaged"),
    "code in header": (
        lambda p: npz(p, {"a.npy": b"\x93NUMPY\x01\x00\x20\x00__import__('os').mkdir('x')   \n"}),
        "no numpy header",
    ),
    "path up": (lambda p: npz(p, {"../../up.npy": npy_bytes(np.ones(2))}), "no path to another folder"),
    "absolute path": (lambda p: npz(p, {"/etc/up.npy": npy_bytes(np.ones(2))}), "no path to another folder"),
    "path in torch": (lambda p: torch.save({"..\\up": torch.ones(2)}, p), "no path to another folder"),
    "terminal codes": (lambda p: torch.save({"\x1b[2J": torch.ones(2)}, p), "expected printable text"),
    "long name": (lambda p: torch.save({"a" * 2000: torch.ones(2)}, p), "expected printable text"),
    "duplicates": (lambda p: npz(p, {"a.npy": npy_bytes(np.ones(2)), "a": b""}), "damaged"),
    "missing position": (lambda p: np.savez(p.open("wb"), arr_0=np.ones(2), arr_2=np.ones(2)), "an array is missing"),
    "huge header": (lambda p: p.write_bytes(struct.pack("<Q", 2**60) + b"{" + bytes(100)), "declares a header of"),
    "header of spaces": (lambda p: p.write_bytes(struct.pack("<Q", 99) + b"{" + b" " * 98), "no safetensors file"),
    "nested header": (
        lambda p: p.write_bytes(struct.pack("<Q", 2 * 10**5) + b"[" * 10**5 + b"]" * 10**5),
        "is none of the formats",
    ),
    "empty members": (
        lambda p: npz(p, {f"{i}.npy": b"" for i in range(3000)}),
        "no numpy header",
    ),
    "archive in an archive": (lambda p: npz(p, {"a.npz": npy_bytes(np.ones(2))}), "is truncated or damaged"),
    "outside the file": (
        lambda p: p.write_bytes(
            struct.pack("<Q", 59) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(59)
        ),
        "or a truncated one",
    ),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "folder": (Path.mkdir, "cannot be read: Is a directory"),
    "text": (lambda p: p.write_text("epoch,loss"), "is none of the formats that are read"),
    "Keras": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n"), "is an HDF5 file"),
    "one array": (lambda p: p.write_bytes(npy_bytes(np.ones(2))), "is one numpy array"),
    "two networks": (
        lambda p: torch.save({"generator": {"a": torch.ones(2)}, "critic": {"a": torch.ones(2)}}, p),
        "holds 2 states ('generator', 'critic')",
    ),
    "text among arrays": (lambda p: np.savez(p.open("wb"), a=np.ones(2), note=np.array("hello")), "is of dtype <U5"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused_in_one_sentence_and_nothing_is_run(what: str, tmp_path: Path) -> None:
    make, said = HOSTILE[what]
    path = tmp_path / "file.bin"
    make(path)
    with pytest.raises(LeakpipeError, match=re.escape(said)) as error:
        read_state(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 300
    assert [*tmp_path.iterdir()] == [path]


def write_torch(path: Path) -> None:
    torch.save(STATE, path)


def write_old_torch(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)


def write_captured(path: Path) -> None:
    write_arrays(path, "leakpipe/captured", ARRAYS, {"kind": "full", "round": 3})


WRITERS: dict[str, Callable[[Path], object]] = {
    "torch": write_torch,
    "torch before 1.6": write_old_torch,
    "safetensors": lambda path: save_file(STATE, path),
    "npz": lambda path: np.savez(path.open("wb"), **ARRAYS),
    "compressed npz": lambda path: np.savez_compressed(path.open("wb"), **ARRAYS),
    "positional npz": lambda path: np.savez(path.open("wb"), *ARRAYS.values()),
    "captured": write_captured,
}


@pytest.mark.parametrize("how", WRITERS)
def test_what_is_read_is_what_was_written(how: str, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    WRITERS[how](path)
    state = read_state(path)
    assert state.positional == (how == "positional npz")
    assert sorted(state.tensors) == (["0", "1", "2"] if state.positional else sorted(STATE))
    for name, value in state.tensors.items():
        assert torch.equal(value, [*STATE.values()][int(name)] if state.positional else STATE[name])
    assert (state.kind, dict(state.facts)) == (
        ("full", {"kind": "full", "round": 3}) if how == "captured" else (None, {})
    )


@pytest.mark.parametrize("how", WRITERS)
def test_damaged_files_raise_nothing_but_a_sentence(how: str, tmp_path: Path) -> None:
    """Cut anywhere it is refused; with a few bytes changed it is refused, or read as some tensors."""
    path = tmp_path / "file.safetensors"
    WRITERS[how](path)
    content, draw = path.read_bytes(), random.Random(how)
    for _ in range(60):
        path.write_bytes(content[: draw.randrange(len(content))])
        with pytest.raises(LeakpipeError):
            read_state(path)
        damaged = bytearray(content)
        for _ in range(draw.randrange(1, 9)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        with suppress(LeakpipeError):
            read_state(path)
    path.write_bytes(content)
    assert read_state(path).tensors


def test_a_capture_that_is_not_its_sidecars_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    write_captured(path)
    save_file(STATE | {"a.bias": torch.zeros(2)}, path)
    with pytest.raises(LeakpipeError, match="not the file its sidecar"):
        read_state(path)


def test_a_capture_of_unknown_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    write_captured(path)
    sidecar = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(sidecar | {"metadata": {"kind": "gradient"}}))
    with pytest.raises(LeakpipeError, match=r"metadata.kind: 'gradient', expected one of full, difference"):
        read_state(path)


def test_a_state_of_a_gpu_is_read_to_the_cpu_and_said(tmp_path: Path) -> None:
    """A file that says its tensors were on a GPU, made without one."""
    path = tmp_path / "gpu.pt"
    torch.save({"a": torch.arange(3.0)}, path, _use_new_zipfile_serialization=True)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    cpu, gpu = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:1"
    assert members[pickled].count(cpu) == 1
    members[pickled] = members[pickled].replace(cpu, gpu)
    npz(path, members)
    state = read_state(path)
    assert state.tensors["a"].device.type == "cpu"
    assert torch.equal(state.tensors["a"], torch.arange(3.0))
    assert "was saved on cuda:1" in " ".join(state.notes)


def test_large_honest_files_may_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ALWAYS_ALLOWED", 0)
    path = tmp_path / "file.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).normal(size=1000))
    assert read_state(path).tensors["a"].shape == (1000,)
