"""The audited network: how it is built and written, and which images it takes."""

import copy
from pathlib import Path

import torch
from torch import nn

from leakpipe.errors import LeakpipeError
from leakpipe.federation.files import save_custom_model, save_model
from leakpipe.models.custom import build_custom
from leakpipe.models.state import ModelState, build_module
from leakpipe.params.audit import AuditedImages, AuditParams

CHANNELS = {"gray": 1, "color": 3}
SIZES = range(8, 513)  # that are tried where the declared one does not fit
NAMED = 3  # of those that fit, as many are said


def build_network(params: AuditParams) -> nn.Module:
    """Builds the audited network.

    Raises:
        LeakpipeError: It cannot be built, or takes images of another size or number of channels than declared.
    """
    network = params.network
    if network.factory is not None:
        module = build_custom(network.factory, network.arguments)
    else:
        assert network.architecture is not None  # the schema demands one of both
        module = build_module(network.architecture, classes=network.classes, image_size=params.images.size)
    _check_images(module, params.images)
    return module


def _check_images(module: nn.Module, images: AuditedImages) -> None:
    """Raises `LeakpipeError` with the right `images.size` or `images.channels` where others than declared fit.

    A network that takes none of those that are tried fails for another reason, which the rehearsal says.
    """
    shapes = copy.deepcopy(module).to("meta").eval()  # computes shapes only
    reason = _why_not(shapes, images.channels, images.size)
    if not reason:
        return
    others = [name for name in CHANNELS if name != images.channels]
    # Hundreds of sizes take a minute: they are tried where no other number of channels is the answer.
    tried = [*((each, [images.size]) for each in others), *((each, SIZES) for each in (images.channels, *others))]
    for channels, sizes in tried:
        fitting = [size for size in sizes if not _why_not(shapes, channels, size)]
        if not fitting:
            continue
        wrong = [] if images.size in fitting else [f"images.size: {_join(fitting)}"]
        wrong += [] if channels == images.channels else [f"images.channels: {channels}"]
        raise LeakpipeError(
            f"images: the network does not take {images.channels} images of {images.size}×{images.size} pixels "
            f"({reason}); set {' and '.join(wrong)}"
        )


def takes_other_sizes(module: nn.Module, images: AuditedImages) -> bool:
    """Returns whether a network takes smaller or larger images as well, so that it does not tell their size."""
    shapes = copy.deepcopy(module).to("meta").eval()
    others = (images.size - 1, images.size + 1, images.size // 2, 2 * images.size)
    return any(not _why_not(shapes, images.channels, size) for size in others if size > 0)


def _why_not(shapes: nn.Module, channels: str, size: int) -> str:
    """Returns why the network does not take images like these; "" if it does."""
    try:
        with torch.no_grad():
            shapes(torch.empty(2, CHANNELS[channels], size, size, device="meta"))
    except Exception as error:  # whatever the user's own network raises
        return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return ""


def _join(sizes: list[int]) -> str:
    return " or ".join(map(str, sizes)) if len(sizes) <= NAMED else f"a number from {sizes[0]} to {sizes[-1]}"


def save_network(path: Path, state: ModelState, params: AuditParams) -> None:
    """Writes the global model, so that `leakpipe.federation.files.load_model` builds the same network."""
    network = params.network
    if network.factory is not None:
        save_custom_model(path, state, factory=network.factory, arguments=network.arguments, dropout=network.dropout)
    else:
        assert network.architecture is not None  # the schema demands one of both
        save_model(path, state, params=network.architecture, classes=network.classes, image_size=params.images.size)
