"""All settings of the inversion loop.

They are flat, so that params.yaml and `dvc exp run -S` override each by its name. Presets
(`leakpipe.attacks.presets`) fix them as published.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from leakpipe.params.training import TrainingParams
from leakpipe.params.types import Section

RECURSIVE_SETTINGS = ("method", "training", "labels", "total_variation_weight", "iterations", "spectrum_decay")
Iterations = Annotated[int, Field(ge=1, le=10_000_000)]


def _growing(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if list(sizes) != sorted(set(sizes)):
        raise ValueError(f"sizes must grow, got {list(sizes)}")
    return sizes


class AttackSettings(Section):
    """All settings of the inversion loop. Presets fix these; params.yaml may override each."""

    method: Literal["search", "recursive"] = Field(
        default="search",
        description="`search` moves candidate images until they explain the update; `recursive` recovers the feature "
        "maps of a residual network by linear algebra, from the last block downwards, and then searches the image "
        "below them.",
    )

    # The assumed training, and what is known of the client.
    batch_norm: Literal["frozen", "update", "exact", "none"] = Field(
        default="update",
        description="Batch normalisation: `frozen` at the global running statistics (which the batch-statistics "
        "term then matches), or in training mode with batch statistics taken from the `update`, granted `exact`, "
        "or unknown (`none`).",
    )
    labels: Literal["granted", "recovered", "joint"] = Field(
        default="granted",
        description="Labels: as the threat model grants them (recovered where it does not), always `recovered` "
        "from the head's gradient, or searched `joint`ly with the images.",
    )
    training: TrainingParams | None = Field(
        default=None,
        description="How the attack believes that the client trained, all of it; null: as the client did.",
    )
    adam_softening: float = Field(
        default=0.1,
        ge=0,
        le=100,
        description="Where the client's optimiser is believed to be Adam: added to its ε when candidates' training is "
        "simulated, in units of each tensor's root mean square gradient. Adam's steps are nearly the gradient's signs, "
        "which tell a search nothing of how to move; softened ones do.",
    )
    orders: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Orders of images in later epochs that the simulated update is averaged over, where the order "
        "is unknown; 1 takes every epoch in the same order.",
    )

    # What is minimised.
    objective: Literal["cosine", "layer-cosine", "l2", "layer-norms", "relative-l2"] = Field(
        default="cosine",
        description="Distance of updates: 1 − cosine of the whole, mean 1 − cosine of each tensor, squared L2 "
        "norm, sum of each tensor's L2 norm (both of gradients, ΔW over the learning rate), or mean squared L2 "
        "distance of each tensor over its own squared norm.",
    )
    layer_weighting: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Each tensor of the update counts by its own L2 norm to the power of minus this: 0 takes the "
        "update as it is, 1 makes all tensors count alike.",
    )
    objective_weight: float = Field(default=1.0, ge=0, description="Weight of the distance of updates.")
    batch_norm_distance: Literal["normalized", "absolute"] = Field(
        default="normalized",
        description="Batch-statistics term: squared and over the target's variance, or L2 norms as published.",
    )
    batch_norm_weight: float = Field(default=0.0, ge=0, description="Weight of the batch-statistics term.")
    row_space_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the share of what convolutions read that lies outside of the row space of their weight "
        "gradient, in layers with fewer positions than channels.",
    )
    total_variation: Literal["anisotropic", "isotropic", "double-opponents"] = Field(
        default="anisotropic",
        description="Absolute differences to the neighbours, length of the gradient, or the latter over colours and "
        "their differences.",
    )
    total_variation_weight: float = Field(default=0.0, ge=0, description="Weight of total variation.")
    total_variation_scale: Literal["fixed", "distance"] = Field(
        default="fixed",
        description="Whether total variation is weighted as it is, or times the distance of updates as well: strong "
        "while the update is badly explained, weak at the end.",
    )
    l2_weight: float = Field(default=0.0, ge=0, description="Weight of the candidates' L2 norm.")
    prior_weight: float = Field(
        default=0.0, ge=0, description="Weight of the mean squared distance to the prior image."
    )
    group_weight: float = Field(
        default=0.0, ge=0, description="Weight of the mean squared distance of restarts to their mean image."
    )

    # How it is minimised.
    start: Literal["prior", "noise", "pattern"] = Field(
        default="prior", description="Candidates start from the prior image, noise, or a tiled random pattern."
    )
    start_jitter: float = Field(
        default=0.02, ge=0, le=1, description="Standard deviation of noise that makes several candidates differ."
    )
    restarts: int = Field(default=1, ge=1, le=1000, description="Searches from different starts; the best is kept.")
    rungs: int = Field(
        default=1,
        ge=1,
        le=10,
        description="Successive halving (Jamieson, Talwalkar 2016): this many parts of equal cost make up the search. "
        "After each the worse restarts are dropped, so that one is left in the last, and the step begins anew.",
    )
    smoothing: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Graduated optimisation: standard deviation of the noise on candidates where the objective is "
        "evaluated, drawn anew for every step, falling to 0 along the search and less where more of the update is "
        "explained; 0: none. It leads past local minima, of which an update under noise has many.",
    )
    optimizer: Literal["adam", "signed-adam", "soft-signed-adam", "adamw", "lbfgs"] = Field(
        default="adam", description="How gradients become steps."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay of adamw, per step.")
    step_size: float = Field(default=0.1, gt=0, le=10, description="Largest step, in units of the [0, 1] gray range.")
    warmup: int = Field(default=0, ge=0, description="Iterations in which the step grows linearly to its full size.")
    schedule: Literal["constant", "cosine", "steps", "warm-restarts"] = Field(
        default="cosine",
        description="Decay of the step: none, to zero as a cosine, ×0.1 at 3/8, 5/8 and 7/8, or to zero as a cosine "
        "again and again, in cycles of `first_cycle` iterations at first that each are twice as long as the one before "
        "(Loshchilov and Hutter 2017): a long search is then on the way as far as a short one would be.",
    )
    first_cycle: int = Field(
        default=60,
        ge=1,
        description="Iterations that the first cycle of `warm-restarts` has at least; cycles are stretched so that the "
        "last ends with the search.",
    )
    cycle_decay: float = Field(
        default=0.7, gt=0, le=1, description="Largest step of a cycle of `warm-restarts`, in units of the one before."
    )
    averaging: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay of an exponential moving average of the candidates (Polyak and Juditsky 1992), from step to "
        "step; every tenth is kept where its objective is less than that of all candidates before: large steps scatter "
        "around it. It changes no step. 0: none.",
    )
    iterations: Iterations = Field(default=200, description="Optimiser steps.")
    pyramid: Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(_growing)] = Field(
        default=(),
        description="Coarse to fine: heights in pixels of the candidates, each for an equal "
        "share of the iterations; empty searches at full size only.",
    )
    bounds: Literal["clamp", "sigmoid", "none"] = Field(
        default="clamp",
        description="Candidates stay in [0, 1] by clamping after each step, as a sigmoid of free values, or only "
        "in the end.",
    )
    spectrum_decay: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Candidates are searched for as cosine coefficients weighted by their frequency to the power of "
        "minus this, so that steps are smooth; 0 searches pixels.",
    )
    surrogate_slope: float = Field(
        default=0.0,
        ge=0,
        description="Slope of the sigmoid whose derivative stands in for that of ReLU's step when the simulated "
        "update is differentiated (the update itself stays exact); 0: none, the step's derivative is 0.",
    )
    tolerance: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Converged when the best objective improved by less than this share of itself over `patience` "
        "iterations; 0 never stops early.",
    )
    patience: int = Field(default=100, ge=1, description="Iterations over which `tolerance` asks for progress.")
    engine: Literal["double-backward", "autograd"] = Field(
        default="double-backward",
        description="How simulated local training is differentiated: by the hand-written `double-backward`, which "
        "leaves networks and trainings that it does not know to autograd, with a note, or always by the slower "
        "`autograd`. Results agree up to rounding.",
    )

    # Deviations of the paper's released tool; docs/attacks/published-tool.md numbers them.
    update_gradient: Literal["through-update", "detached"] = Field(
        default="through-update",
        description="What reaches the candidates: the gradient of the distance of updates, or, where that is "
        "`detached`, of the simulated training loss instead.",
    )
    global_model: Literal["restored", "drifting"] = Field(
        default="restored", description="Whether each simulated training starts from the model that the last one left."
    )
    statistics_model: Literal["global", "updated"] = Field(
        default="global",
        description="Model through which the candidates' batch statistics are measured: the global one or the "
        "one after the update.",
    )
    variance: Literal["unbiased", "biased"] = Field(
        default="unbiased", description="Variance of the candidates' batches; running statistics hold unbiased ones."
    )
    local_batches: Literal["client", "single"] = Field(
        default="client", description="Simulated batches: the client's, or one of all images whatever its batch size."
    )
    client_loss: Literal["cross-entropy", "saturated-bce"] = Field(
        default="cross-entropy",
        description="Simulated loss: the client's, or binary cross-entropy with every class as a target.",
    )
    candidate_input: Literal["normalized", "raw"] = Field(
        default="normalized", description="Whether candidates are normalised as the client's images are."
    )

    @model_validator(mode="after")
    def _method_uses_all(self) -> Self:
        if self.method == "recursive":
            if self.labels == "joint":
                raise ValueError("labels: joint is searched by method: search only; take granted or recovered")
            for name, field in type(self).model_fields.items():
                is_setting = name in AttackSettings.model_fields and name not in RECURSIVE_SETTINGS
                if is_setting and getattr(self, name) != field.default:
                    usable = ", ".join(RECURSIVE_SETTINGS[1:])
                    raise ValueError(f"{name}: has no effect with method: recursive, which has {usable}; remove it")
        return self

    @model_validator(mode="after")
    def _terms_fit(self) -> Self:
        if self.batch_norm == "none" and self.batch_norm_weight > 0:
            raise ValueError("batch_norm_weight: must be 0 with batch_norm: none, which knows no statistics to match")
        if self.group_weight > 0 and self.restarts < 2:
            raise ValueError(f"group_weight: needs restarts of 2 or more, got {self.restarts}")
        if self.rungs > 1 and self.pyramid:
            raise ValueError(f"rungs: {self.rungs}, expected 1 with a pyramid, whose levels begin anew themselves")
        if self.optimizer == "lbfgs" and self.bounds == "clamp":
            raise ValueError("bounds: clamp undoes steps that optimizer: lbfgs learns from; take sigmoid or none")
        if self.optimizer == "lbfgs" and self.smoothing > 0:
            raise ValueError("smoothing: noise misleads optimizer: lbfgs, which learns from steps; take adam or adamw")
        if self.labels == "joint" and self.client_loss == "saturated-bce":
            raise ValueError("labels: joint needs client_loss: cross-entropy; saturated-bce has no labels to search")
        return self
