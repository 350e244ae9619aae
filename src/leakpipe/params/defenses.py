"""Parameters of defences: the steps that each client applies to its update, distinguished by `kind`.

docs/defenses.md has the formula, the source and the guarantee of each.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, RootModel, model_validator

from leakpipe.params.privacy import DpSgdParams
from leakpipe.params.types import ByKind, Section

Percentile = Annotated[float, Field(gt=0, le=100)]
Targets = Annotated[
    Literal["all", "weights", "statistics"],
    Field(description="What gets noise: all of the update, only weight differences, or only BN statistics."),
]
Norm = Annotated[float, Field(gt=0, le=1e12)]
CountBatches = Annotated[
    bool,
    Field(
        description="Whether the update holds the counters of batches (`num_batches_tracked`, one per BN layer), as a "
        "whole state dict does: the rule counts them as values, and they are passed on unchanged."
    ),
]


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
        default=(), description="Names of tensors that are sent as 0, with * for any part of a name."
    )


class PercentileParams(Section):
    """NVFlare's PercentilePrivacy: magnitudes per local step above a percentile, clipped to ±gamma."""

    kind: Literal["percentile"]
    percentile: float = Field(
        default=10, ge=0, le=100, description="Values whose magnitude is below this percentile of all become 0."
    )
    gamma: Norm = Field(default=0.01, description="Largest magnitude shared, per local step.")
    count_batches: CountBatches = True


class SvtParams(Section):
    """NVFlare's SVTPrivacy: the sparse vector technique chooses values, which are clipped and get Laplace noise."""

    kind: Literal["svt"]
    fraction: float = Field(default=0.1, gt=0, le=1, description="Share of all values that is drawn.")
    epsilon: float = Field(default=0.1, gt=0, le=1e12, description="Budget of choosing: of threshold and answers.")
    noise_var: float = Field(
        default=0.1, gt=0, le=1e12, description="Budget of releasing one value, where epsilon_release is null."
    )
    gamma: Norm = Field(default=1e-5, description="Values are clipped to ±gamma per local step.")
    tau: float = Field(default=1e-6, ge=-1e12, le=1e12, description="Threshold before noise, per local step.")
    replace: bool = Field(default=True, description="Whether values are drawn with replacement.")
    epsilon_threshold: float | None = Field(
        default=None, gt=0, description="Part of epsilon for the threshold; null: 1 / (1 + (2n)^(2/3)) of n values."
    )
    epsilon_query: float | None = Field(default=None, gt=0, description="Part of epsilon for answers; null: the rest.")
    epsilon_release: float | None = Field(
        default=None, gt=0, description="Budget of releasing all values; null: noise_var times their number."
    )
    count_batches: CountBatches = True

    @model_validator(mode="after")
    def _parts_are_of_the_budget(self) -> Self:
        parts = [part for part in (self.epsilon_threshold, self.epsilon_query) if part is not None]
        exact = len(parts) == 2 and abs(sum(parts) - self.epsilon) > 1e-5 * self.epsilon
        if exact or (len(parts) == 1 and parts[0] >= self.epsilon):
            raise ValueError(f"svt: epsilon_threshold and epsilon_query must add up to epsilon ({self.epsilon})")
        return self


class ExcludeVarsParams(Section):
    """NVFlare's ExcludeVars: named tensors are removed from the update, so that the receiver sees that they lack."""

    kind: Literal["exclude-vars"]
    exclude: tuple[str, ...] | str = Field(
        description="Whole names, as a list; or a regular expression that a part of a name matches, as a string."
    )

    @model_validator(mode="after")
    def _expression_is_one(self) -> Self:
        try:
            re.compile(self.exclude if isinstance(self.exclude, str) else "")
        except re.error as error:
            raise ValueError(f"exclude-vars: {self.exclude!r} is no regular expression: {error}") from error
        return self


class _FlowerClipping(Section):
    """Base of Flower's central differential privacy: clients clip, and the server adds noise to their mean."""

    noise_multiplier: float = Field(
        ge=0, le=1e6, description="Deviation of the noise on the sum of all, over the norm."
    )
    count_batches: CountBatches = True


class FlowerFixedClippingParams(_FlowerClipping):
    """Flower's DifferentialPrivacyClientSideFixedClipping: the norm of what a client changes is clipped."""

    kind: Literal["flower-fixed-clipping"]
    clipping_norm: Norm = Field(description="Largest L2 norm of an update, counters of batches included.")


class FlowerAdaptiveClippingParams(_FlowerClipping):
    """Flower's DifferentialPrivacyClientSideAdaptiveClipping: the norm follows a quantile of the updates' norms."""

    kind: Literal["flower-adaptive-clipping"]
    initial_clipping_norm: Norm = Field(default=0.1, description="Largest L2 norm of an update in the first round.")
    target_clipped_quantile: float = Field(default=0.5, ge=0, le=1, description="Share of updates to be clipped.")
    clip_norm_lr: float = Field(default=0.2, gt=0, le=1e3, description="Learning rate of the norm's logarithm.")
    clipped_count_stddev: float | None = Field(
        default=None, ge=0, description="Deviation of the noise on the number of clipped; null: clients / 20."
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
    | PercentileParams
    | SvtParams
    | ExcludeVarsParams
    | FlowerFixedClippingParams
    | FlowerAdaptiveClippingParams
    | SecureAggregationParams
    | DpSgdParams
    | MixupParams,
    Field(discriminator="kind"),
    ByKind(),
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
    def _server_clips_once(self) -> Self:
        if sum(step.kind in ("flower-fixed-clipping", "flower-adaptive-clipping") for step in self.root) > 1:
            raise ValueError("flower-fixed-clipping and flower-adaptive-clipping: one of them, once")
        return self

    @model_validator(mode="after")
    def _training_is_first(self) -> Self:
        for step in self.root[1:]:
            if step.kind in ("dp-sgd", "mixup"):
                raise ValueError(f"{step.kind} acts in training, so it must be the first step, and the only one to")
        return self
