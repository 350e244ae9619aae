"""Parameters of attacks: what an attacker is granted, which preset runs on which clients."""

import warnings
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from leakpipe.params.attack_settings import AttackSettings, Iterations
from leakpipe.params.types import Name, Registered, Section, Seeds, Switchable

RENAMED_PRESETS = {"leakpipe": "bn-cosine"}  # read for one more release, with a warning
SECONDS = {"s": 1, "min": 60, "h": 3600}


def _renamed(preset: str) -> str:
    name = RENAMED_PRESETS.get(preset, preset)
    if name != preset:
        warnings.warn(
            f"preset: {preset!r} is now called {name!r}; the old name ends with the next release",
            FutureWarning,
            stacklevel=2,
        )
    return name


class TargetParams(Section):
    """Cells of the design in which an attack is run on one client; unset: all."""

    defenses: tuple[Name, ...] | None = Field(default=None, min_length=1, description="Only under these defences.")
    seeds: Seeds | None = Field(default=None, description="Only for these seeds.")
    iterations: Iterations | None = Field(
        default=None, description="Optimiser steps for this client instead of the attack's."
    )


class ThreatModel(Section):
    """Knowledge granted to the attacker besides the global model and one update."""

    prior: Literal["all", "class", "gray"] = Field(
        default="all",
        description="Prior image: mean of all public images, of those of the victim's class, or plain gray (0.5). "
        "Unless it is gray the attacker holds the public images themselves.",
    )
    labels: Literal["known", "unknown"] = Field(
        default="known", description="Whether the labels of the client's images are known to the attacker."
    )
    batch_norm: Literal["update", "exact", "none"] = Field(
        default="update",
        description="Batch statistics: only as far as the running statistics of the update reveal them, granted "
        "exactly (whatever a defence did to the update), or withheld altogether.",
    )
    batch_order: Literal["known", "unknown"] = Field(
        default="unknown",
        description="Whether the assignment of images to local steps is known. If not, candidates are numbered in "
        "the order of the first epoch, and later epochs are assumed to repeat it.",
    )
    defense: Literal["known", "unknown"] = Field(
        default="unknown",
        description="Whether the defence's steps are known to the attacker, who then undoes them as far as possible "
        "(adaptive) or else takes the shared update for the trained one (naive).",
    )

    @model_validator(mode="after")
    def _class_prior_needs_labels(self) -> Self:
        if self.prior == "class" and self.labels == "unknown":
            raise ValueError("prior: class needs labels: known")
        return self


class AttackParams(AttackSettings):
    """One attack: a preset, changes to it, and its targets."""

    preset: Annotated[str, Registered("attack preset"), AfterValidator(_renamed)] = Field(
        description="Published recipe, whose values unset fields keep."
    )
    budget: str | None = Field(
        default=None,
        pattern=rf"^\d+(\.\d+)? ?({'|'.join(SECONDS)})$",
        description="Time of the attack on one update, on one core (`60 s`, `5 min`, `2 h`), in place of `iterations`: "
        "as many as fit, by the time of a step that `leakpipe time-steps` recorded in step-times.json.",
    )
    targets: Switchable[TargetParams] = Field(
        min_length=1, description="Attacked clients; `{}` attacks in every cell, null switches one off."
    )
    threat_model: ThreatModel = Field(
        default=ThreatModel(),
        description="What this attack is granted instead; unset fields are the experiment's.",
    )

    @model_validator(mode="after")
    def _budget_replaces_iterations(self) -> Self:
        if self.budget is not None and "iterations" in self.model_fields_set:
            raise ValueError("budget: has no effect beside iterations; remove one of them")
        return self
