"""The conclusions that an audit may draw: from the true images where they are given, else from the attacks' own words.

An attack's failure is a property of the attack: an audit says "leaks" or "cannot tell", never "no leak found".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from leakpipe.audit.calibration import Calibration, Prediction
from leakpipe.audit.plan import STATISTICS_ALONE, WEIGHTS_ALONE
from leakpipe.metrics.identifiability import identify
from leakpipe.metrics.matching import ASSIGNMENTS, match_to_originals
from leakpipe.metrics.score import score_images
from leakpipe.metrics.similarity import ssim
from leakpipe.tables.verdicts import CHANCE_LEVEL, EXPLAINS, LEAK_MARGIN, chance_of_as_many
from leakpipe.tables.wording import CANNOT_TELL, LEAKS, count

PARTS = {STATISTICS_ALONE: "batch statistics", WEIGHTS_ALONE: "weight differences"}
CAME_BACK = 0.8  # SSIM of an image that an audit says came back
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
    """The joint verdict of all attacks on one update under one defence.

    Attributes:
        word: `leaks` or `cannot tell`.
        why: What the word rests on, a clause without a full stop.
        best: The attempt that explains the update best, chosen without the truth.
        agreement: Mean SSIM between `best` and the attempt of another restart or attack that explains the update next
            best; NaN where there is none.
        predicted: What calibration cases with a like explanation and agreement turned out to be.
        strongest: The attempt nearest to the true images, which an attacker could not choose: an upper bound of what
            this one could show; `best` without the truth.
        scores: Rows of `leakpipe.metrics.score.score_images` of every attempt by its attack; empty without the truth.
        identified: How many of the client's images are the nearest candidate of their reconstruction, by the attempt
            of which that is most; NaN if nobody looked.
        identified_by: The attack of that attempt.
        chance: Share that guessing would recognise; NaN if nobody looked.
        likeness: Mean SSIM of the images of `best` to those rebuilt from the update as it was sent; NaN for that one.
        parts: What each attack of `PARTS` shows that reads one part of the update only, by that part: SSIM of its most
            leaked image; without the truth, mean SSIM to the images of `best`. Parts that were not tried are left out.
    """

    update: str
    defense: str
    word: str
    why: str
    best: Attempt
    agreement: float
    predicted: Prediction
    strongest: Attempt
    scores: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    identified: float = math.nan
    identified_by: str = ""
    chance: float = math.nan
    likeness: float = math.nan
    parts: Mapping[str, float] = field(default_factory=dict)

    def most_leaked(self, attempt: Attempt) -> Mapping[str, Any]:
        """Returns the row of the image of an attempt that gained most over the prior; needs the truth."""
        return max(self.scores[attempt.attack], key=_gain)

    def similarity(self, attempt: Attempt) -> dict[str, float]:
        """Returns SSIM and gain over the prior of the most leaked image of an attempt; NaN without the truth."""
        if not self.scores:
            return {"ssim": math.nan, "gain": math.nan}
        most = self.most_leaked(attempt)
        return {"ssim": float(most["ssim"]), "gain": _gain(most)}

    @property
    def gain(self) -> float:
        """Largest gain in SSIM over the prior of any image of the strongest attempt; NaN without the truth."""
        return self.similarity(self.strongest)["gain"]

    @property
    def leaked(self) -> int:
        """The number of images of the strongest attempt show more than was known before."""
        return sum(_gain(row) > LEAK_MARGIN for row in self.scores[self.strongest.attack]) if self.scores else 0


def _gain(row: Mapping[str, Any]) -> float:
    """Returns what an image gained in SSIM over the prior."""
    return float(row["ssim"] - row["ssim_prior"])


def assess(attempts: Sequence[Attempt], calibration: Calibration, truth: Truth | None = None) -> Assessment:
    """Judges all attempts on one update under one defence."""
    ordered = sorted(attempts, key=_explained, reverse=True)
    best = ordered[0]
    agreement = measure_agreement(ordered)
    predicted = calibration.predict(best.explained, agreement)
    found = Assessment(best.update, best.defense, CANNOT_TELL, "", best, agreement, predicted, best)
    judged = _judge_itself(found) if truth is None else _judge_by_truth(found, attempts, truth)
    return replace(
        judged, parts={PARTS[each.attack]: _shown(judged, each) for each in attempts if each.attack in PARTS}
    )


def _shown(found: Assessment, attempt: Attempt) -> float:
    """Returns how similar an attempt is to the true images, without them to those of the best attempt."""
    if found.scores:
        return float(found.most_leaked(attempt)["ssim"])
    return measure_agreement([found.best, attempt])


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


def compare_with_sent(found: Assessment, sent: Assessment, calibration: Calibration) -> Assessment:
    """Compares what was rebuilt under a defence with what was rebuilt from the update as it was sent.

    Without the true images, those that the undefended update gave away stand in for them. A single attempt under the
    defence agrees with nothing else there: it must agree with the best one on the update as it was sent.
    """
    likeness = measure_agreement([sent.best, found.best])
    found = replace(found, likeness=likeness)
    if not sent.scores and math.isnan(found.agreement):
        predicted = calibration.predict(found.best.explained, likeness)
        found = _judge_itself(replace(found, word=CANNOT_TELL, agreement=likeness, predicted=predicted))
    before = measure_agreement([sent.best, replace(sent.best, images=sent.best.prior)])
    if sent.scores or sent.word != LEAKS or found.word == LEAKS or likeness - before <= LEAK_MARGIN:
        return found
    said = f"SSIM {likeness:.2f}, where {before:.2f} was known before"
    return replace(
        found, word=LEAKS, why=f"the images of {found.best.attack} are like those that leaked without it ({said})"
    )


def _judge_itself(found: Assessment) -> Assessment:
    """Judges by explanation and agreement alone."""
    predicted, explained = found.predicted, found.best.explained
    if explained is None:
        return replace(found, why="no attack can be measured by how much of the update it explains")
    said = f"images rebuilt by {found.best.attack} explain {100 * max(0.0, explained):.0f} % of the update"
    if predicted.low >= LIKELY:
        compared = f"{predicted.leaked} of {predicted.cases} known cases that look like this one leaked"
        return replace(found, word=LEAKS, why=f"{said}, and {compared}")
    if explained < EXPLAINS:
        return replace(found, why=f"{said}: these attacks did not find what is in it, which others may")
    if not predicted.cases:
        return replace(found, why=f"{said}, but no case like this one is known, which could tell what that means")
    known = f"{predicted.leaked} of {predicted.cases} known cases like this one leaked"
    if predicted.leaked >= LIKELY * predicted.cases:
        return replace(found, why=f"{said}, and {known}: probably a leak, but too few cases to be sure")
    return replace(found, why=f"{said}, but {known}, which does not settle it")


def _judge_by_truth(found: Assessment, attempts: Sequence[Attempt], truth: Truth) -> Assessment:
    """Judges by the true images, the most similar attempt first."""
    scores = {each.attack: score_images(each.images, truth.images, each.prior) for each in attempts}
    strongest = max(attempts, key=lambda each: max(map(_gain, scores[each.attack])))
    found = replace(found, strongest=strongest, scores=scores)
    if truth.candidates is not None:
        looked_up = [(*_identify(each, scores[each.attack], truth), each.attack) for each in attempts]
        identified, chance, by = max(looked_up)
        found = replace(found, identified=identified, identified_by=by, chance=chance)
    total = len(truth.images)
    if found.leaked:
        most = found.most_leaked(strongest)
        which = "its one image" if total == 1 else f"{found.leaked} of its {total} images"
        how = f"SSIM {most['ssim']:.2f} of 1 by {strongest.attack}, where {most['ssim_prior']:.2f} was known before"
        verb = "show" if found.leaked > 1 else "shows"
        said = "came back" if most["ssim"] >= CAME_BACK else f"{verb} more than was known before"
        return replace(found, word=LEAKS, why=f"{which} {said} ({how})")
    if found.identified > 0 and chance_of_as_many(found.identified, total, found.chance) <= CHANCE_LEVEL:
        said = f"{found.identified:g} of {count(total, 'image')} are recognised among the candidates"
        return replace(found, word=LEAKS, why=f"{said} by the images of {found.identified_by}")
    judged = _judge_itself(found)
    return replace(judged, word=CANNOT_TELL, why=f"no image is similar, and {judged.why}")


def take_nearest(images: np.ndarray, companions: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns, for each image of a reference, the most similar of all that an aggregate was rebuilt as.

    Nothing tells the attacker which client an image is of: the audited one's may have come out as another's.

    Args:
        images: Those of the audited client, shape (images, channels, height, width).
        companions: Those of the others.
        reference: The true images, or what was rebuilt from the update by itself; same shape as `images`.
    """
    every = np.concatenate([images, companions])
    similarity = np.array([[ssim(one, own, data_range=1.0) for one in every] for own in reference])
    nearest: np.ndarray = every[match_to_originals(similarity)]
    return nearest


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
