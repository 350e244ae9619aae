"""The rows of the tables that a figure shows, and the names of their clients and defences."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from leakpipe.errors import LeakpipeError

if TYPE_CHECKING:
    import pandas as pd  # slow to import, and the Snakefile uses this module on every start

LEAKS, NOTHING_FOUND, CANNOT_TELL = "leaks", "no leak found", "cannot tell"
VERDICTS = (NOTHING_FOUND, CANNOT_TELL, LEAKS)
"""The verdicts on a client under a defence (`leakpipe.tables.verdicts`), the most alarming last."""

Clients = Mapping[str, Mapping[str, Any]]
"""The `federation.clients` section of the parameters, as plain mappings."""


def select(table: "pd.DataFrame", **chosen: object) -> "pd.DataFrame":
    """Rows that agree with `chosen` (column=value); `LeakpipeError` if there are none."""
    rows = table
    for column, value in chosen.items():
        rows = rows[rows[column] == value]
    if rows.empty:
        wanted = ", ".join(f"{column} {value!r}" for column, value in chosen.items())
        raise LeakpipeError(f"the leakage table has no rows for {wanted}")
    return rows


def order_clients(table: "pd.DataFrame", clients: Clients) -> list[str]:
    """Clients that `table` holds, those with the fewest images first, then by name.

    Args:
        table: Rows with a column `client`.
        clients: The `federation.clients` section of the parameters.
    """
    present = [str(name) for name in table["client"].unique()]
    unknown = sorted(set(present) - set(clients))
    if unknown:
        raise LeakpipeError(f"client {unknown[0]!r} of the leakage table is not among {', '.join(clients)}")
    return sorted(present, key=lambda name: (int(clients[name]["images"]), name))


def describe_client(name: str, client: Mapping[str, Any]) -> str:
    """`site-9: 1 image`, `site-1: 8 images, batch 4`, with `, 2 epochs` where it has a number of its own."""
    images, epochs = int(client["images"]), client.get("local_epochs")
    described = f"{name}: {count(images, 'image')}"
    if images > 1:
        described += f", batch {int(client['batch_size'])}"
    return described if epochs is None else f"{described}, {count(int(epochs), 'epoch')}"


def stack_description(name: str, client: Mapping[str, Any]) -> str:
    """`describe_client` for a narrow place: every part on a line of its own."""
    return describe_client(name, client).replace(": ", "\n").replace(", ", ",\n")


def count_sample(rows: "pd.DataFrame", *nouns: str) -> str:
    """`2 images, 5 seeds`: how many different values the columns of these names (`image`, `seed`) hold."""
    return ", ".join(count(rows[noun].nunique(), noun) for noun in nouns)


def count_draws(rows: "pd.DataFrame", clients: Clients) -> str:
    """`site-9: 5 images, 5 seeds, 3 rounds; …`: what the numbers of each client are over."""
    samples = rows.groupby("client")
    return "; ".join(
        f"{name}: {count_sample(samples.get_group(name), 'image', 'seed', 'round')}"
        for name in order_clients(rows, clients)
    )


def write_gain(gain: float) -> str:
    """`+0.72`, `−0.16`, `0.00`."""
    rounded = round(gain, 2)
    return f"{rounded:+.2f}".replace("-", "−") if rounded else "0.00"


def count(number: int, noun: str) -> str:
    """`1 image`, `3 images`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
