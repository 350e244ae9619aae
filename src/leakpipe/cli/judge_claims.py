"""`leakpipe judge-claims`: the paper's claims, held against the tables."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, JsonOrFile, OutputFile, record_options, settings_option


@click.command("judge-claims")
@settings_option("defenses", "The `defenses` section")
@click.option(
    "--claims", type=JsonOrFile(), help="The `claims` section (JSON, or a YAML file); without, none is judged."
)
@click.option("--leakage", type=InputFile, required=True, help="The leakage table (collect's output).")
@click.option("--accuracy", type=InputFile, required=True, help="The accuracy table (collect's output).")
@click.option("--out", type=OutputFile, required=True, help="Where the verdicts go (.json).")
@record_options
def judge_claims(
    defenses: dict[str, Any],
    claims: dict[str, Any] | None,
    leakage: Path,
    accuracy: Path,
    out: Path,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Judge the paper's claims: statistic, 95 % interval and verdict of each."""
    from leakpipe.claims.judge import judge_claims
    from leakpipe.files.storage import write_json
    from leakpipe.params.claims import ClaimsParams
    from leakpipe.params.reading import parse_section
    from leakpipe.records.run_record import record_run
    from leakpipe.tables.table import ACCURACY_COLUMNS, LEAKAGE_COLUMNS, read_table

    roles = None if claims is None else parse_section(ClaimsParams, claims, source="--claims")
    with record_run(record, rule="judge_claims", labels=labels, params={"claims": claims}) as run:
        judged = judge_claims(
            read_table(leakage, LEAKAGE_COLUMNS),
            read_table(accuracy, ACCURACY_COLUMNS),
            roles=roles,
            defenses=defenses,
        )
        write_json(out, judged)
        run.artifacts.append(str(out))
