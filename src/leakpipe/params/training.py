"""The local training of a client: loss, precision, accumulation, clipping, optimiser and schedule of its step size."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from leakpipe.params.types import ByKind, Section

Decay = Annotated[float, Field(ge=0, le=1e6)]
Share = Annotated[float, Field(ge=0, lt=1)]


class SgdParams(Section):
    """Stochastic gradient descent, as `torch.optim.SGD`."""

    kind: Literal["sgd"]
    momentum: Share = Field(default=0.0, description="Weight of the last step's direction in the next one's.")
    dampening: float = Field(default=0.0, ge=0, le=1, description="Share of the gradient that momentum leaves out.")
    nesterov: bool = Field(default=False, description="Whether the step looks ahead along the momentum (Nesterov).")
    weight_decay: Decay = Field(default=0.0, description="λ: λ times the weights is added to their gradient.")

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and (self.momentum == 0 or self.dampening > 0):
            raise ValueError("nesterov: needs momentum above 0 and dampening 0")
        return self


class AdamParams(Section):
    """Adam with bias correction (Kingma and Ba 2015), as `torch.optim.Adam`."""

    kind: Literal["adam"]
    betas: tuple[Share, Share] = Field(default=(0.9, 0.999), description="Decay of the first and second moment.")
    eps: float = Field(default=1e-8, gt=0, le=1, description="ε, added to the root of the second moment.")
    weight_decay: Decay = Field(default=0.0, description="λ: λ times the weights is added to their gradient.")


class AdamWParams(Section):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW`."""

    kind: Literal["adamw"]
    betas: tuple[Share, Share] = Field(default=(0.9, 0.999), description="Decay of the first and second moment.")
    eps: float = Field(default=1e-8, gt=0, le=1, description="ε, added to the root of the second moment.")
    weight_decay: Decay = Field(default=0.01, description="λ: every step takes η·λ times the weights off them.")


OptimizerParams = SgdParams | AdamParams | AdamWParams


class ClippingParams(Section):
    """Gradient clipping, as `torch.nn.utils.clip_grad_norm_` or `clip_grad_value_`."""

    kind: Literal["norm", "value"] = Field(
        description="Whether the L2 norm of all gradients together, or every value of them, is kept to `limit`."
    )
    limit: float = Field(gt=0, le=1e12, description="Largest norm, or largest absolute value.")


class ScheduleParams(Section):
    """The change of the step size over the steps of one round; every round starts anew."""

    kind: Literal["constant", "linear", "cosine", "exponential"] = Field(
        default="constant",
        description="As torch's ConstantLR with factor 1, LinearLR, CosineAnnealingLR or ExponentialLR.",
    )
    start_factor: float = Field(
        default=1.0, gt=0, le=1, description="Of `linear`: the first step's size over the learning rate."
    )
    end_factor: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Of `linear` and `cosine`: where the size over the learning rate would be one step after the last.",
    )
    gamma: float = Field(default=1.0, gt=0, le=10, description="Of `exponential`: factor of each step after the first.")


class LossParams(Section):
    """The loss that a client minimises."""

    kind: Literal["cross-entropy", "binary-cross-entropy"] = Field(
        default="cross-entropy",
        description="Cross-entropy of one class per image, or binary cross-entropy of each class separately, as for "
        "images with several labels.",
    )
    class_weights: tuple[Annotated[float, Field(ge=0, le=1e6)], ...] | None = Field(
        default=None,
        min_length=1,
        description="Weight of each class, in the classes' order: torch's `weight` of cross-entropy, `pos_weight` "
        "of binary cross-entropy; null: all are 1.",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, le=1, description="Share of each label that cross-entropy spreads over all classes."
    )
    reduction: Literal["mean", "sum"] = Field(
        default="mean", description="Whether the losses of a batch are averaged (as torch averages them) or summed."
    )
    factor: float = Field(default=1.0, gt=0, le=1e6, description="Constant factor of the loss.")

    @model_validator(mode="after")
    def _smooths_cross_entropy(self) -> Self:
        if self.label_smoothing > 0 and self.kind != "cross-entropy":
            raise ValueError("label_smoothing: is one of kind: cross-entropy; set it to 0")
        if self.class_weights is not None and not any(self.class_weights):
            raise ValueError("class_weights: all are 0, so nothing would be learned")
        return self


class TrainingParams(Section):
    """Local training. The defaults are plain SGD on the mean cross-entropy in float32."""

    optimizer: Annotated[OptimizerParams, Field(discriminator="kind"), ByKind()] = Field(
        default=SgdParams(kind="sgd"), description="How gradients become steps."
    )
    optimizer_state: Literal["fresh", "kept"] = Field(
        default="fresh",
        description="Whether the optimiser's moments start at zero in every round, or the client keeps them from "
        "round to round. No attacker sees kept ones: attacks assume fresh ones.",
    )
    schedule: ScheduleParams = Field(default=ScheduleParams(), description="Step size over the steps of one round.")
    clipping: ClippingParams | None = Field(
        default=None, description="Clipping of the gradient before the optimiser; null: none."
    )
    accumulation: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="Batches whose gradients, each divided by this number, one step of the optimiser sums; fewer are "
        "left for the last step of a round.",
    )
    proximal_weight: float = Field(
        default=0.0, ge=0, le=1e6, description="μ of FedProx (Li 2020): the loss grows by μ/2·‖W − global W‖²."
    )
    loss: LossParams = Field(default=LossParams(), description="What is minimised.")
    precision: Literal["float32", "bf16", "fp16"] = Field(
        default="float32",
        description="Precision of the forward and backward pass: torch's autocast to bfloat16 or float16, weights stay "
        "in float32.",
    )
    loss_scale: float = Field(
        default=1.0,
        gt=0,
        le=2**24,
        description="Factor of the loss in the backward pass, which gradients are divided by before anything else; a "
        "step whose gradients are not finite is left out, as torch's GradScaler does (here the factor stays).",
    )
