"""What params.yaml may say of defences: the steps that each client applies to its update."""

from typing import Literal

from pydantic import Field

from leakpipe.params_types import Section


class GaussianParams(Section):
    """The paper's noise: N(0, (sigma0·p)²) on every value of the update, p a percentile of the update."""

    kind: Literal["gaussian"]
    sigma0: float = Field(ge=0, le=1e6, description="Noise multiplier σ0 (unitless); 0 adds nothing.")
    percentile: float = Field(
        default=95, gt=0, le=100, description="Percentile p of the absolute non-zero values of the update."
    )
