"""Trust in files' records: the cases in which old files could pass for new ones, one by one."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner

from leakpipe.cli.main import main
from leakpipe.errors import LeakpipeError
from leakpipe.records.stages import (
    Job,
    Made,
    Record,
    Stage,
    export,
    group_by_job,
    hash_file,
    metadata_path,
    prune,
    read_metadata,
    read_provenance,
    read_stages,
    restore,
    trusted_records,
    write_metadata,
)

IMAGE, RUN_RECORD = "results/x/inversion/a.safetensors", "results/x/records/invert/a.json"
JOB = Job(
    {"rule": "invert", "params": ["old"], "input_checksums": {"results/x/data/i": "sha256:in"}},
    {IMAGE: Made("img", 1.0, 2.0), RUN_RECORD: Made("run", 1.0, 2.5)},
)
UNCHANGED = {IMAGE: "img", RUN_RECORD: "run", "results/x/data/i": "in"}
NEW: Record = {"rule": "invert", "params": ["new"]}
BOTH = {IMAGE: NEW, RUN_RECORD: NEW}


@pytest.mark.parametrize(
    ("changed", "own", "params"),
    [
        ({}, {}, ["old", "old"]),
        ({}, BOTH, ["old", "old"]),
        ({IMAGE: "bad"}, {RUN_RECORD: NEW}, []),
        ({IMAGE: "bad"}, BOTH, []),
        ({IMAGE: None}, {}, []),
        ({RUN_RECORD: None}, BOTH, []),
        ({RUN_RECORD: "run2"}, BOTH, ["new", "new"]),
        ({RUN_RECORD: "run2", IMAGE: "img2"}, BOTH, ["new", "new"]),
        ({RUN_RECORD: "run2", IMAGE: "img2"}, {}, []),
        ({"results/x/data/i": "other"}, {}, []),
        ({"results/x/data/i": None}, {}, ["old", "old"]),
    ],
    ids=[
        "pulled",
        "pulled and touched",
        "corrupted",
        "corrupted and touched",
        "one file missing",
        "run record missing",
        "ran again, same image",
        "ran again",
        "came from elsewhere",
        "made from another input",
        "input yet to be made",
    ],
)
def test_trust(changed: dict[str, str | None], own: dict[str, Record], params: list[str]) -> None:
    hashes = {path: sha for path, sha in {**UNCHANGED, **changed}.items() if sha is not None}
    trusted = trusted_records([JOB], hashes, own)
    assert [trusted[path]["params"][0] for path in (IMAGE, RUN_RECORD) if path in trusted] == params


def test_files_unknown_to_the_provenance_file_rest_on_snakemakes_own_records() -> None:
    assert trusted_records([], {IMAGE: "img", RUN_RECORD: "run"}, {IMAGE: NEW}) == {IMAGE: NEW}


def test_records_survive_grouping() -> None:
    records = {**JOB.records(), "results/x/data/i": {**NEW, "starttime": 0.0, "endtime": 0.5}}
    jobs = group_by_job(dict(reversed(records.items())), UNCHANGED)
    assert [sorted(job.outputs) for job in jobs] == [["results/x/data/i"], [IMAGE, RUN_RECORD]]
    assert jobs[0].records() | jobs[1].records() == records


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A stage with two files of one job that Snakemake has just run."""
    monkeypatch.chdir(tmp_path)
    outs = (Path("results/x/inversion"), Path("results/x/records/invert"))
    made = Stage("inversion", outs, Path("results/x/provenance/inversion.json"))
    write({IMAGE: "image", RUN_RECORD: "record"})
    return made


def write(content: dict[str, str], params: str = "old") -> None:
    """Writes files as a job does, and records them as Snakemake does."""
    for path, text in content.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
        record = {"rule": "invert", "params": [params], "starttime": 1.0, "endtime": Path(path).stat().st_mtime}
        write_metadata(path, record)


def forget(paths: Iterable[str]) -> None:
    """Makes files as in a fresh clone that pulled them: other times, no records."""
    for path in paths:
        os.utime(path, (1, 1))
        metadata_path(path).unlink()


def test_restore_gives_a_clone_its_records_back(stage: Stage) -> None:
    export(stage)
    records = {path: read_metadata(path) for path in (IMAGE, RUN_RECORD)}
    forget(records)
    assert restore([stage]) == []
    assert {path: read_metadata(path) for path in records} == records


def test_restore_deletes_what_has_no_record(stage: Stage) -> None:
    forget([IMAGE, RUN_RECORD])
    assert restore([stage]) == [IMAGE, RUN_RECORD]
    assert not Path(IMAGE).exists()
    assert not Path(RUN_RECORD).exists()


def test_restore_takes_over_what_snakemake_made_and_export_is_stable(stage: Stage) -> None:
    assert restore([stage]) == []
    export(stage)
    before = stage.provenance.stat().st_mtime_ns, stage.provenance.read_text()
    assert str(Path.cwd()) not in before[1]
    export(stage)
    assert (stage.provenance.stat().st_mtime_ns, stage.provenance.read_text()) == before
    write({IMAGE: "image", RUN_RECORD: "record of another run"}, params="new")
    assert restore([stage]) == []
    export(stage)
    assert [job.record["params"] for job in read_provenance(stage.provenance)] == [["new"]]


def test_export_refuses_a_file_that_nobody_vouches_for(stage: Stage) -> None:
    metadata_path(IMAGE).unlink()
    with pytest.raises(LeakpipeError, match=rf"^{IMAGE}: Snakemake has no record"):
        export(stage)


def test_prune_stays_inside_the_outs_and_follows_no_link(stage: Stage) -> None:
    outside = Path("elsewhere/kept.txt")
    write({str(outside): "", "results/x/other/kept": "", "results/x/inversion/old/stale": ""})
    Path("results/x/inversion/link").symlink_to(outside.parent.absolute())
    Path("results/x/inversion/dangling").symlink_to("nowhere")
    deleted = prune([stage], {IMAGE, RUN_RECORD})
    assert deleted == [f"results/x/inversion/{name}" for name in ("dangling", "link", "old/stale")]
    assert outside.exists()
    assert Path("results/x/other/kept").exists()
    assert not Path("results/x/inversion/old").exists()


def test_metadata_is_where_snakemake_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    persistence = pytest.importorskip("snakemake.persistence.file").FilePersistence(nolock=True)
    for path in (IMAGE, f"results/ü {'long/' * 100}end.json", "results/" + "x" * 183):
        assert str(metadata_path(path).absolute()) == persistence._record_path(persistence._metadata_path, path)


JOBS = [
    *("3", "[3]", '[{"record": {}}]', '[{"record": [], "outputs": {}}]', '[{"record": {}, "outputs": {"x": 3}}]'),
    '[{"record": {}, "outputs": {"x": {"sha256": "", "starttime": "1", "endtime": 2}}}]',
    '[{"record": {"input_checksums": 3}, "outputs": {}}]',
]


@pytest.mark.parametrize(
    "content",
    [
        '{"kind": "other"}',
        '{"kind": "leakpipe/provenance", "version": 1}',
        *(f'{{"kind": "leakpipe/provenance", "version": 1, "jobs": {jobs}}}' for jobs in JOBS),
    ],
)
def test_another_file_in_place_of_the_provenance_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(content)
    with pytest.raises(LeakpipeError, match=r"data\.json: (kind|jobs): .*expected"):
        read_provenance(path)


PIPELINE = """
stages:
  data:
    outs:
      - results/${experiment}/data: {persist: true}
      - results/${experiment}/provenance/data.json
  inversion:
    outs:
      - results/${experiment}/inversion
      - results/${experiment}/provenance/inversion.json
    metrics:
      - results/${experiment}/metrics.json: {cache: false}
"""


def test_stages_are_read_from_dvc_yaml(tmp_path: Path) -> None:
    path = tmp_path / "dvc.yaml"
    path.write_text(PIPELINE)
    data, inversion = read_stages(path, upto="inversion", experiment="x")
    assert read_stages(path, upto="data", experiment="x") == [data]
    assert data == Stage("data", (Path("results/x/data"),), Path("results/x/provenance/data.json"))
    assert inversion.holds("results/x/metrics.json")
    assert not inversion.holds("results/x/inversion2/file")
    assert not inversion.holds("results/x/provenance/inversion.json")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  inversion:", "  other:", "stages: no stage 'inversion'; known: data, other"),
        ("${experiment}/data:", "../../data:", "stages.data.outs: ../data: expected a path in a folder"),
        ("results/${experiment}/data:", "/data:", "stages.data.outs: /data: expected a path in a folder"),
        ("results/${experiment}/data:", ".:", r"stages.data.outs: .: expected a path in a folder"),
        ("provenance/data", "provenance/dat", "stages.data.outs: expected one out that ends in provenance/data.json"),
    ],
)
def test_what_is_wrong_in_dvc_yaml_is_said(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "dvc.yaml"
    path.write_text(PIPELINE.replace(old, new))
    with pytest.raises(LeakpipeError) as error:
        read_stages(path, upto="inversion", experiment="x")
    assert said in str(error.value)


# A pipeline of one rule per stage whose files are text, run by the real Snakemake.
SNAKEFILE = """
configfile: "params.yaml"
rule data:
    input: "results/x/data/a.txt"
rule make:
    output: "results/x/data/a.txt", "results/x/data/b.txt"
    params: text=config["text"]
    shell: "echo {params.text} | tee {output}"
"""
STAGE = "stages: {data: {outs: [results/x/data, results/x/provenance/data.json]}}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "Snakefile": SNAKEFILE,
        "dvc.yaml": STAGE,
        "params.yaml": "{experiment: x, text: one}",
    }.items():
        Path(name).write_text(content)
    return tmp_path


def test_stage_makes_what_is_missing_and_deletes_what_is_stale(project: Path) -> None:
    folder = project / "results/x/data"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("two\n")  # nobody knows from where
    first = CliRunner().invoke(main, ["stage", "data", "--cores", "1"])
    assert first.exit_code == 0, first.output
    assert "1 files deleted to be made again" in first.output
    assert (folder / "a.txt").read_text() == "one\n"
    (folder / "b.txt").unlink()  # Snakemake alone would not miss it
    write({"results/x/data/stale.txt": ""})
    second = CliRunner().invoke(main, ["stage", "data", "--cores", "1"])
    assert "1 files deleted that no rule makes (results/x/data/stale.txt)" in second.output
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt"]
    provenance = json.loads((project / "results/x/provenance/data.json").read_text())
    assert provenance["jobs"][0]["outputs"]["results/x/data/a.txt"]["sha256"] == hash_file("results/x/data/a.txt")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda: Path("dvc.yaml").write_text(STAGE.replace("x/data", "x/date")), "results/x/data/a.txt is made for"),
        (lambda: Path("Snakefile").write_text("rule other:\n"), "snakemake --summary: failed with exit code 1"),
        (lambda: Path("params.yaml").write_text("{experiment: x, text: a; false}"), "snakemake: failed with exit code"),
        (lambda: write({".snakemake/locks/0.output.lock": ""}), "another Snakemake works in this folder"),
    ],
    ids=["output outside the outs", "broken Snakefile", "failing job", "locked"],
)
@pytest.mark.usefixtures("project")
def test_stage_says_what_went_wrong_in_one_sentence(spoil: Callable[[], object], said: str) -> None:
    spoil()
    result = CliRunner().invoke(main, ["stage", "data", "--cores", "1"])
    assert result.exit_code == 1
    assert said in result.output.splitlines()[-1]
    assert result.output.splitlines()[-1].startswith("Error: ")
