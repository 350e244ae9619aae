"""Parameters of defences: the steps that each client applies to its update, distinguished by `kind`.

docs/defenses.md has the formula, the source and the guarantee of each.
"""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, RootModel, model_validator

from leakpipe.params.privacy import DpSgdParams
from leakpipe.params.types import Section

Percentile = Annotated[float, Field(gt=0, le=100)]
Targets = Annotated[
    Literal["all", "weights", "statistics"],
    Field(description="What gets noise: all of the update, only weight differences, or only BN statistics."),
]
Norm = Annotated[float, Field(gt=0, le=1e12)]


class GaussianParams(Section):
    """The paper's noise: N(0, (sigma0·p)²) on every value of the update, p a percentile of the update."""

    kind: Literal["gaussian"]
    sigma0: float = Field(ge=0, le=1e6, description="Noise multiplier σ0 (unitless); 0 adds nothing.")
    percentile: Percentile = Field(
        default=95, description="Percentile p of the absolute non-zero values of the update."
    )
    targets: Targets = "all"


class LaplaceParams(Section):
    """Laplace noise of scale b: given, or a multiple of a percentile of the update as in `gaussian`."""

    kind: Literal["laplace"]
    scale0: float | None = Field(default=None, ge=0, le=1e6, description="b = scale0 times the percentile (unitless).")
    scale: float | None = Field(default=None, ge=0, le=1e12, description="b itself, in units of the update.")
    percentile: Percentile = Field(
        default=95, description="Percentile of the absolute non-zero values of the update, for scale0."
    )
    clip_norm: Norm | None = Field(
        default=None, description="The update is first scaled down to this L1 norm; null: nothing bounds it."
    )
    targets: Targets = "all"

    @model_validator(mode="after")
    def _scale_is_said_once(self) -> Self:
        if (self.scale0 is None) == (self.scale is None):
            raise ValueError("laplace: give either scale0 or scale")
        if self.clip_norm is not None and self.scale is None:
            raise ValueError("laplace: clip_norm needs scale; a scale0 depends on the data and guarantees nothing")
        return self


class DpGaussianParams(Section):
    """Client-level Gaussian mechanism: clip the update's L2 norm to C, add N(0, (noise_multiplier·C)²)."""

    kind: Literal["dp-gaussian"]
    clip_norm: Norm = Field(description="C, the largest L2 norm of an update: of weights and shared BN statistics.")
    noise_multiplier: float = Field(ge=0, le=1e6, description="Standard deviation of the noise, in units of C.")
    statistics: Literal["shared", "withheld"] = Field(
        default="shared",
        description="BN statistics: shared (clipped and noised with the weights as one vector) or withheld.",
    )


class ClipParams(Section):
    """The update is scaled down to an L2 norm of at most `clip_norm`; its direction stays."""

    kind: Literal["clip"]
    clip_norm: Norm = Field(description="Largest L2 norm of the update, weights and BN statistics together.")


class FreezeStatisticsParams(Section):
    """BN running statistics are not shared; the server keeps its own."""

    kind: Literal["freeze-bn-statistics"]


class _Compression(Section):
    """Base of what leaves part of an update out, and may catch up on it."""

    error_feedback: bool = Field(
        default=False, description="Whether what was left out is remembered and added to the next round's update."
    )


class TopKParams(_Compression):
    """Only the largest magnitudes of the update are shared, the others are 0."""

    kind: Literal["top-k"]
    share: float = Field(gt=0, le=1, description="Share of the update's values kept: those largest in magnitude.")


class QuantizeParams(_Compression):
    """Each tensor is rounded at random, without bias, to multiples of its largest magnitude."""

    kind: Literal["quantize"]
    bits: int = Field(ge=2, le=16, description="Bits per value: 2^(bits−1) − 1 steps on each side of 0.")


class SignParams(_Compression):
    """Each tensor is replaced by its signs times its mean magnitude."""

    kind: Literal["sign"]


class PartialSharingParams(Section):
    """Only values above a percentile of the magnitudes are shared, clipped to ±clip."""

    kind: Literal["partial-sharing"]
    percentile: float = Field(
        ge=0, lt=100, description="Values whose magnitude is below this percentile of all magnitudes become 0."
    )
    clip: float = Field(gt=0, le=1e12, description="Largest magnitude shared, per local step.")
    exclude: tuple[str, ...] = Field(
        default=(), description="Names of tensors that are never shared (0 is sent), with * for any part of a name."
    )


class SecureAggregationParams(Section):
    """The server sees only the average of this client's update and others', weighted by images."""

    kind: Literal["secure-aggregation"]
    clients: int = Field(ge=2, description="Clients in one aggregate, the attacked one included.")


class MixupParams(Section):
    """Local training on blends of a batch's images and labels (Zhang 2018). It comes first, and once."""

    kind: Literal["mixup"]
    alpha: float = Field(
        default=1.0, gt=0, le=1e3, description="The share of the first image is drawn from Beta(alpha, alpha)."
    )


DefenseStep = Annotated[
    GaussianParams
    | LaplaceParams
    | DpGaussianParams
    | ClipParams
    | FreezeStatisticsParams
    | TopKParams
    | QuantizeParams
    | SignParams
    | PartialSharingParams
    | SecureAggregationParams
    | DpSgdParams
    | MixupParams,
    Field(discriminator="kind"),
]


class DefenseSteps(RootModel[tuple[DefenseStep, ...]]):
    """The steps of one defence, in the order that they are applied."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _aggregation_is_last(self) -> Self:
        for step in self.root[:-1]:
            if step.kind == "secure-aggregation":
                raise ValueError("secure-aggregation must be the last step: clients act before the server's sum")
        return self

    @model_validator(mode="after")
    def _training_is_first(self) -> Self:
        for step in self.root[1:]:
            if step.kind in ("dp-sgd", "mixup"):
                raise ValueError(f"{step.kind} acts in training, so it must be the first step, and the only one to")
        return self
