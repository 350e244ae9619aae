"""The tables of attacks in README and docs are those of results/<experiment>/attacks.csv (`--fix` writes them)."""

import re
from collections.abc import Callable

import pandas as pd
import pytest

from leakpipe.tables.comparisons import COMPARISON_COLUMNS
from tests.conftest import PROJECT

BLOCK = r"(<!-- {name}: .*? -->\n).*?(<!-- /{name} -->)"
UNTRAINED = 1  # round


def read(experiment: str) -> pd.DataFrame:
    return pd.read_csv(PROJECT / "results" / experiment / "attacks.csv")


def pair(rows: pd.DataFrame, column: str = "ssim") -> str:
    """Untrained / trained."""
    values = rows.sort_values("round")[column]
    return " / ".join(f"{value:.2f}".replace("-", "−") for value in values)


def with_interval(rows: pd.DataFrame) -> str:
    """Untrained / trained, each with its 95 % interval where there are enough draws for one."""
    said = []
    for row in rows.sort_values("round").itertuples():
        interval = "" if pd.isna(row.ssim_low) else f" [{row.ssim_low:.2f}, {row.ssim_high:.2f}]"
        said.append(f"{row.ssim:.2f}{interval}".replace("-", "−"))
    return " / ".join(said)


def overview(table: pd.DataFrame) -> str:
    """A row per attack and a column per client; the best attack of each, by its mean over both networks, is bold."""
    clients = sorted(set(table["client"]))
    lines = ["| attack | " + " | ".join(clients) + " |", "|---" * (len(clients) + 1) + "|"]
    most = table.sort_values("draws", ascending=False, kind="stable").drop_duplicates(["client", "round"])
    priors = [pair(most[most["client"] == client], "ssim_prior") for client in clients]
    lines.append("| *prior image* | " + " | ".join(priors) + " |")
    best = table.groupby(["client", "attack"])["ssim"].mean().groupby("client").idxmax()
    for attack in dict.fromkeys(table["attack"]):
        cells = []
        for client in clients:
            rows = table[(table["attack"] == attack) & (table["client"] == client)]
            mark = "**" if len(rows) and best[client] == (client, attack) else ""
            cells.append(f"{mark}{pair(rows)}{mark}")
        lines.append(f"| `{attack}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def details(table: pd.DataFrame) -> str:
    """A row per attack and client, with what it took."""
    heads = ["client", "attack", "draws", "iterations", "seconds", "SSIM [95 % interval]"]
    lines = ["| " + " | ".join([*heads, "prior", "labels right"]) + " |", "|---" * 8 + "|"]
    for client in dict.fromkeys(table["client"]):
        for attack in dict.fromkeys(table["attack"]):
            rows = table[(table["attack"] == attack) & (table["client"] == client)]
            if rows.empty:
                continue
            draws, iterations = int(rows["draws"].max()), round(rows["iterations"].mean())
            took = f"{draws} | {iterations} | {rows['seconds'].mean():.0f}"
            priors, right = pair(rows, "ssim_prior"), f"{rows['label_accuracy'].mean():.2f}"
            lines.append(f"| {client} | `{attack}` | {took} | {with_interval(rows)} | {priors} | {right} |")
    return "\n".join(lines) + "\n"


RESULTS = "docs/attacks/results.md"
TABLES: dict[str, tuple[str, str, Callable[[pd.DataFrame], str]]] = {
    "overview": ("README.md", "attacks", overview),
    "attacks": (RESULTS, "attacks", details),
    "deep-resnet20": (RESULTS, "deep-resnet20", details),
    "deep-resnet18": (RESULTS, "deep-resnet18", details),
    "cxr": (RESULTS, "cxr", details),
    "ablation": (RESULTS, "ablation", details),
}


@pytest.mark.parametrize("table", TABLES)
def test_a_documents_table_is_that_of_the_results(table: str, request: pytest.FixtureRequest) -> None:
    document, experiment, draw = TABLES[table]
    path = PROJECT / document
    text, rows = path.read_text(), draw(read(experiment))
    assert list(read(experiment).columns) == COMPARISON_COLUMNS
    assert min(read(experiment)["round"]) == UNTRAINED
    block = BLOCK.format(name=experiment)
    fresh, found = re.subn(block, lambda match: match[1] + rows + match[2], text, flags=re.DOTALL)
    assert found == 1, f"{document} has no place for the table of {experiment}"
    if request.config.getoption("--fix"):
        path.write_text(fresh)
    assert path.read_text() == fresh, "run: pytest tests/unit/test_attack_results.py --fix"
