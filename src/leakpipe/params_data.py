"""What params.yaml may say of the data: which images, at what size, in which parts."""

from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from leakpipe.params_types import Section

DatasetName = Literal["lfw-faces", "cxr-phantom"]
SMALLEST_WITH_TEXT = 128  # side of an image, in pixels, that the longest invented name fits on


class ImagesParams(Section):
    """Which images, at what size: all that loading them depends on."""

    dataset: DatasetName = Field(description="Registered data set.")
    image_size: int = Field(ge=16, le=1024, description="Height and width after resizing, in pixels.")
    images: int | None = Field(
        default=None,
        ge=2,
        le=1_000_000,
        validate_default=True,
        description="How many images `cxr-phantom` makes; null: 1000. Null for other data sets.",
    )
    burned_text: bool = Field(
        default=False,
        description="Whether `cxr-phantom` writes an invented name and birth date into each image.",
    )

    @field_validator("images", "burned_text")
    @classmethod
    def _belongs_to_phantom(cls, value: int | None, info: ValidationInfo) -> int | None:
        """Fill in the default here, so that what is stored with the images says all of it."""
        dataset = info.data.get("dataset", "cxr-phantom")  # an invalid name is reported by itself
        if dataset != "cxr-phantom" and value:
            raise ValueError(f"only 'cxr-phantom' has {info.field_name}, {dataset!r} does not")
        return 1000 if info.field_name == "images" and dataset == "cxr-phantom" and value is None else value

    @model_validator(mode="after")
    def _text_fits(self) -> Self:
        if self.burned_text and self.image_size < SMALLEST_WITH_TEXT:
            raise ValueError(f"burned_text needs an image_size of at least {SMALLEST_WITH_TEXT}, got {self.image_size}")
        return self


class DataParams(ImagesParams):
    """Which images, at what size, and how many are kept from the clients."""

    test: int = Field(ge=2, description="Images held out to measure the global model, balanced over classes.")
    validation: int = Field(ge=0, description="Images held out to watch training, balanced over classes.")
    public: int = Field(ge=1, description="Images that no client holds; the prior image is made of them.")

    @property
    def of_images(self) -> ImagesParams:
        """What loading the images depends on, without how they are split."""
        return ImagesParams(**{name: getattr(self, name) for name in ImagesParams.model_fields})
