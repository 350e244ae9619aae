"""Figures: what is drawn is what the tables say, and the same tables give the same bytes."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leakpipe.cli.main import main
from leakpipe.code_version import imported_modules
from leakpipe.errors import LeakpipeError
from leakpipe.figures.attacks import describe_attacks, plot_attacks
from leakpipe.figures.lines import spread
from leakpipe.figures.noise import describe_noise, plot_noise
from leakpipe.figures.reconstructions import Pictures, choose_images, describe_reconstructions, plot_reconstructions
from leakpipe.figures.rounds import describe_rounds, plot_rounds
from leakpipe.figures.selection import name_defenses, noise_multipliers
from leakpipe.figures.style import save_figure
from leakpipe.storage import read_json, write_json

CLIENTS = {
    "eight": {"images": 3, "batch_size": 2},
    "one": {"images": 1, "batch_size": 1},
    "unattacked": {"images": 9, "batch_size": 3},
}
DEFENSES: dict[str, list[dict[str, Any]]] = {
    "loud": [{"kind": "gaussian", "sigma0": 20}],
    "none": [],
    "clipped": [{"kind": "clip", "norm": 1.0}],
    "quiet": [{"kind": "gaussian", "sigma0": 0.5}],
}
SIGMA0 = {"none": 0.0, "quiet": 0.5, "loud": 20.0}
ROUNDS = {"attack": "main", "defense": "none", "clients": CLIENTS, "compare": ["other"]}
NOISE = {"attack": "main", "sigma0": SIGMA0, "clients": CLIENTS}


def leakage_table(seed: int = 0) -> pd.DataFrame:
    """Two seeds, two rounds, a client of one image and one of three; `other` attacks only the first."""
    rng = np.random.default_rng(seed)
    rows = []
    for defense in DEFENSES:
        for number in (0, 1):
            for captured in (2, 7):
                for client, images in (("one", [10 + number]), ("eight", [20, 21, 22])):
                    for attack in ("main", "other") if client == "one" and defense == "none" else ("main",):
                        for index, image in enumerate(images):
                            ssim, prior = rng.uniform(-0.1, 1), rng.uniform(0.2, 0.5)
                            rows.append(
                                {
                                    "experiment": "x",
                                    "defense": defense,
                                    "seed": number,
                                    "round": captured,
                                    "client": client,
                                    "attack": attack,
                                    "image": image,
                                    "reconstruction": len(images) - 1 - index,
                                    "ssim": ssim,
                                    "ssim_prior": prior,
                                    "ssim_affine": (1 + ssim) / 2,
                                    "ssim_min_max": ssim,
                                    "ms_ssim": np.nan,
                                    "lpips": np.nan,
                                    "psnr": 20.0,
                                    "psnr_affine": 21.0,
                                    "psnr_registered": 20.0,
                                    "mse": 0.01,
                                    "rdlv": (ssim - prior) / prior,
                                    "label_accuracy": 1.0,
                                    "iterations": 5,
                                    "seconds": 1.5,
                                }
                            )
    return pd.DataFrame(rows)


ATTACKS = {"attacks": ["main", "other"], "defense": "none", "clients": CLIENTS}


def test_attacks_are_drawn_at_their_means() -> None:
    """A panel per client and round; the large marker is the mean over draws of the means over images."""
    table = leakage_table()
    table.loc[table.seed == 1, "seconds"] = 4.0
    figure = plot_attacks(table, **ATTACKS)
    panels = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_title(loc="left") for axes in panels[:2]] == ["one:\n1 image", "eight:\n3 images, batch 2"]
    rows = table[(table.defense == "none") & (table.client == "eight") & (table["round"] == 7)]
    assert rows.attack.unique().tolist() == ["main"]
    (faint, large, prior) = panels[3].lines
    np.testing.assert_allclose(faint.get_xdata(), [1.5, 4.0])
    np.testing.assert_allclose(faint.get_ydata(), rows.groupby("seed").ssim.mean())
    np.testing.assert_allclose(large.get_xydata(), [[2.75, rows.ssim.mean()]])
    np.testing.assert_allclose(prior.get_ydata(), rows.ssim_prior.mean())
    assert len(panels[0].lines) == 2 * 2 + 1


def test_the_caption_of_attacks_counts_draws() -> None:
    said = describe_attacks(leakage_table(), **ATTACKS)
    assert "one: 2 draws; eight: 2 draws. Attacks: main, other." in said


def test_the_attacks_command_writes_figure_and_table(tmp_path: Path) -> None:
    table = leakage_table()
    write_json(tmp_path / "clients.json", CLIENTS)
    table.to_csv(tmp_path / "leakage.csv", index=False)
    arguments = ["plot", "attacks", "--clients", tmp_path / "clients.json", "--leakage", tmp_path / "leakage.csv",
                 "--attack", "main", "--attack", "other", "--defense", "none", "--table", tmp_path / "attacks.csv",
                 "--svg", tmp_path / "a.svg", "--png", tmp_path / "a.png", "--caption", tmp_path / "a.txt"]  # fmt: skip
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.png").stat().st_size > 5000
    means = pd.read_csv(tmp_path / "attacks.csv").set_index(["attack", "client", "round"])
    rows = table.query("defense == 'none' and attack == 'main' and client == 'eight' and round == 2")
    assert means.loc[("main", "eight", 2), "ssim"] == pytest.approx(rows.ssim.mean(), abs=5e-5)
    assert means.loc[("main", "eight", 2), ["draws", "images"]].tolist() == [2, 6]
    assert means.loc[("other", "one", 7), ["draws", "images"]].tolist() == [2, 2]
    assert means[["ssim_low", "ssim_high"]].isna().all(axis=None), "two draws have no interval"


def accuracy_table() -> pd.DataFrame:
    rows = [
        {"experiment": "x", "defense": defense, "seed": seed, "round": number, "test_accuracy": accuracy}
        for number, shift in ((1, 0.3), (7, 0.0))
        for defense, level in (("none", 0.9), ("quiet", 0.85), ("clipped", 0.1), ("loud", 0.7))
        for seed, accuracy in ((0, level - shift), (1, level + 0.05 - shift))
    ]
    return pd.DataFrame(rows).assign(validation_accuracy=0.5)


def pictures() -> Pictures:
    """Each reconstruction is a flat gray that says which (defence, seed, client, index) it is."""
    originals = np.linspace(0, 1, 30, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 8, 8), np.float32)
    priors = {(seed, image): np.full((1, 8, 8), 0.5, np.float32) for seed in (0, 1) for image in range(30)}
    rebuilt = {
        (defense, seed, client): np.stack([np.full((1, 8, 8), gray_of(defense, seed, client, i)) for i in range(count)])
        for defense in DEFENSES
        for seed in (0, 1)
        for client, count in (("one", 1), ("eight", 3))
    }
    return Pictures(originals, priors, rebuilt)


def gray_of(defense: str, seed: int, client: str, index: int) -> float:
    return (list(DEFENSES).index(defense) * 12 + seed * 6 + (3 if client == "one" else 0) + index) / 100


def line(axes: Axes, label: str) -> Line2D:
    return next(drawn for drawn in axes.lines if drawn.get_label() == label)


def assert_dots_inside(axes: Axes) -> None:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for drawn in axes.lines:
        if drawn.get_transform() == axes.transData:
            x, y = np.asarray(drawn.get_xdata(), float), np.asarray(drawn.get_ydata(), float)
            assert left < x.min()
            assert x.max() < right
            assert low < y.min()
            assert y.max() < high


def images_of(figure: Figure) -> list[float]:
    """The gray of every picture, row by row from the top, left to right."""
    axes = sorted(figure.axes, key=lambda one: (-round(one.get_position().y0, 4), one.get_position().x0))
    return [float(np.asarray(one.images[0].get_array()).mean()) for one in axes]


def test_rounds_draws_the_means_of_each_client_and_attack() -> None:
    table = leakage_table()
    axes = plot_rounds(table, **ROUNDS).axes[0]
    for label, client, attack in (("one", "one", "main"), ("eight", "eight", "main"), ("one, other", "one", "other")):
        rows = table[(table.defense == "none") & (table.client == client) & (table.attack == attack)]
        means = [rows[rows["round"] == captured].rdlv.to_numpy().mean() for captured in (2, 7)]
        drawn = line(axes, label)
        np.testing.assert_allclose(np.asarray(drawn.get_ydata(), float), means)
        np.testing.assert_allclose(np.asarray(drawn.get_xdata(), float), [2, 7], atol=1)
        assert (drawn.get_linestyle() == "--") == (attack == "other")
    assert_dots_inside(axes)
    assert list(axes.get_xticks()) == [2, 7]


def test_rounds_draws_every_image_and_leaves_out_undefined_values() -> None:
    table = leakage_table()
    table.loc[(table.defense == "none") & (table.client == "eight") & (table.image == 20), "rdlv"] = np.nan
    axes = plot_rounds(table, **ROUNDS).axes[0]
    shown = np.sort(np.concatenate([np.asarray(d.get_ydata(), float) for d in axes.lines if d.get_alpha()]))
    expected = np.sort(table[table.defense == "none"].rdlv.dropna().to_numpy())
    np.testing.assert_allclose(shown, expected)
    assert np.isfinite(np.asarray(line(axes, "eight").get_ydata(), float)).all()
    assert "eight: 2 images, 2 seeds" in describe_rounds(table, **ROUNDS)


def test_noise_draws_the_means_of_leakage_and_of_the_last_rounds_accuracy() -> None:
    table, accuracy = leakage_table(), accuracy_table()
    upper, lower = plot_noise(table, accuracy, **NOISE).axes
    for client, label in (("one", "one: 1 image"), ("eight", "eight: 3 images, batch 2")):
        rows = table[(table.client == client) & (table.attack == "main")]
        means = [rows[rows.defense == name].rdlv.to_numpy().mean() for name in SIGMA0]
        np.testing.assert_allclose(np.asarray(line(upper, label).get_ydata(), float), means)
    np.testing.assert_allclose(np.asarray(line(lower, "test accuracy").get_ydata(), float), [0.925, 0.875, 0.725])
    assert [text.get_text().split("\n")[0] for text in lower.get_xticklabels()] == ["0", "0.5", "20"]
    assert_dots_inside(upper)
    assert_dots_inside(lower)
    assert "one: 2 images, 2 seeds, 2 rounds" in describe_noise(table, accuracy, **NOISE)
    assert "after round 7" in describe_noise(table, accuracy, **NOISE)


def test_reconstructions_stand_beside_their_own_original_under_each_defence() -> None:
    table, shown = leakage_table(), pictures()
    headings = name_defenses(DEFENSES)
    arguments: dict[str, Any] = {
        "attack": "main",
        "captured_round": 7,
        "defenses": headings,
        "clients": CLIENTS,
        "images_per_client": 2,
    }
    figure = plot_reconstructions(table, shown, **arguments)
    rows = table[(table["round"] == 7) & (table.attack == "main")]
    chosen = choose_images(rows, list(headings), CLIENTS, 2)
    expected = []
    for row in chosen.itertuples():
        expected += [float(shown.originals[row.image].mean()), 0.5]
        for defense in headings:
            cell = rows[(rows.defense == defense) & (rows.seed == row.seed) & (rows.image == row.image)].iloc[0]
            expected.append(gray_of(defense, row.seed, row.client, cell.reconstruction))
    np.testing.assert_allclose(images_of(figure), expected, atol=1e-6)
    said = {text.get_text() for text in figure.texts}
    for row in chosen.itertuples():
        scores = rows[(rows.seed == row.seed) & (rows.image == row.image)].ssim
        assert {f"{score:.2f}" for score in scores} <= said
    assert "one: 2 of 2 attacked images" in describe_reconstructions(table, **arguments)
    assert "eight: 2 of 3 attacked images" in describe_reconstructions(table, **arguments)


def test_the_images_shown_are_those_that_leaked_most_without_noise_each_once() -> None:
    rows = leakage_table()
    rows = rows[(rows["round"] == 7) & (rows.attack == "main")]
    chosen = choose_images(rows, ["none"], CLIENTS, 2)
    assert list(chosen.client) == ["one", "one", "eight", "eight"]
    undefended = rows[(rows.defense == "none") & (rows.client == "eight")]
    best = undefended.groupby("image").rdlv.max().sort_values(ascending=False)
    assert list(chosen.image[chosen.client == "eight"]) == list(best.index[:2])


def test_a_defence_that_an_image_was_not_attacked_under_is_said_so() -> None:
    table = leakage_table()
    table = table[(table.defense != "loud") | (table.client != "one")]
    headings = name_defenses(DEFENSES)
    figure = plot_reconstructions(
        table, pictures(), attack="main", captured_round=7, defenses=headings, clients=CLIENTS, images_per_client=1
    )
    assert len(figure.axes) == 2 * (2 + len(headings)) - 1
    assert "not attacked" in {text.get_text() for text in figure.texts}


def test_figures_repeat_to_the_byte(tmp_path: Path) -> None:
    drawn = {
        "rounds": lambda: plot_rounds(leakage_table(), **ROUNDS),
        "noise": lambda: plot_noise(leakage_table(), accuracy_table(), **NOISE),
        "reconstructions": lambda: plot_reconstructions(
            leakage_table(), pictures(), attack="main", captured_round=2, defenses={"none": "no"}, clients=CLIENTS
        ),
    }
    for name, draw in drawn.items():
        contents = []
        for attempt in ("first", "second"):
            svg, png = tmp_path / f"{name}-{attempt}.svg", tmp_path / f"{name}-{attempt}.png"
            save_figure(draw(), svg=svg, png=png)
            contents.append((svg.read_bytes(), png.read_bytes()))
        assert contents[0] == contents[1]
        assert b"<dc:date>" not in contents[0][0]


def test_other_numbers_give_another_figure(tmp_path: Path) -> None:
    paths = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for seed, path in enumerate(paths):
        save_figure(plot_rounds(leakage_table(seed), **ROUNDS), svg=path, png=path.with_suffix(".png"))
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_noise_multipliers_are_those_of_defences_that_are_nothing_but_noise() -> None:
    assert list(noise_multipliers(DEFENSES).items()) == [("none", 0.0), ("quiet", 0.5), ("loud", 20.0)]
    assert list(name_defenses(DEFENSES)) == ["none", "quiet", "loud", "clipped"]
    assert noise_multipliers({"two": [DEFENSES["loud"][0], DEFENSES["quiet"][0]]}) == {}


def test_an_attack_that_the_table_does_not_hold_is_an_error_that_names_it() -> None:
    with pytest.raises(LeakpipeError, match="attack 'absent'"):
        plot_rounds(leakage_table(), **{**ROUNDS, "attack": "absent"})
    with pytest.raises(LeakpipeError, match=r"client 'one'.*not among eight"):
        plot_rounds(leakage_table(), **{**ROUNDS, "clients": {"eight": CLIENTS["eight"]}})
    with pytest.raises(LeakpipeError, match="no rows for any of the defences absent"):
        plot_noise(leakage_table(), accuracy_table(), **{**NOISE, "sigma0": {"absent": 1.0}})


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [3.0, 1.0, 1.1, 2.9], [0.0, 5.0], [1.0]])
def test_spread_keeps_order_centre_and_distance(values: list[float]) -> None:
    placed = spread(values, gap=0.5)
    ordered = [height for _, height in sorted(zip(values, placed, strict=True))]
    assert all(later - earlier >= 0.5 - 1e-9 for earlier, later in pairwise(ordered))
    assert np.mean(placed) == pytest.approx(np.mean(values))
    if values == [0.0, 5.0]:
        assert placed == values


def test_the_command_writes_figure_caption_and_record(tmp_path: Path) -> None:
    leakage_table().to_csv(tmp_path / "leakage.csv", index=False)
    write_json(tmp_path / "clients.json", CLIENTS)
    outputs = {kind: tmp_path / f"rounds.{kind}" for kind in ("svg", "png", "txt")}
    arguments = ["plot", "rounds", "--clients", str(tmp_path / "clients.json")]
    arguments += ["--leakage", str(tmp_path / "leakage.csv"), "--attack", "main", "--defense", "none"]
    arguments += ["--svg", str(outputs["svg"]), "--png", str(outputs["png"]), "--caption", str(outputs["txt"])]
    done = CliRunner().invoke(main, [*arguments, "--record", str(tmp_path / "record.json")])
    assert done.exit_code == 0, done.output
    assert outputs["png"].read_bytes().startswith(b"\x89PNG")
    assert "attack main" in outputs["txt"].read_text(encoding="utf-8")
    assert read_json(tmp_path / "record.json")["artifacts"] == [str(outputs["svg"]), str(outputs["png"])]


def test_the_code_of_one_figure_is_not_the_code_of_another() -> None:
    for name in ("rounds", "noise", "reconstructions"):
        closure = imported_modules(f"leakpipe.cli.plot_{name}")
        drawn = closure & {f"leakpipe.figures.{other}" for other in ("rounds", "noise", "reconstructions")}
        assert drawn == {f"leakpipe.figures.{name}"}
