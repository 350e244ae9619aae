"""Published attacks as settings of the one inversion loop. Importing this needs no torch.

Step sizes, and total-variation weights where the paper says enough, were published for normalised pixels and are
converted to units of [0, 1] (an ImageNet-normalised pixel has a deviation of 0.225). `docs/attacks/index.md` has a
page of each.
"""

from dataclasses import dataclass

from pydantic import ValidationError

from leakpipe.errors import LeakpipeError
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.attacks import AttackParams, ThreatModel
from leakpipe.registry import Registry

PIXEL_DEVIATION = 0.225


@dataclass(frozen=True)
class Preset:
    """A published attack.

    Attributes:
        paper: Where it was published.
        settings: What it does; params.yaml may override each field.
    """

    paper: str
    settings: AttackSettings


PRESETS: Registry[Preset] = Registry("attack preset")

PRESETS.add(
    "dlg",
    Preset(
        paper="Zhu, Liu, Han: Deep Leakage from Gradients, NeurIPS 2019",
        settings=AttackSettings(
            batch_norm="none",
            labels="joint",
            objective="l2",
            start="noise",
            optimizer="lbfgs",
            step_size=1.0,
            schedule="constant",
            iterations=6000,  # published: 300 calls of torch's L-BFGS, each of up to 20 iterations
            bounds="none",
        ),
    ),
)

PRESETS.add(
    "idlg",
    Preset(
        paper="Zhao, Mopuri, Bilen: iDLG: Improved Deep Leakage from Gradients, 2020",
        settings=PRESETS["dlg"].settings.model_copy(update={"labels": "recovered"}),
    ),
)

PRESETS.add(
    "inverting-gradients",
    Preset(
        paper="Geiping, Bauermeister, Dröge, Moeller: Inverting Gradients, NeurIPS 2020",
        settings=AttackSettings(
            batch_norm="frozen",
            optimizer="signed-adam",
            step_size=0.1 * PIXEL_DEVIATION,
            schedule="steps",
            iterations=4800,
            start="noise",
            total_variation_weight=0.1 / PIXEL_DEVIATION,
        ),
    ),
)

PRESETS.add(
    "see-through-gradients",
    Preset(
        paper="Yin et al.: See Through Gradients (GradInversion), CVPR 2021",
        settings=AttackSettings(
            batch_norm="frozen",
            objective="layer-norms",
            objective_weight=1e-3,
            batch_norm_distance="absolute",
            batch_norm_weight=0.1,
            total_variation_weight=1e-4,
            l2_weight=1e-6,
            group_weight=0.01,
            restarts=4,
            start="noise",
            step_size=0.1 * PIXEL_DEVIATION,
            warmup=50,
            iterations=20_000,
        ),
    ),
)

PRESETS.add(
    "bn-aware",
    Preset(
        paper="Hatamizadeh et al.: Do Gradient Inversion Attacks Make Federated Learning Unsafe?, IEEE TMI 2023",
        settings=AttackSettings(
            objective="layer-norms",
            objective_weight=1e-3,
            batch_norm_distance="absolute",
            batch_norm_weight=0.1,
            total_variation_weight=1e-4,
            l2_weight=1e-5,
            step_size=0.1,
            warmup=100,
            iterations=20_000,
        ),
    ),
)

PRESETS.add(
    "published-tool",
    Preset(
        paper="The tool released with Hatamizadeh et al. 2023, as its code runs",
        settings=PRESETS["bn-aware"].settings.model_copy(
            update={
                "update_gradient": "detached",
                "global_model": "drifting",
                "statistics_model": "updated",
                "variance": "biased",
                "local_batches": "single",
                "client_loss": "saturated-bce",
                "candidate_input": "raw",
            }
        ),
    ),
)

PRESETS.add(
    "modern",
    Preset(
        paper="Geiping et al.: breaching, attack `modern`, 2022",
        settings=AttackSettings(
            batch_norm="frozen",
            optimizer="soft-signed-adam",
            step_size=0.1 * PIXEL_DEVIATION,
            warmup=50,
            iterations=24_000,
            start="pattern",
            total_variation="double-opponents",
            total_variation_weight=0.1 / PIXEL_DEVIATION,
        ),
    ),
)

PRESETS.add(
    "bn-cosine",
    Preset(
        paper="this repository: cosine of updates and batch statistics recovered from the update, in training mode",
        settings=AttackSettings(
            layer_weighting=0.5,
            batch_norm_weight=1.0,
            total_variation_weight=10.0,
            total_variation_scale="distance",
            spectrum_decay=0.5,
            surrogate_slope=4.0,
            step_size=0.1,
            iterations=800,
        ),
    ),
)

PRESETS.add(
    "row-space",
    Preset(
        paper="this repository: row space of weight gradients, after SPEAR (Dimitrov 2024), and batch statistics",
        settings=AttackSettings(
            row_space_weight=1.0,
            objective_weight=0.0,
            batch_norm_weight=1.0,
            total_variation_weight=0.5,
            spectrum_decay=1.3,
            step_size=0.02,
            warmup=10,
            iterations=300,
        ),
    ),
)

PRESETS.add(
    "recursive",
    Preset(
        paper="this repository: feature maps by null spaces and linear algebra, block by block, then the image below",
        settings=AttackSettings(
            method="recursive",
            total_variation_weight=10.0,
            spectrum_decay=0.5,
            iterations=1440,  # of L-BFGS, in twelve stages; cycles come on top
        ),
    ),
)


def resolve_settings(attack: AttackParams, client: str) -> AttackSettings:
    """The preset's settings with those fields replaced that params.yaml sets, for the attack or for `client`.

    Raises:
        LeakpipeError: The replaced fields contradict what the preset keeps.
    """
    chosen = {name: getattr(attack, name) for name in attack.model_fields_set & AttackSettings.model_fields.keys()}
    iterations = attack.targets[client].iterations
    if iterations is not None:
        chosen["iterations"] = iterations
    preset = PRESETS[attack.preset].settings
    try:
        return AttackSettings.model_validate({**preset.model_dump(), **chosen})
    except ValidationError as error:
        raise LeakpipeError(f"preset {attack.preset!r} with these settings: {_first_problem(error)}") from error


def resolve_threat_model(attack: AttackParams, experiment: ThreatModel) -> ThreatModel:
    """Returns what one attack is granted: the experiment's threat model with the fields replaced that the attack sets.

    Raises:
        LeakpipeError: The replaced fields contradict what the experiment keeps.
    """
    granted = {**experiment.model_dump(), **attack.threat_model.model_dump(exclude_unset=True)}
    try:
        return ThreatModel.model_validate(granted)
    except ValidationError as error:
        raise LeakpipeError(f"threat_model together with the experiment's: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    return error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
