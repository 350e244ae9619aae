"""An audit's workflow: killed at any moment it goes on, and an edit runs again only what it is about."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from leakpipe.captured.writing import Recorder
from leakpipe.cli import audit
from tests.workflow.conftest import environment

NETWORK = """\
from torch import nn


class Network(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(192, 2))
"""
CONTENT = {
    "audit": "two-clients",
    "captured": "captured",
    "network": {"factory": "network:Network"},
    "images": {"size": 16},
    "training": {"learning_rate": 0.1},
    "minutes": 0.001,
    "what_if": [],
}


FOLDER = "captured/round-0001"
ONLY_A = {
    "captured": None,
    "updates": {
        "a-round1": {
            "before": f"{FOLDER}/global.safetensors",
            "captured": f"{FOLDER}/a-sent.safetensors",
            "client": "a",
        }
    },
    "clients": {"a": {}},
}


def write(folder: Path, changes: dict[str, object]) -> None:
    (folder / "audit.yaml").write_text(yaml.safe_dump({**CONTENT, **changes}))


def capture(folder: Path, *, seed: int) -> None:
    """Captures a round of two clients with one image each, which the seed chooses."""
    built: dict[str, type[nn.Module]] = {}
    exec(NETWORK, built)
    torch.manual_seed(0)
    recorder, before = Recorder(folder, "torch"), built["Network"]()
    recorder.write(before.state_dict(), direction="global", kind="full", round_number=1)
    torch.manual_seed(seed)
    for client in ("a", "b"):
        local = built["Network"]()
        local.load_state_dict(before.state_dict())
        optimizer = torch.optim.SGD(local.parameters(), lr=0.1)
        nn.functional.cross_entropy(local(torch.rand(1, 1, 16, 16)), torch.tensor([1])).backward()
        optimizer.step()
        recorder.write(local.state_dict(), direction="sent", kind="full", round_number=1, client=client)


def start(folder: Path, *command: str, **options: Any) -> subprocess.Popen[str]:
    variables = environment(folder) | {"PYTHONPATH": str(Path(audit.__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-m", *command], cwd=folder, env=variables, text=True, **options)


def call(folder: Path, *command: str) -> tuple[int, str]:
    """Returns exit code and output."""
    with start(folder, *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        said = process.communicate()[0]
    return process.returncode, said


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit whose first run was killed with all its jobs."""
    folder = tmp_path_factory.mktemp("audited")
    (folder / "network.py").write_text(NETWORK)
    capture(folder / "captured", seed=1)
    (folder / "people").mkdir()
    Image.new("L", (16, 16), 90).save(folder / "people" / "one.png")
    write(folder, {})
    killed = start(folder, "leakpipe", "audit", stdout=subprocess.PIPE, start_new_session=True)
    assert killed.stdout is not None
    assert any(line.startswith("[2/") for line in killed.stdout)  # reads until then
    code, said = call(folder, "leakpipe", "audit")
    assert code == 1
    assert "another `leakpipe audit` runs 'two-clients' in this folder" in said
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert list((folder / ".snakemake/locks").iterdir())
    code, said = call(folder, "leakpipe", "audit")
    assert code == 0, said
    return folder


def planned(folder: Path, changes: dict[str, object]) -> Counter[str]:
    """Jobs that the audit would do now after an edit of audit.yaml."""
    write(folder, changes)
    code, said = call(folder, "leakpipe", "audit", "--dry-run")
    assert code == 0, said
    plan = "results/audit/two-clients/plan.json"
    (folder / plan).write_text((folder / ".leakpipe/plans/two-clients.json").read_text())
    options = ("--cores", "2", "-n", "--quiet", "progress", "--max-checksum-file-size", audit.COMPARED_BYTES)
    code, said = call(folder, "snakemake", "--snakefile", str(audit.WORKFLOW), "--configfile", plan, *options)
    assert code == 0, said
    return Counter(re.findall(r"^(?:local)?rule (\w+):", said, flags=re.MULTILINE)) - Counter(all=1)


def replace_update(folder: Path) -> None:
    """Puts another update of client a where its captured one was."""
    capture(folder / "other", seed=2)
    for name in ("a-sent.safetensors", "a-sent.json"):
        (folder / "other/round-0001" / name).replace(folder / "captured/round-0001" / name)


def rewrite_update(folder: Path) -> None:
    """Writes the same update anew."""
    path = folder / "captured/round-0001/b-sent.safetensors"
    path.write_bytes(path.read_bytes())


LAST = {"assess": 1, "track": 1}
ATTACKS = 5


@pytest.mark.parametrize(
    ("edit", "changes", "expected"),
    [
        (None, {}, {}),
        (rewrite_update, {}, LAST),  # as plan.json says when a file was written
        (None, {"client": {"truth": "people"}}, LAST),
        (None, {"public": "people"}, {"read_update": 2, "invert": 2 * ATTACKS, **LAST}),
        (None, {"what_if": ["noise-5"]}, {"defend_update": 2, "invert": 2, **LAST}),
        (None, {"client": {"labels": [1]}}, {"read_update": 2, "invert": 2 * ATTACKS, **LAST}),
        (None, ONLY_A, LAST),
        (replace_update, {}, {"read_update": 1, "invert": ATTACKS, **LAST}),  # the last: it stays
    ],
)
def test_an_edit_runs_again_only_what_it_is_about(
    finished: Path, edit: Callable[[Path], None] | None, changes: dict[str, object], expected: dict[str, int]
) -> None:
    if edit:
        edit(finished)
    assert planned(finished, changes) == expected


def test_what_was_done_before_the_kill_is_not_done_again(finished: Path) -> None:
    log = (finished / "logs/audit/two-clients/snakemake.log").read_text()
    assert int(re.findall(r"of (\d+) steps", log)[-1]) < 2 * (1 + ATTACKS) + 3


def test_its_attacks_are_mlflow_runs(finished: Path) -> None:
    tracked = json.loads((finished / "results/audit/two-clients/tracked.json").read_text())
    assert tracked["runs_added"] == 2 * (1 + ATTACKS) + 1
