"""The container recipe copies all that a run needs, and nothing that its ignore file holds back.

No engine is needed: what the recipe copies is copied here, and Snakemake plans from it in an empty folder. hadolint
reads the recipe in tests/metadata; a fresh environment from the same lock is what `make test` installs.
"""

import re
import shutil
from pathlib import Path

from tests.conftest import PROJECT
from tests.workflow.conftest import planned_jobs

RECIPE = (PROJECT / "Containerfile").read_text()
ROOT, WORK = re.findall(r"^WORKDIR (\S+)$", RECIPE, flags=re.MULTILINE)


def copied() -> list[str]:
    """Returns what every COPY names, each into the same place below `ROOT`."""
    lines = re.findall(r"^COPY (.+) (\S+)$", RECIPE, flags=re.MULTILINE)
    return [source for sources, target in lines for source in sources.split() if target in ("./", sources)]


def test_what_is_copied_is_let_through() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    assert sorted(copied()) == sorted(line.removeprefix("!") for line in ignored if line.startswith("!"))
    assert len(copied()) == len(
        re.findall(r"\S+", " ".join(re.findall(r"^COPY (.+) \S+$", RECIPE, flags=re.MULTILINE)))
    )


def test_from_what_is_copied_a_run_is_planned(tmp_path: Path) -> None:
    image, work = tmp_path / Path(ROOT).name, tmp_path / Path(WORK).name
    work.mkdir()
    for name in copied():
        source, target = PROJECT / name, image / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (work / "src").symlink_to(image / "src")  # for PYTHONPATH, in place of the installation
    (command,) = re.findall(r'^CMD \["snakemake", "--snakefile", "(\S+)"\]$', RECIPE, flags=re.MULTILINE)
    snakefile = image / Path(command).relative_to(ROOT)
    quick = ("--configfile", str(image / "params.yaml"), str(image / "experiments/quick.yaml"))
    assert planned_jobs(work, "--snakefile", str(snakefile), *quick)["report"] == 1
