"""Parameters of differential privacy: δ of the accounting, and DP-SGD in local training."""

from typing import Literal

from pydantic import Field

from leakpipe.params.types import Section

WHY_NO_BATCH_NORM = (
    "dp-sgd clips the gradient of each image, and batch normalisation makes it depend on the others of the batch; "
    "use a model without it (model.normalization: group)"
)
WHY_PLAIN_SGD = (
    "dp-sgd is plain SGD on clipped and noised gradients, but federation.training says otherwise; leave only its loss"
)


class PrivacyParams(Section):
    """The form in which guarantees of differential privacy are stated."""

    delta: float = Field(
        default=1e-5, gt=0, lt=1, description="δ that ε is given at; well below 1 / (number of clients or images)."
    )


class DpSgdParams(Section):
    """DP-SGD (Abadi 2016): images' gradients are clipped to C, and their sum gets N(0, (noise_multiplier·C)²).

    It acts in local training, so it comes first, and once. Batch normalisation mixes images and is refused.
    """

    kind: Literal["dp-sgd"]
    clip_norm: float = Field(gt=0, le=1e12, description="C, the largest L2 norm of one image's gradient.")
    noise_multiplier: float = Field(ge=0, le=1e6, description="Standard deviation of the noise, in units of C.")
