"""The wheel, installed: it has every file that the package needs, and audits where there is no checkout."""

import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.workflow.conftest import environment
from tests.workflow.test_docs import ELSEWHERE, blocks, replay

SOURCE = PROJECT / "src"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed, without what it requires, which is here already."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(wheels)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-index", "--no-deps"]  # venvs may lack pip
    subprocess.run([*install, "--python", sys.executable, "--target", str(site), str(wheel)], check=True)
    return site


@pytest.fixture(scope="module")
def installed(site: Path) -> Distribution:
    (found,) = distributions(name="leakpipe", path=[str(site)])
    return found


def package_files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / "leakpipe").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_it_has_every_file_of_the_package(site: Path) -> None:
    found = package_files(site)
    assert found == package_files(SOURCE)
    beside_python = {name for name in found if not name.endswith(".py")}
    assert {"leakpipe/py.typed", "leakpipe/audit/calibration.csv", "leakpipe/workflow/audit.smk"} <= beside_python


def test_it_says_what_it_is_and_requires(installed: Distribution) -> None:
    said = installed.metadata
    assert (said["Name"], said["License-Expression"], said["Requires-Python"]) == ("leakpipe", "Apache-2.0", ">=3.11")
    assert {"dicom", "dvc", "frameworks", "medmnist", "slurm"} <= {*said.get_all("Provides-Extra", [])}
    assert [(each.name, each.value) for each in installed.entry_points] == [("leakpipe", "leakpipe.cli.main:main")]
    assert any(str(path).endswith("licenses/LICENSE") for path in installed.files or ())


def test_it_audits_an_update_where_there_is_no_checkout(site: Path, tmp_path: Path) -> None:
    """Follows the page on audits with the wheel alone, in a folder that was empty, with a tenth of the page's time."""
    variables = environment(tmp_path) | {"PYTHONPATH": str(site)}
    which = [sys.executable, "-c", "import leakpipe; print(leakpipe.__file__)"]
    assert subprocess.check_output(which, env=variables, cwd=tmp_path, text=True).startswith(str(site))
    listed = blocks(ELSEWHERE)
    assert any("minutes: 0.5 " in block.content for block in listed)
    for block in listed:
        replay(block._replace(content=block.content.replace("minutes: 0.5 ", "minutes: 0.05 ")), tmp_path, variables)
    assert (tmp_path / "results/audit/one-face/report.html").is_file()


def test_it_names_what_needs_a_checkout(site: Path, tmp_path: Path) -> None:
    variables = environment(tmp_path) | {"PYTHONPATH": str(site)}
    call = [sys.executable, "-m", "leakpipe", "stage", "evaluation"]
    done = subprocess.run(call, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: dvc.yaml: not in {tmp_path}; `leakpipe stage` brings up to date what")
