"""`leakpipe stage`: runs Snakemake for a stage of dvc.yaml, so that DVC keeps the records of how files were made."""

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import dropwhile
from pathlib import Path

import click

from leakpipe.errors import LeakpipeError

PIPELINE = Path("dvc.yaml")
PARAMS = Path("params.yaml")


@click.command()
@click.argument("name")
@click.option(
    "--cores", envvar="LEAKPIPE_CORES", metavar="N", help="Number of cores for Snakemake (or set LEAKPIPE_CORES)."
)
def stage(name: str, cores: str | None) -> None:
    """Bring the outputs of stage NAME of dvc.yaml, and of the stages before it, up to date.

    `dvc repro` runs this command. Run it by hand after `dvc pull` or `dvc checkout`, before plain `snakemake`: it
    gives Snakemake the records of how the files were made, and remakes files that are not what the records describe.
    Files in the stages' outs that no rule makes are deleted.
    """
    from leakpipe.params.reading import read_yaml
    from leakpipe.records.stages import export, prune, read_stages, restore

    if not PIPELINE.is_file():
        raise LeakpipeError(
            f"{PIPELINE}: not in {Path.cwd()}; `leakpipe stage` brings up to date what the dvc.yaml of a checkout of "
            "leakpipe lists: call it there"
        )
    stages = read_stages(PIPELINE, upto=name, experiment=str(read_yaml(PARAMS).get("experiment")))
    targets = [stage.name for stage in stages]
    refuse_if_locked()
    require_cache()
    expected = list_outputs(targets)
    for path in sorted(expected):
        if not any(stage.holds(path) for stage in stages):
            raise LeakpipeError(f"{PIPELINE}: stages: {path} is made for {name!r} but is in no stage's outs")
    say(name, "deleted to be made again", restore(stages))
    options = ["--cores", cores] if cores else []
    run_snakemake([*options, *targets])
    missing = sorted(path for path in expected if not Path(path).exists())
    if missing:  # a file that only a finished job made, of which Snakemake asks no more
        run_snakemake([*options, *missing])
    say(name, "deleted that no rule makes", prune(stages, expected))
    for finished in stages:
        export(finished)


def refuse_if_locked() -> None:
    """Raises `LeakpipeError` before anything is deleted while another Snakemake works here."""
    from leakpipe.records.stages import SNAKEMAKE

    if any((SNAKEMAKE / "locks").glob("*.lock")):
        raise LeakpipeError(
            f"{SNAKEMAKE / 'locks'}: another Snakemake works in this folder; wait for it, "
            "or run `snakemake --unlock` if it was killed"
        )


def require_cache() -> None:
    """Raises `LeakpipeError` where Snakemake could not write its cache, which it reports by a traceback."""
    from leakpipe.files.quoting import as_path

    folder = as_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "snakemake"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "not writable"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    if reason:
        raise LeakpipeError(
            f"{folder}: {reason}, but Snakemake needs it; set the environment variable XDG_CACHE_HOME to a folder that "
            "can be written"
        )


def list_outputs(targets: Sequence[str]) -> set[str]:
    """Returns every file that the rules make for these targets."""
    table = run_snakemake(["--summary", *targets], capture=True).splitlines()
    rows = dropwhile(
        lambda line: not line.startswith("output_file\t"), table
    )  # Snakemake 9.18 prints its profile first
    return {line.split("\t")[0] for line in list(rows)[1:] if line}


def run_snakemake(arguments: Sequence[str], *, capture: bool = False) -> str:
    """Runs Snakemake with this Python; returns what it printed if `capture` is set.

    Raises:
        LeakpipeError: It failed; its own messages are shown.
    """
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if done.returncode:
        click.echo(done.stderr or "", nl=False, err=True)
        asked = " ".join(["snakemake", *arguments[:1]]) if capture else "snakemake"
        raise LeakpipeError(f"{asked}: failed with exit code {done.returncode}, see above")
    return done.stdout or ""


def say(name: str, what: str, paths: Sequence[str]) -> None:
    """Prints how many files were deleted, why, and the first of them."""
    if paths:
        click.echo(f"{name}: {len(paths)} files {what} ({paths[0]}{', …' if len(paths) > 1 else ''})")
