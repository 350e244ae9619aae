"""Networks of the user's own, by the name of what builds them."""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from leakpipe.errors import LeakpipeError


def build_custom(factory: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Builds a network by calling `package.module:function` (or a class) with keyword arguments.

    This runs the user's code. Never pass a name that was read from a file of unknown origin.

    Raises:
        LeakpipeError: The module cannot be imported, has no such name, or what it returns is no network.
    """
    module_name, _, name = factory.partition(":")
    try:
        build = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise LeakpipeError(
            f"network.factory: {factory!r} cannot be imported ({error}); expected package.module:function, with the "
            "module installed, beside audit.yaml, or on PYTHONPATH"
        ) from error
    try:
        network = build(**arguments)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise LeakpipeError(f"network.factory: {factory}({given}) failed: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise LeakpipeError(
            f"network.factory: {factory!r} returned a {type(network).__name__}, expected a torch.nn.Module"
        )
    return network


def find_source(factory: str) -> Path | None:
    """Returns the file that holds a factory's module; None for a module without one."""
    module_name, _, _ = factory.partition(":")
    try:
        found = importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        return None
    return Path(found.origin) if found and found.origin and Path(found.origin).is_file() else None
