"""All figures: the same tables give the same bytes, each has a command, a heading and code of its own."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from leakpipe.cli.main import main
from leakpipe.cli.plot import FIGURES
from leakpipe.defenses.naming import name_defenses, noise_multipliers
from leakpipe.errors import LeakpipeError
from leakpipe.figures.attacks import draw_attacks
from leakpipe.figures.catalog import ENTRIES, describe_figure, list_figures, name_command
from leakpipe.figures.clients import draw_clients
from leakpipe.figures.effect import draw_effect
from leakpipe.figures.lines import spread
from leakpipe.figures.maps import draw_maps
from leakpipe.figures.noise import draw_noise
from leakpipe.figures.overview import draw_overview
from leakpipe.figures.reconstructions import draw_reconstructions
from leakpipe.figures.rounds import draw_rounds
from leakpipe.figures.style import COLORS, Drawing
from leakpipe.figures.tradeoff import draw_tradeoff
from leakpipe.files.storage import read_json, write_json
from leakpipe.params.experiment import FigureName
from leakpipe.records.code_version import imported_modules
from leakpipe.tables.defenses import DEFENSE_COLUMNS
from tests.unit.figure_tables import ATTACKS, CLIENTS, DEFENSES, NOISE, ROUNDS, accuracy_table, leakage_table
from tests.unit.test_figure_pictures import MAPS, OVERVIEW, textured_pictures
from tests.unit.test_figure_points import EFFECT

DRAWN: dict[str, Callable[[pd.DataFrame], Drawing]] = {
    "overview": lambda table: draw_overview(table, textured_pictures().originals, **OVERVIEW),
    "reconstructions": lambda table: draw_reconstructions(
        table, textured_pictures(), attack="main", captured_round=7, defenses={"none": "no noise"}, clients=CLIENTS
    ),
    "maps": lambda table: draw_maps(table, textured_pictures(), **MAPS),
    "rounds": lambda table: draw_rounds(table, **ROUNDS),
    "noise": lambda table: draw_noise(table, accuracy_table(), **NOISE),
    "clients": lambda table: draw_clients(table, attack="main", defense="none", local_epochs=1, clients=CLIENTS),
    "tradeoff": lambda table: draw_tradeoff(
        table,
        accuracy_table(),
        attack="main",
        defenses=name_defenses(DEFENSES),
        clients=CLIENTS,
        destroyed=[DESTROYED["defense"]],
    ),
    "effect": lambda table: draw_effect(table, comparison=EFFECT, defense="none", clients=CLIENTS),
    "attacks": lambda table: draw_attacks(table, **ATTACKS),
}


DESTROYED = {"defense": "loud", "destroyed": True}  # of the defence table

NOUNS = ("image", "attacked image", "seed", "draw")


def save(drawing: Drawing, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    paths = {kind: folder / f"figure.{kind}" for kind in ("svg", "png", "txt")}
    drawing.save(svg=paths["svg"], png=paths["png"], caption=paths["txt"])
    return {kind: path.read_bytes() for kind, path in paths.items()}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_repeats_to_the_byte_and_other_numbers_give_another(name: str, tmp_path: Path) -> None:
    first, second = (save(DRAWN[name](leakage_table()), tmp_path / attempt) for attempt in ("first", "second"))
    assert first == second
    assert b"<dc:date>" not in first["svg"]
    other = save(DRAWN[name](leakage_table(seed=1)), tmp_path / "other")
    assert other["svg"] != first["svg"]
    assert other["png"] != first["png"]


@pytest.mark.parametrize("name", DRAWN)
def test_a_caption_says_how_many_and_what_the_interval_is(name: str) -> None:
    caption = DRAWN[name](leakage_table()).caption
    assert any(word in caption for word in ("95 % interval", "no interval"))
    assert any(f" {number} {noun}" in caption for number in (2, 3) for noun in NOUNS)
    assert caption.endswith(".")
    assert "  " not in caption
    assert ".." not in caption


def test_every_figure_of_the_parameters_has_a_command_and_a_heading() -> None:
    names = set(get_args(FigureName)) - {"effects"}
    assert set(ENTRIES) == names
    elsewhere = {"identifiability", "front", "bound"}  # read other tables, and have tests of their own
    assert set(FIGURES) == set(DRAWN) | elsewhere == names | {"effect"}


def test_comparisons_are_figures_of_their_own_where_the_reader_should_see_them() -> None:
    comparisons = {"bn": {"title": "What BN gives away"}, "prior": {"title": "Effect of the prior"}}
    names = list_figures(("rounds", "effects", "noise"), comparisons)
    assert names == ["rounds", "effect-bn", "effect-prior", "noise"]
    assert describe_figure("effect-bn", comparisons).heading == "What BN gives away"
    assert describe_figure("noise", comparisons) is ENTRIES["noise"]
    for unknown in ("effect-absent", "bn", "nois"):
        with pytest.raises(LeakpipeError, match=rf"unknown figure '{unknown}'; known: overview.*effect-prior"):
            describe_figure(unknown, comparisons)
    assert [name_command(name) for name in names] == ["rounds", "effect", "effect", "noise"]


def test_the_palette_is_okabe_and_itos() -> None:
    assert set(COLORS) <= {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000"}
    assert len(set(COLORS)) == len(COLORS)


def test_noise_multipliers_are_those_of_defences_that_are_nothing_but_noise() -> None:
    assert list(noise_multipliers(DEFENSES).items()) == [("none", 0.0), ("quiet", 0.5), ("loud", 20.0)]
    assert list(name_defenses(DEFENSES)) == ["none", "quiet", "loud", "clipped"]
    assert noise_multipliers({"two": [DEFENSES["loud"][0], DEFENSES["quiet"][0]]}) == {}


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [3.0, 1.0, 1.1, 2.9], [0.0, 5.0], [1.0]])
def test_spread_keeps_order_centre_and_distance(values: list[float]) -> None:
    placed = spread(values, gap=0.5)
    ordered = [height for _, height in sorted(zip(values, placed, strict=True))]
    assert all(later - earlier >= 0.5 - 1e-9 for earlier, later in pairwise(ordered))
    assert np.mean(placed) == pytest.approx(np.mean(values))
    if values == [0.0, 5.0]:
        assert placed == values


def run(*arguments: Any) -> None:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("rounds", ["--attack", "main", "--defense", "none", "--compare", "other"]),
        ("noise", ["--attack", "main", "--defenses", "defenses.json", "--accuracy", "accuracy.csv"]),
        (
            "tradeoff",
            ["--attack", "main", "--defenses", "defenses.json", "--accuracy", "accuracy.csv", "--table", "table.csv"],
        ),
        ("clients", ["--attack", "main", "--defense", "none", "--local-epochs", "1"]),
        ("effect", ["--comparison", "comparison.json", "--defense", "none"]),
        ("attacks", ["--attack", "main", "--attack", "other", "--defense", "none"]),
    ],
)
def test_a_command_writes_figure_caption_and_record(
    name: str, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    leakage_table().to_csv("leakage.csv", index=False)
    accuracy_table().to_csv("accuracy.csv", index=False)
    pd.DataFrame([DESTROYED], columns=DEFENSE_COLUMNS).to_csv("table.csv", index=False)
    for file, content in (("clients", CLIENTS), ("defenses", DEFENSES), ("comparison", EFFECT)):
        write_json(Path(f"{file}.json"), content)
    outputs = ["--svg", "a.svg", "--png", "a.png", "--caption", "a.txt", "--record", "record.json"]
    run("plot", name, "--clients", "clients.json", "--leakage", "leakage.csv", *settings, *outputs)
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    assert Path("a.txt").read_text(encoding="utf-8") == DRAWN[name](leakage_table()).caption + "\n"
    record = read_json(Path("record.json"))
    assert (record["rule"], record["artifacts"]) == ("plot", ["a.svg", "a.png"])
    assert record["params"].get("defense", "none") == "none"
    assert not {"accuracy", "clients", "defenses", "comparison"} & set(record["params"]), "names and numbers only"


def test_compare_attacks_writes_the_table_of_means(tmp_path: Path) -> None:
    table = leakage_table()
    table.to_csv(tmp_path / "leakage.csv", index=False)
    run("compare-attacks", "--leakage", tmp_path / "leakage.csv", "--defense", "none", "--out", tmp_path / "a.csv")
    means = pd.read_csv(tmp_path / "a.csv").set_index(["attack", "client", "round"])
    rows = table.query("defense == 'none' and attack == 'main' and client == 'eight' and round == 2")
    assert means.loc[("main", "eight", 2), "ssim"] == pytest.approx(rows.ssim.mean(), abs=5e-5)
    assert means.loc[("main", "eight", 2), ["draws", "images"]].tolist() == [2, 6]
    assert means.loc[("other", "one", 7), ["draws", "images"]].tolist() == [2, 2]
    assert means[["ssim_low", "ssim_high"]].isna().all(axis=None), "two draws have no interval"


@pytest.mark.parametrize("name", DRAWN)
def test_the_code_of_one_figure_is_not_the_code_of_another(name: str) -> None:
    closure = imported_modules(f"leakpipe.cli.plot_{name}")
    assert closure & {f"leakpipe.figures.{other}" for other in DRAWN} == {f"leakpipe.figures.{name}"}
