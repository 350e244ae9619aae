"""Text in other languages comes back as it was: a shell, YAML, CSV, Snakemake, the home folder."""

import shlex
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from pydantic import TypeAdapter
from snakemake.utils import format as snakemake_format

from leakpipe.files.quoting import as_path, for_shell, for_snakemake, for_yaml
from leakpipe.models.choices import weights_file
from leakpipe.params.models import ModelParams
from leakpipe.params.reading import read_yaml
from leakpipe.params.types import Name
from leakpipe.tables.table import read_table, write_table

STRANGE = [
    *("a b", " lead and trail ", "o'brien", 'say "hi"', "{v2}", "{{v2}}", "{}", "}{", "o?k", "h#y", "50%", "%41", "*"),
    *("[1]", "a;b&c|d", "$HOME", "`id`", "$(id)", "back\\slash", "new\nline", "tab\t", "-n", "~", "é", "e\u0301", "𝛔"),
]


@pytest.mark.parametrize("text", STRANGE)
def test_a_shell_reads_it_as_one_word(text: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {for_shell(text, text)}"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{text}\0{text}\0"
    assert shlex.split(for_shell(text)) == [text]


@pytest.mark.parametrize("text", [*STRANGE, "yes", "017", "null", "a #b", "a: b", "*x"])
def test_yaml_reads_it_as_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"x: {for_yaml(text)}  # what follows", encoding="utf-8")
    assert read_yaml(tmp_path / "x.yaml") == {"x": text}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("names", [["NA", "null", "None", "nan", "inf", "True"], ["1", "01", "1e3"], ["0.10", "2"]])
def test_a_table_s_names_are_text_whatever_they_look_like(names: list[str], suffix: str, tmp_path: Path) -> None:
    """A client may be called `01`, an attack `None`."""
    for name in names:
        TypeAdapter(Name).validate_python(name)
    columns = ["experiment", "defense", "client", "attack"]
    numbers = [0.5, *[float("nan")] * (len(names) - 1)]
    written = pd.DataFrame({**dict.fromkeys(columns, names), "ssim": numbers})
    write_table(tmp_path / f"x.{suffix}", written)
    pd.testing.assert_frame_equal(read_table(tmp_path / f"x.{suffix}", [*columns, "ssim"]), written)


@pytest.mark.parametrize("text", STRANGE)
def test_snakemake_formats_it_back(text: str) -> None:
    assert snakemake_format(for_snakemake(text)) == text


def test_only_a_home_folder_is_another_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of {v2}")
    assert as_path("~/x") == Path("/home/of {v2}/x")
    assert as_path("~no-such-user/x") == Path("~no-such-user/x")
    for text in STRANGE:
        assert str(as_path(f"/data/{text}")) == f"/data/{text}"


@pytest.mark.parametrize("field", ["weights", "start"])
def test_weights_may_lie_at_home(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    chosen = (
        {"weights": "~/w.pth"} if field == "weights" else {"weights": "public", "pretraining": {"start": "~/w.pth"}}
    )
    assert weights_file(ModelParams.model_validate({"name": "resnet18", **chosen})) == Path("/home/me/w.pth")
    assert weights_file(ModelParams(name="resnet18")) is None
