"""Published attacks as settings of the one inversion loop. Importing this needs no torch."""

from dataclasses import dataclass

from leakpipe.params import AttackParams, AttackSettings
from leakpipe.registry import Registry


@dataclass(frozen=True)
class Preset:
    """A published attack.

    Attributes:
        paper: Where it was published.
        settings: What it does; params.yaml may override each field.
        needs_batch_norm: Whether it is meaningless on a model without batch normalisation.
    """

    paper: str
    settings: AttackSettings
    needs_batch_norm: bool


PRESETS: Registry[Preset] = Registry("attack preset")

PRESETS.add(
    "bn-aware",
    Preset(
        paper="Hatamizadeh et al., IEEE TMI 42(7), 2023, with its update-matching term differentiated",
        settings=AttackSettings(batch_norm="update"),
        needs_batch_norm=True,
    ),
)

PRESETS.add(
    "inverting-gradients",
    Preset(
        paper="Geiping et al., Inverting Gradients, NeurIPS 2020",
        settings=AttackSettings(
            batch_norm="frozen",
            batch_norm_weight=0.0,
            optimizer="signed-adam",
            step_size=0.0225,  # published: 0.1 in units of normalised pixels, whose deviation is 0.225
            schedule="steps",
            iterations=4800,
            start="noise",
            total_variation_weight=0.44,  # published: 1e-1 on normalised pixels
        ),
        needs_batch_norm=False,
    ),
)


def resolve_settings(attack: AttackParams, client: str) -> AttackSettings:
    """The preset's settings with those fields replaced that params.yaml sets, for the attack or for `client`."""
    chosen = {name: getattr(attack, name) for name in attack.model_fields_set & AttackSettings.model_fields.keys()}
    iterations = attack.targets[client].iterations
    if iterations is not None:
        chosen["iterations"] = iterations
    return PRESETS[attack.preset].settings.model_copy(update=chosen)
