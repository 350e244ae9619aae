"""Parameters of the network that is trained: its architecture, and its initial weights."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from leakpipe.params.types import Registered, Section

WEIGHTS_FILES = (".safetensors", ".pth")


def _known_weights(value: str, *names: str) -> str:
    if value not in names and not value.endswith(WEIGHTS_FILES):
        raise ValueError(f"{value!r}, expected {', '.join(names)} or the path of a {' or '.join(WEIGHTS_FILES)} file")
    return value


class ArchitectureParams(Section):
    """Everything that the shape of a network depends on, besides classes and image size."""

    name: Annotated[str, Registered("model")] = Field(description="Registered model.")
    widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] | None = Field(
        default=None,
        min_length=1,
        validate_default=True,
        description="Channels of each 3×3 convolution of `convnet-bn`; null: 32, 32, 64, 64. Null for other models.",
    )
    strides: tuple[Annotated[int, Field(ge=1, le=2)], ...] | None = Field(
        default=None,
        min_length=1,
        validate_default=True,
        description="Stride of each of these convolutions, in pixels; null: 1, 2, 1, 2. Null for other models.",
    )
    normalization: Literal["batch", "group"] = Field(
        default="batch",
        description="Layers that normalise: batch normalisation, or group normalisation in its place, which sees "
        "every image by itself and has no running statistics to share.",
    )

    @field_validator("widths", "strides")
    @classmethod
    def _belongs_to_convnet(cls, value: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        """Fills in the defaults of `convnet-bn`, so that rules and stored models record the values themselves."""
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


class PretrainingParams(Section):
    """Training of weights on the public images, by SGD with momentum on the mean cross-entropy."""

    start: Annotated[str, AfterValidator(lambda value: _known_weights(value, "random", "imagenet", "augnet"))] = Field(
        default="random", description="Initial weights: as `model.weights`, but not `public`."
    )
    epochs: int = Field(default=30, ge=1, le=10_000, description="Passes over the public images.")
    batch_size: int = Field(default=16, ge=1, description="Images in one step; the last of an epoch may be fewer.")
    learning_rate: float = Field(default=0.01, gt=0, le=10, description="Step of SGD.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Share of the last step that the next one keeps.")
    weight_decay: float = Field(default=5e-4, ge=0, lt=1, description="Weight of half the squared weights.")


class ModelParams(ArchitectureParams):
    """The network that is trained."""

    weights: Annotated[
        str, AfterValidator(lambda value: _known_weights(value, "random", "imagenet", "augnet", "public"))
    ] = Field(
        default="random",
        description="Weights before the first round: `random`; `imagenet` (torchvision's); `augnet` (of the PyPI "
        "package imgsim, for `resnet50`); `public` (trained on the public images by a stage of its own); or a "
        ".safetensors or .pth file, its path relative to the project. A head of another shape is drawn at random.",
    )
    pretraining: PretrainingParams = Field(
        default=PretrainingParams(), description="How `weights: public` are trained; else of no effect."
    )
