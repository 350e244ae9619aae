"""What the tables say, in a sentence and a few numbers: nothing here is typed in, all of it is computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from leakpipe.defenses.naming import name_defenses, noise_multipliers
from leakpipe.errors import LeakpipeError
from leakpipe.randomness import derive_seed
from leakpipe.report.reading import describe_reading
from leakpipe.tables.statistics import bootstrap_mean
from leakpipe.tables.wording import count, describe_client, select

FEW_IMAGES = 30  # fewer different images of a client than this are called few
ALMOST_EXACT = 0.9  # mean SSIM from which an image is called almost exactly rebuilt


@dataclass(frozen=True)
class Cell:
    """What one attack got out of one client under one defence, over images, seeds and captured rounds.

    Attributes:
        values: How many (image, seed, round) the numbers are over.
        images: How many different images those are of.
        seeds: Over how many seeds.
        rounds: Over how many captured rounds.
        ssim_low: Lower end of the 95 % interval of `ssim_mean` over seeds, NaN for fewer than three.
        ssim_high: Upper end of the same.
    """

    attack: str
    client: str
    client_text: str
    defense: str
    defense_text: str
    values: int
    images: int
    seeds: int
    rounds: int
    ssim_mean: float | None
    ssim_low: float
    ssim_high: float
    ssim_min: float | None
    ssim_max: float | None
    prior_mean: float
    rdlv_mean: float | None
    rdlv_min: float | None
    rdlv_max: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Findings:
    """What the report opens with.

    Attributes:
        sentence: The finding.
        reading: How much of the text in the images of the client that leaked most can be read; empty without text.
        sample: What little it rests on; empty where no client has few images.
        highlights: The cells of the headline numbers.
        accuracy: Name of the defence and test accuracy: without noise, and with the most.
        cells: All cells, in the order of the parameters.
    """

    sentence: str
    reading: str
    sample: str
    highlights: tuple[Cell, ...]
    accuracy: tuple[tuple[str, float | None], ...]
    cells: tuple[Cell, ...]


def find(leakage: pd.DataFrame, metrics: Mapping[str, Any], params: Mapping[str, Any]) -> Findings:
    """Work out the findings.

    Args:
        leakage: The leakage table.
        metrics: Headline numbers (`leakpipe.tables.headline.summarize`).
        params: All parameters; its first attack is the one that the experiment is about.
    """
    cells = _list_cells(leakage, metrics, params)
    attack = next(iter(params["attacks"]))
    defenses = list(name_defenses(params["defenses"]))
    open_cells = [cell for cell in cells if cell.attack == attack and cell.defense == defenses[0]]
    if not open_cells:
        raise LeakpipeError(f"the metrics hold nothing of attack {attack!r} under defence {defenses[0]!r}")
    worst = max(open_cells, key=lambda cell: (_known(cell.rdlv_mean), _known(cell.ssim_mean)))
    noisy = [cell for cell in cells if (cell.attack, cell.client) == (attack, worst.client)]
    noisy = [cell for name in noise_multipliers(params["defenses"]) for cell in noisy if cell.defense == name]
    others = [cell for cell in cells if cell.attack != attack and _place(cell) == _place(worst)]
    chosen = [worst, *(noisy[-1:] if noisy and noisy[-1] != worst else []), *others]
    chosen += [cell for cell in open_cells if cell != worst]
    accuracy = tuple((cell.defense_text, cell.accuracy) for cell in dict.fromkeys([worst, *noisy[-1:]]))
    attacked = select(leakage, attack=attack, client=worst.client)
    reading = describe_reading(attacked, name_defenses(params["defenses"]))
    return Findings(_sentence(worst, noisy), reading, _sample(open_cells), tuple(chosen), accuracy, cells)


def _list_cells(leakage: pd.DataFrame, metrics: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[Cell, ...]:
    clients, accuracy = params["federation"]["clients"], metrics["accuracy"]
    cells = []
    for attack in params["attacks"]:
        for client in clients:
            for defense, text in name_defenses(params["defenses"]).items():
                numbers = metrics["leakage"].get(attack, {}).get(client, {}).get(defense)
                if numbers is None:
                    continue
                rows = select(leakage, attack=attack, client=client, defense=defense)
                seed = derive_seed("ssim interval", attack, client, defense)
                low, high = bootstrap_mean(rows["ssim"], clusters=rows["seed"], seed=seed)
                cells.append(
                    Cell(
                        attack=attack,
                        client=client,
                        client_text=describe_client(client, clients[client]),
                        defense=defense,
                        defense_text=text,
                        values=numbers["images"],
                        images=rows["image"].nunique(),
                        seeds=rows["seed"].nunique(),
                        rounds=rows["round"].nunique(),
                        ssim_low=low,
                        ssim_high=high,
                        prior_mean=float(rows["ssim_prior"].mean()),
                        accuracy=accuracy.get(defense),
                        **{name: value for name, value in numbers.items() if name != "images"},
                    )
                )
    return tuple(cells)


def _sentence(worst: Cell, noisy: list[Cell]) -> str:
    """The finding about the client that leaked most, and about the noise under which no leak was found."""
    ssim, rdlv = _known(worst.ssim_mean), _known(worst.rdlv_mean)
    if rdlv <= 0:
        return (
            f"No leak found: attack {worst.attack} shows no more of the images of any client than its prior does. The "
            f"most is seen of {worst.client_text}, with a mean SSIM of {ssim:.2f} (prior: {worst.prior_mean:.2f})."
        )
    what = "rebuilds {} almost exactly" if ssim >= ALMOST_EXACT else "shows more of {} than the prior does"
    holds_one = worst.client_text.endswith(": 1 image")
    whose = f"the only image of {worst.client}" if holds_one else f"the images of {worst.client}"
    opening = (
        f"From one shared update ({worst.defense_text}), attack {worst.attack} {what.format(whose)}: "
        f"mean SSIM {ssim:.2f}, where the prior image has {worst.prior_mean:.2f}"
    )
    return f"{opening}; {_what_noise_does(worst, noisy)}."


def _what_noise_does(worst: Cell, noisy: list[Cell]) -> str:
    """The smallest tested noise from which on no image has an RDLV above zero."""
    stopping = None
    for cell in reversed(noisy):
        if cell == worst or _known(cell.rdlv_max) > 0:
            break
        stopping = cell
    if stopping is None:
        tested = len([cell for cell in noisy if cell != worst])
        return "no noise was tested" if tested == 0 else "it leaks under every tested amount of noise"
    text = f"under noise of {stopping.defense_text} no leak was found (mean SSIM {_known(stopping.ssim_mean):.2f}"
    if worst.accuracy is None or stopping.accuracy is None:
        return text + ")"
    kept, before = f"{stopping.accuracy:.2f}", f"{worst.accuracy:.2f}"
    return f"{text}), with a test accuracy of {kept}{', as without it' if kept == before else f' instead of {before}'}"


def _sample(cells: list[Cell]) -> str:
    few = [cell for cell in cells if cell.images < FEW_IMAGES]
    parts = [f"{cell.client}: {count(cell.images, 'image')}, {count(cell.seeds, 'seed')}" for cell in few]
    return "; ".join(parts)


def _place(cell: Cell) -> tuple[str, str]:
    return cell.client, cell.defense


def _known(value: float | None) -> float:
    return float("-inf") if value is None else value
