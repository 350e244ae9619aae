"""Parameters of the federation: rounds, local training, clients."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from leakpipe.params.training import TrainingParams
from leakpipe.params.types import ClassName, Section, Switchable, distinct


class ClientParams(Section):
    """One client: its images, batches and epochs."""

    images: int = Field(ge=1, description="Training images the client holds.")
    batch_size: int = Field(ge=1, description="Images in one local step; the last batch may be smaller.")
    classes: tuple[ClassName, ...] | None = Field(
        default=None, min_length=1, description="Classes its images come from; null: all, balanced."
    )
    local_epochs: int | None = Field(
        default=None, ge=1, le=1000, description="Passes over its images per round; null: federation.local_epochs."
    )
    learning_rate: float | None = Field(
        default=None, gt=0, le=10, description="Its step size; null: federation.learning_rate."
    )
    training: TrainingParams | None = Field(
        default=None, description="How it trains, all of it; null: as federation.training says."
    )

    @model_validator(mode="after")
    def _batch_fits(self) -> Self:
        if self.batch_size > self.images:
            raise ValueError(f"batch_size {self.batch_size} is larger than the client's images ({self.images})")
        return self


class FederationParams(Section):
    """Federated averaging: rounds, local training, clients."""

    rounds: int = Field(ge=1, le=10_000, description="Rounds of federated averaging.")
    captured_rounds: Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(distinct)] = Field(
        min_length=1, description="Rounds (the first is 1) in which the attacked clients' updates are kept."
    )
    learning_rate: float = Field(gt=0, le=10, description="Step size of the clients' optimiser.")
    local_epochs: int = Field(ge=1, le=1000, description="Passes over a client's images per round.")
    batch_norm_momentum: float = Field(
        gt=0, le=1, description="Weight of a batch in the running statistics (torch's `momentum`)."
    )
    batch_norm_sharing: Literal["shared", "local"] = Field(
        default="shared",
        description="Batch normalisation's weights, biases and running statistics: `shared` as all others are, or "
        "kept by each client from round to round (`local`, FedBN): no update holds them, the server's stay as they "
        "were, and accuracy is the mean over clients, each with its own.",
    )
    training: TrainingParams = Field(
        default=TrainingParams(),
        description="How clients train: optimiser, clipping, accumulation, loss, precision; plain SGD where unset.",
    )
    clients: Switchable[ClientParams] = Field(
        min_length=1, description="Clients by name; null switches an inherited one off."
    )

    @model_validator(mode="after")
    def _captured_rounds_happen(self) -> Self:
        if max(self.captured_rounds) > self.rounds:
            raise ValueError(f"captured_rounds {list(self.captured_rounds)} go past the {self.rounds} rounds")
        return self
