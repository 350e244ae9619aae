"""`leakpipe plot noise`: leakage and accuracy against the noise multiplier."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.figure_output import FigureOutput, figure_options
from leakpipe.cli.options import InputFile, record_options, settings_option


@click.command("noise")
@settings_option("clients", "The `federation.clients` section")
@settings_option("defenses", "The `defenses` section; those that are nothing but Gaussian noise are drawn")
@click.option("--leakage", type=InputFile, required=True, help="The leakage table (collect's output).")
@click.option("--accuracy", type=InputFile, required=True, help="The accuracy table (collect's output).")
@click.option("--attack", required=True, help="Attack to draw.")
@figure_options
@record_options
def plot_noise(
    clients: dict[str, Any],
    defenses: dict[str, Any],
    leakage: Path,
    accuracy: Path,
    attack: str,
    output: FigureOutput,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Draw RDLV and test accuracy against σ0."""
    from leakpipe.figures.noise import describe_noise, plot_noise
    from leakpipe.figures.selection import noise_multipliers
    from leakpipe.metrics.table import ACCURACY_COLUMNS, LEAKAGE_COLUMNS, read_table
    from leakpipe.provenance import record_run

    with record_run(record, rule="plot_noise", labels=labels, params={"attack": attack}) as run:
        leaks, kept = read_table(leakage, LEAKAGE_COLUMNS), read_table(accuracy, ACCURACY_COLUMNS)
        chosen: dict[str, Any] = {"attack": attack, "sigma0": noise_multipliers(defenses), "clients": clients}
        output.save(plot_noise(leaks, kept, **chosen), describe_noise(leaks, kept, **chosen), run)
