"""A mod for Flower's clients and a wrapper of strategies that capture models and updates.

A federation imports this module, which needs none of leakpipe's pipeline.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from leakpipe.captured.writing import Recorder

ROUND = "server-round"  # under which Flower's strategies tell clients the round


class CaptureMod:
    """Writes what a client receives and sends back in training to leakpipe's files, and does not change it.

    Put it FIRST in `ClientApp(mods=[…])`: it then sees what leaves the house, after all other mods.

    Args:
        folder: Where to write. Every run needs its own; clients on one machine may share one.
        kind: "full" where clients send their model, "difference" where they send after minus before.
    """

    def __init__(self, folder: Path | str, *, kind: str = "full") -> None:
        self.folder = folder
        self.kind = kind

    def __call__(self, msg: Message, ctxt: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        """Lets the client train and captures both messages; see Flower's mods."""
        if msg.metadata.message_type.split(".")[0] != "train":
            return call_next(msg, ctxt)
        recorder = Recorder(self.folder, "flwr")
        client, round_number = _name(ctxt.node_id), _round(msg)
        received = _arrays(msg)
        recorder.write(received, direction="received", kind="full", round_number=round_number, client=client)
        reply = call_next(msg, ctxt)
        if not reply.has_error():
            sent = _arrays(reply)
            recorder.write(sent, direction="sent", kind=self.kind, round_number=round_number, client=client)
        return reply


class CaptureStrategy(Strategy):  # type: ignore[misc]  # Flower has no types where it is not installed
    """Does what another strategy does, and writes the global model and the clients' replies to leakpipe's files.

    Args:
        strategy: The strategy of the federation.
        folder: Where to write. Every run needs its own.
        kind: "full" where clients send their model, "difference" where they send after minus before.
    """

    def __init__(self, strategy: Strategy, folder: Path | str, *, kind: str = "full") -> None:
        self.strategy = strategy
        self.kind = kind
        self.recorder = Recorder(folder, "flwr")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Captures the global model and configures training as the strategy does."""
        tensors = {name: array.numpy() for name, array in arrays.items()}
        self.recorder.write(tensors, direction="global", kind="full", round_number=server_round)
        return self.strategy.configure_train(server_round, arrays, config, grid)  # type: ignore[no-any-return]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Captures the replies and aggregates them as the strategy does."""
        replies = [*replies]
        for reply in replies:
            if not reply.has_error():
                client = _name(reply.metadata.src_node_id)
                tensors = _arrays(reply)
                self.recorder.write(tensors, direction="sent", kind=self.kind, round_number=server_round, client=client)
        return self.strategy.aggregate_train(server_round, replies)  # type: ignore[no-any-return]

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configures evaluation as the strategy does."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)  # type: ignore[no-any-return]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Aggregates evaluations as the strategy does."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Logs what the strategy logs."""
        self.strategy.summary()


def _arrays(message: Message) -> dict[str, Any]:
    """Returns the arrays of all records of a message; those of several records are told apart by the record's name."""
    records = message.content.array_records
    several = len(records) > 1
    return {
        f"{key}.{name}" if several else name: array.numpy()
        for key, record in records.items()
        for name, array in record.items()
    }


def _name(node: int) -> str:
    return f"node-{node}"


def _round(message: Message) -> int:
    for config in message.content.config_records.values():
        if isinstance(found := config.get(ROUND), int):
            return found
    group = message.metadata.group_id
    return int(group) if group.isdecimal() else 0
