"""The evidence that claims are judged by: means over draws with their intervals, out of the tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from leakpipe.defenses.naming import noise_multipliers
from leakpipe.randomness import derive_seed
from leakpipe.tables.statistics import add_gain, bootstrap_mean, draw_means
from leakpipe.tables.verdicts import least_explained
from leakpipe.tables.wording import count

FEWEST_DRAWS = 5  # 95 % intervals of 3 and 4 draws hold the mean 75 and 87 % of the time, of 5 93 % (`bootstrap_mean`)


class UntestedError(Exception):
    """A claim cannot be judged; the message says what is missing."""


@dataclass(frozen=True)
class Estimate:
    """A mean over draws, each draw one value, and its 95 % interval.

    Attributes:
        of: What was averaged, in words.
        mean: The mean.
        low: Lower end of the interval, NaN for fewer than `FEWEST_DRAWS` draws.
        high: Upper end, NaN likewise.
        draws: How many.
        explained: Share of the update that the attack explains in the round and draw where it explains least; NaN where
            that is not measured, or several attacks are compared.
        effort: Iterations of the attack over the published ones, the least of all rounds and draws; NaN likewise.
    """

    of: str
    mean: float
    low: float
    high: float
    draws: int
    explained: float = math.nan
    effort: float = math.nan

    @property
    def few(self) -> str | None:
        """Says what is missing where there are too few draws for a verdict."""
        if self.draws >= FEWEST_DRAWS:
            return None
        there = f"{'is' if self.draws == 1 else 'are'} {count(self.draws, 'draw')}"
        return f"{FEWEST_DRAWS} draws of {self.of}: there {there}"


def estimate(of: str, values: pd.Series, *, explained: float = math.nan, effort: float = math.nan) -> Estimate:
    """Returns the mean of one value per draw with its interval; `UntestedError` without any draw."""
    if values.empty:
        raise UntestedError(f"a draw of {of}")
    enough = len(values) >= FEWEST_DRAWS
    low, high = bootstrap_mean(values, seed=derive_seed("claim", of)) if enough else (math.nan, math.nan)
    return Estimate(of, float(values.mean()), low, high, len(values), explained, effort)


class Evidence:
    """The tables of an experiment, as claims ask for them.

    Args:
        leakage: The leakage table.
        accuracy: The accuracy table.
        defenses: The `defenses` section of the parameters.
        identifiability: The identifiability table, if reconstructions were looked up.
        published: Iterations that each attack was published with.
    """

    def __init__(
        self,
        leakage: pd.DataFrame,
        accuracy: pd.DataFrame,
        defenses: Mapping[str, Sequence[Mapping[str, Any]]],
        *,
        identifiability: pd.DataFrame | None,
        published: Mapping[str, int],
    ) -> None:
        self._leakage = add_gain(leakage)
        self._identifiability = identifiability
        self._published = published
        self._accuracy = accuracy[accuracy["round"] == accuracy["round"].max()]
        self._sigma0 = noise_multipliers(defenses)

    @property
    def undefended(self) -> str:
        """Name of the setting without noise."""
        silent = [name for name, value in self._sigma0.items() if value == 0]
        if not silent:
            raise UntestedError("a defence without any step, to compare with")
        return silent[0]

    @property
    def rounds(self) -> list[int]:
        """Captured rounds."""
        return sorted(int(value) for value in self._leakage["round"].unique())

    def noises(self, *attacks: str, client: str) -> list[str]:
        """Defences that only add noise and under which all these attacks were run on a client, least noise first."""
        ran = self._leakage[self._leakage["client"] == client].groupby("attack")["defense"].agg(set)
        return [
            name
            for name, value in self._sigma0.items()
            if value > 0 and all(attack in ran.index and name in ran[attack] for attack in attacks)
        ]

    def describe(self, defense: str) -> str:
        """`without noise`, `at σ0 = 5`."""
        value = self._sigma0[defense]
        return f"at σ0 = {value:g}" if value else "without noise"

    def gains(self, attack: str, client: str, *, defense: str, round: int | None = None) -> pd.Series:
        """SSIM over that of the prior image, a mean over images (and captured rounds) for each draw.

        Raises:
            UntestedError: The attack was not run there.
        """
        return draw_means(self._rows(attack, client, defense, round), "gain")

    def gain(self, attack: str, client: str, *, defense: str, round: int | None = None) -> Estimate:
        """Mean of `gains` over draws."""
        rows = self._rows(attack, client, defense, round)
        where = "" if round is None else f", round {round}"
        ran = f"{attack} ({rows['iterations'].mean():.0f} iterations)"
        return estimate(
            f"{ran} on {client} {self.describe(defense)}{where}",
            draw_means(rows, "gain"),
            explained=least_explained(rows),
            effort=float(rows["iterations"].min()) / self._published.get(attack, math.nan),
        )

    def recognised(self, attack: str, client: str, *, defense: str) -> Estimate:
        """Share of reconstructions whose nearest neighbour is their image, minus what guessing recognises.

        By the embedder that recognises most. `UntestedError`: the attack was not run there, or nobody looked.
        """
        attacked = self._rows(attack, client, defense, None)
        where = f"{attack} on {client} {self.describe(defense)}"
        if self._identifiability is None:
            raise UntestedError(f"look-ups of reconstructions of {where}")
        rows = self._identifiability.query("attack == @attack and client == @client and defense == @defense")
        rows = rows.assign(above=rows["top1"] - rows["chance_client"])
        embedder = rows.groupby("embedder")["above"].mean().idxmax()
        found = draw_means(rows[rows["embedder"] == embedder], "above")
        of = f"recognised from {where} by {embedder}, above chance"
        return estimate(of, found, explained=least_explained(attacked))

    def accuracy_loss(self, defense: str) -> Estimate:
        """Test accuracy after the last round without noise, minus that under a defence, in the same draws."""
        by_draw = self._accuracy.set_index(["defense", "seed"])["test_accuracy"]
        lost = (by_draw[self.undefended] - by_draw[defense]).dropna()
        return estimate(f"test accuracy lost {self.describe(defense)}", lost)

    def _rows(self, attack: str, client: str, defense: str, round: int | None) -> pd.DataFrame:
        rows = self._leakage.query("attack == @attack and client == @client and defense == @defense")
        if round is not None:
            rows = rows[rows["round"] == round]
        if rows.empty:
            raise UntestedError(f"attack {attack} on {client} {self.describe(defense)}")
        return rows


def difference(of: str, first: pd.Series, second: pd.Series) -> Estimate:
    """Mean difference between two conditions over the draws that both had."""
    return estimate(of, (first - second).dropna())
