"""Parameters of the paper's claims: the attack and the clients in each of their roles."""

from typing import Annotated

from pydantic import AfterValidator, Field

from leakpipe.params.types import Name, Section, distinct

Names = Annotated[tuple[Name, ...], AfterValidator(distinct)]
Contrast = Annotated[tuple[Name, Name], AfterValidator(distinct)]


class ClaimsParams(Section):
    """Roles in the claims that are judged. A claim whose role is null or empty is not judged."""

    attack: Name = Field(description="The strongest attack: where it gains nothing, no leak is found.")
    paper_attack: Name | None = Field(default=None, description="The paper's attack, which matches BN statistics.")
    further_attacks: Names = Field(
        default=(),
        description="Further attacks that the high-risk client's leak, and noise against it, are judged by.",
    )
    earlier_attacks: Names = Field(
        default=(), description="Attacks published before the paper, which assume frozen batch normalisation."
    )
    weights_attack: Name | None = Field(
        default=None, description="`attack` on weight differences alone, without matching BN statistics."
    )
    statistics_attack: Name | None = Field(
        default=None, description="`attack` on BN statistics alone, without matching weight differences."
    )
    high_risk: Name = Field(description="Client that the paper expects to leak: one image, one local step.")
    low_risk: Names = Field(default=(), description="Clients of which the paper expects no leak.")
    more_images: Contrast | None = Field(default=None, description="Two clients: the second holds more images.")
    larger_batches: Contrast | None = Field(
        default=None, description="Two clients with as many images: the second has larger batches."
    )
    more_steps: Contrast | None = Field(
        default=None, description="Two clients with as many images: the second runs more local steps."
    )
