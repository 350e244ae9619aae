"""From a captured update and a threat model to an observation: what the attacker sees of a federation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.attacks.recovered_statistics import recover_batch_statistics, weight_of_batches
from leakpipe.client.local_update import LocalSettings
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.models.state import ModelState
from leakpipe.params.attacks import ThreatModel
from leakpipe.params.defenses import DefenseSteps


class TrainedClient(Protocol):
    """The training of a client."""

    @property
    def schedule(self) -> Sequence[Sequence[int]]:
        """Positions of its images in each local step."""

    @property
    def labels(self) -> Sequence[int] | Sequence[Sequence[int]]:
        """Class of each of its images, by position, or 0 or 1 for each class."""


class CapturedUpdate(TrainedClient, Protocol):
    """An update and all that a threat model may grant of it; `leakpipe.federation.files.StoredUpdate` is one."""

    @property
    def update(self) -> ClientUpdate:
        """The update that the client shared, or the average that contains it."""

    @property
    def settings(self) -> LocalSettings:
        """The client's training."""

    @property
    def exact_statistics(self) -> Mapping[str, Tensor]:
        """Differences of its running statistics before any defence; empty where they were not captured."""

    @property
    def cohort(self) -> Sequence[TrainedClient]:
        """The other clients in the average."""


def observe(
    before: ModelState,
    captured: CapturedUpdate,
    granted: ThreatModel,
    *,
    priors: Callable[[Sequence[object]], Tensor],
    public: Tensor | None = None,
    defense: DefenseSteps | None = None,
) -> Observation:
    """Builds what the attacker sees of a captured update.

    Args:
        before: The global model that the client received.
        granted: What the attacker is granted.
        priors: Maps the classes of a client's images to the prior image of each, shape (images, channels, height,
            width) in [0, 1].
        public: Images behind these priors, as in `Observation`, which the attacker holds unless the prior is gray.
        defense: Steps of the defence, which the attacker knows where `granted.defense` is "known".

    Raises:
        LeakpipeError: The threat model grants exact statistics that were not captured, or the parts contradict each
            other.
    """
    update, exact = captured.update, None
    if granted.batch_norm == "exact":
        if not captured.exact_statistics:
            raise LeakpipeError("holds no exact statistics; run federate with --exact-statistics")
        undefended = ClientUpdate(update.weights, captured.exact_statistics, update.steps)
        weight = weight_of_batches(captured.settings.batch_norm_momentum, [update.steps])
        exact = recover_batch_statistics(before, undefended, weight)
    elif granted.batch_norm == "none":
        update = replace(update, statistics={})
    known = defense if granted.defense == "known" else None
    client = _known_client(captured, granted, priors)
    assert client.prior is not None  # `priors` gives one for every image
    return Observation(
        before=before,
        update=update,
        settings=captured.settings,
        image_shape=tuple(client.prior.shape[1:]),
        client=client,
        cohort=[] if known is None else [_known_client(other, granted, priors) for other in captured.cohort],
        exact_statistics=exact,
        defense=known,
        public=None if granted.prior == "gray" else public,
    )


def _known_client(
    client: TrainedClient, granted: ThreatModel, priors: Callable[[Sequence[object]], Tensor]
) -> KnownClient:
    labels = torch.tensor(client.labels, device="cpu")
    several = labels.dim() > 1
    return KnownClient(
        images=len(client.labels),
        batch_size=len(client.schedule[0]),
        epochs=sum(map(len, client.schedule)) // len(client.labels),
        labels=(labels.float() if several else labels) if granted.labels == "known" else None,
        multi_label=several,
        schedule=client.schedule if granted.batch_order == "known" else None,
        prior=priors(client.labels),
    )
