"""Writes what passes between a server and a client in a running federation, as leakpipe's own files.

    FOLDER/round-0003/global.safetensors              the global model that the server sent to all
    FOLDER/round-0003/site-1-received.safetensors     what a client received, where the client captures
    FOLDER/round-0003/site-1-sent.safetensors         what the client sent back

Importing this needs numpy and safetensors only: it runs inside of federations.
"""

import logging
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import sidecar_path, write_arrays

CAPTURED = "leakpipe/captured"  # the kind in sidecars
Direction = Literal["received", "sent", "global"]
LOG = logging.getLogger("leakpipe.captured")


class Recorder:
    """Writes states of one federation below a folder.

    Args:
        folder: Made if it does not exist. Every run of a federation needs its own.
        framework: Name of the framework's Python package, whose version is noted.
    """

    def __init__(self, folder: Path | str, framework: str) -> None:
        self.folder = Path(folder)
        self.versions = {package: _version(package) for package in ("leakpipe", framework)}

    def write(
        self,
        tensors: Mapping[str, Any],
        *,
        direction: Direction,
        kind: str,
        round_number: int,
        client: str | None = None,
        steps: int | None = None,
    ) -> None:
        """Copies a state or difference to disk.

        Where that fails for lack of space or because a value is not finite, the log says so and the federation goes on.

        Args:
            tensors: Arrays of numpy, tensors of torch (on any device) or numbers by name; names "0", "1", … stand for
                positions.
            direction: "received" by the client, "sent" by the client, or "global": sent to all clients.
            kind: "full" or "difference" (after minus before).
            round_number: The round as the framework counts it.
            client: The client's name; None for "global".
            steps: Number of local steps, where the framework knows it.

        Raises:
            LeakpipeError: The file exists: it is of another run, and is not overwritten.
        """
        name = "global" if client is None else f"{file_name(client)}-{direction}"
        path = self.folder / f"round-{round_number:04d}" / f"{name}.safetensors"
        if path.exists() or sidecar_path(path).exists():
            raise LeakpipeError(f"{path}: exists already, and captures are not overwritten: give a folder of its own")
        facts = {"kind": kind, "direction": direction, "round": round_number, "client": client, "steps": steps}
        positional = all(name.isdecimal() for name in tensors)
        try:
            arrays = {name: _to_array(value) for name, value in tensors.items()}
            write_arrays(path, CAPTURED, arrays, {**facts, "positional": positional, "versions": self.versions})
        except LeakpipeError as error:
            LOG.error("round %d was not captured: %s", round_number, error)


def file_name(client: str) -> str:
    """Returns a client's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", client).lstrip(".") or "client"


def _to_array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    return np.asarray(value)


def _version(package: str) -> str:
    """Returns the version of an installed package; "unknown" where NVFlare shipped this code with a job, say."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
