"""The verdict on a client under a defence: it leaks, no leak was found, or the attacks cannot tell.

A privacy tool errs towards alarm. A verdict therefore rests on the worst of everything that was measured: on all
attacks together, on every captured round by itself, on each image and not on their mean, and on who can be recognised
beside how similar the pictures are. An attack's failure is a property of the attack: only where some attack
explained the update it was given, and still got nothing, is there "no leak found".
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields

import pandas as pd
from scipy.special import bdtrc

from leakpipe.randomness import derive_seed
from leakpipe.tables.statistics import FEWEST_CLUSTERS, bootstrap_mean
from leakpipe.tables.wording import CANNOT_TELL, LEAKS, NOTHING_FOUND

LEAK_MARGIN = 0.05
"""Gain in SSIM over the prior from which an image counts as leaked. The paper sees no leak of clients whose RDLV is
within about 0.1 of 0 (site-1 and site-5: −0.04 to −0.11 up to σ0 = 25); on priors with an SSIM of 0.3 to 0.5 that is
a gain of 0.03 to 0.05."""

EXPLAINS = 0.5
"""Share of the start's distance to the update that an attack must have removed before its silence says anything."""

CHANCE_LEVEL = 0.01
"""Largest probability at which recognising so many images may still be called chance."""


@dataclass(frozen=True)
class Verdict:
    """The joint verdict of all attacks on one client under one defence.

    Attributes:
        word: `leaks`, `no leak found` or `cannot tell`.
        why: What the word rests on, a clause without a full stop.
        attack: The strongest attack: the one with the largest mean gain in any captured round.
        round: That round.
        gain: Its mean gain over the prior in SSIM, in [−2, 2]; `low` and `high` are its 95 % interval over draws, NaN
            for fewer than 3 draws.
        images: How many different private images were attacked.
        leaked: How many of them gained more than `LEAK_MARGIN` under any attack in any round.
        most: The largest gain of a single image, with its `most_ssim` and `most_prior`.
        identified: Most reconstructions of one attack in one round that were recognised among all clients' images (the
            mean over ties), out of `looked_up`, where guessing would recognise `chance` of them; NaN, 0 and NaN where
            nobody looked.
        explained: Share of the start's distance to the update that the attack which explains most removed, in the round
            and draw in which least was explained; NaN where no attack matches an update.
        draws: Seeds that were attacked.
    """

    client: str
    defense: str
    word: str
    why: str
    attack: str
    round: int
    gain: float
    low: float
    high: float
    images: int
    leaked: int
    most: float
    most_ssim: float
    most_prior: float
    identified: float
    looked_up: int
    chance: float
    explained: float
    draws: int


VERDICT_COLUMNS = [field.name for field in fields(Verdict)]


def judge_cells(leakage: pd.DataFrame, identifiability: pd.DataFrame | None = None) -> list[Verdict]:
    """Judges every client under every defence that it was attacked under, in the order of the leakage table.

    Args:
        leakage: The leakage table; the column `explained` is the share of the start's distance to the update that
            the attack removed, in [0, 1], NaN where an attack matches nothing of it.
        identifiability: The identifiability table, if reconstructions were looked up.
    """
    cells = leakage.groupby(["client", "defense"], sort=False)
    return [_judge(str(client), str(defense), rows, identifiability) for (client, defense), rows in cells]


def tabulate_verdicts(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """The verdicts as a table of `VERDICT_COLUMNS`, a row for each client under each defence."""
    return pd.DataFrame([asdict(verdict) for verdict in verdicts], columns=VERDICT_COLUMNS)


def list_verdicts(table: pd.DataFrame) -> list[Verdict]:
    """The verdicts that a table of `VERDICT_COLUMNS` holds."""
    rows = table[VERDICT_COLUMNS].to_dict("records")
    return [Verdict(**{str(name): value for name, value in row.items()}) for row in rows]


def _judge(client: str, defense: str, rows: pd.DataFrame, identifiability: pd.DataFrame | None) -> Verdict:
    rows = rows.assign(gain=rows["ssim"] - rows["ssim_prior"])
    cells = {
        (str(attack), int(str(captured_round))): group
        for (attack, captured_round), group in rows.groupby(["attack", "round"], sort=False)
    }
    gained = {
        place: bootstrap_mean(
            group["gain"], clusters=group["seed"], seed=derive_seed("verdict", client, defense, *place)
        )
        for place, group in cells.items()
    }
    means = {place: float(group["gain"].mean()) for place, group in cells.items()}
    attack, captured_round = place = max(means, key=means.__getitem__)
    gains = rows.groupby(["seed", "image"], sort=False)["gain"].max()
    most = rows.sort_values("gain", kind="stable").iloc[-1]
    draws = rows["seed"].nunique()
    identified, looked_up, chance, recognises = _recognised(client, defense, identifiability)
    explained = least_explained(rows)
    leaked = int((gains > LEAK_MARGIN).sum())
    if leaked:
        word, why = LEAKS, f"{leaked} of {len(gains)} images show more than was known before"
    elif any(low > 0 for low, _ in gained.values()):
        word, why = LEAKS, "the images show more on average than was known before"
    elif any(_is_read(group) for group in cells.values()):
        word, why = LEAKS, "burned-in text is read, although no image is similar"
    elif recognises:
        word, why = LEAKS, "reconstructions are recognised more often than by chance, although no image is similar"
    else:
        word, why = _judge_silence(explained, draws)
        why += "" if looked_up else "; nobody looked up whom the reconstructions show"
    return Verdict(
        client=client,
        defense=defense,
        word=word,
        why=why,
        attack=attack,
        round=captured_round,
        gain=means[place],
        low=gained[place][0],
        high=gained[place][1],
        images=len(gains),
        leaked=leaked,
        most=float(most["gain"]),
        most_ssim=float(most["ssim"]),
        most_prior=float(most["ssim_prior"]),
        identified=identified,
        looked_up=looked_up,
        chance=chance,
        explained=explained,
        draws=draws,
    )


def _judge_silence(explained: float, draws: int) -> tuple[str, str]:
    """Returns the word where nothing was found, and the clause that says why."""
    if draws < FEWEST_CLUSTERS:
        return CANNOT_TELL, f"{draws} of at least {FEWEST_CLUSTERS} draws were attacked"
    if math.isnan(explained):
        return CANNOT_TELL, "no attack was measured by how much of the update it explains"
    if explained < EXPLAINS:
        return CANNOT_TELL, f"the attacks explain only {100 * explained:.0f} % of the update"
    return NOTHING_FOUND, f"by these attacks, which explain at least {100 * explained:.0f} % of the update"


def least_explained(rows: pd.DataFrame) -> float:
    """Returns the share explained in the round and draw in which least is, by the attack that explains most there."""
    return float(rows.groupby(["round", "seed"], sort=False)["explained"].max().min(skipna=False))


def _is_read(rows: pd.DataFrame) -> bool:
    """Returns whether more burned-in text is read than in the prior image and than by chance, on average over draws."""
    if "text_accuracy" not in rows or rows["text_accuracy"].isna().all():
        return False
    written = rows[rows["text_accuracy"].notna()]
    read = written["text_accuracy"] - written[["text_accuracy_prior", "text_chance"]].max(axis="columns")
    low, _ = bootstrap_mean(read, clusters=written["seed"], seed=derive_seed("verdict", "text"))
    return low > 0


def _recognised(client: str, defense: str, table: pd.DataFrame | None) -> tuple[float, int, float, bool]:
    """Returns the recognised reconstructions of the attack, round and embedder that has most; of how many; the share
    that guessing recognises; and whether any combination has more than chance explains, for as many as were looked at.
    """  # noqa: D205
    worst = (math.nan, 0, math.nan, False)
    if table is None:
        return worst
    rows = table[(table["client"] == client) & (table["defense"] == defense)]
    found = list(_look_ups(rows))
    if not found:
        return worst
    level = CHANCE_LEVEL / len(found)
    no_chance = any(chance_of_as_many(*each) <= level for each in found)
    hits, count, chance = max(found, key=lambda each: (each[0] / each[1], each[1]))
    return hits, count, chance, no_chance


def _look_ups(rows: pd.DataFrame) -> Iterator[tuple[float, int, float]]:
    """Yields the recognised reconstructions, all reconstructions, and the chance of recognising one by guessing."""
    for _, group in rows.groupby(["attack", "round", "embedder"], sort=False):
        yield float(group["top1"].sum()), len(group), float(group["chance_client"].max())


def chance_of_as_many(hits: float, count: int, chance: float) -> float:
    """Returns the probability of at least so many hits by guessing (binomial); ties count in favour of the attack."""
    needed = math.ceil(hits - 1e-9)
    return float(bdtrc(needed - 1, count, chance)) if needed > 0 else 1.0
