"""What Snakemake re-runs when something changes: exactly what depends on it."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

from tests.workflow.conftest import QUICK, Edit, planned_jobs, snakemake

pytestmark = pytest.mark.xdist_group("quick")  # one worker, so that the quick experiment runs once

FIGURES = ("overview", "reconstructions", "maps", "rounds", "noise", "clients", "identifiability", "tradeoff")
AFTER_JUDGE = {"plot": 1, "report": 1, "crate": 1, "track": 1}
AFTER_COLLECT = {"collect": 1, "judge": 1, **AFTER_JUDGE}


def test_everything_is_there_after_a_run(finished: Path) -> None:
    results = finished / "results" / "quick"
    table = pd.read_csv(results / "leakage.csv")
    assert len(table) == 2 * (2 + 16 + 1)  # 2 rounds x (site-9 x 2 defences, 8 images x 2 defences, frozen belief)
    assert len(pd.read_csv(results / "identifiability.csv")) == 2 * len(table), "a row for each of two embedders"
    for name in FIGURES:
        assert (results / "figures" / f"{name}.svg").stat().st_size > 1000
        assert (results / "figures" / f"{name}.png").stat().st_size > 1000
    assert "http" not in "".join(
        line for line in (results / "report.html").read_text().splitlines() if "src=" in line or "<link" in line
    )
    tracked = json.loads((results / "tracked.json").read_text())
    assert tracked["reached"] is True


def test_the_crate_lists_every_file_with_its_digest(finished: Path) -> None:
    results = finished / "results" / "quick"
    graph = json.loads((results / "ro-crate-metadata.json").read_text())["@graph"]
    listed = {entity["@id"]: entity["sha256"] for entity in graph if entity["@type"] == "File"}
    there = {str(path.relative_to(results)): path for path in results.rglob("*") if path.is_file()}
    made_later = {"ro-crate-metadata.json", "tracked.json"}
    assert listed == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in there.items() if name not in made_later
    }


def test_nothing_changed_runs_nothing(project: Path) -> None:
    assert planned_jobs(project) == {}


def test_attack_code(project: Path, edit: Edit) -> None:
    edit(
        "src/leakpipe/attacks/regularizers.py", "return vertical + horizontal", "return (vertical + horizontal) * 1.01"
    )
    assert planned_jobs(project) == {"invert": 5, "score": 3, "identify": 3, **AFTER_COLLECT}


def test_iterations_of_one_attack(project: Path, edit: Edit) -> None:
    edit(
        "experiments/quick.yaml", "inverting-gradients:\n    iterations: 20", "inverting-gradients:\n    iterations: 21"
    )
    assert planned_jobs(project) == {"invert": 1, "score": 1, "identify": 1, **AFTER_COLLECT}


def test_another_assignment_scores_again(project: Path, edit: Edit) -> None:
    edit("params.yaml", "assignment: optimal", "assignment: per-image-maximum")
    assert planned_jobs(project) == {"score": 3, "identify": 3, **AFTER_COLLECT}


def test_one_figure(project: Path) -> None:
    with (project / "src/leakpipe/figures/rounds.py").open("a") as source:
        source.write("\nEDITED = True\n")
    assert planned_jobs(project) == AFTER_JUDGE


def test_who_plays_a_role(project: Path, edit: Edit) -> None:
    edit("params.yaml", "low_risk: [site-5, site-1]", "low_risk: [site-1]")
    assert planned_jobs(project) == {"judge": 1, **AFTER_JUDGE}


def test_what_one_attack_is_granted(project: Path, edit: Edit) -> None:
    edit(
        "experiments/quick.yaml",
        "inverting-gradients:\n    iterations: 20",
        "inverting-gradients:\n    iterations: 20\n    threat_model: {prior: class}",
    )
    assert planned_jobs(project) == {"invert": 1, "score": 1, "identify": 1, **AFTER_COLLECT}


def test_how_images_are_embedded(project: Path, edit: Edit) -> None:
    edit("src/leakpipe/metrics/embedders.py", "BATCH = 32", "BATCH = 16")
    assert planned_jobs(project) == {"identify": 3, **AFTER_COLLECT}


def test_without_embedders_nothing_is_looked_up(project: Path, edit: Edit) -> None:
    edit("params.yaml", "embedders: [pixels, global-model]", "embedders: []")
    edit("params.yaml", "clients, identifiability, tradeoff", "clients, tradeoff")
    assert planned_jobs(project) == AFTER_COLLECT


def test_weights_that_are_missing_are_said_before_anything_runs(project: Path, edit: Edit) -> None:
    edit("params.yaml", "embedders: [pixels, global-model]", "embedders: [imagenet-resnet50]")
    done = snakemake(project, "--cores", "1", *QUICK, TORCH_HOME=str(project / "empty"), LEAKPIPE_WEIGHTS="")
    assert done.returncode == 1
    assert "the weights of 'imagenet-resnet50' are not on this machine" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_comments(project: Path, edit: Edit) -> None:
    edit("src/leakpipe/attacks/regularizers.py", "    vertical = ", "    # a comment\n    vertical = ")
    edit("src/leakpipe/figures/rounds.py", "\ndef draw_rounds", "\n# a comment\ndef draw_rounds")
    edit("params.yaml", "federation:", "# a comment\nfederation:")
    assert planned_jobs(project) == {}


def test_a_touch(project: Path) -> None:
    for path in (project / "src").rglob("*.py"):
        path.touch()
    (project / "params.yaml").touch()
    assert planned_jobs(project) == {}


def test_one_defence_more_keeps_the_others(project: Path, edit: Edit) -> None:
    edit("experiments/quick.yaml", "  gaussian-5: null\n", "")
    jobs = planned_jobs(project)
    assert (jobs["federate"], jobs["invert"], jobs["score"]) == (1, 2, 1)


def test_code_of_the_client_reruns_federation_and_attacks(project: Path, edit: Edit) -> None:
    edit(
        "src/leakpipe/client/local_update.py",
        "settings.learning_rate * gradient",
        "settings.learning_rate * 2 * gradient",
    )
    jobs = planned_jobs(project)
    assert (jobs["federate"], jobs["invert"]) == (2, 5)
    assert "prepare_data" not in jobs
    assert "split_data" not in jobs


def test_bad_parameters_are_one_sentence(project: Path, edit: Edit) -> None:
    edit("params.yaml", "learning_rate: 0.01", "learning_rat: 0.01")
    done = snakemake(project, "-n", *QUICK)
    assert done.returncode == 1
    assert "federation.learning_rat: unknown key; known here: batch_norm_momentum" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_rule_graph_and_report_can_be_drawn(project: Path) -> None:
    graph = snakemake(project, "--rulegraph", *QUICK)
    assert "federate" in graph.stdout
    assert "digraph" in graph.stdout
    done = snakemake(project, "--report", "report.html", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stderr
    page = (project / "report.html").read_text()
    assert "RDLV" in page
    assert "What the attack rebuilds" in page
    assert "framed and numbered by how much SSIM" in page
    for table in ("Leakage of every image", "Accuracy after every round", "Paired differences", "Privacy budgets"):
        assert f'{{"table": "{table}"}}' in page


def test_the_scheduler_wakes_when_a_job_ends_and_not_otherwise(project: Path) -> None:
    done = snakemake(project, "--cores", "2", "--verbose", "--forcerun", "score", "--until", "score", *QUICK)
    assert done.returncode == 0, done.stderr
    ended = done.stderr.count("Finished jobid")
    assert ended == 3
    assert done.stderr.count("Ready jobs: ") <= ended + 1
