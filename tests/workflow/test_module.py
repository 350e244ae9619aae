"""The workflow as others deploy it: the layout that Snakemake's catalog asks for, and its use as a module."""

from pathlib import Path

import pytest
import yaml

from leakpipe.params.experiment import Params
from tests.conftest import PROJECT
from tests.workflow.conftest import TINY, copy_project, planned_jobs, snakemake

# As `snakedeploy deploy-workflow` writes it, with a repository on this machine in place of a hosted one.
DEPLOYED = """
configfile: "config/config.yaml"


module leakpipe:
    snakefile:
        "{source}/workflow/Snakefile"
    config:
        config


use rule * from leakpipe
"""


@pytest.fixture
def deployed(tmp_path: Path) -> Path:
    """A project and, beside it, a folder into which it was deployed."""
    source, folder = copy_project(tmp_path / "source"), tmp_path / "deployed"
    for name in ("config", "workflow"):
        (folder / name).mkdir(parents=True)
    (folder / "config/config.yaml").write_bytes((PROJECT / "config/config.yaml").read_bytes())
    (folder / "workflow/Snakefile").write_text(DEPLOYED.format(source=source))
    return folder


def run(folder: Path, *arguments: str) -> str:
    done = snakemake(folder, "--cores", "1", *arguments, PYTHONPATH=str(folder.parent / "source" / "src"))
    return f"exit code {done.returncode}\n{done.stdout}{done.stderr}"


def test_the_layout_is_what_the_catalog_asks_for() -> None:
    assert (PROJECT / "workflow/Snakefile").is_file()
    usage = yaml.safe_load((PROJECT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    readme = (PROJECT / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme, "the catalog finds repositories by these two words"


def test_the_page_on_configuration_has_every_section() -> None:
    assert (PROJECT / "config/config.yaml").resolve() == PROJECT / "params.yaml", "there is one default experiment"
    page = (PROJECT / "config/README.md").read_text()
    assert [name for name in Params.model_fields if f"| `{name}` |" not in page] == []


def test_as_a_module_it_runs_what_its_config_says(deployed: Path) -> None:
    said = run(deployed, "--configfile", str(TINY))
    assert said.startswith("exit code 0"), said
    assert (deployed / "results/tiny/ro-crate-metadata.json").is_file()
    assert (deployed / "results/tiny/tracked.json").is_file()


def test_as_a_module_it_plans_what_it_plans_by_itself(deployed: Path) -> None:
    quick = ("--configfile", str(PROJECT / "experiments/quick.yaml"))
    assert planned_jobs(deployed, "--cores", "1", *quick) == planned_jobs(deployed.parent / "source")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("        config\n\n", "        {**config, 'seeds': [-1]}\n\n", "config of the module: seeds"),
        ("    config:", '    prefix: "here"\n    config:', "module: prefix: expected none"),
    ],
)
def test_what_a_module_cannot_be_given_is_one_sentence(deployed: Path, old: str, new: str, said: str) -> None:
    path = deployed / "workflow/Snakefile"
    path.write_text(path.read_text().replace(old, new))
    assert said in run(deployed, "-n")
