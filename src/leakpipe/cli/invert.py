"""`leakpipe invert`: attack clients' updates."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leakpipe.cli.cells import Cells, each_option, require_cell
from leakpipe.cli.options import (
    InputFile,
    JsonOrFile,
    OutputFile,
    device_option,
    record_options,
    settings_option,
    threads_option,
    use_device,
    use_threads,
)
from leakpipe.cli.terminal import progress_bar, stop_cleanly

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from leakpipe.params.attack_settings import AttackSettings
    from leakpipe.params.attacks import ThreatModel
    from leakpipe.params.defenses import DefenseSteps


@click.command()
@settings_option("attack", "Settings of the attack")
@settings_option("threat-model", "The `threat_model` section: what the attacker is granted")
@click.option(
    "--defense", type=JsonOrFile(), help="The defence's steps (JSON, or a YAML file), for attackers who know them."
)
@click.option("--name", required=True, help="What to call the attack in tables.")
@click.option("--global-model", "models", type=InputFile, multiple=True, required=True, help="Model before the round.")
@click.option("--update", "updates", type=InputFile, multiple=True, required=True, help="Update to attack.")
@click.option("--network", help="Network factory that the models may name: package.module:function. It runs.")
@click.option("--prior", type=InputFile, required=True, help="Prior images (split-data's output).")
@click.option("--out", "outputs", type=OutputFile, multiple=True, required=True, help="Where the images go.")
@click.option(
    "--checkpoints",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder in which running attacks are saved and continued from; emptied of each that ends.",
)
@click.option(
    "--checkpoint-seconds", type=click.FloatRange(min=0), default=30.0, show_default=True, help="Time between saves."
)
@threads_option
@device_option
@each_option
@record_options
def invert(
    attack: dict[str, Any],
    threat_model: dict[str, Any],
    defense: list[dict[str, Any]] | None,
    name: str,
    models: tuple[Path, ...],
    updates: tuple[Path, ...],
    network: str | None,
    prior: Path,
    outputs: tuple[Path, ...],
    checkpoints: Path | None,
    checkpoint_seconds: float,
    threads: int,
    device: str,
    each: list[dict[str, str]],
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Rebuild a client's images from its updates.

    --global-model, --update and --out go together: give each once per captured round, in the same order. With --each,
    one call attacks several clients or seeds one after the other:

    --update 'seed{seed}/round1/site-9/update.safetensors' … --each seed=1 --each seed=2
    """
    if not len(models) == len(updates) == len(outputs):
        raise click.UsageError(
            f"--global-model ({len(models)}), --update ({len(updates)}) and --out ({len(outputs)}) must be as many"
        )
    from leakpipe.params.attack_settings import AttackSettings
    from leakpipe.params.attacks import ThreatModel
    from leakpipe.params.defenses import DefenseSteps
    from leakpipe.params.reading import parse_section

    params = {**attack, "threat_model": threat_model}
    settings = parse_section(AttackSettings, attack, source="--attack")
    granted = parse_section(ThreatModel, threat_model, source="--threat-model")
    if granted.defense == "known" and defense is None:
        raise click.UsageError("--threat-model: defense: known needs --defense, which is missing")
    known = parse_section(DefenseSteps, defense, source="--defense") if granted.defense == "known" else None
    cells = Cells(
        "invert",
        each=each,
        labels={**labels, "attack": name},
        record=record,
        settings={**params, "defense": defense if known else None, "threads": threads},
        inputs=[*models, *updates, prior],
    )
    if not cells:
        return
    from leakpipe.cli.allocator import keep_freed_memory

    use_threads(threads)
    where = use_device(device)
    keep_freed_memory()
    steps = settings.iterations * len(updates) * len(cells)
    with stop_cleanly(), progress_bar(steps, f"invert ({name})", "step") as bar:
        for cell in cells:
            bar.set_description(f"invert ({name}) {cell}".strip(), refresh=False)
            with cells.recording(cell, params) as run:
                run.details["device"] = str(where)
                job = _Attack(
                    name=name,
                    settings=settings,
                    granted=granted,
                    defense=known,
                    network=network,
                    device=where,
                    prior=cell.fill(prior),
                    checkpoints=checkpoints and cell.fill(checkpoints),
                    checkpoint_seconds=checkpoint_seconds,
                )
                for model, update, out in zip(models, updates, outputs, strict=True):
                    result = job.run(cell.fill(model), cell.fill(update), cell.fill(out), bar, cell.labels)
                    run.details.setdefault("attacks", []).append(result.pop("summary"))
                    for curve, values in result["curves"].items():
                        run.add_curve(f"round{result['round']}/{curve}", result["steps"], values)
                    for curve, values in result["layers"].items():  # against the number of the map, the last one first
                        run.add_curve(f"round{result['round']}/layer_{curve}", range(1, 1 + len(values)), values)


@dataclass(frozen=True, kw_only=True)
class _Attack:
    """One attack, on any update."""

    name: str
    settings: "AttackSettings"
    granted: "ThreatModel"
    defense: "DefenseSteps | None"
    network: str | None
    device: "torch.device"
    prior: Path
    checkpoints: Path | None
    checkpoint_seconds: float

    def run(self, model: Path, update: Path, out: Path, bar: Any, labels: Mapping[str, Any]) -> dict[str, Any]:
        """Attacks one update, writes the reconstruction, and returns its curves and a summary for the run record."""
        import torch

        from leakpipe.attacks.checkpoint import Checkpoint
        from leakpipe.attacks.files import save_reconstruction
        from leakpipe.attacks.optimise import invert as run_attack
        from leakpipe.attacks.requirements import needs_statistics
        from leakpipe.attacks.threat_model import observe
        from leakpipe.data.priors import choose_priors, load_priors
        from leakpipe.errors import LeakpipeError
        from leakpipe.federation.files import load_model, load_update
        from leakpipe.randomness import derive_seed

        state = load_model(model, factory=self.network)
        stored = load_update(update, state)
        require_cell(update, stored.cell, labels, needs=("round",))
        cell = {**stored.cell, "attack": self.name}
        seed = derive_seed("attack", *cell.values())
        checkpoint = None
        if self.checkpoints is not None:
            path = self.checkpoints / f"round{cell['round']}.safetensors"
            key = self._key(seed, model, update)
            checkpoint = Checkpoint(path, key=key, seconds=self.checkpoint_seconds, labels=labels)
        known = load_priors(self.prior)

        def grant(labels: Sequence[object]) -> "Tensor":
            return torch.from_numpy(choose_priors(known.images, self.granted.prior, labels))

        started = time.perf_counter()
        try:
            matched = needs_statistics(self.settings) and self.settings.batch_norm == "update"
            if matched and self.granted.batch_norm == "none":
                raise LeakpipeError("the attack needs running statistics, withheld by threat_model.batch_norm: none")
            public = known.public if self.settings.method == "recursive" else None  # no other learns from them
            held = None if public is None else torch.from_numpy(public)
            observation = observe(state, stored, self.granted, priors=grant, public=held, defense=self.defense)
            result = run_attack(
                observation.to(self.device), self.settings, seed=seed, on_iteration=_advance(bar), checkpoint=checkpoint
            )
        except LeakpipeError as error:
            raise LeakpipeError(f"{update}: {error}") from error
        seconds = time.perf_counter() - started
        save_reconstruction(
            out,
            result.images.cpu().numpy(),
            labels=result.labels.long().cpu().numpy(),
            prior=grant(stored.labels).numpy(),
            cell=cell,
            iterations=result.iterations,
            companions=None if result.companions is None else result.companions.numpy(),
        )
        if checkpoint is not None:
            checkpoint.remove()
        curves = dict(result.curves)
        summary = {
            "cell": cell,
            "seconds": round(seconds, 3),
            "iterations": result.iterations,
            "stopped": result.stopped,
            "objective": result.objective,
            "explained": result.explained,
            "notes": list(result.notes),
            **({"layers": list(result.layers)} if result.layers else {}),
        }
        measured = ("residual", "doubtful") if result.layers else ()
        return {
            "round": cell["round"],
            "steps": curves.pop("iteration", []),
            "curves": curves,
            "layers": {name: [layer[name] for layer in result.layers] for name in measured},
            "summary": summary,
        }

    def _key(self, seed: int, model: Path, update: Path) -> str:
        """Everything that an attack depends on: a checkpoint of another attack must not be continued."""
        import torch

        from leakpipe.files.storage import read_json, sidecar_path
        from leakpipe.records.code_version import code_version

        files = [read_json(sidecar_path(path))["sha256"] for path in (model, update, self.prior)]
        sections = (self.settings, self.granted, self.defense)
        settings = [section and section.model_dump(mode="json") for section in sections]
        return json.dumps([seed, files, settings, code_version("leakpipe.cli.invert"), torch.__version__])


def _advance(bar: Any) -> Any:
    """Moves the bar with the attack; a continued attack's bar starts where it was."""
    shown = {"iteration": 0}

    def show(iteration: int, objective: float) -> None:
        bar.set_postfix(objective=f"{objective:.4f}", refresh=False)
        bar.update(iteration - shown["iteration"])
        shown["iteration"] = iteration

    return show
