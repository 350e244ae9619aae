"""The README's numbers are those of results/<experiment>/metrics.json (`--fix` writes them)."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from leakpipe.figures.published import ACCURACY_BY_NOISE, RDLV_BY_NOISE
from tests.conftest import PROJECT

README = PROJECT / "README.md"
RESULTS = PROJECT / "results"
BLOCK = r"(<!-- {name}: .*? -->\n).*?(<!-- /{name} -->)"


def signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def published(client: str, sigma0: float) -> str:
    return signed(RDLV_BY_NOISE[client][sigma0])


KNOWS, NAIVE = "leakpipe-adapted", "leakpipe"
RDLV = "RDLV, 1 image (site-9)"
ROWS = [  # of the default experiment
    (f"{RDLV}, no noise", published("site-9", 0), (KNOWS, "site-9", "none", "rdlv_mean")),
    (f"{RDLV}, σ0 = 5", published("site-9", 5), (KNOWS, "site-9", "gaussian-5", "rdlv_mean")),
    (f"{RDLV}, σ0 = 20", published("site-9", 20), (KNOWS, "site-9", "gaussian-20", "rdlv_mean")),
    (f"{RDLV}, σ0 = 5, noise not known", "", (NAIVE, "site-9", "gaussian-5", "rdlv_mean")),
    (f"{RDLV}, σ0 = 20, noise not known", "", (NAIVE, "site-9", "gaussian-20", "rdlv_mean")),
    ("RDLV, 8 images, batch 4 (site-1), no noise", published("site-1", 0), (NAIVE, "site-1", "none", "rdlv_mean")),
    ("RDLV, 8 images, batch 8 (site-5), no noise", published("site-5", 0), (NAIVE, "site-5", "none", "rdlv_mean")),
    ("SSIM, 1 image, no noise", "", (KNOWS, "site-9", "none", "ssim_mean")),
    ("SSIM, 1 image, attacker believes BN frozen", "fails", ("inverting-gradients", "site-9", "none", "ssim_mean")),
]
ACCURACY = [
    ("Test accuracy, no noise", signed(ACCURACY_BY_NOISE[0]), "none"),
    ("Test accuracy, σ0 = 20", signed(ACCURACY_BY_NOISE[20]), "gaussian-20"),
]


# At the paper's scale (experiments/claims-cxr.yaml), where it has been run.
DEEP, EXACT = "row-space", "recursive"
CXR_ROWS = [
    (f"{RDLV}, no noise, `{EXACT}`", published("site-9", 0), (EXACT, "site-9", "none", "rdlv_mean")),
    (f"{RDLV}, no noise, `{DEEP}`", published("site-9", 0), (DEEP, "site-9", "none", "rdlv_mean")),
    (f"{RDLV}, σ0 = 5, `{DEEP}`", published("site-9", 5), (DEEP, "site-9", "gaussian-5", "rdlv_mean")),
    (f"{RDLV}, σ0 = 20, `{DEEP}`", published("site-9", 20), (DEEP, "site-9", "gaussian-20", "rdlv_mean")),
    ("RDLV, 8 images, batch 4 (site-1), no noise", published("site-1", 0), (DEEP, "site-1", "none", "rdlv_mean")),
    ("RDLV, 8 images, batch 8 (site-5), no noise", published("site-5", 0), (DEEP, "site-5", "none", "rdlv_mean")),
    ("SSIM, 1 image, attacker believes BN frozen", "fails", ("inverting-gradients", "site-9", "none", "ssim_mean")),
]
CXR_HEAD = "Chest X-rays of people who do not exist, ResNet-18 at 224×224 (`experiments/claims-cxr.yaml`):\n\n"
TABLES = {"results-cxr": ("claims-cxr", CXR_HEAD, CXR_ROWS), "results": ("default", "", ROWS)}


def results_table(metrics: Mapping[str, Any], rows: Sequence[tuple[str, str, tuple[str, str, str, str]]]) -> str:
    lines = ["| | published | here, mean | n |", "|---|---|---|---|"]
    for name, paper, (attack, client, defense, field) in rows:
        cell = metrics["leakage"][attack][client][defense]
        lines.append(f"| {name} | {paper} | {signed(cell[field])} | {cell['images']} |")
    for name, paper, defense in ACCURACY:
        lines.append(f"| {name} | {paper} | {signed(metrics['accuracy'][defense])} | |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", TABLES)
def test_the_readmes_numbers_are_those_of_the_results(name: str, request: pytest.FixtureRequest) -> None:
    experiment, head, rows = TABLES[name]
    path = RESULTS / experiment / "metrics.json"
    shown = head + results_table(json.loads(path.read_text()), rows) if path.exists() else ""
    text = README.read_text()
    fresh, found = re.subn(BLOCK.format(name=name), lambda match: match[1] + shown + match[2], text, flags=re.DOTALL)
    assert found == 1
    if request.config.getoption("--fix"):
        README.write_text(fresh)
    assert README.read_text() == fresh, "run: pytest tests/unit/test_readme.py --fix"


def test_the_readme_names_files_that_exist() -> None:
    for name in re.findall(r"`((?:src|experiments|docs|workflow)/[\w./-]+)`|\]\((docs/[\w./-]+)\)", README.read_text()):
        path = name[0] or name[1]
        assert (PROJECT / path).exists(), path
