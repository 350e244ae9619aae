"""`leakpipe assess`: what an audit may conclude from its reconstructions, as tables, a page and a summary."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import JsonOrFile, record_options, threads_option, use_threads


@click.command()
@click.option(
    "--plan", type=JsonOrFile(), required=True, help="The audit's plan (JSON): parameters, attacks, defences."
)
@click.option(
    "--updates", required=True, help="What read-update wrote, a path with {captured}: the folder of global.safetensors."
)
@click.option(
    "--reconstruction", required=True, help="Attacks' outputs, a path with {captured}, {defense} and {attack}."
)
@click.option("--attack-record", required=True, help="Their run records, a path with the same.")
@click.option("--read-record", required=True, help="Run records of read-update, a path with {captured}.")
@click.option(
    "--out-dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Gets assessment.json, attempts.csv, report.html, summary.png and summary.pdf.",
)
@threads_option
@record_options
def assess(
    plan: dict[str, Any],
    updates: str,
    reconstruction: str,
    attack_record: str,
    read_record: str,
    out_dir: Path,
    threads: int,
    record: Path | None,
    labels: dict[str, str],
) -> None:
    """Judge every update of an audit, as it was sent and under each defence, and write the page."""
    use_threads(threads)
    import pandas as pd

    from leakpipe.audit.findings import collect_findings
    from leakpipe.audit.page import draw_summary, render_audit, save_summary
    from leakpipe.audit.tables import describe, tabulate
    from leakpipe.files.storage import write_json, write_text
    from leakpipe.params.audit import AuditPlan
    from leakpipe.params.reading import parse_section
    from leakpipe.records.run_record import record_run
    from leakpipe.tables.table import write_table

    planned = parse_section(AuditPlan, plan, source="--plan")
    with record_run(record, rule="assess", labels=labels, params=plan["audit"]) as run:
        findings = collect_findings(
            planned,
            updates=updates,
            reconstruction=reconstruction,
            attack_record=attack_record,
            read_record=read_record,
        )
        found = {
            name: {each.defense: describe(each) for each in findings.assessments if each.update == name}
            for name in planned.audit.updates
        }
        worst = findings.worst
        verdict = {"word": worst.word, "why": worst.why, "update": worst.update}
        write_json(out_dir / "assessment.json", {"audit": findings.name, "verdict": verdict, "updates": found})
        write_table(out_dir / "attempts.csv", pd.DataFrame(tabulate(findings.assessments, findings.attempts)))
        write_text(out_dir / "report.html", render_audit(findings))
        save_summary(draw_summary(findings), png=out_dir / "summary.png", pdf=out_dir / "summary.pdf")
        run.metrics["updates_that_leak"] = sum(each.word == "leaks" for each in findings.sent)
