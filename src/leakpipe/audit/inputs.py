"""From audit.yaml to what the attacks need: the network, the update as it was captured, the prior image."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.threat_model import observe
from leakpipe.audit.assessment import Truth
from leakpipe.audit.network import CHANNELS, build_network
from leakpipe.captured.matching import match_update
from leakpipe.captured.pairs import find_pairs
from leakpipe.captured.reading import read_state
from leakpipe.captured.state import Kind
from leakpipe.captured.writing import file_name
from leakpipe.client.batches import assume_schedule
from leakpipe.client.local_update import LocalSettings
from leakpipe.data.folders import list_images
from leakpipe.data.image_files import read_image
from leakpipe.data.priors import GRAY, load_priors
from leakpipe.errors import LeakpipeError
from leakpipe.experiment.reading import REGISTERED
from leakpipe.federation.files import StoredUpdate, load_model, load_update
from leakpipe.files.quoting import as_path, explain_braces
from leakpipe.models.batchnorm import batch_norm_layers
from leakpipe.models.state import ModelState
from leakpipe.params.attacks import ThreatModel
from leakpipe.params.audit import AS_SENT, AuditedClient, AuditedImages, AuditParams, CapturedFiles
from leakpipe.params.reading import merge, parse_section, parse_value, read_yaml
from leakpipe.params.training import TrainingParams
from leakpipe.tables.wording import count

FOLDERS = ("public", "candidates", "captured")


@dataclass(frozen=True)
class AuditedUpdate:
    """One captured update, ready to be attacked.

    Attributes:
        before: The global model.
        stored: The update, and how the client trained.
        prior: Shape (channels, height, width) in [0, 1]: what the attacker knew before.
        notes: What was found out or assumed while reading, in sentences.
    """

    before: ModelState
    stored: StoredUpdate
    prior: np.ndarray
    notes: list[str]


def load_audit(path: Path, changes: Mapping[str, str] | None = None) -> AuditParams:
    """Reads an audit.yaml; paths in it are relative to its folder, and are returned relative to the current one.

    Args:
        path: The file; with changes it need not exist.
        changes: Values as they would stand in the file, by dotted field: they replace the file's.

    Raises:
        LeakpipeError: The file is not a valid audit, or names a file or folder that does not exist.
    """
    if not path.exists() and not changes:
        raise LeakpipeError(f"{path}: there is no such file; `leakpipe audit --init` writes one to start from")
    content = read_yaml(path) if path.exists() else {}
    for field, value in (changes or {}).items():
        content = merge(
            content, reduce(lambda inner, key: {key: inner}, reversed(field.split(".")), parse_value(value))
        )
    params = parse_section(AuditParams, content, source=str(path), files=[path], known=REGISTERED)
    missing: list[str] = []
    braces: list[str] = []

    def found(field: str, value: str, *, folder: bool = False) -> str:
        place = Path(os.path.relpath(path.parent / as_path(value)))
        if not (place.is_dir() if folder else place.is_file()):
            missing.append(f"{field}: {value!r}: there is no such {'folder' if folder else 'file'} as {place}")
        inputs = [place, *place.rglob("*")] if folder else [place]
        braces.extend(problem for each in inputs if (problem := explain_braces(field, str(each))))
        return str(place)

    folders = {name: found(name, value, folder=True) for name in FOLDERS if (value := getattr(params, name))}
    updates = {}
    for name, files in params.updates.items():
        if files.client not in (None, *params.clients):
            missing.append(
                f"updates.{name}.client: {files.client!r} is none of `clients` ({', '.join(params.clients)})"
            )
        paths = files.model_dump(exclude={"client"}, exclude_none=True)
        updates[name] = files.model_copy(
            update={key: found(f"updates.{name}.{key}", value) for key, value in paths.items()}
        )
    clients = {"client": params.client, **{f"clients.{name}": client for name, client in params.clients.items()}}
    for name, client in clients.items():
        if client.truth is not None:
            clients[name] = client.model_copy(update={"truth": found(f"{name}.truth", client.truth, folder=True)})
    if problems := missing + braces[:1]:
        raise LeakpipeError(f"{path}: {'; '.join(problems)}")
    if params.captured is not None:
        updates |= _captured_updates(Path(folders["captured"]))
    _check_clients(path, updates, params.clients)
    first, *others = clients.values()
    return params.model_copy(
        update={
            "updates": updates,
            **folders,
            "client": first,
            "clients": dict(zip(params.clients, others, strict=True)),
        }
    )


def _check_clients(path: Path, updates: Mapping[str, CapturedFiles], clients: Collection[str]) -> None:
    """Raises `LeakpipeError` where a misspelt client would be taken for the one that `client` describes."""
    senders = {files.client for files in updates.values() if files.client is not None}
    said = ", ".join(sorted(senders)) or "none; name it by the key `client` of each update"
    for name in clients:
        if name not in senders:
            raise LeakpipeError(
                f"{path}: clients.{name}: no update is of this client; remove it, or correct its name; "
                f"clients that sent one: {said}"
            )


def _captured_updates(folder: Path) -> dict[str, CapturedFiles]:
    """Returns the updates that leakpipe captured below a folder, by client and round."""
    return {
        f"{file_name(pair.client)}-round{pair.round_number}": CapturedFiles(
            before=str(pair.before), captured=str(pair.shared), client=pair.client
        )
        for pair in find_pairs(folder)
    }


def read_folder(field: str, folder: str, images: AuditedImages) -> np.ndarray:
    """Reads all images of a folder and its subfolders, by name.

    Args:
        field: What names the folder in audit.yaml, for errors.

    Returns:
        float32 of shape (images, channels, size, size) in [0, 1].
    """
    place, color = Path(folder).resolve(), images.channels == "color"
    try:
        found = list_images(place.parent, [place.name])
        return np.stack([read_image(found.root / name, size=images.size, color=color) for name in found.names])
    except LeakpipeError as error:
        raise LeakpipeError(f"{field}: {error}") from error


def read_truth(params: AuditParams, update: str) -> Truth | None:
    """Reads the images of the client that sent an update, and the candidates; None where they are not given.

    Raises:
        LeakpipeError: They are not as many as the client has, or cannot be read.
    """
    client = client_of(params, update)
    if client.truth is None:
        return None
    images = read_folder("truth", client.truth, params.images)
    if len(images) != client.images:
        raise LeakpipeError(
            f"truth: {client.truth} holds {count(len(images), 'image')}, but client.images is {client.images}; put "
            "exactly the images there that the client trained on, or correct client.images"
        )
    if params.candidates is None:
        return Truth(images)
    candidates = read_folder("candidates", params.candidates, params.images)
    others = [each for each in candidates if not any((each == own).all() for own in images)]
    return Truth(images, np.stack([*images, *others]))


def note_overlap(params: AuditParams, truth: Truth | None, public: np.ndarray) -> list[str]:
    """Returns a sentence where public images are the client's own: then more seems to be known before than is.

    Args:
        public: As `read_public` returns them.
    """
    if truth is None:
        return []
    own = sum(any((each == image).all() for image in truth.images) for each in public)
    if not own:
        return []
    return [
        f"{count(own, 'image')} of {params.public} {'is' if own == 1 else 'are'} among the client's own: what was "
        "known before is overstated, and what the update adds understated; take them out of `public`."
    ]


def read_public(params: AuditParams) -> np.ndarray:
    """Reads the public images, shape (images, channels, height, width) in [0, 1]; none at all where there are none."""
    if params.public is None:
        size = params.images.size
        return np.empty((0, CHANNELS[params.images.channels], size, size), dtype=np.float32)
    return read_folder("public", params.public, params.images)


def make_prior(public: np.ndarray) -> np.ndarray:
    """Returns the mean of the public images, plain gray where there are none."""
    if not len(public):
        return np.full(public.shape[1:], GRAY, dtype=np.float32)
    mean: np.ndarray = public.mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32)


def client_of(params: AuditParams, update: str) -> AuditedClient:
    """Returns the client that sent an update."""
    return params.clients.get(params.updates[update].client or "", params.client)


def _shared(files: CapturedFiles) -> tuple[Kind | None, str]:
    """Returns what the client sent back (None: as its file says), and its file."""
    kinds: dict[str, Kind | None] = {
        "after": "full",
        "change": "difference",
        "reversed_change": "reversed-difference",
        "captured": None,
    }
    return next((kind, path) for name, kind in kinds.items() if (path := getattr(files, name)) is not None)


def granted(params: AuditParams, update: str) -> ThreatModel:
    """Returns what the attacker of an update is granted."""
    labels = client_of(params, update).labels
    return ThreatModel(labels="unknown" if labels is None else "known", defense="known")


def observe_audited(audited: AuditedUpdate, params: AuditParams) -> Observation:
    """Returns what an attacker sees of an audited update."""
    prior = torch.from_numpy(audited.prior)
    return observe(
        audited.before,
        audited.stored,
        granted(params, audited.stored.cell["client"]),
        priors=lambda labels: prior.expand(len(labels), *prior.shape).clone(),
        defense=params.defense,
    )


def read_update(params: AuditParams, name: str, public: np.ndarray) -> AuditedUpdate:
    """Reads one captured update and checks it against the network.

    Args:
        public: As `read_public` returns them; their mean is the prior.

    Raises:
        LeakpipeError: A file is not a state of this network, or contradicts what audit.yaml says.
    """
    module, files = build_network(params), params.updates[name]
    network = ModelState.of(module, dropout=params.network.dropout)
    client, training = client_of(params, name), params.training
    schedule = assume_schedule(client.images, client.batch_size or client.images, client.epochs)
    kind, sent = _shared(files)
    before, shared = read_state(Path(files.before)), read_state(Path(sent))
    try:
        found = match_update(network, before, shared, kind=kind, steps=len(schedule))
    except LeakpipeError as error:
        raise LeakpipeError(f"clients.{files.client}: {error}" if files.client else str(error)) from error
    settings = LocalSettings(
        learning_rate=training.learning_rate,
        batch_norm_momentum=_momentum(module) if training.batch_norm_momentum is None else training.batch_norm_momentum,
        training=TrainingParams(**training.model_dump(include=set(TrainingParams.model_fields))),
    )
    stored = StoredUpdate(
        found.update,
        {"experiment": params.audit, "defense": AS_SENT, "seed": 0, "round": 1, "client": name},
        schedule,
        list(client.labels or [0] * client.images),
        settings,
    )
    return AuditedUpdate(found.state, stored, make_prior(public), list(found.notes))


def load_audited(folder: Path, defense: str, params: AuditParams) -> AuditedUpdate:
    """Loads what `leakpipe read-update` wrote of an update, under one defence."""
    before = load_model(folder / "global.safetensors", factory=params.network.factory)
    stored = load_update(folder / defense / "update.safetensors", before)
    return AuditedUpdate(before, stored, load_priors(folder / "prior.safetensors").images["all"], [])


def _momentum(module: nn.Module) -> float:
    """Returns the momentum that the network's batch normalisation declares; torch's default where it has none."""
    found: set[Any] = {layer.momentum for layer in batch_norm_layers(module).values()}
    if len(found) > 1 or None in found:
        raise LeakpipeError(
            f"training.batch_norm_momentum: the network's layers declare {sorted(map(str, found))}, expected one "
            "number; state it in audit.yaml"
        )
    return float(found.pop()) if found else 0.1
