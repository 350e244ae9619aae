"""What params.yaml may say of the data: which images, at what size, in which parts."""

from typing import Literal

from pydantic import Field

from leakpipe.params_types import Section

DatasetName = Literal["lfw-faces"]


class ImagesParams(Section):
    """Which images, at what size: all that loading them depends on."""

    dataset: DatasetName = Field(description="Registered data set.")
    image_size: int = Field(ge=16, le=1024, description="Height and width after resizing, in pixels.")


class DataParams(ImagesParams):
    """Which images, at what size, and how many are kept from the clients."""

    test: int = Field(ge=2, description="Images held out to measure the global model, balanced over classes.")
    validation: int = Field(ge=0, description="Images held out to watch training, balanced over classes.")
    public: int = Field(ge=1, description="Images that no client holds; the prior image is made of them.")

    @property
    def of_images(self) -> ImagesParams:
        """What loading the images depends on, without how they are split."""
        return ImagesParams(**{name: getattr(self, name) for name in ImagesParams.model_fields})
