"""`leakpipe federate`: simulate a federation under one defence and capture what attacked clients share."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.cells import Cells, each_option
from leakpipe.cli.options import (
    InputFile,
    device_option,
    record_options,
    settings_option,
    threads_option,
    use_device,
    use_threads,
)
from leakpipe.cli.terminal import progress_bar

if TYPE_CHECKING:
    import numpy as np
    import torch

    from leakpipe.federation.simulate import CapturedUpdate
    from leakpipe.models.state import ModelState
    from leakpipe.params.models import ModelParams


@click.command()
@settings_option("model", "The `model` section")
@settings_option("federation", "The `federation` section")
@settings_option("defense", 'The defence\'s steps, in order ("[]" is none)')
@click.option("--images", type=InputFile, required=True, help="The data set (prepare-data's output).")
@click.option("--split", type=InputFile, required=True, help="The split (split-data's output); its seed is used.")
@click.option("--attacked", multiple=True, required=True, help="Client whose updates are captured; repeatable.")
@click.option("--initial", type=InputFile, help="Model to start from (pretrain's output), for `weights: public`.")
@click.option(
    "--exact-statistics",
    is_flag=True,
    help="Keep batch statistics from before any defence, for who is granted them.",
)
@click.option(
    "--out-dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Gets accuracy.csv, and for each captured round N roundN/global.safetensors and "
    "roundN/CLIENT/update.safetensors.",
)
@threads_option
@device_option
@each_option
@record_options
def federate(
    model: dict[str, Any],
    federation: dict[str, Any],
    defense: list[dict[str, Any]],
    images: Path,
    split: Path,
    attacked: tuple[str, ...],
    initial: Path | None,
    exact_statistics: bool,
    out_dir: Path,
    threads: int,
    device: str,
    each: list[dict[str, str]],
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Run federated averaging; keep the captured rounds' global models and attacked clients' updates."""
    if unnamed := [name for name in ("experiment", "defense") if name not in labels]:
        raise click.UsageError(f"--label {unnamed[0]}=… is missing; updates and accuracies are filed under it")
    from leakpipe.models.catalog import MODELS
    from leakpipe.models.choices import starting_weights
    from leakpipe.params.defenses import DefenseSteps
    from leakpipe.params.federation import FederationParams
    from leakpipe.params.models import ModelParams
    from leakpipe.params.reading import parse_section

    params = {"model": model, "federation": federation, "defense": defense}
    model_params = parse_section(ModelParams, model, source="--model", known={MODELS.kind: MODELS})
    settings = parse_section(FederationParams, federation, source="--federation")
    steps = parse_section(DefenseSteps, defense, source="--defense")
    weights = Path(starting_weights(model_params))
    cells = Cells(
        "federate",
        each=each,
        labels=labels,
        record=record,
        settings={**params, "attacked": attacked, "exact_statistics": exact_statistics, "threads": threads},
        inputs=[images, split, *([initial] if initial else [weights] if weights.suffix else [])],
    )
    if not cells:
        return
    use_threads(threads)
    where = use_device(device)
    import torch

    from leakpipe.cli.allocator import keep_freed_memory
    from leakpipe.data.files import load_dataset, load_split
    from leakpipe.federation.simulate import simulate_federation, write_accuracy

    keep_freed_memory()
    with progress_bar(settings.rounds * len(cells), "federate", "round") as bar:
        for cell in cells:
            bar.set_description(f"federate {cell}".strip(), refresh=False)
            with cells.recording(cell, params) as run:
                run.details["device"] = str(where)
                dataset = load_dataset(images)
                parts, seed = load_split(cell.fill(split), images=len(dataset.images))
                built = {"classes": len(dataset.classes), "image_size": dataset.images.shape[-1]}
                start = _start(model_params, initial and cell.fill(initial), seed=seed, **built)
                result = simulate_federation(
                    start.to(where),
                    torch.from_numpy(dataset.images).to(where),
                    _as_targets(dataset.labels).to(where),
                    parts,
                    settings,
                    defense=steps,
                    attacked=attacked,
                    seed=seed,
                    on_round=lambda accuracy: _show(bar, accuracy.test),
                )
                named, out = {**cell.labels, "seed": seed}, cell.fill(out_dir)
                for captured in result.captured:
                    folder = out / f"round{captured.round}"
                    _save(captured, folder, model_params, cell=named, exact_statistics=exact_statistics, **built)
                write_accuracy(out / "accuracy.csv", result.accuracy, cell=named)
                rounds = [accuracy.round for accuracy in result.accuracy]
                run.add_curve("test_accuracy", rounds, [accuracy.test for accuracy in result.accuracy])
                run.metrics["test_accuracy"] = result.accuracy[-1].test


def _start(params: "ModelParams", initial: Path | None, *, seed: int, classes: int, image_size: int) -> "ModelState":
    """The model of the first round: untrained, with published weights, or (`weights: public`) that of `initial`."""
    from leakpipe.federation.files import load_model
    from leakpipe.models.pretrained import pretrained_state, take_tensors
    from leakpipe.models.state import build_module
    from leakpipe.randomness import derive_seed

    if (params.weights == "public") != (initial is not None):
        raise click.UsageError("--initial goes with weights: public, and only with that")
    module = build_module(params, classes=classes, image_size=image_size)
    weights = "random" if initial else params.weights
    start = pretrained_state(params, weights, module, seed=derive_seed("model", seed))
    if initial is None:
        return start
    pretrained = load_model(initial)
    return take_tensors(start, {**pretrained.weights, **pretrained.statistics}, source=str(initial))


def _save(
    captured: "CapturedUpdate",
    folder: Path,
    params: "ModelParams",
    *,
    cell: Mapping[str, Any],
    exact_statistics: bool,
    classes: int,
    image_size: int,
) -> None:
    """Write one client's update of one round, and the global model that it was sent."""
    from leakpipe.federation.files import StoredUpdate, save_model, save_update

    save_model(folder / "global.safetensors", captured.before, params=params, classes=classes, image_size=image_size)
    stored = StoredUpdate(
        captured.update,
        {**cell, "round": captured.round, "client": captured.client},
        captured.schedule,
        captured.labels,
        captured.settings,
        exact_statistics=captured.exact_statistics if exact_statistics else {},
        cohort=captured.cohort,
    )
    save_update(folder / captured.client / "update.safetensors", stored)


def _as_targets(labels: "np.ndarray") -> "torch.Tensor":
    """Class indices, or floats where an image has several labels."""
    import torch

    found = torch.from_numpy(labels)
    return found.float() if found.dim() > 1 else found


def _show(bar: Any, test_accuracy: float) -> None:
    bar.set_postfix({"test accuracy": f"{test_accuracy:.3f}"}, refresh=False)
    bar.update()
