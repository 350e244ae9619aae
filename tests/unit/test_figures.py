"""All figures of the registry: the same bytes for the same tables, and a caption, a heading and code of their own."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import matplotlib
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.text import Text

from leakpipe.attacks.files import save_reconstruction
from leakpipe.cli.main import main
from leakpipe.data.files import save_dataset, save_split
from leakpipe.data.images import LabeledImages
from leakpipe.data.partition import Split
from leakpipe.defenses.naming import name_defenses, noise_multipliers
from leakpipe.errors import LeakpipeError
from leakpipe.experiment.reading import load_params
from leakpipe.figures.inputs import NEEDS, Files
from leakpipe.figures.lines import spread
from leakpipe.figures.registry import all_figures, figure, find_figure, list_figures
from leakpipe.figures.settings import choose_settings
from leakpipe.figures.style import COLORS, Drawing
from leakpipe.files.storage import read_json, write_json
from leakpipe.params.experiment import FigureName
from leakpipe.records.code_version import imported_modules
from tests.conftest import PROJECT
from tests.unit.figure_tables import DEFENSES, EFFECT, SETTINGS, draw, tables

NAMES = [name if name != "effect" else "effect-thing" for name in all_figures()]
NOUNS = ("image", "attacked image", "seed", "draw", "reconstruction")


def save(drawing: Drawing, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    paths = {kind: folder / f"figure.{kind}" for kind in ("svg", "png", "txt")}
    drawing.save(svg=paths["svg"], png=paths["png"], caption=paths["txt"])
    return {kind: path.read_bytes() for kind, path in paths.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_repeats_to_the_byte_and_other_numbers_give_another(name: str, tmp_path: Path) -> None:
    first, second = (save(draw(name), tmp_path / attempt) for attempt in ("first", "second"))
    assert first == second
    assert b"<dc:date>" not in first["svg"]
    other = save(draw(name, **tables(seed=1)), tmp_path / "other")
    assert other["svg"] != first["svg"]
    assert other["png"] != first["png"]


@pytest.mark.parametrize("name", NAMES)
def test_a_caption_says_how_many_and_what_the_interval_is(name: str) -> None:
    caption = draw(name).caption
    assert any(word in caption for word in ("95 % interval", "95 % bootstrap interval", "no interval"))
    assert any(f" {number} {noun}" in caption for number in (2, 3, 4, 12) for noun in NOUNS)
    assert caption.endswith(".")
    assert "  " not in caption
    assert ".." not in caption


def test_a_readers_matplotlibrc_changes_no_byte(tmp_path: Path) -> None:
    own = {"text.usetex": True, "font.size": 30.0, "savefig.dpi": 7, "axes.facecolor": "black", "svg.hashsalt": "x"}
    expected = save(draw("rounds"), tmp_path / "expected")
    with matplotlib.rc_context(own):
        assert save(draw("rounds"), tmp_path / "figure") == expected


def test_dollars_in_a_title_are_dollars(tmp_path: Path) -> None:
    """matplotlib alone takes what is between two of them for TeX."""
    titled = {**EFFECT, "title": r"$5 or $\nothing{", "attacks": {"main": "$a^2$", "other": "$_$"}}
    figure = draw("effect-thing", comparison=titled)
    save(figure, tmp_path / "figure")
    said = [text.get_text() for text in figure.figure.findobj(Text)]
    assert {r"$5 or $\nothing{", "$a^2$", "$_$"} <= {*said}


def test_every_figure_of_the_parameters_is_registered_and_takes_what_there_is() -> None:
    assert {name if name != "effect" else "effects" for name in all_figures()} == set(get_args(FigureName))
    params = load_params(PROJECT / "params.yaml", PROJECT / "experiments" / "claims.yaml")
    settings = choose_settings(params)
    for name in list_figures(params.figures, params.comparisons):
        found = find_figure(name, params.model_dump()["comparisons"])
        required = {each for each, is_required in found.takes.items() if is_required}
        assert required <= set(found.choose(settings)), name
        assert found.files <= set(Files.__dataclass_fields__)


def test_a_figures_parameters_say_what_it_reads_and_takes() -> None:
    found = find_figure("noise", {})
    assert found.reads == ("leakage", "accuracy")
    assert found.takes == {"adaptive": True, "sigma0": True, "clients": True}
    assert find_figure("maps", {}).takes["images_per_client"] is False
    assert find_figure("maps", {}).files == {"leakage", "images", "splits", "reconstruction"}
    with pytest.raises(LeakpipeError, match="figure 'noise' takes 'sigma0', which is missing"):
        found.choose({"adaptive": ["main"], "clients": {}})
    with pytest.raises(ValueError, match="registered twice"):
        figure("noise", heading="Again", about="The same.")(lambda: None)  # type: ignore[arg-type, return-value]


def test_comparisons_are_figures_of_their_own_where_the_reader_should_see_them() -> None:
    comparisons = {"bn": {"title": "What BN gives away"}, "prior": {"title": "Effect of the prior"}}
    names = list_figures(("rounds", "effects", "noise"), comparisons)
    assert names == ["rounds", "effect-bn", "effect-prior", "noise"]
    assert find_figure("effect-bn", comparisons).heading == "What BN gives away"
    assert find_figure("effect-bn", comparisons).comparison is comparisons["bn"]
    assert find_figure("noise", comparisons) is all_figures()["noise"]
    for unknown in ("effect-absent", "bn", "nois", "effect"):
        with pytest.raises(LeakpipeError, match=rf"unknown figure '{unknown}'; known: attacks.*effect-prior"):
            find_figure(unknown, comparisons)


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


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that figures read, as files: that of the tables of `figure_tables`."""
    folder, held = tmp_path_factory.mktemp("figures"), tables()
    for name, fields in NEEDS.items():
        if fields == (name,) and name != "splits":
            held[name].to_csv(folder / f"{name}.csv", index=False)
    images = held["dataset"].images.astype(np.float32)
    labels = np.asarray(held["dataset"].labels)
    save_dataset(folder / "images.safetensors", LabeledImages(images, labels, ("a", "b", "c")))
    for seed, split in held["splits"].items():
        save_split(folder / f"split{seed}.json", Split(split.clients, (1, 2), (), ()), seed=seed)
    for row in held["leakage"].drop_duplicates(["defense", "seed", "round", "client", "attack"]).to_dict("records"):
        cell = {name: row[name] for name in ("experiment", "defense", "seed", "round", "client", "attack")}
        rebuilt, priors, true = held["pictures"].load_attacked(cell)
        path = folder / "{defense}-{seed}-{round}-{client}-{attack}.safetensors".format(**cell)
        count = len(true)
        save_reconstruction(
            path,
            images=rebuilt.astype(np.float32),
            prior=priors.astype(np.float32),
            labels=np.zeros(count, np.int64),
            cell=cell,
            iterations=1,
        )
    write_json(folder / "settings.json", SETTINGS)
    write_json(folder / "comparisons.json", {"thing": EFFECT})
    return folder


def plot(folder: Path, out: Path, *arguments: Any) -> Any:
    listed = ["plot", *arguments, "--folder", out, "--records", out / "records", "--label", "experiment=x"]
    for name in ("leakage", "accuracy", "identifiability", "defense_table", "privacy"):
        listed += [f"--{name.replace('_', '-')}", folder / f"{name}.csv"]
    listed += ["--images", folder / "images.safetensors"]
    listed += ["--split", folder / "split0.json", "--split", folder / "split1.json"]
    listed += ["--reconstruction", f"{folder}/{{defense}}-{{seed}}-{{round}}-{{client}}-{{attack}}.safetensors"]
    return CliRunner().invoke(main, [str(each) for each in listed])


def test_one_command_draws_all_figures_each_with_a_record(files: Path, tmp_path: Path) -> None:
    settings = ["--settings", files / "settings.json", "--comparisons", files / "comparisons.json"]
    done = plot(files, tmp_path, *NAMES, *settings)
    assert done.exit_code == 0, done.output
    for name in NAMES:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"{name}.txt").read_text(encoding="utf-8") == draw(name).caption + "\n"
        record = read_json(tmp_path / "records" / f"{name}.json")
        assert (record["rule"], record["labels"]) == ("plot", {"experiment": "x", "figure": name})
        assert record["environment"]["module"] == find_figure(name, {"thing": EFFECT}).module
        assert not {"clients", "defenses", "comparison"} & set(record["params"]), "names and numbers only"
        read = {Path(path).name for path in record["inputs"]}
        assert ("leakage.csv" in read) == ("leakage" in find_figure(name, {"thing": EFFECT}).reads)


def test_what_is_missing_is_named(files: Path, tmp_path: Path) -> None:
    refused = CliRunner().invoke(main, ["plot", "rounds", "--settings", str(files / "settings.json")])
    assert refused.exit_code == 1
    assert "figure 'rounds' reads --leakage, which is missing" in refused.output
    assert plot(files, tmp_path, "rounds").exit_code == 2
    listed = CliRunner().invoke(main, ["plot", "--list"]).output
    assert "noise: " in listed
    assert "reads leakage, accuracy" in listed


def test_the_registry_is_read_without_slow_libraries() -> None:
    code = "import sys; from leakpipe.figures.registry import all_figures; all_figures(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "pandas", "torch"} & set(loaded)


@pytest.mark.parametrize("name", all_figures())
def test_the_code_of_one_figure_is_not_the_code_of_another(name: str) -> None:
    modules = {each.module for each in all_figures().values()}
    assert imported_modules(all_figures()[name].module) & modules == {all_figures()[name].module}
