"""The assumptions of an audit: what the attacker is granted, what is believed of the client, and what was checked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from leakpipe.audit.inputs import client_of
from leakpipe.audit.what_if import describe_companions
from leakpipe.params.audit import AuditedClient, AuditParams
from leakpipe.params.training import TrainingParams
from leakpipe.tables.wording import count

NAMED = 3  # updates, where there are many
# What a rehearsal looks at (`leakpipe.attacks.belief`), and that its silence is no proof.
UNDOUBTED = (
    "the update is as large, and its head and batch statistics are such, as the believed training makes on plausible "
    "images; a slightly wrong belief passes this"
)


@dataclass(frozen=True)
class Assumption:
    """One line of the table.

    Attributes:
        what: It is about.
        status: `granted` to the attacker, `believed` because audit.yaml says so, `checked` against the files,
            `doubted` after a check, or `unchecked` where none is possible.
        how: What is assumed, or was found.
    """

    what: str
    status: Literal["granted", "believed", "checked", "doubted", "unchecked"]
    how: str


def list_assumptions(
    params: AuditParams, notes: Sequence[str], *, doubts: Mapping[str, Sequence[str]], aggregated: bool = False
) -> list[Assumption]:
    """Returns what the audit grants and believes, what the files say, and first of all what speaks against it.

    Args:
        aggregated: Whether the update was also attacked as part of an aggregate.
    """
    sent, size = {name: client_of(params, name) for name in params.updates}, params.images.size
    numbers = dict.fromkeys(client.images for client in sent.values())
    images = [
        f"{count(number, 'image')} in {_few([name for name, client in sent.items() if client.images == number])}"
        for number in numbers
    ]
    blind = [name for name, client in sent.items() if client.labels is None]
    unknown = f"unknown in {_few(blind)}: the attacker recovers them" if blind else "the class of every image"
    defense = params.defense.model_dump(mode="json")
    undoubted = [name for name, found in doubts.items() if not found]
    without = "" if params.network.dropout else ", without the network's dropout"
    return [
        *(
            Assumption(f"Rehearsal of {name}", "unchecked" if each.startswith("Not checked") else "doubted", each)
            for name, found in doubts.items()
            for each in found
        ),
        Assumption("Model and update", "granted", "as the server has them"),
        Assumption("Labels", "granted", unknown),
        Assumption(
            "Known before",
            "granted",
            (params.public and f"the images in {params.public}, and their mean") or "plain gray",
        ),
        Assumption("Defence", "granted", f"{defense}, which the attacker knows" if defense else "none was applied"),
        Assumption("Images", *_judge_images(f"{', '.join(images)}, of {size}×{size} pixels", sent.values())),
        Assumption("Training", "believed", f"{_describe_training(params.training.model_dump(mode='json'))}{without}"),
        *([Assumption("Secure aggregation", "believed", describe_companions(params))] if aggregated else []),
        *(Assumption("Files", "checked", note) for note in notes),
        *([Assumption(f"Rehearsal of {_few(undoubted)}", "checked", UNDOUBTED)] if undoubted else []),
    ]


def _judge_images(images: str, clients: Iterable[AuditedClient]) -> tuple[Literal["believed", "unchecked"], str]:
    """Returns the status of the number of images, which the true images alone check, and what is said of it."""
    if all(client.truth is not None for client in clients):
        return "believed", images
    return "unchecked", f"{images}; nothing checks how many there are, and with a wrong number attacks find less"


def _few(names: Sequence[str]) -> str:
    """Names the first of many."""
    return (
        ", ".join(names)
        if len(names) <= NAMED
        else f"{', '.join(names[: NAMED - 1])} and {len(names) - NAMED + 1} more"
    )


def _describe_training(training: Mapping[str, Any]) -> str:
    """Describes how the client trained: optimiser and step size, and what differs from plain training."""
    plain = TrainingParams().model_dump(mode="json")
    optimizer = {key: value for key, value in training["optimizer"].items() if key != "kind" and value}
    said = [f"{training['optimizer']['kind']}, learning rate {training['learning_rate']:g}"]
    said += [f"{key} {value}" for key, value in optimizer.items()]
    said += [f"{key} {training[key]}" for key in plain if key != "optimizer" and training[key] != plain[key]]
    return ", ".join(said)
