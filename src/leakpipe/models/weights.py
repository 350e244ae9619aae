"""Published weights of networks: where they are stored, their SHA-256, and how to get them.

Nothing is downloaded: a job may run without internet, and results must not depend on what a server sends. Importing
this needs no torch: the Snakefile looks for weights before any job runs.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from leakpipe.errors import LeakpipeError
from leakpipe.files.quoting import as_path
from leakpipe.registry import Registry

FOLDER_VARIABLE = "LEAKPIPE_WEIGHTS"
LPIPS = ("imagenet-alexnet", "lpips-alex")  # AlexNet's features, and how much each counts


@dataclass(frozen=True)
class Weights:
    """A file of published weights.

    Attributes:
        file: Its name in the folder that the environment variable LEAKPIPE_WEIGHTS names.
        usual_place: Returns the path where torch or an installed package keeps it; None without such a package.
        sha256: Its SHA-256, or the beginning of it.
        fix: How to get it: a clause that ends an error message.
        source: Its origin and licence.
    """

    file: str
    usual_place: Callable[[], Path | None]
    sha256: str
    fix: str
    source: str


WEIGHTS: Registry[Weights] = Registry("published weights")


def find_weights(name: str, *, field: str, instead: str = "") -> Path:
    """Returns the path of published weights: in the folder that LEAKPIPE_WEIGHTS names, else in the usual place.

    Args:
        name: A key of `WEIGHTS`.
        field: The field of the parameters that names them, for the message.
        instead: What else that field may be set to, for the message.

    Raises:
        LeakpipeError: The file is in neither place; the message says how to get it.
    """
    weights = WEIGHTS[name]
    folder = os.environ.get(FOLDER_VARIABLE)
    places = [as_path(folder) / weights.file if folder else None, weights.usual_place()]
    for place in places:
        if place is not None and place.is_file():
            return place
    raise LeakpipeError(
        f"{field}: the weights of {name!r} are not on this machine; {weights.fix}, or put the file as {weights.file} "
        f"into a folder and name that folder in the environment variable {FOLDER_VARIABLE}{instead}"
    )


def require_weights(names: Iterable[str], *, field: str) -> None:
    """Raises `LeakpipeError` where the weights of one of `names` are missing; names not in `WEIGHTS` need none."""
    for name in names:
        if name in WEIGHTS:
            find_weights(name, field=field)


def _torch_hub(file: str) -> Path:
    """Returns where torch keeps downloaded weights (`torch.hub.get_dir`, without importing torch)."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return as_path(os.environ.get("TORCH_HOME", f"{cache}/torch")) / "hub" / "checkpoints" / file


def _packaged(package: str, file: str) -> Path | None:
    """Returns a file in an installed package without running its code, which would import more packages."""
    found = find_spec(package)
    locations = found.submodule_search_locations if found else None
    return Path(next(iter(locations))) / file if locations else None


def _imagenet(model: str, sha256: str, megabytes: int, *, file: str = "") -> Weights:
    """Describes torchvision's weights IMAGENET1K_V1, whose file names end with the beginning of their SHA-256."""
    file = file or f"{model}-{sha256}.pth"
    return Weights(
        file=file,
        usual_place=partial(_torch_hub, file),
        sha256=sha256,
        fix=(
            "where there is internet, `python -c 'import torchvision; "
            f'torchvision.models.{model}(weights="IMAGENET1K_V1")\'` fetches them ({megabytes} MB)'
        ),
        source="torchvision, IMAGENET1K_V1, BSD-3-Clause; trained on ImageNet",
    )


WEIGHTS.add("imagenet-resnet18", _imagenet("resnet18", "f37072fd", 45))
WEIGHTS.add("imagenet-resnet34", _imagenet("resnet34", "b627a593", 83))
WEIGHTS.add("imagenet-resnet50", _imagenet("resnet50", "0676ba61", 98))
WEIGHTS.add("imagenet-densenet121", _imagenet("densenet121", "a639ec97", 31))
WEIGHTS.add("imagenet-vgg11_bn", _imagenet("vgg11_bn", "6002323d", 507))
WEIGHTS.add("imagenet-alexnet", _imagenet("alexnet", "7be5be79", 233, file="alexnet-owt-7be5be79.pth"))
WEIGHTS.add(
    "lpips-alex",
    Weights(
        file="lpips-alex.pth",
        usual_place=partial(_packaged, "lpips", "weights/v0.1/alex.pth"),
        sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        fix="`pip install --no-deps lpips==0.1.4` brings them (6 kB)",
        source="PyPI package lpips 0.1.4, BSD-2-Clause; Zhang 2018, version 0.1",
    ),
)
WEIGHTS.add(
    "imgsim-resnet50",
    Weights(
        file="imgsim-resnet50.pth",
        usual_place=partial(_packaged, "imgsim", "model.pth"),
        sha256="c2cb3cac82642c5698721bd4c57702c3d2ffab077ee9fc277c60ef7359293add",
        fix="`pip install --no-deps imgsim==0.1.2` brings them (93 MB)",
        source="PyPI package imgsim 0.1.2, MIT; AugNet (Chen 2021), self-supervised",
    ),
)
