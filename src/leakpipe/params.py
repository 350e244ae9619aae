"""What params.yaml may say: every section, field, unit and bound, and the checks within it.

The models are frozen and refuse unknown keys. `workflow/schemas/params.schema.json` is generated from
them (a test fails when it drifts). What can only be checked against data sets, models and presets is
checked in `leakpipe.experiment`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from leakpipe.params_attacks import AttackParams, ThreatModel
from leakpipe.params_claims import ClaimsParams
from leakpipe.params_types import Name, Section, Seeds, Switchable, distinct

DatasetName = Literal["lfw-faces"]
ModelName = Literal["convnet-bn", "resnet18", "resnet20"]
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
    "effects",
    "attacks",
]
EmbedderName = Literal["pixels", "pixel-correlation", "global-model", "imagenet-resnet50", "imgsim-resnet50"]


class DataParams(Section):
    """Which images, at what size, and how many are kept from the clients."""

    dataset: DatasetName = Field(description="Registered data set.")
    image_size: int = Field(ge=16, le=1024, description="Height and width after resizing, in pixels.")
    test: int = Field(ge=2, description="Images held out to measure the global model, balanced over classes.")
    validation: int = Field(ge=0, description="Images held out to watch training, balanced over classes.")
    public: int = Field(ge=1, description="Images that no client holds; the prior image is made of them.")


class ModelParams(Section):
    """The network that is trained."""

    name: ModelName = Field(description="Registered model.")
    widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] | None = Field(
        default=None,
        min_length=1,
        validate_default=True,
        description="Channels of each 3×3 convolution of `convnet-bn`; null: 32, 32, 64, 64. Null for other models.",
    )
    strides: tuple[Literal[1, 2], ...] | None = Field(
        default=None,
        min_length=1,
        validate_default=True,
        description="Stride of each of these convolutions, in pixels; null: 1, 2, 1, 2. Null for other models.",
    )

    @field_validator("widths", "strides")
    @classmethod
    def _belongs_to_convnet(cls, value: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        """Fill in `convnet-bn`'s defaults here, so that what is stored with a model says all of it."""
        model = info.data.get("name", "convnet-bn")  # an invalid name is reported by itself
        if model == "convnet-bn":
            return value or {"widths": (32, 32, 64, 64), "strides": (1, 2, 1, 2)}[str(info.field_name)]
        if value is not None:
            raise ValueError(f"only 'convnet-bn' has widths and strides; both must be null for {model!r}")
        return None

    @model_validator(mode="after")
    def _one_stride_a_width(self) -> Self:
        widths, strides = len(self.widths or ()), len(self.strides or ())
        if widths != strides:
            raise ValueError(f"widths ({widths}) and strides ({strides}) must be as many")
        return self


class ClientParams(Section):
    """One client: what it holds and how it batches."""

    images: int = Field(ge=1, description="Training images the client holds.")
    batch_size: int = Field(ge=1, description="Images in one local step; the last batch may be smaller.")
    classes: tuple[Name, ...] | None = Field(
        default=None, min_length=1, description="Classes its images come from; null: all, balanced."
    )
    local_epochs: int | None = Field(
        default=None, ge=1, le=1000, description="Passes over its images per round; null: federation.local_epochs."
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
    learning_rate: float = Field(gt=0, le=10, description="Step of the clients' SGD (no momentum).")
    local_epochs: int = Field(ge=1, le=1000, description="Passes over a client's images per round.")
    batch_norm_momentum: float = Field(
        gt=0, le=1, description="Weight of a batch in the running statistics (torch's `momentum`)."
    )
    clients: Switchable[ClientParams] = Field(
        min_length=1, description="Clients by name; null switches an inherited one off."
    )

    @model_validator(mode="after")
    def _captured_rounds_happen(self) -> Self:
        if max(self.captured_rounds) > self.rounds:
            raise ValueError(f"captured_rounds {list(self.captured_rounds)} go past the {self.rounds} rounds")
        return self


class GaussianParams(Section):
    """The paper's noise: N(0, (sigma0·p)²) on every value of the update, p a percentile of the update."""

    kind: Literal["gaussian"]
    sigma0: float = Field(ge=0, le=1e6, description="Noise multiplier σ0 (unitless); 0 adds nothing.")
    percentile: float = Field(
        default=95, gt=0, le=100, description="Percentile p of the absolute non-zero values of the update."
    )


class ScoringParams(Section):
    """How reconstructions are held against the true images."""

    assignment: AssignmentName = Field(
        default="optimal",
        description="Which reconstruction an image is held against, by SSIM: each its own, so that all together are "
        "most alike (`optimal`), or the one most like it, however often (`per-image-maximum`, as the paper's tool).",
    )
    lpips: bool = Field(
        default=False,
        description="Also measure LPIPS, from 31×31 pixels on; its weights have to lie in torch's checkpoints folder.",
    )


class ComparisonParams(Section):
    """Attacks that differ in one thing, to be drawn side by side."""

    title: str = Field(min_length=1, description="What the figure is about: 'Which part of the update leaks'.")
    attacks: dict[Name, str | float] = Field(
        min_length=1,
        description="Label of each attack, in the order drawn; a line against iterations if all are numbers.",
    )
    clients: Annotated[tuple[Name, ...], AfterValidator(distinct)] = Field(
        min_length=1, description="Clients that all of these attacks target: a panel each."
    )


class IdentifiabilityParams(Section):
    """Which training image a reconstruction came from, looked up among those of all clients."""

    embedders: Annotated[tuple[EmbedderName, ...], AfterValidator(distinct)] = Field(
        default=("pixels", "global-model"),
        description="Networks (or the pixels themselves) that say how alike two images are; `[]` measures nothing.",
    )
    top: Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(distinct)] = Field(
        default=(1, 5), min_length=1, description="Found means: the true image is among so many nearest ones."
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
    defenses: Switchable[tuple[GaussianParams, ...]] = Field(
        min_length=1, description="Defences by name: steps applied in order; `[]` is no defence, null switches off."
    )
    attacks: Switchable[AttackParams] = Field(
        min_length=1, description="Attacks by name; null switches an inherited one off."
    )
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
    def _comparisons_can_be_drawn(self) -> Self:
        if "effects" in self.figures and not self.comparisons:
            raise ValueError("figures: 'effects' draws the comparisons, of which there are none")
        for name, comparison in self.comparisons.items():
            for attack in comparison.attacks:
                _known(f"comparisons.{name}.attacks", attack, self.attacks)
                for client in comparison.clients:
                    _known(f"comparisons.{name}.clients (attack {attack!r})", client, self.attacks[attack].targets)
        return self

    @model_validator(mode="after")
    def _identifiability_is_measured(self) -> Self:
        if "identifiability" in self.figures and not self.identifiability.embedders:
            raise ValueError("figures: 'identifiability' needs at least one of identifiability.embedders, which is []")
        return self

    @model_validator(mode="after")
    def _targets_exist(self) -> Self:
        for name, attack in self.attacks.items():
            for client, target in attack.targets.items():
                where = f"attacks.{name}.targets"
                _known(where, client, self.federation.clients)
                for defense in target.defenses or ():
                    _known(f"{where}.{client}.defenses", defense, self.defenses)
                for seed in target.seeds or ():
                    _known(f"{where}.{client}.seeds", seed, self.seeds)
        return self

    @model_validator(mode="after")
    def _roles_are_played(self) -> Self:
        if self.claims is None:
            return self
        attacks, clients = self.claims.attack_roles(), self.claims.client_roles()
        for roles, known in ((attacks, self.attacks), (clients, self.federation.clients)):
            for role, name in roles:
                _known(f"claims.{role}", name, known)
        return self


def _known(where: str, value: object, known: Any) -> None:
    if value not in known:
        raise ValueError(f"{where}: {value!r} is not among {', '.join(map(str, known))}")
