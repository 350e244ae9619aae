"""What an audit may conclude: from the true images where they are given, else from what the attacks say of themselves.

An attack's failure is a property of the attack: an audit says "leaks" or "cannot tell", never "no leak found".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from leakpipe.audit.calibration import Calibration, Prediction
from leakpipe.metrics.identifiability import identify
from leakpipe.metrics.matching import ASSIGNMENTS
from leakpipe.metrics.score import score_images
from leakpipe.metrics.similarity import ssim
from leakpipe.tables.verdicts import CHANCE_LEVEL, EXPLAINS, LEAK_MARGIN, chance_of_as_many
from leakpipe.tables.wording import CANNOT_TELL, LEAKS, count

LIKELY = 0.7  # lower end of the share of similar calibration cases that leaked, from which an audit says "leaks"


@dataclass(frozen=True)
class Attempt:
    """One reconstruction of one update, and what is known of it.

    Attributes:
        images: Shape (images, channels, height, width) in [0, 1].
        prior: Same shape: what the attacker knew before.
        explained: Share of the prior's distance to the update that the images remove; None where it has no meaning.
        seconds: What the attack took.
        notes: What the attack said, in sentences.
    """

    update: str
    defense: str
    attack: str
    images: np.ndarray
    prior: np.ndarray
    explained: float | None
    seconds: float
    iterations: int
    notes: Sequence[str]


@dataclass(frozen=True)
class Truth:
    """The client's own images, and people to look them up among.

    Attributes:
        images: Shape (images, channels, height, width) in [0, 1].
        candidates: Same but for the number: the client's images first, then others; None where nobody looks.
    """

    images: np.ndarray
    candidates: np.ndarray | None = None


@dataclass(frozen=True)
class Assessment:
    """What all attacks together say about one update under one defence.

    Attributes:
        word: `leaks` or `cannot tell`.
        why: What the word rests on, a clause without a full stop.
        best: The attempt that explains the update best, chosen without the truth.
        agreement: Mean SSIM between `best` and the attempt of another restart or attack that explains the update next
            best; NaN where there is none.
        predicted: What calibration cases with a like explanation and agreement turned out to be.
        scores: Rows of `leakpipe.metrics.score.score_images` of the most similar attempt; empty without the truth.
        strongest: The attempt that these rows are of; `best` without the truth.
        identified: How many of the client's images are the nearest candidate of their reconstruction; NaN if nobody
            looked.
        chance: Share that guessing would recognise; NaN if nobody looked.
    """

    update: str
    defense: str
    word: str
    why: str
    best: Attempt
    agreement: float
    predicted: Prediction
    strongest: Attempt
    scores: Sequence[Mapping[str, Any]] = ()
    identified: float = math.nan
    chance: float = math.nan

    @property
    def gain(self) -> float:
        """Largest gain in SSIM over the prior of any image; NaN without the truth."""
        return max((row["ssim"] - row["ssim_prior"] for row in self.scores), default=math.nan)

    @property
    def leaked(self) -> int:
        """How many images show more than was known before."""
        return sum(row["ssim"] - row["ssim_prior"] > LEAK_MARGIN for row in self.scores)


def assess(attempts: Sequence[Attempt], calibration: Calibration, truth: Truth | None = None) -> Assessment:
    """Judges all attempts on one update under one defence."""
    ordered = sorted(attempts, key=_explained, reverse=True)
    best = ordered[0]
    agreement = measure_agreement(ordered)
    predicted = calibration.predict(best.explained, agreement)
    found = Assessment(best.update, best.defense, CANNOT_TELL, "", best, agreement, predicted, best)
    return _judge_itself(found) if truth is None else _judge_by_truth(found, attempts, truth)


def measure_agreement(ordered: Sequence[Attempt]) -> float:
    """Returns the mean SSIM, image by image, of the two attempts that explain the update best; NaN for one attempt.

    Attempts of attacks that read the same part of the update would agree by themselves, so each counts: the order of
    the images is free, as in the update.
    """
    if len(ordered) < 2:
        return math.nan
    first, second = ordered[0].images, ordered[1].images
    similarity = np.array([[ssim(one, other, data_range=1.0) for other in second] for one in first])
    chosen = ASSIGNMENTS["optimal"](similarity)
    return float(similarity[np.arange(len(first)), chosen].mean())


def _judge_itself(found: Assessment) -> Assessment:
    """Judges by explanation and agreement alone."""
    predicted, explained = found.predicted, found.best.explained
    if explained is None:
        return replace(found, why="no attack can be measured by how much of the update it explains")
    said = f"the rebuilt images explain {100 * max(0.0, explained):.0f} % of the update"
    if predicted.low >= LIKELY:
        compared = f"{predicted.leaked} of {predicted.cases} known cases that look like this one leaked"
        return replace(found, word=LEAKS, why=f"{said}, and {compared}")
    if explained < EXPLAINS:
        return replace(found, why=f"{said}: these attacks did not find what is in it, which others may")
    known = "no case like this one is known"
    if predicted.cases:
        known = f"{predicted.leaked} of {predicted.cases} known cases like this one leaked"
    return replace(found, why=f"{said}, but {known}, which does not settle it")


def _judge_by_truth(found: Assessment, attempts: Sequence[Attempt], truth: Truth) -> Assessment:
    """Judges by the true images, the most similar attempt first."""
    scored = [(attempt, score_images(attempt.images, truth.images, attempt.prior)) for attempt in attempts]
    strongest, scores = max(scored, key=lambda each: max(row["ssim"] - row["ssim_prior"] for row in each[1]))
    identified = chance = math.nan
    if truth.candidates is not None:
        looked_up = [_identify(attempt, rows, truth) for attempt, rows in scored]
        identified, chance = max(looked_up)
    found = replace(found, strongest=strongest, scores=scores, identified=identified, chance=chance)
    total = len(truth.images)
    if found.leaked:
        best = max(scores, key=lambda row: row["ssim"] - row["ssim_prior"])
        which = "its one image" if total == 1 else f"{found.leaked} of its {total} images"
        why = f"{which} came back (SSIM {best['ssim']:.2f}, where {best['ssim_prior']:.2f} was known before)"
        return replace(found, word=LEAKS, why=why)
    if identified > 0 and chance_of_as_many(identified, total, chance) <= CHANCE_LEVEL:
        return replace(
            found, word=LEAKS, why=f"{identified:g} of {count(total, 'image')} are recognised among the candidates"
        )
    judged = _judge_itself(found)
    return replace(judged, word=CANNOT_TELL, why=f"no image is similar, and {judged.why}")


def _identify(attempt: Attempt, rows: Sequence[Mapping[str, Any]], truth: Truth) -> tuple[float, float]:
    """Returns how many images are recognised by their pixels, and the share that guessing recognises."""
    assert truth.candidates is not None
    flat = truth.candidates.reshape(len(truth.candidates), -1)
    taken = [row["reconstruction"] for row in rows]
    found = identify(
        attempt.images[taken].reshape(len(taken), -1),
        attempt.prior.reshape(len(taken), -1),
        flat,
        true=np.arange(len(taken)),
        top=(1,),
    )
    return sum(row["top1"] for row in found), found[0]["chance_client"]


def _explained(attempt: Attempt) -> float:
    return -math.inf if attempt.explained is None else attempt.explained


def tabulate(assessments: Sequence[Assessment], attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Returns a row for each attempt: what it took, what it explains, and what became of it."""
    by_cell = {(each.update, each.defense): each for each in assessments}
    rows = []
    for attempt in attempts:
        found = by_cell[attempt.update, attempt.defense]
        fields = {key: value for key, value in vars(attempt).items() if key not in ("images", "prior", "notes")}
        rows.append({**fields, "chosen": attempt is found.best, "word": found.word})
    return rows


def describe(found: Assessment) -> dict[str, Any]:
    """Returns what is written of an assessment, JSON-serialisable; numbers that do not exist are None."""
    said = {
        "update": found.update,
        "defense": found.defense,
        "word": found.word,
        "why": found.why,
        "attack": found.best.attack,
        "explained": found.best.explained,
        "agreement": found.agreement,
        "predicted": asdict(found.predicted),
        "strongest": found.strongest.attack,
        "ssim": max((row["ssim"] for row in found.scores), default=math.nan),
        "gain": found.gain,
        "leaked": found.leaked if found.scores else None,
        "images": len(found.best.images),
        "identified": found.identified,
        "chance": found.chance,
    }
    return {key: _without_nan(value) for key, value in said.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
