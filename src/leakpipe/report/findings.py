"""The verdicts in a sentence and a few tiles: nothing here is typed in, all of it is computed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from leakpipe.defenses.naming import name_defenses
from leakpipe.errors import LeakpipeError
from leakpipe.report.reading import describe_reading
from leakpipe.tables.defenses import least_loss_seen
from leakpipe.tables.verdicts import Verdict
from leakpipe.tables.wording import LEAKS, VERDICTS, count, select

FEW_IMAGES = 30  # fewer different images of a client than this are called few
LISTED = 4  # up to so many defences are named in the headline, more are counted


@dataclass(frozen=True)
class Tile:
    """The knowledge about one defence, over all attacked clients, attacks and rounds.

    Attributes:
        text: What the defence is called.
        word: The worst verdict of any client.
        why: What that one rests on; of several, the one with the least explained update.
        leaked: How many of `images` leaked, all clients together.
        strongest: Of the client that gained most on average.
        most: Of the client with the most leaked image.
        recognised: Of the client of whose reconstructions the largest share was recognised; None where nobody looked.
        cost: Its row of the table of defences; None where it has none.
    """

    defense: str
    text: str
    word: str
    why: str
    leaked: int
    images: int
    strongest: Verdict
    most: Verdict
    recognised: Verdict | None
    cost: Mapping[str, Any] | None


@dataclass(frozen=True)
class Findings:
    """The opening of the report.

    Attributes:
        word: The worst verdict of all.
        sentence: The rest of the finding.
        granted: What the attackers knew.
        reading: How much of the text in the images of the client that leaked most can be read; empty without text.
        sample: What little it rests on; empty where no client has few images.
        tiles: One for each defence, in the order of the parameters.
        worst: The verdict that the finding is about.
    """

    word: str
    sentence: str
    granted: str
    reading: str
    sample: str
    tiles: tuple[Tile, ...]
    worst: Verdict


def find(
    verdicts: Sequence[Verdict], leakage: pd.DataFrame, defenses: pd.DataFrame, params: Mapping[str, Any]
) -> Findings:
    """Works out the findings.

    Args:
        verdicts: On every client and defence (`leakpipe.tables.verdicts`).
        leakage: The leakage table.
        defenses: The table of defences (`leakpipe.tables.defenses`).
        params: All parameters.
    """
    if not verdicts:
        raise LeakpipeError("there are no verdicts to report on: the leakage table is empty")
    names, clients = name_defenses(params["defenses"]), params["federation"]["clients"]
    costs = {str(row["defense"]): row for row in defenses.to_dict("records")}
    under = {name: [verdict for verdict in verdicts if verdict.defense == name] for name in names}
    tiles = [_tile(name, names[name], found, costs.get(name)) for name, found in under.items() if found]
    first = next(tile for tile in tiles if tile.word == _worst(tile.word for tile in tiles))
    attacked = select(leakage, attack=first.strongest.attack, client=first.strongest.client)
    return Findings(
        word=first.word,
        sentence=f"{_describe_first(first, clients)} {_describe_others(first, tiles)}".strip(),
        granted=_describe_attackers(params),
        reading=describe_reading(attacked, names),
        sample=_sample(verdicts),
        tiles=tuple(tiles),
        worst=first.most,
    )


def _worst(words: Iterable[str]) -> str:
    return max(words, key=VERDICTS.index)


def _tile(name: str, text: str, found: Sequence[Verdict], cost: Mapping[Any, Any] | None) -> Tile:
    word = _worst(verdict.word for verdict in found)
    looked_up = [verdict for verdict in found if verdict.looked_up]
    return Tile(
        defense=name,
        text=text,
        word=word,
        why=min((verdict for verdict in found if verdict.word == word), key=_known_share).why,
        leaked=sum(verdict.leaked for verdict in found),
        images=sum(verdict.images for verdict in found),
        strongest=max(found, key=lambda verdict: verdict.gain),
        most=max(found, key=lambda verdict: verdict.most),
        recognised=max(looked_up, key=lambda verdict: verdict.identified / verdict.looked_up, default=None),
        cost=cost,
    )


def _known_share(verdict: Verdict) -> float:
    return -1.0 if math.isnan(verdict.explained) else verdict.explained


def _describe_first(tile: Tile, clients: Mapping[str, Any]) -> str:
    """The finding under the first defence that has the worst verdict."""
    where = _where(tile)
    if not tile.leaked:
        return f"{where}, {tile.why}."
    most = tile.most
    whose = "the only image" if clients[most.client]["images"] == 1 else "an image"
    return (
        f"{tile.leaked} of {count(tile.images, 'private image')} can be seen in updates sent {where}, best of all "
        f"{whose} of {most.client} (SSIM {most.most_ssim:.2f}, before the attack {most.most_prior:.2f})."
    )


def _describe_others(first: Tile, tiles: Sequence[Tile]) -> str:
    """The verdicts on the other defences, by name or, where there are many, by number."""
    others = [tile for tile in tiles if tile != first]
    if len(others) > LISTED:
        words = [tile.word for tile in others]
        counted = [f"{word} ({words.count(word)})" for word in reversed(VERDICTS) if word in words]
        return f"{len(others)} other defences: {', '.join(counted)}."
    leaking = [tile.text for tile in others if tile.word == LEAKS]
    parts = [f"under {' and '.join(leaking)}: {LEAKS}"] if leaking else []
    parts += [f"{_where(tile)}{_describe_cost(tile.cost)}: {tile.word}" for tile in others if tile.word != LEAKS]
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}." if said else ""


def _where(tile: Tile) -> str:
    return "without noise" if tile.text == "no noise" else f"under {tile.text}"


def _describe_cost(cost: Mapping[str, Any] | None) -> str:
    if cost is None or math.isnan(cost["accuracy_lost"]):
        return ""
    low, high = cost["accuracy_lost_low"], cost["accuracy_lost_high"]
    interval = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    unseen = ", less than can be seen" if abs(cost["accuracy_lost"]) < least_seen(cost) else ""
    return f" (test accuracy lower by {cost['accuracy_lost']:.2f}{interval}{unseen})".replace("-", "−")


def least_seen(cost: Mapping[Any, Any]) -> float:
    """The smallest loss of accuracy that the test images of a row of the table of defences can show."""
    return least_loss_seen(int(cost["test_images"]) * int(cost["draws"]))


def _describe_attackers(params: Mapping[str, Any]) -> str:
    """Returns what the attackers were granted, those with the same knowledge together."""
    by_knowledge: dict[str, list[str]] = {}
    for name, attack in params["attacks"].items():
        granted = {**params.get("threat_model", {}), **(attack.get("threat_model") or {})}
        by_knowledge.setdefault(_describe_knowledge(granted), []).append(name)
    if len(by_knowledge) == 1:
        return f"{next(iter(by_knowledge))}."
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in by_knowledge.items()) + "."


def _describe_knowledge(granted: Mapping[str, Any]) -> str:
    prior = {"class": "the mean public image of the victim's class", "gray": "no public image"}
    parts = [
        "the global model and one update of the client",
        prior.get(granted.get("prior", "all"), "the mean of public images (the prior)"),
        *(["the labels"] if granted.get("labels", "known") == "known" else []),
        *(["exact batch statistics"] if granted.get("batch_norm") == "exact" else []),
    ]
    knows = "and the defence" if granted.get("defense") == "known" else "but not the defence"
    return f"{', '.join(parts)}, {knows}"


def _sample(verdicts: Sequence[Verdict]) -> str:
    fewest: dict[str, Verdict] = {}
    for verdict in verdicts:
        if verdict.images < FEW_IMAGES:
            fewest.setdefault(verdict.client, verdict)
    parts = [f"{each.client}: {count(each.images, 'image')}, {count(each.draws, 'seed')}" for each in fewest.values()]
    return "; ".join(parts)


def list_means(leakage: pd.DataFrame, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Means of every attack, client and defence over images, seeds and rounds, in the order of the leakage table."""
    found = leakage.groupby(["attack", "client", "defense"], sort=False).agg(
        values=("ssim", "size"),
        seeds=("seed", "nunique"),
        ssim=("ssim", "mean"),
        highest=("ssim", "max"),
        prior=("ssim_prior", "mean"),
        rdlv=("rdlv", "mean"),
        rdlv_highest=("rdlv", "max"),
        explained=("explained", "mean"),
    )
    rows = [{str(key): value for key, value in row.items()} for row in found.reset_index().to_dict("records")]
    return [{**row, "defense": names[row["defense"]]} for row in rows if not math.isnan(row["ssim"])]
