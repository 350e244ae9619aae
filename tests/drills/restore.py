"""The promises of versioning: an older commit comes back whole, experiments run what changed, and can be compared."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.workflow.conftest import copy_checkout
from tests.workflow.test_dvc import commit, edit_params, ran_again, run, run_ids, tiny

if TYPE_CHECKING:
    from tests.drills.stage import Stage

EDITED = "leakpipe"  # of two attacks the one that gets more: `headline.json` is about the strongest
CHANGED = f"attacks.{EDITED}.iterations"
ATTACK = f"invert/none/seed0/site-9/{EDITED}.json"


def restore(stage: "Stage") -> None:
    """A project under git and DVC with a remote: two commits, both restored in a fresh clone, and compared."""
    project = stage.folder / "restore"
    first, second = two_commits(project)
    require_that_old_commits_come_back(project, first, second)
    require_that_commits_can_be_compared(project)


def experiments(stage: "Stage") -> None:
    """`dvc exp run` in such a project: in place, aside, and from the queue."""
    project = stage.folder / "experiments"
    two_commits(project)
    require_that_experiments_run_what_changed(project)


def two_commits(project: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Run a tiny experiment, change one attack, run again; both are committed and pushed. Returns their runs' ids."""
    copy_checkout(project)
    edit_params(project, tinier)
    run(project, "git", "init", "-q")
    run(project, "dvc", "remote", "add", "-q", "--default", "local", str(project.with_name(f"{project.name}-remote")))
    made = [repeat(project)]
    edit_params(project, lambda params: params["attacks"][EDITED].update(iterations=20))
    made.append(repeat(project))
    assert changed(made[0], made[1]) == {EDITED}, "another attack ran again"
    return made[0], made[1]


def tinier(params: dict[str, Any]) -> dict[str, Any]:
    """The tiny experiment of the tests without a defence, with one figure."""
    return tiny(params) | {"defenses": {"none": []}, "figures": ["rounds"]}


def repeat(project: Path) -> dict[str, str]:
    """Reproduce, commit and push."""
    run(project, "dvc", "repro", "-q")
    commit(project)
    run(project, "dvc", "push", "-q")
    return run_ids(project, "default")


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Attacks that ran again."""
    again = {path for path in after if after[path] != before.get(path)}
    return {Path(path).stem for path in again if path.startswith("invert/")}


def require_that_old_commits_come_back(project: Path, first: dict[str, str], second: dict[str, str]) -> None:
    """In a fresh clone: pull, then back to the older commit, then forth; nothing runs."""
    clone = project.with_name(f"{project.name}-clone")
    run(project, "git", "clone", "-q", str(project), str(clone))
    branch = run(clone, "git", "rev-parse", "--abbrev-ref", "HEAD").strip()
    run(clone, "dvc", "pull", "-q", "--all-commits")
    for revision, expected in ((branch, second), (f"{branch}~1", first), (branch, second)):
        run(clone, "git", "checkout", "-q", revision)
        run(clone, "dvc", "checkout", "-q")
        run(clone, "leakpipe", "stage", "evaluation")
        assert run_ids(clone, "default") == expected, f"{revision}: something ran again"
        assert "Nothing to be done" in run(clone, "snakemake", "--dry-run", "evaluation")
        assert "results/default: verified\n" in run(clone, "leakpipe", "verify", "results/default", "--cells", "0")


def require_that_experiments_run_what_changed(project: Path) -> None:
    """`dvc exp run -S` here, in a temporary copy and from the queue; all three are shown with their parameter."""
    before = run_ids(project, "default")
    run(project, "dvc", "exp", "run", "-q", "-S", f"{CHANGED}=5", "--name", "here")
    assert ran_again(project, before) >= {ATTACK}
    assert changed(before, run_ids(project, "default")) == {EDITED}, "another attack ran again"
    here = run_ids(project, "default")
    run(project, "dvc", "exp", "run", "-q", "--temp", "-S", f"{CHANGED}=6", "--name", "aside")
    run(project, "dvc", "exp", "run", "-q", "--queue", "-S", f"{CHANGED}=7", "--name", "queued")
    run(project, "dvc", "exp", "run", "-q", "--run-all")
    assert run_ids(project, "default") == here, "an experiment elsewhere changed what is here"
    shown = iterations_by_experiment(json.loads(run(project, "dvc", "exp", "show", "--json")))
    assert shown == {"here": 5, "aside": 6, "queued": 7}


def iterations_by_experiment(shown: list[dict[str, Any]]) -> dict[str, int]:
    """The parameter that was changed, of each experiment that `dvc exp show --json` lists."""
    experiments = [entry["revs"][0] for commit in shown for entry in commit["experiments"] or ()]
    return {
        entry["name"]: entry["data"]["params"]["params.yaml"]["data"]["attacks"][EDITED]["iterations"]
        for entry in experiments
    }


def require_that_commits_can_be_compared(project: Path) -> None:
    """`metrics diff`, `params diff` and `plots diff` between the two commits say what changed."""
    numbers = json.loads(run(project, "dvc", "metrics", "diff", "--json", "HEAD~1", "HEAD"))
    assert "gain" in numbers.get("results/default/headline.json", {}), f"the headline did not change: {numbers}"
    params = json.loads(run(project, "dvc", "params", "diff", "--json", "HEAD~1", "HEAD"))
    assert params == {"params.yaml": {CHANGED: {"old": 3, "new": 20, "diff": 17}}}
    page = project.with_name(f"{project.name}-plots")
    run(project, "dvc", "plots", "diff", "HEAD~1", "HEAD", "--out", str(page))
    shown = (page / "index.html").read_text(encoding="utf-8")
    drawn = re.findall(r"<img[^>]*rounds\.png", shown)
    assert len(drawn) == 2, f"one figure of either commit, not {drawn}"
    assert "//" not in shown, "the page needs the network"


DRILLS = (restore, experiments)
