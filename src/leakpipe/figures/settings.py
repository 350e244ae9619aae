"""The parameters that figures use: names, numbers and a few sections, under the names of their parameters."""

from typing import Any

from leakpipe.defenses.naming import name_defenses, noise_multipliers
from leakpipe.experiment.cells import adaptive_attacks, high_risk_client, undefended
from leakpipe.params.experiment import Params


def choose_settings(params: Params) -> dict[str, Any]:
    """All settings that a figure can take, JSON-serialisable.

    Returns:
        `attacks`, all; `adaptive`, those that know the defence; `defense`, the one with the least noise;
        `captured_round`, the last; `clients`, their section; `client`, the one that defences are
        judged by; `defenses`, what each is called; `sigma0` of those that only add noise; `local_epochs`; `embedders`;
        `delta`.
    """
    plain = params.model_dump(mode="json")
    return {
        "attacks": list(params.attacks),
        "adaptive": adaptive_attacks(params),
        "defense": undefended(params),
        "captured_round": max(params.federation.captured_rounds),
        "clients": plain["federation"]["clients"],
        "client": high_risk_client(params),
        "defenses": name_defenses(plain["defenses"]),
        "sigma0": noise_multipliers(plain["defenses"]),
        "local_epochs": params.federation.local_epochs,
        "embedders": list(params.identifiability.embedders),
        "delta": params.privacy.delta,
    }
