"""The paper's claims as checks: tables whose verdicts are known by construction, and what the rules promise."""

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from leakpipe.claims.evidence import FEWEST_DRAWS, Estimate
from leakpipe.claims.judge import judge_claims, list_questions
from leakpipe.claims.rules import INCONCLUSIVE, NOT_REPRODUCED, NOT_TESTED, REPRODUCED, Rule, TwoSidedRule
from leakpipe.cli.main import main
from leakpipe.data.files import save_dataset, save_split
from leakpipe.data.images import LabeledImages
from leakpipe.data.partition import Split
from leakpipe.defenses.naming import name_defenses
from leakpipe.files.storage import write_json
from leakpipe.params.claims import ClaimsParams
from leakpipe.tables.statistics import bootstrap_mean
from leakpipe.tables.table import LEAKAGE_COLUMNS, write_table
from leakpipe.tables.verdicts import LEAK_MARGIN
from leakpipe.tables.wording import CANNOT_TELL

ROLES = ClaimsParams(
    attack="ours",
    paper_attack="paper",
    earlier_attacks=("old",),
    weights_attack="weights",
    statistics_attack="statistics",
    high_risk="one",
    low_risk=("four", "eight"),
    more_images=("one", "four"),
    larger_batches=("four", "eight"),
    more_steps=("one", "one-twice"),
)
DEFENSES: dict[str, list[dict[str, Any]]] = {
    "loud": [{"kind": "gaussian", "sigma0": 20}],
    "none": [],
    "quiet": [{"kind": "gaussian", "sigma0": 1}],
    "mixed": [{"kind": "gaussian", "sigma0": 1}, {"kind": "gaussian", "sigma0": 1}],
}
Levels = Mapping[tuple[str, str, str], float]
LEVELS: Levels = {  # mean gain by attack, client, defence
    ("old", "one", "none"): 0.0,
    ("paper", "one", "none"): 0.3,
    ("paper", "four", "none"): 0.0,
    ("paper", "eight", "none"): -0.1,
    ("ours", "one", "none"): 0.6,
    ("ours", "one", "quiet"): 0.4,
    ("ours", "one", "loud"): -0.2,
    ("ours", "four", "none"): 0.3,
    ("ours", "eight", "none"): 0.3,
    ("ours", "one-twice", "none"): 0.6,
    ("weights", "one", "none"): 0.5,
    ("weights", "one", "quiet"): 0.2,
    ("statistics", "one", "none"): 0.1,
    ("statistics", "one", "quiet"): 0.1,
}
ACCURACY = {"none": 0.95, "quiet": 0.95, "loud": 0.85}
RECOGNISED = {"ours": 1.0}  # share of reconstructions whose nearest neighbour is the right image, under any defence
PUBLISHED = {"old": 100, "paper": 100, "ours": 100, "weights": 100, "statistics": 100}


def leakage_table(levels: Levels = LEVELS, *, draws: int = 8, scatter: float = 0.03) -> pd.DataFrame:
    """Two captured rounds, one image; gains scatter about their level, but have exactly this mean over draws."""
    rng = np.random.default_rng(0)
    rows = []
    for (attack, client, defense), level in levels.items():
        noise = scatter * rng.standard_normal(draws)
        for seed, number in product(range(draws), (1, 12)):
            gain = level + noise[seed] - noise.mean()
            row = {"seed": seed, "round": number, "attack": attack, "client": client, "defense": defense}
            rows.append(row | {"ssim": 0.3 + gain, "ssim_prior": 0.3, "iterations": 100, "explained": 0.9})
    return pd.DataFrame(rows)


def accuracy_table(accuracy: Mapping[str, float] = ACCURACY) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        [
            {"defense": defense, "seed": seed, "round": number, "test_accuracy": level * (number == 12) + 0.01 * noise}
            for defense, level in accuracy.items()
            for seed, noise in enumerate(rng.standard_normal(8))
            for number in (1, 12)
        ]
    )


def recognition_table(leakage: pd.DataFrame, hits: Mapping[str, float] = RECOGNISED) -> pd.DataFrame:
    """Two embedders, of which the second recognises as `hits` says of each attack, and the first nobody."""
    keys = leakage[["seed", "round", "attack", "client", "defense"]]
    seen = leakage["attack"].map(hits).fillna(0.0)
    tables = [keys.assign(embedder=name, top1=top1, chance_client=0.1) for name, top1 in (("a", 0.0), ("b", seen))]
    return pd.concat(tables, ignore_index=True)


def judge(
    leakage: pd.DataFrame,
    accuracy: pd.DataFrame | None = None,
    looked_up: pd.DataFrame | None = None,
    **roles: Any,
) -> dict[str, dict[str, Any]]:
    accuracy = accuracy_table() if accuracy is None else accuracy
    looked_up = recognition_table(leakage) if looked_up is None else looked_up
    judged = judge_claims(
        leakage,
        accuracy,
        roles=ROLES.model_copy(update=roles),
        defenses=DEFENSES,
        identifiability=looked_up,
        published=PUBLISHED,
    )
    return {claim["id"]: claim for claim in judged["claims"]}


SILENCE = "no-leak-to-ours-under-noise"
VERDICTS = {
    "old-fails": REPRODUCED,
    "paper-leaks": REPRODUCED,
    "ours-leaks": REPRODUCED,
    "paper-beats-old": REPRODUCED,
    "paper-leaks-in-every-round": REPRODUCED,
    "ours-leaks-in-every-round": REPRODUCED,
    "paper-no-leak-of-low-risk": REPRODUCED,
    "ours-no-leak-of-low-risk": NOT_REPRODUCED,
    "paper-more-images-leak-less": REPRODUCED,
    "paper-larger-batches-leak-less": REPRODUCED,
    "paper-more-local-steps-leak-less": NOT_TESTED,
    "ours-more-images-leak-less": REPRODUCED,
    "ours-larger-batches-leak-less": NOT_REPRODUCED,
    "ours-more-local-steps-leak-less": NOT_REPRODUCED,
    "no-leak-to-paper-under-noise": NOT_TESTED,
    "no-leak-to-ours-under-noise": REPRODUCED,
    "noise-costs-accuracy": REPRODUCED,
    "recognised-by-paper-under-noise": NOT_TESTED,
    "recognised-by-ours-under-noise": "recognised",
    "weights-alone": "leaks",
    "statistics-alone": "leaks",
    "which-part-leaks-more": "weights",
    "statistics-add": "statistics add to the leak",
    "statistics-add-under-noise": "statistics add to the leak",
}


def test_verdicts_are_those_built_into_the_tables() -> None:
    assert {name: claim["verdict"] for name, claim in judge(leakage_table()).items()} == VERDICTS


@pytest.mark.parametrize(
    ("changed", "verdicts"),
    [
        ({("old", "one", "none"): 0.3}, {"old-fails": NOT_REPRODUCED, "paper-beats-old": NOT_REPRODUCED}),
        ({("old", "one", "none"): LEAK_MARGIN}, {"old-fails": INCONCLUSIVE}),
        ({("paper", "one", "none"): 0.0}, {"paper-more-images-leak-less": NOT_REPRODUCED}),
        ({("ours", "one", "none"): 0.04}, {SILENCE: NOT_TESTED, "noise-costs-accuracy": NOT_TESTED}),
        ({("ours", "one", "loud"): 0.2}, {SILENCE: NOT_REPRODUCED, "noise-costs-accuracy": NOT_TESTED}),
        ({("ours", "one", "loud"): 0.05}, {SILENCE: INCONCLUSIVE, "noise-costs-accuracy": NOT_TESTED}),
        ({("ours", "one", "quiet"): -0.2}, {SILENCE: REPRODUCED, "noise-costs-accuracy": NOT_REPRODUCED}),
        ({("ours", "four", "none"): 0.0}, {"ours-no-leak-of-low-risk": NOT_REPRODUCED}),
        ({("ours", name, "none"): 0.0 for name in ("four", "eight")}, {"ours-no-leak-of-low-risk": REPRODUCED}),
        ({("ours", "four", "none"): 0.0, ("ours", "eight", "none"): 0.05}, {"ours-no-leak-of-low-risk": INCONCLUSIVE}),
        ({("weights", "one", "none"): 0.1}, {"which-part-leaks-more": "alike"}),
        ({("weights", "one", "none"): 0.0}, {"which-part-leaks-more": "statistics", "weights-alone": "no leak found"}),
        ({("weights", "one", "none"): 0.15}, {"which-part-leaks-more": INCONCLUSIVE}),
        ({("weights", "one", "none"): 0.6}, {"statistics-add": "statistics add nothing"}),
        ({("weights", "one", "quiet"): 0.4}, {"statistics-add-under-noise": "statistics add nothing"}),
    ],
)  # fmt: skip
def test_other_tables_have_other_verdicts(changed: Levels, verdicts: Mapping[str, str]) -> None:
    judged = judge(leakage_table({**LEVELS, **changed}))
    assert {name: judged[name]["verdict"] for name in verdicts} == verdicts


@pytest.mark.parametrize(("explained", "word"), [(0.6, "no leak found"), (0.4, "cannot tell"), (np.nan, "cannot tell")])
def test_silence_of_a_part_counts_only_where_its_attack_explains_the_update(explained: float, word: str) -> None:
    """One draw of one round in which little is explained is enough."""
    table = leakage_table({**LEVELS, ("weights", "one", "none"): 0.0})
    there = (table.attack == "weights") & (table.seed == 3) & (table["round"] == 12)
    assert judge(table.assign(explained=table.explained.mask(there, explained)))["weights-alone"]["verdict"] == word
    loud = leakage_table().assign(explained=explained)
    assert judge(loud)["weights-alone"]["verdict"] == "leaks", "a leak is a leak, whatever is explained"


@pytest.mark.parametrize(
    ("measured", "value", "verdicts"),
    [
        ("explained", 0.4, {SILENCE: CANNOT_TELL, "paper-no-leak-of-low-risk": CANNOT_TELL, "old-fails": REPRODUCED}),
        ("explained", np.nan, {SILENCE: CANNOT_TELL, "paper-no-leak-of-low-risk": CANNOT_TELL}),
        ("iterations", 99, {"old-fails": CANNOT_TELL, SILENCE: REPRODUCED, "ours-leaks": REPRODUCED}),
        ("iterations", 100, {"old-fails": REPRODUCED}),
    ],
)
def test_failure_counts_only_of_an_attack_that_explains_the_update_or_ran_in_full(
    measured: str, value: float, verdicts: Mapping[str, str]
) -> None:
    """One draw of one round that falls short is enough, and a leak is a leak all the same."""
    table = leakage_table()
    worst = (table.seed == 3) & (table["round"] == 12)
    judged = judge(table.assign(**{measured: table[measured].mask(worst, value)}))
    assert {name: judged[name]["verdict"] for name in verdicts} == verdicts
    assert all(judged[name]["missing"] for name in verdicts if verdicts[name] == CANNOT_TELL)
    costs, full = judged["noise-costs-accuracy"], judge(table)["noise-costs-accuracy"]
    assert costs == full, "what noise costs does not depend on what is known of the attack"


@pytest.mark.parametrize(
    ("hits", "explained", "verdict"),
    [(1.0, 0.1, "recognised"), (0.1, 0.9, "no leak found"), (0.1, 0.1, CANNOT_TELL), (0.15, 0.9, "no leak found")],
)
def test_recognition_counts_above_chance(hits: float, explained: float, verdict: str) -> None:
    table = leakage_table().assign(explained=explained)
    found = judge(table, looked_up=recognition_table(table, {"ours": hits}))["recognised-by-ours-under-noise"]
    assert found["verdict"] == verdict
    assert found["estimate"]["mean"] == pytest.approx(hits - 0.1)
    assert "by b, above chance" in found["estimate"]["of"]


def test_further_attacks_are_judged_on_the_high_risk_client() -> None:
    further = {**LEVELS, ("more", "one", "none"): 0.5, ("more", "one", "loud"): 0.4}
    judged = judge(leakage_table(further), further_attacks=("more",))
    added = {name: judged[name]["verdict"] for name in judged if "more" in name.split("-")}
    assert added["more-leaks"] == added["more-leaks-in-every-round"] == REPRODUCED
    assert added["no-leak-to-more-under-noise"] == NOT_REPRODUCED


def test_the_number_is_the_mean_over_draws_and_its_interval() -> None:
    rng = np.random.default_rng(5)
    leakage = leakage_table({("ours", "one", "none"): 0.5})
    leakage["ssim"] += 0.01 * rng.standard_normal(len(leakage))
    found = judge(leakage)["ours-leaks"]["estimate"]
    gains = [(rows["ssim"] - rows["ssim_prior"]).mean() for _, rows in leakage.groupby("seed")]
    low, high = bootstrap_mean(gains, seed=0)
    assert found["of"] == "ours (100 iterations) on one without noise"
    assert found["draws"] == 8
    assert [found["mean"], found["low"], found["high"]] == pytest.approx([np.mean(gains), low, high], abs=0.005)


def test_differences_are_taken_within_draws() -> None:
    """Both attacks vary by 0.5 from draw to draw, but together: the difference is known all the same."""
    leakage = leakage_table({("paper", "one", "none"): 0.3, ("old", "one", "none"): 0.1}, scatter=0.0)
    leakage["ssim"] += np.linspace(-0.8, 0.8, 8)[leakage["seed"]]
    judged = judge(leakage)
    assert judged["paper-leaks"]["verdict"] == INCONCLUSIVE
    assert judged["paper-beats-old"]["verdict"] == REPRODUCED
    found = judged["paper-beats-old"]["estimate"]
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((0.2, 0.2, 0.2))


def test_one_silent_round_refutes_a_leak_in_every_round() -> None:
    leakage = leakage_table()
    late = (leakage["attack"] == "paper") & (leakage["client"] == "one") & (leakage["round"] == 12)
    leakage.loc[late, "ssim"] -= 0.3
    judged = judge(leakage)
    assert judged["paper-leaks"]["verdict"] == REPRODUCED
    assert judged["paper-leaks-in-every-round"]["verdict"] == NOT_REPRODUCED
    assert judged["paper-leaks-in-every-round"]["estimate"]["of"].endswith("round 12")
    assert judged["ours-leaks-in-every-round"]["verdict"] == REPRODUCED


def test_the_smallest_noise_without_a_leak_is_named() -> None:
    judged = judge(leakage_table())
    assert judged["no-leak-to-ours-under-noise"]["estimate"]["of"].endswith("at σ0 = 20")
    assert judged["noise-costs-accuracy"]["estimate"]["of"].endswith("at σ0 = 20")
    assert judged["noise-costs-accuracy"]["estimate"]["mean"] == pytest.approx(0.1, abs=0.01)
    both = judge(leakage_table({**LEVELS, ("ours", "one", "quiet"): 0.0}))
    assert both["no-leak-to-ours-under-noise"]["estimate"]["of"].endswith("at σ0 = 1")
    not_monotone = judge(leakage_table({**LEVELS, ("ours", "one", "quiet"): 0.0, ("ours", "one", "loud"): 0.3}))
    assert not_monotone["no-leak-to-ours-under-noise"]["verdict"] == NOT_REPRODUCED


def test_too_few_draws_give_no_verdict() -> None:
    few = judge(leakage_table(draws=FEWEST_DRAWS - 1))
    for name, claim in few.items():
        assert claim["verdict"] in (NOT_TESTED, CANNOT_TELL), name
        assert claim["missing"]
        assert (claim["estimate"] is None) == (claim["verdict"] == NOT_TESTED)
    assert {name for name in few if few[name]["verdict"] == NOT_TESTED} == {
        *(name for name in VERDICTS if VERDICTS[name] == NOT_TESTED),
        "noise-costs-accuracy",  # which noise is not known
    }
    assert few["ours-leaks"]["missing"] == "5 draws of ours (100 iterations) on one without noise: there are 4 draws"
    assert few["ours-leaks"]["estimate"]["mean"] == pytest.approx(0.6)
    assert few["ours-leaks"]["estimate"]["low"] is None
    assert judge(leakage_table(draws=FEWEST_DRAWS))["ours-leaks"]["verdict"] == REPRODUCED


def test_what_is_missing_is_said() -> None:
    missing = {name: claim["missing"] for name, claim in judge(leakage_table()).items() if claim["missing"]}
    assert missing == {
        "paper-more-local-steps-leak-less": "attack paper on one-twice without noise",
        "no-leak-to-paper-under-noise": "attack paper on one under noise",
        "recognised-by-paper-under-noise": "attack paper on one under noise",
    }


def test_roles_that_nobody_plays_ask_nothing() -> None:
    bare = ClaimsParams(attack="ours", high_risk="one")
    asked = [question.id for question in list_questions(bare)]
    assert asked == [
        *("ours-leaks", "ours-leaks-in-every-round", "no-leak-to-ours-under-noise", "noise-costs-accuracy"),
        "recognised-by-ours-under-noise",
    ]
    judged = judge_claims(leakage_table(), accuracy_table(), roles=None, defenses=DEFENSES, published={})
    assert judged["claims"] == []
    assert judged["definitions"]


def test_rules_are_stated_without_a_number() -> None:
    questions = list_questions(ROLES)
    assert len({question.id for question in questions}) == len(questions)
    judged = judge(leakage_table({**LEVELS, ("ours", "one", "none"): 0.1}, scatter=0.2))
    for question in questions:
        for field in ("sentence", "source", "statistic", "rule"):
            assert getattr(question, field) == judged[question.id][field]
        assert question.sentence.endswith((".", "?"))
        assert judged[question.id]["verdict"] in (*question.rule.replace(";", ":").split(": "), NOT_TESTED), question.id


def estimate(low: float, high: float) -> Estimate:
    return Estimate("x", (low + high) / 2, low, high, 8)


def test_a_rule_draws_its_line_at_the_margin() -> None:
    rule = Rule(0.05, above="yes", below="no")
    assert [rule.judge(estimate(*ends)) for ends in ((0.06, 0.2), (0.05, 0.2), (-1, 0.05), (-1, 0.06))] == [
        "yes", INCONCLUSIVE, "no", INCONCLUSIVE,
    ]  # fmt: skip
    high, low, across = estimate(0.1, 0.2), estimate(-0.2, 0.0), estimate(0.0, 0.1)
    for hoped, estimates, verdict in (
        ("yes", [high, high], "yes"), ("yes", [high, across], INCONCLUSIVE), ("yes", [high, across, low], "no"),
        ("no", [low, low], "no"), ("no", [low, across], INCONCLUSIVE), ("no", [low, high], "yes"),
    ):  # fmt: skip
        assert rule.judge_all(estimates, hoped=hoped) == verdict


def test_a_two_sided_rule_has_three_answers() -> None:
    rule = TwoSidedRule(0.05, first="a", second="b", alike="same")
    ends = ((0.06, 0.2), (-0.2, -0.06), (-0.05, 0.05), (-0.2, 0.0), (0.04, 0.2))
    assert [rule.judge(estimate(*each)) for each in ends] == ["a", "b", "same", INCONCLUSIVE, INCONCLUSIVE]


def test_an_effect_at_the_margin_is_rarely_called_reproduced() -> None:
    """The mean gain is exactly the margin: a verdict either way is an error, wanted in at most 5 % of tables."""
    rng = np.random.default_rng(0)
    rule, verdicts = Rule(LEAK_MARGIN, above="yes", below="no"), []
    for seed in range(1000):
        values = LEAK_MARGIN + 0.1 * rng.standard_normal(8)
        low, high = bootstrap_mean(values, resamples=1000, seed=seed)
        verdicts.append(rule.judge(estimate(low, high)))
    assert verdicts.count(INCONCLUSIVE) / 1000 == pytest.approx(0.95, abs=0.025)


def test_the_command_writes_the_same_verdicts_and_tables_twice(tmp_path: Path) -> None:
    leakage = leakage_table().assign(rdlv=1.0).reindex(columns=LEAKAGE_COLUMNS)
    write_table(tmp_path / "leakage.csv", leakage)
    write_table(tmp_path / "accuracy.csv", accuracy_table().assign(experiment="x", validation_accuracy=0.5))
    labels = np.array([0, 1, 1, 1])
    images = LabeledImages(np.zeros((4, 1, 2, 2), np.float32), labels, ("a", "b"))
    save_dataset(tmp_path / "images.safetensors", images)
    save_split(tmp_path / "split.json", Split({}, (), (0, 1, 2, 3), ()), seed=0)
    federation = {"rounds": 1, "captured_rounds": [1], "learning_rate": 1, "local_epochs": 1}
    federation |= {"batch_norm_momentum": 0.1, "clients": {ROLES.high_risk: {"images": 1, "batch_size": 1}}}
    given = {"federation": federation, "defenses": DEFENSES, "privacy": {}, "published": PUBLISHED}
    arguments = ["judge", "--images", str(tmp_path / "images.safetensors"), "--split", str(tmp_path / "split.json")]
    arguments += [part for name, section in given.items() for part in (f"--{name}", json.dumps(section))]
    arguments += [part for name in leakage["attack"].unique() for part in ("--attack", name)]
    arguments += ["--client", ROLES.high_risk, "--high-risk", ROLES.high_risk]
    arguments += ["--leakage", str(tmp_path / "leakage.csv"), "--accuracy", str(tmp_path / "accuracy.csv")]
    written: dict[str, dict[str, bytes]] = {}
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        outputs = ["verdicts", "differences", "judged-claims", "guarantees", "defense-table", "attack-table"]
        out = [f"--{name}={tmp_path / run / name}" for name in outputs]
        done = CliRunner().invoke(main, [*arguments, *out, "--claims", ROLES.model_dump_json()])
        assert done.exit_code == 0, done.output
        written[run] = {name: (tmp_path / run / name).read_bytes() for name in outputs}
    assert written["a"] == written["b"]
    verdicts = {each["id"]: each["verdict"] for each in json.loads(written["a"]["judged-claims"])["claims"]}
    assert verdicts == VERDICTS | {"recognised-by-ours-under-noise": NOT_TESTED}, "nobody looked"
    table = pd.read_csv(tmp_path / "a" / "defense-table")
    # Chance is 3/4, of 4 images in each of 8 draws.
    assert table.set_index("defense")["destroyed"].to_dict() == {"none": False, "quiet": False, "loud": True}
    means = pd.read_csv(tmp_path / "a" / "attack-table").set_index(["attack", "client", "round"])
    (first, *_) = means.index
    rows = leakage.query("attack == @first[0] and client == @first[1] and round == @first[2]")
    rows = rows[rows["defense"] == next(iter(name_defenses(DEFENSES)))]
    assert means.loc[first, "ssim"] == pytest.approx(rows.ssim.mean(), abs=5e-5)
    write_json(tmp_path / "roles.json", {"attack": "ours"})
    refused = CliRunner().invoke(main, [*arguments, *out, "--claims", str(tmp_path / "roles.json")])
    assert refused.output == "Error: --claims: high_risk: required, but missing: add it\n"
