"""Finds the updates in a folder of leakpipe's captures: for each, what the client received and what it sent."""

from dataclasses import dataclass
from pathlib import Path

from leakpipe.captured.writing import CAPTURED
from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import read_json


@dataclass(frozen=True, order=True)
class CapturedPair:
    """One client's update in one round.

    Attributes:
        round_number: The round as the framework counts it.
        client: The client's name.
        before: File of the global model that it received.
        shared: File of what it sent back.
    """

    round_number: int
    client: str
    before: Path
    shared: Path


def find_pairs(folder: Path) -> list[CapturedPair]:
    """Returns the updates that `leakpipe.captured.writing` wrote below a folder, by round and client.

    What a client received is taken from its own capture, or else from the server's of the global model.

    Raises:
        LeakpipeError: There is none, a sidecar is damaged, or an update has no global model of its round.
    """
    sent: dict[tuple[int, str], Path] = {}
    received: dict[tuple[int, str | None], Path] = {}
    for sidecar in sorted(folder.rglob("*.json")):
        content = read_json(sidecar)
        if content.get("kind") != CAPTURED:
            continue
        path, facts = sidecar.with_suffix(".safetensors"), content.get("metadata", {})
        try:
            place = int(facts["round"]), facts["client"]
            (sent if facts["direction"] == "sent" else received)[place] = path
        except (KeyError, TypeError, ValueError) as error:
            raise LeakpipeError(f"{sidecar}: metadata does not describe a capture: {error!r}") from error
    if not sent:
        raise LeakpipeError(f"{folder}: holds no update that leakpipe captured")
    pairs = []
    for (round_number, client), path in sent.items():
        before = received.get((round_number, client)) or received.get((round_number, None))
        if before is None:
            raise LeakpipeError(f"{path}: the global model of round {round_number} is not beside it")
        pairs.append(CapturedPair(round_number, client, before, path))
    return sorted(pairs)
