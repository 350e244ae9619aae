"""`leakpipe fetch`, with stand-ins for the publishers' clients: what they are asked, and what is said if they fail."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import medmnist
import pytest
from click.testing import CliRunner, Result

from leakpipe.cli.main import main
from leakpipe.data.covid_radiography import FOLDER, KAGGLE


def fetch(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["fetch", *map(str, arguments)])


class FakeKaggle:
    """Kaggle's client as far as it is used."""

    def __init__(self, *, authenticates: Exception | SystemExit | None = None, unpacks: bool = True) -> None:
        self.authenticates, self.unpacks = authenticates, unpacks
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def authenticate(self) -> None:
        print("how to authenticate, over many lines")
        if self.authenticates:
            raise self.authenticates

    def dataset_download_files(self, name: str, **options: Any) -> None:
        self.asked.append((name, options))
        if self.unpacks:
            (Path(options["path"]) / FOLDER).mkdir(parents=True)


def install(monkeypatch: pytest.MonkeyPatch, client: FakeKaggle) -> FakeKaggle:
    names = ("kaggle", "kaggle.api", "kaggle.api.kaggle_api_extended")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[names[-1]], "KaggleApi", lambda: client, raising=False)
    return client


def test_covid_radiography_is_unpacked_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = install(monkeypatch, FakeKaggle())
    monkeypatch.setenv("LEAKPIPE_DATA", str(tmp_path / "data"))
    done = fetch("covid-radiography")
    assert done.exit_code == 0, done.output
    assert client.asked == [(KAGGLE, {"path": str(tmp_path / "data"), "quiet": False, "unzip": True})]
    assert done.output.strip() == str(tmp_path / "data" / FOLDER)


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (FakeKaggle(authenticates=SystemExit(1)), "found no credentials"),
        (FakeKaggle(authenticates=OSError("Could not find kaggle.json")), "found no credentials"),
        (FakeKaggle(unpacks=False), f"{FOLDER}: is missing from what Kaggle's client unpacked"),
        (None, "pip install 'leakpipe[kaggle]'"),
    ],
)
def test_what_fails_at_kaggle_is_one_sentence(
    client: FakeKaggle | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaggle", None)
    if client:
        install(monkeypatch, client)
    done = fetch("covid-radiography", "--into", tmp_path)
    assert done.exit_code == 1
    assert message in done.output
    assert done.output.count("\n") == 1


def test_medmnist_is_asked_for_the_set_at_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(medmnist, "PneumoniaMNIST", lambda **options: asked.append(options) or SimpleNamespace())
    done = fetch("medmnist", "pneumoniamnist", "--size", 64, "--into", tmp_path / "sets")
    assert done.exit_code == 0, done.output
    assert asked == [{"split": "val", "download": True, "root": str(tmp_path / "sets"), "size": 64}]
    assert done.output.strip() == str(tmp_path / "sets" / "pneumoniamnist_64.npz")


def test_what_medmnist_says_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_options: Any) -> None:
        raise RuntimeError("\n  Automatic download failed!\n  Please …")

    monkeypatch.setattr(medmnist, "PneumoniaMNIST", fail)
    done = fetch("medmnist", "pneumoniamnist", "--into", tmp_path)
    assert done.exit_code == 1
    assert done.output.endswith(": Automatic download failed! Please …\n")
