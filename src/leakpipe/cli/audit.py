"""`leakpipe audit`: from captured files to a verdict in one command."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from leakpipe.cli.audit_lock import hold
from leakpipe.cli.audit_progress import Progress, run_shown
from leakpipe.cli.options import InputFile, parse_pairs
from leakpipe.cli.terminal import say
from leakpipe.tables.wording import count

if TYPE_CHECKING:
    from leakpipe.params.audit import AuditPlan

START_SECONDS = 4.0  # of a job, before its attack
WORKFLOW = Path(__file__).parents[1] / "workflow" / "audit.smk"
COMPARED_BYTES = "1000000000"  # files up to this size are compared by content, not by time, as in profiles/default
NAME_OF_EXAMPLE = "audit.yaml"
EXAMPLE = """\
# For `leakpipe audit`: what does this update give away? Paths are relative to this file.
audit: {name}  # results go to results/audit/, into a folder of this name

updates:               # by name; one or many
  round1:
    before: {before}  # state of the global model that the client received: .pt, .pth, .safetensors, .npz
    after: {after}  # the client's state after its training; `change:` instead for a difference

network:               # your own network, or a registered one: architecture: {{name: resnet18}}, classes: 2
  # package.module:function, beside this file or installed. An attack searches images in [0, 1]: if your code scales
  # them first (Normalize in a data loader), name a function that does the same (docs/how-to/audit.md).
  factory: {factory}
  arguments: {{}}
  dropout: true        # false: you believe that the client trained without its network's dropout

images:
  size: {size}  # height and width in pixels that the network takes
  channels: {channels}  # gray or color{found}

client:
  images: null         # fill in: how many it trained on in this round
  batch_size: null     # null: all in one step
  epochs: 1
  labels: null         # class of each image, such as [0]; null: unknown, the attacker recovers them
  truth: null          # folder of its own images, to score what comes back

training:              # how the client trained
  learning_rate: null  # fill in
  optimizer: {{kind: sgd}}   # or adam, adamw, with their settings: {{kind: sgd, momentum: 0.9, weight_decay: 5.0e-4}}
  # clipping: {{kind: norm, limit: 1.0}}    # what else there is: docs/clients.md

defense: []            # steps that the client applied before it sent the update (docs/defenses.md)

public: null           # folder of images like the client's that anybody may have
candidates: null       # folder of people to look the reconstructions up among

minutes: 10            # for all attacks on one update
what_if: null          # defences to try on this very update; null: all, []: none
"""


@click.command()
@click.argument("config", type=InputFile, default=NAME_OF_EXAMPLE, metavar="[AUDIT.YAML]")
@click.option("--init", is_flag=True, help="Write a commented audit.yaml to start from, and stop.")
@click.option("--before", default="before.pth", help="With --init: state of the global model.")
@click.option("--after", default="after.pth", help="With --init: the client's state after its training.")
@click.option("--network", default="network:Network", help="With --init: factory of your network.")
@click.option("--image-size", default=224, type=int, help="With --init: height and width of the images in pixels.")
@click.option(
    "--cores", type=click.IntRange(min=1), default=os.cpu_count(), show_default=True, help="Attacks at a time."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="FIELD=VALUE",
    callback=parse_pairs,
    help="A field of audit.yaml, such as training.learning_rate=0.1: replaces what the file says, or does without it.",
)
@click.option("--profile", help="Profile of Snakemake, such as one for Slurm.")
@click.option("--dry-run", is_flag=True, help="Check everything, plan the attacks, and stop.")
def audit(
    config: Path,
    init: bool,
    before: str,
    after: str,
    network: str,
    image_size: int,
    cores: int,
    changes: dict[str, str],
    profile: str | None,
    dry_run: bool,
) -> None:
    """Say what captured updates give away: attack them, judge, and write a page.

    Start with `leakpipe audit --init`, which writes a commented audit.yaml. Killed at any moment, the same command
    continues. Results go to results/audit/NAME/.
    """
    from leakpipe.errors import LeakpipeError

    if init:
        from leakpipe.files.quoting import for_shell, for_yaml
        from leakpipe.files.storage import write_text

        if config.exists():
            raise LeakpipeError(f"{config}: exists already; remove it, or give another name")
        name = re.sub(r"[^A-Za-z0-9]+", "-", config.resolve().parent.name).strip("-")[:64] or "audit"
        texts = {"name": name, "before": before, "after": after, "factory": network}
        quoted = {field: for_yaml(text) for field, text in texts.items()}
        channels = _channels(config.parent / before)
        found = ", as the first convolution takes" if channels else ""
        write_text(config, EXAMPLE.format(**quoted, size=image_size, channels=channels or "gray", found=found))
        call = for_shell("leakpipe", "audit", str(config))
        say(f"Wrote {config}. Fill in what it says of images and training, then: {call}")
        return
    from leakpipe.audit.inputs import load_audit
    from leakpipe.audit.planning import load_plan, make_plan, written_times
    from leakpipe.files.storage import write_json

    params = load_audit(config, changes)
    folder = str(config.resolve().parent)
    sys.path.insert(0, folder)  # the network lies beside audit.yaml
    path = Path("results/audit") / params.audit / "plan.json"
    tried = Path(".leakpipe/plans") / f"{params.audit}.json"  # of a dry run: the real one must do what it said
    known = [plan for each in (path, tried) if (plan := load_plan(each))]
    written = written_times(params)
    plan = next((each for each in known if each.audit == params and each.written == written), None)
    if plan is None:
        click.echo("Checking the files and measuring the time of an attack …", err=True)
        plan = make_plan(params, cores=cores, earlier=known)
    expected = _expect(plan)
    _describe(plan, expected, cores=cores)
    if dry_run:
        write_json(tried, plan.model_dump(mode="json"))
        return
    with hold(params.audit) as held:
        write_json(path, plan.model_dump(mode="json"))
        _run(
            path,
            Progress(expected),
            options=["--cores", str(cores), *(["--profile", profile] if profile else [])],
            folder=folder,
            held=held,
        )
    say(_verdict(path.parent / "assessment.json"))
    say(f"Page: {path.parent / 'report.html'}   Summary: {path.parent / 'summary.pdf'}")


def _channels(before: Path) -> str | None:
    """Returns the kind of images that the first convolution in a state file takes; None where that is not known."""
    from leakpipe.captured.reading import read_state

    if not before.exists():
        return None
    convolutions = (each for each in read_state(before).tensors.values() if each.dim() == 4)
    return {1: "gray", 3: "color"}.get(next((each.shape[1] for each in convolutions), 0))


def _run(plan: Path, progress: Progress, *, options: Sequence[str], folder: str, held: Sequence[int]) -> None:
    """Runs the workflow on a plan, with what lies in a folder to be imported and a lock held (`audit_lock`)."""
    from leakpipe.errors import LeakpipeError

    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(WORKFLOW), "--configfile", str(plan)),
        *("--rerun-incomplete", "--nocolor", "--max-checksum-file-size", COMPARED_BYTES, *options),
    ]
    inherited = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, *([inherited] if inherited else [])])}
    log = Path("logs/audit") / plan.parent.name / "snakemake.log"
    click.echo(f"Started; the full log is {log}. Interrupted at any moment, the same command goes on.")
    if run_shown(command, progress, log, env=environment, pass_fds=held):
        raise LeakpipeError(f"{_why_failed(progress, log)}; when that is mended, the same command goes on")


def _why_failed(progress: Progress, log: Path) -> str:
    """Returns the last line of the failed step's log, or of Snakemake's own where no step failed."""
    source = progress.failed if progress.failed and progress.failed.exists() else log
    said = source.read_text(encoding="utf-8").strip() or "the audit did not finish"
    return f"{said.splitlines()[-1].removeprefix('Error: ').rstrip('.')} (the whole log: {source})"


def _verdict(path: Path) -> str:
    """Returns the sentence that an audit ends with."""
    from leakpipe.errors import LeakpipeError
    from leakpipe.files.storage import read_json

    try:
        found = read_json(path)["verdict"]
        return f"{found['word'].capitalize()} ({found['update']}): {found['why']}."
    except (KeyError, TypeError, AttributeError) as error:
        raise LeakpipeError(f"{path}: holds no verdict; remove it, and the same command judges again") from error


def _expect(plan: "AuditPlan") -> dict[tuple[str, str, str, str], float]:
    """Returns what every step is expected to take, in seconds (`leakpipe.cli.audit_progress.Progress`)."""
    expected = {("assess", "", "", ""): START_SECONDS, ("track", "", "", ""): START_SECONDS}
    for update in plan.audit.updates:
        expected["read_update", update, "", ""] = START_SECONDS
        if plan.what_if:
            expected["defend_update", update, "", ""] = START_SECONDS
        for defense, attacks in plan.cells[update].items():
            for name, attack in attacks.items():
                expected["invert", update, defense, name] = attack.seconds + START_SECONDS
    return expected


def _describe(plan: "AuditPlan", expected: dict[tuple[str, str, str, str], float], *, cores: int) -> None:
    """Says what will be run, and how long it takes."""
    from leakpipe.audit.plan import hardly_begun

    shown: list[object] = []
    for update, cells in plan.cells.items():
        if cells in shown:
            continue
        alike = [name for name, others in plan.cells.items() if others == cells]
        say(f"{update}{f' and {len(alike) - 1} more like it' if len(alike) > 1 else ''}:")
        shown.append(cells)
        for defense, attacks in cells.items():
            for name, attack in attacks.items():
                steps = f"{attack.settings.iterations} of {attack.wanted} iterations"
                say(f"  {defense}: {name}, {steps}, about {attack.seconds:.0f} s: {attack.why}")
    for name, found in plan.doubts.items():
        for doubt in found:
            say(f"Note on {name}: {doubt}")
    updates, minutes = count(len(plan.audit.updates), "update"), sum(expected.values()) / cores / 60
    click.echo(f"About {minutes:.1f} minutes for {updates} on {count(cores, 'core')}.")
    if hardly_begun(plan):
        say(
            f"Note: with minutes: {plan.audit.minutes:g} no attack gets a quarter of the iterations that it wants: a "
            'verdict of "cannot tell" will mean little.'
        )
