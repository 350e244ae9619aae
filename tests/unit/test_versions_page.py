"""docs/versions.md states the bounds of pyproject.toml and the versions of requirements.lock (`--fix` writes them)."""

import re

import pytest

from tests.conftest import PROJECT

PAGE = PROJECT / "docs" / "versions.md"
BLOCK = re.compile(r"(<!-- versions: .*? -->\n).*?(<!-- /versions -->)", flags=re.DOTALL)
SHOWN = "torch torchvision numpy scipy scikit-image pandas pydantic pyyaml snakemake dvc mlflow pydicom python-gdcm"


def tabulate() -> str:
    """The oldest and the newest version of each package."""
    required = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    oldest = dict(re.findall(r'"([\w-]+)>=([\w.]+)', required))
    lock = (PROJECT / "requirements.lock").read_text(encoding="utf-8")
    rows = ["| package | oldest | newest |", "|---|---|---|"]
    for name in SHOWN.split():
        newest = re.findall(rf"^{name}==([\w.]+)", lock, flags=re.MULTILINE)
        assert newest, f"{name} is not locked"
        rows.append(f"| {name} | {oldest[name]} | {newest[-1]} |")
    return "\n".join(rows) + "\n"


def test_the_page_states_what_is_required_and_locked(request: pytest.FixtureRequest) -> None:
    text = PAGE.read_text(encoding="utf-8")
    fresh = BLOCK.sub(lambda match: match[1] + tabulate() + match[2], text)
    if request.config.getoption("--fix"):
        PAGE.write_text(fresh, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == fresh, "run: pytest tests/unit/test_versions_page.py --fix"
