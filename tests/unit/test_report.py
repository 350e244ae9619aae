"""The report page: its numbers are the tables', it needs nothing but itself, and it escapes what it is given."""

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from leakpipe.accounting.gaussian import gaussian_epsilon
from leakpipe.cli.main import main
from leakpipe.errors import LeakpipeError
from leakpipe.files.storage import write_json, write_text
from leakpipe.report.findings import Findings, find
from leakpipe.report.page import format_duration, format_number, load_figure
from leakpipe.report.runs import summarize_runs
from leakpipe.tables.headline import summarize
from leakpipe.tables.table import write_table
from leakpipe.tables.verdicts import judge_cells
from tests.unit.report_pages import (
    ACCURACY,
    CLAIMS,
    PARAMS,
    SSIM,
    defense_table,
    page,
    run_record,
    tables,
    verdict_table,
)


class Elements(HTMLParser):
    """All start tags with their attributes; checks that tags are closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def find_in(ssim: Mapping[str, float] = SSIM, *, seeds: int = 2) -> Findings:
    leakage, accuracy = tables(ssim)
    copies = [leakage.assign(seed=leakage["seed"] + 2 * copy) for copy in range(seeds // 2)]
    rows = pd.concat(copies, ignore_index=True)
    return find(judge_cells(rows), rows, defense_table(rows, accuracy), PARAMS)


@pytest.mark.parametrize(
    ("ssim", "word", "said"),
    [
        (SSIM, "leaks", "2 of 6 private images can be seen in updates sent without noise"),
        (SSIM, "leaks", "best of all the only image of alone (SSIM 0.9"),
        (SSIM, "leaks", "Under σ₀ = 1: leaks; under σ₀ = 20 (test accuracy lower by 0.20): cannot tell."),
        (SSIM | {"quiet": 0.1, "loud": 0.5}, "leaks", "Under σ₀ = 20: leaks; under σ₀ = 1"),
        (SSIM | {"none": 0.1}, "leaks", "sent under σ₀ = 1, best of all"),
        ({"none": 0.1}, "cannot tell", "without noise, 2 of at least 3 draws were attacked"),
    ],
)
def test_the_finding_follows_from_the_verdicts(ssim: Mapping[str, float], word: str, said: str) -> None:
    found = find_in(ssim)
    assert found.word == word
    assert said in found.sentence.replace("\u00a0", " ")


def test_no_leak_found_is_said_of_attacks_that_explain_the_update() -> None:
    found = find_in({"none": 0.1}, seeds=4)
    assert found.word == "no leak found"
    assert "by these attacks, which explain at least 90 % of the update; nobody looked up" in found.sentence


def test_tiles_take_all_clients_attacks_and_rounds_together() -> None:
    none, *_ = find_in().tiles
    assert (none.word, none.leaked, none.images) == ("leaks", 2, 6)
    assert (none.strongest.client, none.strongest.attack) == ("alone", "main")
    assert none.recognised is None
    assert none.cost is not None
    assert none.cost["accuracy"] == ACCURACY["none"]


def test_what_attackers_were_granted_is_said() -> None:
    leakage, accuracy = tables()
    told = {"main": {}, "other": {"threat_model": {"defense": "known", "labels": "unknown"}}}
    params = PARAMS | {"threat_model": {"prior": "gray"}, "attacks": told}
    granted = find(judge_cells(leakage), leakage, defense_table(leakage, accuracy), params).granted
    assert re.search(r"main: .*no public image, the labels, but not the defence; other: ", granted)
    assert granted.endswith("no public image, and the defence.")


def test_claims_are_shown_with_number_interval_verdict_and_rule(tmp_path: Path) -> None:
    section = page(tmp_path).split('<h2 id="claims">')[1].split('<h2 id="numbers">')[0]
    words, first, second, _ = section.split("</details>")
    assert "2 claims and open questions: not tested (1), reproduced (1)." in words
    assert "<dt>Gain</dt><dd>SSIM over the prior.</dd>" in words
    for shown in (
        '<span class="verdict">reproduced</span> The client &lt;alone&gt; leaks.',
        "0.61 [−0.52, 0.70], n = 8",
        "main, round 1: 0.45 [0.40, 0.50], n = 7",
        "<dd>reproduced: above 0.05.</dd>",
        "<dd>Somebody.</dd>",
    ):
        assert shown in first
    assert "Missing" not in first
    assert '<span class="verdict">not tested</span> Noise removes it.' in second
    assert "<dt>Missing</dt><dd>attack main under noise</dd>" in second
    assert "Numbers" not in second
    assert 'id="claims"' not in page(tmp_path, claims=CLAIMS | {"claims": []})


def test_defences_are_shown_with_leak_cost_and_guarantee(tmp_path: Path) -> None:
    table = defense_table(*tables()).set_index("defense")
    section = page(tmp_path).split('<h2 id="defences">')[1].split("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(<th.*?)</tr>", section, re.S)]
    assert [row[0].split("\u00a0")[-1] for row in rows] == ["20", "no noise", "1"], "no leak found comes first"
    loud, none, quiet = rows
    assert loud[1] == "cannot tell"
    assert loud[3] == f"{table.loc['loud', 'naive_rdlv']:.2f}".replace("-", "−")
    assert loud[7] == "0.700 (at chance)"
    assert loud[10:12] == [f"{gaussian_epsilon(2 * 3**0.5 / 4, 1e-5):.2f}", "1e-05"]
    assert loud[12].startswith("(ε, δ)-DP of a client")
    assert none[7:9] == ["0.900", "0.000"]
    assert quiet[10:] == ["–", "–", "calibrated noise, no DP guarantee: sensitivity unbounded"]


def test_few_images_are_said_to_be_few(tmp_path: Path) -> None:
    assert "alone: 2 images, 2 seeds; many: 4 images, 2 seeds" in page(tmp_path)
    leakage, accuracy = tables()
    leakage["image"] = range(len(leakage))
    enough = pd.concat([leakage.assign(image=leakage.image + 100 * copy) for copy in range(20)])
    assert find(judge_cells(enough), enough, defense_table(enough, accuracy), PARAMS).sample == ""


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    text = page(tmp_path)
    elements = Elements(text)
    for _, attributes in elements.found:
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert not elements.named("link")
    assert "@import" not in text
    assert "url(" not in text
    assert re.findall(r"https?://\S+", text) == ["https://github.com/leeoniya/uPlot"], (
        "the library's name, in a comment"
    )


def test_the_page_can_be_read_by_all(tmp_path: Path) -> None:
    elements = Elements(page(tmp_path))
    assert elements.named("html") == [{"lang": "en"}]
    assert all(image.get("alt") for image in elements.named("img"))
    headers = elements.named("th")
    assert headers
    assert all(header.get("scope") in {"col", "row"} for header in headers)
    identifiers = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    assert {image["aria-describedby"] for image in elements.named("img")} <= set(identifiers)
    assert any(meta.get("name") == "viewport" for meta in elements.named("meta"))


def test_every_row_of_the_table_is_on_the_page(tmp_path: Path) -> None:
    leakage, _ = tables()
    data = json.loads(page(tmp_path).split('<script type="application/json" id="data">')[1].split("</script>")[0])
    rows = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    assert [row["ssim"] for row in rows] == [round(value, 3) for value in leakage.ssim]
    assert [row["client"] for row in rows] == list(leakage.client)
    assert {"psnr": "inf", "ssim_affine": 0.96, "ssim_min_max": 0.5, "mse": 0.0123}.items() <= rows[0].items()
    assert "lpips" not in data["columns"], "empty columns are left out"
    assert data["pictures"] is None


def test_what_comes_from_outside_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    text = page(tmp_path, PARAMS | {"experiment": evil}, records=[run_record(commit=evil, processor=evil)])
    assert evil not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    leakage, _ = tables()
    named = page(tmp_path, leakage=leakage.assign(text_read=evil))
    assert evil not in named
    assert Elements(named).named("script") == Elements(page(tmp_path)).named("script")
    assert "A caption with &lt;i&gt;tags&lt;/i&gt;." in text
    assert "faces &lt;b&gt;&amp;" in text


def test_the_same_input_gives_the_same_page(tmp_path: Path) -> None:
    assert page(tmp_path) == page(tmp_path)


def test_records_are_summed_up_and_differences_shown(tmp_path: Path) -> None:
    later = run_record(rule="federate", started="2026-01-03T00:00:00.000+00:00", seconds=30.0, peak_memory_mib=250.0)
    later["environment"] |= {"commit": "def456", "uncommitted_changes": True}
    runs = summarize_runs([run_record(), later])
    assert runs["total_seconds"] == 120.0
    assert runs["rules"] == {
        "federate": {"jobs": 1, "seconds": 30.0, "longest": 30.0, "peak_memory_mib": 250.0},
        "invert": {"jobs": 1, "seconds": 90.0, "longest": 90.0, "peak_memory_mib": 100.0},
    }
    assert (runs["first"], runs["last"]) == ("2026-01-02 03:04", "2026-01-03 00:00")
    assert runs["peak_memory_mib"] == 250.0
    assert runs["commits"] == ["abc123", "def456"]
    assert "git checkout abc123" in page(tmp_path)
    both = page(tmp_path, records=[run_record(), later])
    assert "git checkout" not in both
    assert "uncommitted changes" in both
    with pytest.raises(LeakpipeError, match="no run records"):
        summarize_runs([])


def test_overlays_are_named_in_the_command(tmp_path: Path) -> None:
    assert "\nsnakemake</pre>" in page(tmp_path)
    overlaid = page(tmp_path, config_files=["params.yaml", "experiments/quick.yaml"])
    assert "snakemake --configfile params.yaml experiments/quick.yaml</pre>" in overlaid


def test_figures_that_are_missing_or_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(LeakpipeError, match=r"a\.svg: cannot be read"):
        load_figure("a", tmp_path / "a.svg", tmp_path / "a.txt", heading="A")
    with pytest.raises(LeakpipeError, match=r"a\.pdf: a figure of the page ends in \.svg or \.png"):
        load_figure("a", tmp_path / "a.pdf", tmp_path / "a.txt", heading="A")


def test_numbers_are_shown_as_a_reader_expects() -> None:
    assert [format_number(value) for value in (None, float("nan"), -0.001, -0.7, 1.0)] == [
        "–",
        "–",
        "0.00",
        "−0.70",
        "1.00",
    ]
    assert [format_duration(value) for value in (42.4, 400, 9000)] == ["42 s", "7 min", "2.5 h"]


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    leakage, accuracy = tables()
    write_table(tmp_path / "leakage.csv", leakage)
    write_table(tmp_path / "accuracy.csv", accuracy)
    write_json(tmp_path / "metrics.json", summarize(leakage, accuracy))
    write_json(tmp_path / "params.json", PARAMS)
    write_json(tmp_path / "claims.json", CLAIMS)
    write_table(tmp_path / "defense-table.csv", defense_table(*tables()))
    write_table(tmp_path / "verdicts.csv", verdict_table(leakage))
    write_json(tmp_path / "run.json", run_record())
    write_text(tmp_path / "rounds.svg", "<svg/>")
    write_text(tmp_path / "rounds.txt", "Caption.")
    arguments = ["report", "--out", str(tmp_path / "report.html")]
    arguments += ["--federation-record", f"{tmp_path}/run.json", "--attack-record", f"{tmp_path}/run.json"]
    arguments += ["--figure", f"rounds={tmp_path}/rounds.svg", "--record", str(tmp_path / "record.json")]
    for name in (
        "leakage.csv",
        "accuracy.csv",
        "metrics.json",
        "claims.json",
        "defense-table.csv",
        "params.json",
        "verdicts.csv",
    ):
        arguments += [f"--{Path(name).stem}", str(tmp_path / name)]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 2
    assert "--figure rounds=… has no --caption rounds=…" in refused.output
    done = CliRunner().invoke(main, [*arguments, "--caption", f"rounds={tmp_path}/rounds.txt"])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "can be seen in updates sent without noise" in page
    assert "Leakage by round" in page
    assert (tmp_path / "record.json").is_file()
