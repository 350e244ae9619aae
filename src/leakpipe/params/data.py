"""Parameters of the data: which images, at what size, in which parts."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from leakpipe.params.types import ClassName, Registered, Section, distinct

IN_FOLDERS = ("covid-radiography", "image-folder")  # an image is a file in the folder of its class
FROM_DISK = (*IN_FOLDERS, "medmnist")
PHANTOM_SETS = ("cxr-phantom", "findings-phantom", "volume-phantom")
BELONGS_TO = {  # data sets that have a field which not all have
    "root": FROM_DISK,
    "images": (*PHANTOM_SETS, *FROM_DISK),
    "burned_text": ("cxr-phantom",),
    "classes": IN_FOLDERS,
    "datalists": IN_FOLDERS,
    "channels": ("image-folder",),
    "subset": ("medmnist",),
    "stored_size": ("medmnist",),
}
SMALLEST_WITH_TEXT = 128  # side of an image, in pixels, that the longest invented name fits on
PHANTOMS = 1000  # made where `images` says nothing
REQUIRED = {"image-folder": "root", "medmnist": "subset"}


class ImagesParams(Section):
    """The images and their size: everything that loading them depends on."""

    dataset: Annotated[str, Registered("data set")] = Field(description="Registered data set.")
    image_size: int = Field(
        ge=16, le=1024, description="Height and width, and depth of a volume, after resizing, in pixels."
    )
    root: str | None = Field(
        default=None,
        min_length=1,
        description="Folder that holds a data set from disk; null: its own folder in that of the environment variable "
        "LEAKPIPE_DATA (in `data` if that is not set). `image-folder` has no such default.",
    )
    images: int | None = Field(
        default=None,
        ge=2,
        le=1_000_000,
        validate_default=True,
        description="How many images a phantom set makes (null: 1000), or at most so many of a data "
        "set from disk are loaded, balanced over classes, always the same ones (null: all).",
    )
    burned_text: bool = Field(
        default=False,
        description="Whether `cxr-phantom` writes an invented name and birth date into each image.",
    )
    classes: Annotated[tuple[ClassName, ...], AfterValidator(distinct)] | None = Field(
        default=None,
        min_length=2,
        description="Class folders in the order of their labels; null: `Normal` and `COVID` of `covid-radiography`, "
        "all of `image-folder` by name.",
    )
    datalists: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of lists <client>.json (`training`, `validation`, `testing`) that say how the images are "
        "split; null: they are split by the seed.",
    )
    channels: Literal["gray", "color"] | None = Field(
        default=None, description="Channels of `image-folder`; null: gray. Other data sets say it themselves."
    )
    subset: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]+$",
        description="Which set of `medmnist`, as `pneumoniamnist`, `nodulemnist3d` or `chestmnist`.",
    )
    stored_size: Literal[28, 64, 128, 224] | None = Field(
        default=None,
        description="Size in pixels of the `medmnist` file that is read; null: the smallest that is not enlarged.",
    )

    @field_validator(*BELONGS_TO)
    @classmethod
    def _belongs_to_data_set(cls, value: Any, info: ValidationInfo) -> Any:
        dataset = info.data.get("dataset")  # an invalid name is reported by itself
        if value is None and info.field_name == "images" and dataset in PHANTOM_SETS:
            return PHANTOMS  # filled in here, so that rules and files record the value
        if value not in (None, False) and dataset and dataset not in BELONGS_TO[str(info.field_name)]:
            owners = " and ".join(map(repr, BELONGS_TO[str(info.field_name)]))
            raise ValueError(f"only {owners} can have it; not {dataset!r}: got {value!r}")
        return value

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        needed = REQUIRED.get(self.dataset)
        if needed and getattr(self, needed) is None:
            raise ValueError(f"{needed}: required for data set {self.dataset!r}, but missing")
        if self.burned_text and self.image_size < SMALLEST_WITH_TEXT:
            raise ValueError(f"burned_text needs an image_size of at least {SMALLEST_WITH_TEXT}, got {self.image_size}")
        return self


class DataParams(ImagesParams):
    """The images, their size, and how many are held out from the clients."""

    test: int = Field(ge=2, description="Images held out to measure the global model, balanced over classes.")
    validation: int = Field(ge=0, description="Images held out to watch training, balanced over classes.")
    public: int = Field(ge=1, description="Images that no client holds; the prior image is made of them.")
