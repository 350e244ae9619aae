"""The content of an audit.yaml: captured updates, the network, how the client trained, what the attacker knows.

And the plan that an audit makes of it.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.attacks import ThreatModel
from leakpipe.params.defenses import DefenseSteps
from leakpipe.params.models import ArchitectureParams
from leakpipe.params.training import TrainingParams
from leakpipe.params.types import FACTORY_PATTERN, Name, Section, Switchable, distinct

AS_SENT = "as-sent"  # what the client really shared, beside the defences that are tried on it
SHARED = ("after", "change", "reversed_change", "captured")  # ways to give what a client sent


class CapturedFiles(Section):
    """The files of one update: the global model, and what the client sent back."""

    before: str = Field(min_length=1, description="State of the global model that the client received.")
    after: str | None = Field(default=None, min_length=1, description="The client's state after its local training.")
    change: str | None = Field(
        default=None, min_length=1, description="The difference after minus before instead, as some frameworks send it."
    )
    reversed_change: str | None = Field(
        default=None, min_length=1, description="The difference before minus after instead, as others send it."
    )

    captured: str | None = Field(
        default=None, min_length=1, description="What leakpipe captured of it instead: the file says what it holds."
    )
    client: str | None = Field(default=None, description="Which of `clients` sent it; null: the one that `client` is.")

    @model_validator(mode="after")
    def _one_is_shared(self) -> Self:
        if sum(getattr(self, name) is not None for name in SHARED) != 1:
            raise ValueError("expected exactly one of `after` (a full state), `change`, `reversed_change`, `captured`")
        return self


class AuditedTraining(TrainingParams):
    """The client's training, as far as it is known."""

    learning_rate: float = Field(gt=0, le=10, description="Step size of the client's optimiser.")
    batch_norm_momentum: float | None = Field(
        default=None, gt=0, le=1, description="torch's `momentum` of batch normalisation; null: as the network says."
    )


class NetworkParams(Section):
    """The network: a registered one by `name`, or your own by `factory`."""

    factory: str | None = Field(
        default=None,
        pattern=FACTORY_PATTERN,
        description="`package.module:function` (or class) that returns your network, a torch.nn.Module.",
    )
    arguments: dict[str, Any] = Field(default={}, description="Keyword arguments of the factory.")
    dropout: bool = Field(
        default=True,
        description="False states the belief that the client trained without its network's dropout, whose draws nobody "
        "else knows; a network with dropout is refused otherwise.",
    )
    architecture: ArchitectureParams | None = Field(default=None, description="A registered network instead.")
    classes: int = Field(default=2, ge=1, description="Classes of a registered network; of no effect with `factory`.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.factory is None) == (self.architecture is None):
            raise ValueError("expected one of `factory` (your own network) and `architecture` (a registered one)")
        return self


class AuditedImages(Section):
    """The images that the network takes."""

    size: int = Field(ge=8, le=1024, description="Height and width in pixels.")
    channels: Literal["gray", "color"] = Field(default="gray", description="One channel, or three.")


class AuditedClient(Section):
    """A client: how many images it has, in which batches, and what is known of them."""

    images: int = Field(default=1, ge=1, le=10_000, description="Images that it trained on in a round.")
    batch_size: int | None = Field(default=None, ge=1, description="Images in one local step; null: all.")
    epochs: int = Field(default=1, ge=1, le=1000, description="Passes over the images in a round.")
    labels: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None, description="Class of each image; null: unknown to the attacker, who recovers them."
    )
    truth: str | None = Field(default=None, description="Folder of its own images, to score reconstructions against.")

    @model_validator(mode="after")
    def _numbers_agree(self) -> Self:
        if self.batch_size is not None and self.batch_size > self.images:
            raise ValueError(f"batch_size {self.batch_size} is larger than the number of images ({self.images})")
        if self.labels is not None and len(self.labels) != self.images:
            raise ValueError(f"labels: {len(self.labels)} given, expected one for each of {self.images} images")
        return self


class AuditParams(Section):
    """A whole audit."""

    audit: Name = Field(description="Name of the audit: results go to results/audit/<audit>/.")
    updates: Switchable[CapturedFiles] = Field(default={}, description="Captured updates by name.")
    captured: str | None = Field(
        default=None, description="Folder of what leakpipe captured of a federation: every update in it."
    )
    network: NetworkParams
    images: AuditedImages
    training: AuditedTraining
    client: AuditedClient = Field(default=AuditedClient(), description="The client that sent the updates.")
    clients: Switchable[AuditedClient] = Field(
        default={}, description="Clients by name, where they differ; those that are not here are as `client`."
    )
    defense: DefenseSteps = Field(
        default=DefenseSteps(()), description="Steps of the defence that the client applied, known to the attacker."
    )
    public: str | None = Field(
        default=None,
        description="Folder of images like the client's that anybody may have; their mean is the prior, "
        "and `recursive` may learn from them.",
    )
    candidates: str | None = Field(default=None, description="Folder of people to look the reconstructions up among.")
    minutes: float = Field(default=10, gt=0, le=100_000, description="Time for all attacks on one update, roughly.")
    what_if: Annotated[tuple[str, ...], AfterValidator(distinct)] | None = Field(
        default=None,
        description="Defences to apply to each update, which is then attacked again; null: all that apply; []: none.",
    )

    @field_validator("updates", mode="before")
    @classmethod
    def _updates_have_names(cls, content: Any) -> Any:
        if not isinstance(content, dict) or any(isinstance(content.get(name), str) for name in ("before", *SHARED)):
            raise ValueError("expected the files of each update under a name: {round1: {before: …, after: …}}")
        return content

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if not self.updates and self.captured is None:
            raise ValueError("updates: there are none; name the files of an update, or a folder in `captured`")
        known = [client for client in (self.client, *self.clients.values()) if client.truth is not None]
        if self.candidates is not None and not known:
            raise ValueError("candidates: needs client.truth, which says whom among them an update was trained on")
        return self


class PlannedAttack(Section):
    """One attack of an audit."""

    settings: AttackSettings = Field(description="All settings, with the iterations that the time allows.")
    wanted: int = Field(ge=1, description="Iterations that it is given where there is time enough.")
    seconds: float = Field(ge=0, description="What it is expected to take.")
    why: str = Field(description="What it is for, a clause.")


class AuditPlan(Section):
    """The plan of an audit, written before its first attack starts."""

    audit: AuditParams
    version: str = Field(description="Of leakpipe.")
    written: dict[str, int] = Field(description="When each file was last written that the plan was made from.")
    step_seconds: dict[str, float] = Field(description="Measured time of an iteration of each attack.")
    what_if: dict[str, DefenseSteps] = Field(description="Defences that are tried on each update.")
    cells: dict[str, dict[str, dict[str, PlannedAttack]]] = Field(
        description="Attacks by the update and by the defence that they are run under."
    )
    doubts: dict[str, list[str]] = Field(description="What the rehearsal of each update found, in sentences.")
    granted: dict[str, ThreatModel] = Field(description="What the attacker of each update is granted.")
    network_source: list[str] = Field(description="The file of the own network, if it is one.")

    @model_validator(mode="after")
    def _parts_belong_together(self) -> Self:
        for update, cells in self.cells.items():
            if set(cells) != {AS_SENT, *self.what_if}:
                raise ValueError(f"cells.{update}: {', '.join(cells)}, expected {AS_SENT} and what `what_if` holds")
        parts = {"cells": set(self.cells), "doubts": set(self.doubts), "granted": set(self.granted)}
        for name, found in parts.items():
            if found != set(self.audit.updates):
                raise ValueError(f"{name}: {', '.join(sorted(found))}, expected one for each of `audit.updates`")
        return self
