"""The content of params.yaml: every section, field, unit and bound, and the checks within it.

The models are frozen and refuse unknown keys. `workflow/schemas/params.schema.json` is generated from them (a test
fails when it drifts). `leakpipe.experiment` checks them against data sets, models and presets.
"""

from collections.abc import Collection, Iterator
from itertools import chain
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from leakpipe.params.attacks import AttackParams, ThreatModel
from leakpipe.params.claims import ClaimsParams
from leakpipe.params.data import DataParams
from leakpipe.params.defenses import DefenseSteps
from leakpipe.params.federation import FederationParams
from leakpipe.params.models import ModelParams
from leakpipe.params.privacy import PrivacyParams
from leakpipe.params.types import Name, Section, Seeds, Switchable, distinct

AssignmentName = Literal["optimal", "per-image-maximum"]
FigureName = Literal[
    "overview",
    "reconstructions",
    "maps",
    "rounds",
    "noise",
    "clients",
    "identifiability",
    "tradeoff",
    "front",
    "bound",
    "effects",
    "attacks",
    "attacks-by-client",
]
EmbedderName = Literal["pixels", "pixel-correlation", "global-model", "imagenet-resnet50", "imgsim-resnet50"]


ATTACK_ROLES = ("attack", "paper_attack", "further_attacks", "earlier_attacks", "weights_attack", "statistics_attack")


class ScoringParams(Section):
    """The comparison of reconstructions with the true images."""

    assignment: AssignmentName = Field(
        default="optimal",
        description="Which reconstruction an image is compared with, by SSIM: each with one of its own, so that their "
        "sum is largest (`optimal`), or each with the most similar one (`per-image-maximum`, as the paper's tool).",
    )
    lpips: bool = Field(
        default=False,
        description="Also measure LPIPS, for images of 31×31 pixels or more; its weights must be in torch's checkpoint "
        "folder.",
    )


class ComparisonParams(Section):
    """Attacks that differ in one setting, drawn side by side."""

    title: str = Field(min_length=1, description="What the figure is about: 'Which part of the update leaks'.")
    attacks: dict[Name, str | float] = Field(
        min_length=1,
        description="Label of each attack, in the order drawn; a line against iterations if all are numbers.",
    )
    clients: Annotated[tuple[Name, ...], AfterValidator(distinct)] = Field(
        min_length=1, description="Clients that all of these attacks target: a panel each."
    )


class IdentifiabilityParams(Section):
    """The lookup of reconstructions among the training images of all clients."""

    embedders: Annotated[tuple[EmbedderName, ...], AfterValidator(distinct)] = Field(
        default=("pixels", "global-model"),
        description="Networks (or the pixels themselves) that measure the similarity of two images; "
        "`[]` measures nothing.",
    )
    top: Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(distinct)] = Field(
        default=(1, 5), min_length=1, description="An image counts as found if it is among this many nearest ones."
    )

    @field_validator("top")
    @classmethod
    def _holds_one(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if 1 not in value:
            raise ValueError(f"top {list(value)} must hold 1, which is what the figure shows")
        return value


class Params(Section):
    """A whole experiment."""

    experiment: Name = Field(description="Name of the experiment: results go to results/<experiment>/.")
    seeds: Seeds = Field(description="Each seed draws its own split, initial model, batches and noise.")
    data: DataParams
    model: ModelParams
    federation: FederationParams
    threat_model: ThreatModel = ThreatModel()
    defenses: Switchable[DefenseSteps] = Field(
        min_length=1, description="Defences by name: steps applied in order; `[]` is no defence, null switches off."
    )
    attacks: Switchable[AttackParams] = Field(
        min_length=1, description="Attacks by name; null switches an inherited one off."
    )
    privacy: PrivacyParams = PrivacyParams()
    scoring: ScoringParams = ScoringParams()
    identifiability: IdentifiabilityParams = IdentifiabilityParams()
    figures: Annotated[tuple[FigureName, ...], AfterValidator(distinct)] = Field(
        default=("reconstructions", "rounds", "noise"),
        min_length=1,
        description="Figures to draw, in the order that a reader should see them.",
    )

    claims: ClaimsParams | None = Field(
        default=None, description="Roles in the paper's claims; null: no claim is judged."
    )

    comparisons: Switchable[ComparisonParams] = Field(
        default={}, description="Comparisons by name: a figure effect-<name> each, where figures hold `effects`."
    )

    @model_validator(mode="after")
    def _references_hold(self) -> Self:
        checks = (self._find_comparisons(), self._find_embedders(), self._find_targets(), self._find_roles())
        if problems := list(dict.fromkeys(filter(None, chain(*checks)))):
            errors = [InitErrorDetails(type=_problem(problem), input=None) for problem in problems]
            raise ValidationError.from_exception_data("Params", errors)
        return self

    def _find_comparisons(self) -> Iterator[str | None]:
        if "effects" in self.figures and not self.comparisons:
            yield "figures: 'effects' draws the comparisons, of which there are none"
        for name, comparison in self.comparisons.items():
            for attack in comparison.attacks:
                yield (unknown := _find_unknown(f"comparisons.{name}.attacks", attack, self.attacks))
                for client in () if unknown else comparison.clients:
                    where = f"comparisons.{name}.clients (attack {attack!r})"
                    yield _find_unknown(where, client, self.attacks[attack].targets)

    def _find_embedders(self) -> Iterator[str]:
        drawn = [name for name in ("identifiability", "bound") if name in self.figures]
        if drawn and not self.identifiability.embedders:
            yield f"figures: {drawn[0]!r} needs at least one of identifiability.embedders, which is []"

    def _find_targets(self) -> Iterator[str | None]:
        for name, attack in self.attacks.items():
            for client, target in attack.targets.items():
                where = f"attacks.{name}.targets"
                yield _find_unknown(where, client, self.federation.clients)
                for defense in target.defenses or ():
                    yield _find_unknown(f"{where}.{client}.defenses", defense, self.defenses)
                for seed in target.seeds or ():
                    yield _find_unknown(f"{where}.{client}.seeds", seed, self.seeds)

    def _find_roles(self) -> Iterator[str | None]:
        for role, value in self.claims or ():
            known = self.attacks if role in ATTACK_ROLES else self.federation.clients
            for name in [value] if isinstance(value, str) else value or ():
                yield _find_unknown(f"claims.{role}", name, known)


def _find_unknown(where: str, value: object, known: Collection[Any]) -> str | None:
    return None if value in known else f"{where}: {value!r} is not among {', '.join(map(str, known))}"


def _problem(said: str) -> PydanticCustomError:
    return PydanticCustomError("value_error", "{said}", {"said": said})
