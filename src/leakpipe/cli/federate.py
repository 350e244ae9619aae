"""`leakpipe federate`: simulate a federation under one defence and capture what attacked clients share."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import (
    InputFile,
    progress_bar,
    record_options,
    settings_option,
    threads_option,
    use_threads,
)


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
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Run federated averaging; keep the captured rounds' global models and attacked clients' updates."""
    import torch

    from leakpipe.data.files import load_dataset, load_split
    from leakpipe.federation.files import StoredUpdate, load_model, save_model, save_update
    from leakpipe.federation.local import LocalSettings
    from leakpipe.federation.simulate import simulate_federation, write_accuracy
    from leakpipe.models.pretrained import pretrained_state, take_tensors
    from leakpipe.models.state import build_module
    from leakpipe.params_defenses import DefenseSteps
    from leakpipe.params_federation import FederationParams
    from leakpipe.params_files import parse_section
    from leakpipe.params_models import ModelParams
    from leakpipe.provenance import record_run
    from leakpipe.randomness import derive_seed

    use_threads(threads)
    params = {"model": model, "federation": federation, "defense": defense}
    with record_run(record, rule="federate", labels=labels, params=params) as run:
        model_params = parse_section(ModelParams, model, source="--model")
        settings = parse_section(FederationParams, federation, source="--federation")
        steps = parse_section(DefenseSteps, defense, source="--defense")
        dataset = load_dataset(images)
        parts, seed = load_split(split)
        built = {"classes": len(dataset.classes), "image_size": dataset.images.shape[-1]}
        if (model_params.weights == "public") != (initial is not None):
            raise click.UsageError("--initial goes with weights: public, and only with that")
        weights = "random" if initial else model_params.weights
        start = pretrained_state(
            model_params, weights, build_module(model_params, **built), seed=derive_seed("model", seed)
        )
        if initial:
            pretrained = load_model(initial)
            start = take_tensors(start, {**pretrained.weights, **pretrained.statistics}, source=str(initial))
        with progress_bar(settings.rounds, "federate", "round") as bar:
            result = simulate_federation(
                start,
                torch.from_numpy(dataset.images),
                torch.from_numpy(dataset.labels),
                parts,
                settings,
                defense=steps,
                attacked=attacked,
                seed=seed,
                on_round=lambda accuracy: _show(bar, accuracy.test),
            )
        training = LocalSettings(learning_rate=settings.learning_rate, batch_norm_momentum=settings.batch_norm_momentum)
        for captured in result.captured:
            folder = out_dir / f"round{captured.round}"
            save_model(folder / "global.safetensors", captured.before, params=model_params, **built)
            cell = {**labels, "seed": seed, "round": captured.round, "client": captured.client}
            save_update(
                folder / captured.client / "update.safetensors",
                StoredUpdate(
                    captured.update,
                    cell,
                    captured.schedule,
                    captured.labels,
                    training,
                    exact_statistics=captured.exact_statistics if exact_statistics else {},
                    companions=captured.companions,
                ),
            )
        write_accuracy(out_dir / "accuracy.csv", result.accuracy, cell={**labels, "seed": seed})
        rounds = [accuracy.round for accuracy in result.accuracy]
        run.add_curve("test_accuracy", rounds, [accuracy.test for accuracy in result.accuracy])
        run.metrics["test_accuracy"] = result.accuracy[-1].test


def _show(bar: Any, test_accuracy: float) -> None:
    bar.set_postfix({"test accuracy": f"{test_accuracy:.3f}"}, refresh=False)
    bar.update()
