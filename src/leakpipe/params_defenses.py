"""What params.yaml may say of defences: the steps that each client applies, told apart by `kind`."""

from typing import Annotated, Literal, Self

from pydantic import Field, RootModel, model_validator

from leakpipe.params_privacy import DpSgdParams
from leakpipe.params_types import Section


class GaussianParams(Section):
    """The paper's noise: N(0, (sigma0·p)²) on every value of the update, p a percentile of the update."""

    kind: Literal["gaussian"]
    sigma0: float = Field(ge=0, le=1e6, description="Noise multiplier σ0 (unitless); 0 adds nothing.")
    percentile: float = Field(
        default=95, gt=0, le=100, description="Percentile p of the absolute non-zero values of the update."
    )


DefenseStep = Annotated[GaussianParams | DpSgdParams, Field(discriminator="kind")]


class DefenseSteps(RootModel[tuple[DefenseStep, ...]]):
    """The steps of one defence, in the order that they are applied."""

    @model_validator(mode="after")
    def _training_is_first(self) -> Self:
        for step in self.root[1:]:
            if step.kind == "dp-sgd":
                raise ValueError("dp-sgd acts in training, so it must be the first step, and the only one of its kind")
        return self

    @property
    def in_training(self) -> DpSgdParams | None:
        """The step that changes local training; None where training is plain."""
        return next((step for step in self.root if step.kind == "dp-sgd"), None)

    @property
    def on_update(self) -> tuple[GaussianParams, ...]:
        """The steps that change the update, in order."""
        return tuple(step for step in self.root if step.kind != "dp-sgd")
