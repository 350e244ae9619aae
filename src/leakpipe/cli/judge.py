"""`leakpipe judge`: what the tables say: verdicts, comparisons, guarantees, and the paper's claims."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import InputFile, JsonOrFile, OutputFile, record_options, settings_option


@click.command()
@settings_option("federation", "The `federation` section")
@settings_option("defenses", "The `defenses` section; accuracy is lost against the one with the least noise")
@settings_option("privacy", "The `privacy` section")
@click.option(
    "--claims", type=JsonOrFile(), help="The `claims` section (JSON, or a YAML file); without, none is judged."
)
@click.option(
    "--attack", "attacks", multiple=True, required=True, help="Attack; the first is compared with the others."
)
@click.option(
    "--client", "clients", multiple=True, required=True, help="Attacked client; the first is compared with the others."
)
@click.option("--high-risk", required=True, help="Client by whose leak defences are compared.")
@click.option("--adaptive", multiple=True, help="Attack that knows the defence; repeatable.")
@settings_option("published", "The iterations that attacks were published with, by name")
@click.option("--leakage", type=InputFile, required=True, help="The leakage table (collect's output).")
@click.option("--accuracy", type=InputFile, required=True, help="The accuracy table (collect's output).")
@click.option(
    "--identifiability", type=InputFile, help="The identifiability table (collect's output), if there is one."
)
@click.option("--images", type=InputFile, required=True, help="The data set (prepare-data's output).")
@click.option("--split", "splits", type=InputFile, multiple=True, required=True, help="A seed's split; repeatable.")
@click.option("--differences", type=OutputFile, required=True, help="Where the paired differences go (.csv).")
@click.option(
    "--verdicts", type=OutputFile, required=True, help="Where the verdict on every client and defence goes (.csv)."
)
@click.option("--judged-claims", type=OutputFile, required=True, help="Where the verdicts on the claims go (.json).")
@click.option("--guarantees", type=OutputFile, required=True, help="Where the ε of every defence goes (.csv).")
@click.option("--defense-table", type=OutputFile, required=True, help="Where the table of defences goes (.csv).")
@click.option("--attack-table", type=OutputFile, help="Where the means of every attack, client and round go (.csv).")
@record_options
def judge(
    federation: dict[str, Any],
    defenses: dict[str, Any],
    privacy: dict[str, Any],
    claims: dict[str, Any] | None,
    attacks: tuple[str, ...],
    clients: tuple[str, ...],
    high_risk: str,
    adaptive: tuple[str, ...],
    published: dict[str, int],
    leakage: Path,
    accuracy: Path,
    identifiability: Path | None,
    images: Path,
    splits: tuple[Path, ...],
    differences: Path,
    verdicts: Path,
    judged_claims: Path,
    guarantees: Path,
    defense_table: Path,
    attack_table: Path | None,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Say what leaks, compare attacks, clients and defences, account for privacy, and judge the paper's claims."""
    from leakpipe.accounting.table import tabulate_guarantees
    from leakpipe.claims.judge import judge_claims
    from leakpipe.data.files import load_dataset, load_split
    from leakpipe.defenses.naming import name_defenses
    from leakpipe.files.storage import write_json
    from leakpipe.params.claims import ClaimsParams
    from leakpipe.params.federation import FederationParams
    from leakpipe.params.privacy import PrivacyParams
    from leakpipe.params.reading import parse_section
    from leakpipe.records.run_record import record_run
    from leakpipe.tables.comparisons import compare_attacks, compare_pairs
    from leakpipe.tables.defenses import commonest_class, compare_defenses
    from leakpipe.tables.table import (
        ACCURACY_COLUMNS,
        LEAKAGE_COLUMNS,
        identifiability_columns,
        read_table,
        write_table,
    )
    from leakpipe.tables.verdicts import judge_cells, tabulate_verdicts
    from leakpipe.tables.wording import select

    settings = parse_section(FederationParams, federation, source="--federation")
    delta = parse_section(PrivacyParams, privacy, source="--privacy").delta
    roles = None if claims is None else parse_section(ClaimsParams, claims, source="--claims")
    names = list(name_defenses(defenses))
    params = {"attacks": attacks, "clients": clients, "client": high_risk, "adaptive": adaptive, "claims": claims}
    with record_run(record, rule="judge", labels=labels, params=params) as run:
        leaks, kept = read_table(leakage, LEAKAGE_COLUMNS), read_table(accuracy, ACCURACY_COLUMNS)
        looked_up = read_table(identifiability, identifiability_columns((1,))) if identifiability else None
        judged = judge_cells(leaks, looked_up)
        write_table(verdicts, tabulate_verdicts(judged))
        classes, _ = load_dataset(images).strata
        chance, test_images = commonest_class(
            [classes[list(load_split(path, images=len(classes))[0].test)] for path in splits]
        )
        promised = tabulate_guarantees(defenses, settings, delta=delta)
        write_table(guarantees, promised)
        compared = compare_defenses(
            leaks,
            kept,
            promised,
            verdicts={verdict.defense: verdict.word for verdict in judged if verdict.client == high_risk},
            client=high_risk,
            defenses=names,
            adaptive=adaptive,
            chance=chance,
            test_images=test_images,
        )
        write_table(defense_table, compared)
        write_table(differences, compare_pairs(leaks, {"attack": attacks, "client": clients, "defense": names}))
        found = judge_claims(
            leaks, kept, roles=roles, defenses=defenses, identifiability=looked_up, published=published
        )
        write_json(judged_claims, found)
        run.artifacts += [str(path) for path in (verdicts, differences, judged_claims, guarantees, defense_table)]
        if attack_table:
            write_table(attack_table, compare_attacks(select(leaks, defense=names[0])).round(4))
            run.artifacts.append(str(attack_table))
