"""What params.yaml may say of the network that is trained."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from leakpipe.params_types import Section

ModelName = Literal["convnet-bn", "resnet18", "resnet20"]


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
