"""Shared by tests of attacks: a small client and what an attacker sees of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leakpipe.attacks.objective import Objective
from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.attacks.search import Search
from leakpipe.client.batches import assume_schedule, make_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.models.state import ModelState, build_module, initial_state
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.models import ModelParams

CLIENT = LocalSettings(learning_rate=0.05, batch_norm_momentum=0.1)


def small_model(*, classes: int = 3, size: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32) -> ModelState:
    params = ModelParams(name="convnet-bn", widths=(3, 4), strides=(2, 2))
    return initial_state(build_module(params, classes=classes, image_size=size), seed=seed, dtype=dtype)


def random_images(count: int, *, channels: int = 1, size: int = 8, seed: int = 1, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, size, size, generator=generator, dtype=torch.float64).to(dtype)


def observe(
    state: ModelState,
    images: Tensor,
    labels: Sequence[int] | Tensor,
    *,
    batch_size: int | None = None,
    epochs: int = 1,
    schedule: Sequence[Sequence[int]] | None = None,
    trained: LocalSettings = CLIENT,
    **changes: Any,
) -> Observation:
    """The update of a client that trained in `schedule`, or in the order that an attacker assumes.

    The labels and a gray prior are granted, the order is not; `changes` replace what the attacker has.
    """
    labels = torch.as_tensor(labels)
    batch_size = batch_size or len(images)
    taken = schedule or assume_schedule(len(images), batch_size, epochs)
    seen = Observation(
        before=state,
        update=local_update(state, make_batches(images, labels, taken), trained),
        settings=trained,
        image_shape=tuple(images.shape[1:]),
        client=KnownClient(
            images=len(images),
            batch_size=batch_size,
            epochs=epochs,
            labels=labels,
            prior=torch.full_like(images, 0.5),
        ),
    )
    return changed(seen, **changes)


def observe_small(
    *, images: int = 2, batch_size: int | None = None, epochs: int = 1, dtype: torch.dtype = torch.float32, **more: Any
) -> Observation:
    """A client of random images of classes 0, 1, 2, 0, …"""
    labels = [position % 3 for position in range(images)]
    state = small_model(dtype=dtype)
    return observe(state, random_images(images, dtype=dtype), labels, batch_size=batch_size, epochs=epochs, **more)


def searching(observation: Observation, *, seed: int = 0, **settings: Any) -> Search:
    return Search(observation, AttackSettings(**settings), observation.client.labels, seed=seed)


def explained_update(objective: Objective, images: Tensor, labels: Tensor) -> ClientUpdate:
    """The update that local training on candidates would have sent, by an engine that makes it."""
    engine = objective.engine
    update = engine.explain(engine.network_images(images), labels, engine.initial_memory()).update
    assert update is not None
    return update


def changed(observation: Observation, **changes: Any) -> Observation:
    """Another observation; `changes` may be fields of the attacked client, too."""
    of_client = {name: changes.pop(name) for name in KnownClient.__dataclass_fields__ if name in changes}
    return replace(observation, client=replace(observation.client, **of_client), **changes)
