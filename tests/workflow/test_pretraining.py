"""The stage that trains on public images: there only where it is asked for; files of weights as inputs."""

from pathlib import Path

import torch

from tests.workflow.conftest import QUICK, copy_project, snakemake


def overlay(project: Path, model: str, *arguments: str, **variables: str) -> str:
    """Returns what Snakemake says of the quick experiment with another model."""
    (project / "model.yaml").write_text(f"model: {model}\n")
    done = snakemake(project, *arguments, *QUICK, "model.yaml", **variables)
    return done.stdout + done.stderr


def test_pretraining_is_planned_only_where_weights_are_public(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    assert "rule pretrain:" not in overlay(project, "{}", "-n")
    planned = overlay(project, "{weights: public}", "-n")
    assert "rule pretrain:" in planned
    assert "--initial results/quick/federation/pretrained/seed1.safetensors" in overlay(
        project, "{weights: public}", "-n", "--printshellcmds"
    ).replace("{seed}", "1").replace("'", "")


def test_a_file_of_weights_is_an_input(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    missing = overlay(project, "{weights: mine.pth}", "-n")
    assert "Missing input files" in missing
    assert "mine.pth" in missing
    torch.save({}, project / "mine.pth")
    planned = overlay(project, "{weights: mine.pth}", "-n")
    assert "Missing input files" not in planned
    assert "data/seed1/split.json, mine.pth" in planned


def test_missing_published_weights_are_said_before_the_first_job(tmp_path: Path) -> None:
    """But not in a dry run: experiments can be looked at where their weights are not."""
    project = copy_project(tmp_path)
    (project / "experiments" / "quick.yaml").open("a").write("data: {image_size: 64}\n")
    model, nowhere = "{name: resnet18, widths: null, strides: null, weights: imagenet}", {"TORCH_HOME": str(tmp_path)}
    assert "not on this machine" not in overlay(project, model, "-n", **nowhere)
    said = overlay(project, model, "--cores", "1", **nowhere)
    assert "model.weights: the weights of 'imagenet-resnet18' are not on this machine" in said
    assert "Traceback" not in said
    assert not (project / "results" / "quick" / "data").exists()
