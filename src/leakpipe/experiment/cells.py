"""The cells of an experiment's design: which attack is run on which client under which defence."""

from collections.abc import Iterable
from dataclasses import dataclass

from leakpipe.attacks.presets import resolve_threat_model
from leakpipe.defenses.naming import name_defenses
from leakpipe.params.experiment import Params


@dataclass(frozen=True, order=True)
class Cell:
    """One attack on one client of one simulated federation (over all captured rounds)."""

    defense: str
    seed: int
    client: str
    attack: str


def list_cells(params: Params) -> list[Cell]:
    """Returns every attack to run, in the order of the parameters: defence, seed, attack, client."""
    return [
        Cell(defense, seed, client, name)
        for defense in params.defenses
        for seed in params.seeds
        for name, attack in params.attacks.items()
        for client, target in attack.targets.items()
        if (target.defenses is None or defense in target.defenses) and (target.seeds is None or seed in target.seeds)
    ]


def group_cells(cells: Iterable[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Returns the cells of each (defence, attack), which are scored together, in their order."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.defense, cell.attack), []).append(cell)
    return groups


def undefended(params: Params) -> str:
    """Returns the defence with the least noise, under which attacks are compared."""
    return next(iter(name_defenses(params.model_dump()["defenses"])))


def attacked_clients(params: Params) -> list[str]:
    """Returns the clients that any attack targets, in the order of federation.clients."""
    targeted = {client for attack in params.attacks.values() for client in attack.targets}
    return [client for client in params.federation.clients if client in targeted]


def captured_clients(params: Params, defense: str) -> list[str]:
    """Returns the clients whose updates under a defence are kept: those attacked under it, or all where none is."""
    targeted = {cell.client for cell in list_cells(params) if cell.defense == defense}
    return [client for client in attacked_clients(params) if client in targeted or not targeted]


def high_risk_client(params: Params) -> str:
    """Returns the client that defences are judged by: the claims' high_risk, or the attacked one with fewest images."""
    if params.claims is not None:
        return params.claims.high_risk
    return min(attacked_clients(params), key=lambda name: params.federation.clients[name].images)


def adaptive_attacks(params: Params) -> list[str]:
    """Returns the attacks that know the defence."""
    attacks = params.attacks.items()
    return [name for name, each in attacks if resolve_threat_model(each, params.threat_model).defense == "known"]
