"""`leakpipe invert`: attack one client's updates."""

import time
from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import (
    InputFile,
    OutputFile,
    progress_bar,
    record_options,
    settings_option,
    threads_option,
    use_threads,
)


@click.command()
@settings_option("attack", "Settings of the attack")
@click.option("--name", required=True, help="What to call the attack in tables.")
@click.option("--global-model", "models", type=InputFile, multiple=True, required=True, help="Model before the round.")
@click.option("--update", "updates", type=InputFile, multiple=True, required=True, help="Update to attack.")
@click.option("--prior", type=InputFile, required=True, help="Prior images (split-data's output).")
@click.option(
    "--prior-choice", type=click.Choice(["all", "class"]), default="all", help="Which prior image is granted."
)
@click.option("--out", "outputs", type=OutputFile, multiple=True, required=True, help="Where the images go.")
@threads_option
@record_options
def invert(
    attack: dict[str, Any],
    name: str,
    models: tuple[Path, ...],
    updates: tuple[Path, ...],
    prior: Path,
    prior_choice: str,
    outputs: tuple[Path, ...],
    threads: int,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Rebuild a client's images from its updates.

    --global-model, --update and --out go together: give each once per captured round, in the same order.
    """
    if not len(models) == len(updates) == len(outputs):
        raise click.UsageError(
            f"--global-model ({len(models)}), --update ({len(updates)}) and --out ({len(outputs)}) must be as many"
        )
    from leakpipe.params import AttackSettings
    from leakpipe.params_files import parse_section
    from leakpipe.provenance import record_run

    use_threads(threads)
    with record_run(record, rule="invert", labels={**labels, "attack": name}, params=attack) as run:
        settings = parse_section(AttackSettings, attack, source="--attack")
        with progress_bar(settings.iterations * len(updates), f"invert ({name})", "step") as bar:
            for files in zip(models, updates, outputs, strict=True):
                result = _invert_update(*files, name=name, settings=settings, prior=prior, choice=prior_choice, bar=bar)
                run.details.setdefault("attacks", []).append(result.pop("summary"))
                for curve, values in result["curves"].items():
                    run.add_curve(f"round{result['round']}/{curve}", result["steps"], values)


def _invert_update(
    model: Path, update: Path, out: Path, *, name: str, settings: Any, prior: Path, choice: str, bar: Any
) -> dict[str, Any]:
    """Attack one update, write the reconstruction, return its curves and a summary for the run record."""
    import torch

    from leakpipe.attacks.files import save_reconstruction
    from leakpipe.attacks.observation import Observation
    from leakpipe.attacks.optimise import invert as run_attack
    from leakpipe.data.files import load_priors
    from leakpipe.data.priors import choose_priors
    from leakpipe.federation.files import load_model, load_update
    from leakpipe.randomness import derive_seed

    state = load_model(model)
    stored = load_update(update, state)
    priors, _ = load_priors(prior)
    chosen = choose_priors(priors, choice, stored.labels)
    cell = {**stored.cell, "attack": name}

    def show(_iteration: int, objective: float) -> None:
        bar.set_postfix(objective=f"{objective:.4f}", refresh=False)
        bar.update()

    started = time.perf_counter()
    result = run_attack(
        Observation(
            before=state,
            update=stored.update,
            labels=torch.tensor(stored.labels),
            schedule=stored.schedule,
            settings=stored.settings,
            prior=torch.from_numpy(chosen),
        ),
        settings,
        seed=derive_seed("attack", *cell.values()),
        on_iteration=show,
    )
    seconds = time.perf_counter() - started
    save_reconstruction(out, result.images.numpy(), prior=chosen, cell=cell, iterations=result.iterations)
    steps = result.curves.pop("iteration", [])
    summary = {
        "cell": cell,
        "seconds": round(seconds, 3),
        "iterations": result.iterations,
        "objective": result.objective,
        "notes": result.notes,
    }
    return {"round": cell["round"], "steps": steps, "curves": result.curves, "summary": summary}
