"""Every stage through the command line, in a folder of its own, without Snakemake; and what bad input gets."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from safetensors.numpy import save

from leakpipe.attacks import optimise
from leakpipe.attacks.optimise import invert
from leakpipe.cli.main import COMMANDS, GROUPS, main
from leakpipe.files.log import hash_file
from leakpipe.files.storage import read_arrays, read_json, write_arrays
from leakpipe.params.experiment import Params
from leakpipe.tables.table import LEAKAGE_COLUMNS, read_table
from tests.conftest import PROJECT

MODEL = {"name": "convnet-bn", "widths": [4, 6], "strides": [1, 2]}
DATA = {"dataset": "lfw-faces", "image_size": 16, "test": 20, "validation": 4, "public": 20}
FEDERATION = {
    "rounds": 2,
    "captured_rounds": [1, 2],
    "learning_rate": 0.05,
    "local_epochs": 1,
    "batch_norm_momentum": 0.1,
    "clients": {
        "site-9": {"images": 1, "batch_size": 1, "classes": ["face"]},
        "site-1": {"images": 4, "batch_size": 2},
        "site-2": {"images": 16, "batch_size": 4},
    },
}
NOISE = [{"kind": "gaussian", "sigma0": 1}]


def leakpipe(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> Result:
    result = leakpipe(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refuse(*arguments: object, code: int = 1) -> str:
    """The one sentence that bad input gets."""
    result = leakpipe(*arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    said = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1, result.output
    return said[0]


def federate(folder: Path, defense: object, out: Path, *options: object, seed: int = 3) -> Result:
    return leakpipe(
        "federate", "--model", json.dumps(MODEL), "--federation", json.dumps(FEDERATION),
        "--defense", json.dumps(defense),
        "--images", folder / "images.safetensors", "--split", folder / "split.json",
        "--attacked", "site-9", "--attacked", "site-1", *options, "--out-dir", out, "--record", out / "record.json",
        "--label", "experiment=tiny", "--label", f"defense={out.name}", "--label", f"seed={seed}",
    )  # fmt: skip


def invert_arguments(folder: Path, client: str, out: Path, *, attack: str, threat_model: str = "{}") -> list[object]:
    files: list[object] = []
    for number in FEDERATION["captured_rounds"]:
        source = folder / f"round{number}"
        files += ["--global-model", source / "global.safetensors", "--update", source / client / "update.safetensors"]
        files += ["--out", out / f"round{number}" / client / "test.safetensors"]
    return ["invert", "--attack", attack, "--threat-model", threat_model, "--name", "test", *files,
            "--prior", folder.parent / "prior.safetensors", "--checkpoints", out / "checkpoints",
            "--checkpoint-seconds", 0, "--record", out / f"{client}.json"]  # fmt: skip


SHORT = json.dumps({"batch_norm": "update", "batch_norm_weight": 1.0, "total_variation_weight": 0.01, "iterations": 3})
LONG = json.dumps({**json.loads(SHORT), "iterations": 150})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole tiny run; its folder."""
    folder = tmp_path_factory.mktemp("run")
    images, split, prior = folder / "images.safetensors", folder / "split.json", folder / "prior.safetensors"
    succeed("prepare-data", "--images", json.dumps({"dataset": "lfw-faces", "image_size": 16}), "--out", images)
    succeed("split-data", "--data-params", json.dumps(DATA), "--clients", json.dumps(FEDERATION["clients"]),
            "--images", images, "--seed", 3, "--split", split, "--prior", prior)  # fmt: skip
    scored: list[object] = []
    for client in ("site-9", "site-1"):
        if not scored:
            assert federate(folder, NOISE, folder / "gaussian-1").exit_code == 0
        succeed(*invert_arguments(folder / "gaussian-1", client, folder / "out", attack=SHORT))
        scored += ["--reconstruction", folder / "out" / "round1" / client / "test.safetensors"]
        scored += ["--reconstruction", folder / "out" / "round2" / client / "test.safetensors"]
    succeed("score", "--images", images, "--split", split, *scored, "--scoring", "{}",
            "--out", folder / "score.csv", "--record", folder / "score.json")  # fmt: skip
    succeed("collect", "--score", folder / "score.csv", "--attack-record", folder / "out" / "site-9.json",
            "--attack-record", folder / "out" / "site-1.json", "--accuracy", folder / "gaussian-1" / "accuracy.csv",
            "--leakage-csv", folder / "leakage.csv", "--leakage-parquet", folder / "leakage.parquet",
            "--accuracy-csv", folder / "accuracy.csv", "--metrics", folder / "metrics.json")  # fmt: skip
    return folder


@pytest.mark.parametrize("command", ["federate", "invert"])
def test_no_job_imports_sympy(run: Path, tmp_path: Path, command: str) -> None:
    """torch does when `torch.autograd.grad` is given `grad_outputs`; that takes half a second."""
    recorded = run / ("gaussian-1/record.json" if command == "federate" else "out/site-9.json")
    arguments = [argument.replace(str(run / "out"), str(tmp_path)) for argument in read_json(recorded)["command"]]
    if command == "federate":
        arguments[arguments.index("--out-dir") + 1] = str(tmp_path)
    code = (
        "import sys, torch; by_itself = 'sympy' in sys.modules; from leakpipe.cli.main import main;"
        f"main({arguments!r}, standalone_mode=False); print(by_itself, 'sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    by_itself, imported = done.stdout.split()
    if by_itself == "True":
        pytest.skip("this torch imports sympy by itself")
    assert imported == "False"


def test_the_table_has_a_row_per_true_image(run: Path) -> None:
    table = read_table(run / "leakage.csv", LEAKAGE_COLUMNS)
    assert list(table.columns) == LEAKAGE_COLUMNS
    assert len(table) == 2 * (1 + 4)
    split = json.loads((run / "split.json").read_text())
    assert set(table[table.client == "site-1"].image) == set(split["clients"]["site-1"])
    assert (table.iterations == 3).all()
    assert (table.label_accuracy == 1).all()
    assert (table.seconds > 0).all()
    pd.testing.assert_frame_equal(pd.read_parquet(run / "leakage.parquet"), table)
    assert len(pd.read_csv(run / "accuracy.csv")) == 2
    assert json.loads((run / "metrics.json").read_text())["leakage"]["test"]["site-1"]["gaussian-1"]["images"] == 8


def test_the_record_of_scoring_has_each_clients_means(run: Path) -> None:
    metrics = json.loads((run / "score.json").read_text())["metrics"]
    table = pd.read_csv(run / "leakage.csv")
    assert metrics.keys() == {"images", "site-1.ssim", "site-1.ssim_prior", "site-9.ssim", "site-9.ssim_prior"}
    for client in ("site-1", "site-9"):
        rows = table[table.client == client]
        assert metrics[f"{client}.ssim"] == pytest.approx(sum(rows.ssim) / len(rows))
        assert metrics[f"{client}.ssim_prior"] == pytest.approx(sum(rows.ssim_prior) / len(rows))


def test_scores_are_against_the_true_images(run: Path) -> None:
    """Recomputed from the files by hand, without leakpipe's scorer."""
    from skimage.metrics import structural_similarity

    row = pd.read_csv(run / "leakage.csv").query("client == 'site-9' and round == 2").iloc[0]
    truth = read_arrays(run / "images.safetensors", "leakpipe/dataset")[0]["images"][int(row.image), 0]
    rebuilt = read_arrays(run / "out" / "round2" / "site-9" / "test.safetensors", "leakpipe/reconstruction")[0]
    prior = read_arrays(run / "prior.safetensors", "leakpipe/prior")[0]["all"][0]
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    mine, before = (
        structural_similarity(image.astype(float), truth.astype(float), **options)
        for image in (rebuilt["images"][0, 0], prior)
    )
    assert row.ssim == pytest.approx(mine, abs=1e-12)
    assert row.rdlv == pytest.approx((mine - before) / before, abs=1e-12)


def test_a_second_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    assert federate(run, NOISE, tmp_path / "gaussian-1").exit_code == 0
    for path in sorted((run / "gaussian-1").rglob("*")):
        if path.is_file() and path.name != "record.json":
            assert path.read_bytes() == (tmp_path / "gaussian-1" / path.relative_to(run / "gaussian-1")).read_bytes(), (
                path
            )
    succeed(*invert_arguments(run / "gaussian-1", "site-1", tmp_path / "out", attack=SHORT))
    for number in (1, 2):
        name = f"round{number}/site-1/test.safetensors"
        assert (tmp_path / "out" / name).read_bytes() == (run / "out" / name).read_bytes()


def test_noise_changes_what_is_shared(run: Path, tmp_path: Path) -> None:
    assert federate(run, [], tmp_path / "none").exit_code == 0
    name = "round1/site-9/update.safetensors"
    plain = read_arrays(tmp_path / "none" / name, "leakpipe/update")[0]
    noisy = read_arrays(run / "gaussian-1" / name, "leakpipe/update")[0]
    assert all(not np.array_equal(plain[key], noisy[key]) for key in plain)


def test_an_aggregate_of_too_many_images_is_read_as_one_clients_update(run: Path) -> None:
    pair = [{"kind": "secure-aggregation", "clients": 2}]
    assert federate(run, pair, run / "pair").exit_code == 0
    told = invert_arguments(run / "pair", "site-1", run / "told", attack=SHORT, threat_model='{"defense": "known"}')
    succeed(*told, "--defense", json.dumps(pair))
    path = run / "told" / "round1" / "site-1" / "test.safetensors"
    assert read_arrays(path, "leakpipe/reconstruction")[0]["images"].shape == (4, 1, 16, 16)
    notes = json.loads((run / "told" / "site-1.json").read_text())["details"]["attacks"][0]["notes"]
    assert notes[0].endswith("20 images of 2 clients have more pixels than it has values.")
    said = refuse(*told, "--defense", json.dumps([{**pair[0], "clients": 3}]))
    assert "cohort: 1 other clients, expected 2" in said


def test_the_record_of_an_attack_has_its_curves(run: Path) -> None:
    record = json.loads((run / "out" / "site-9.json").read_text())
    assert set(record["curves"]) == {
        f"round{n}/{term}"
        for n in (1, 2)
        for term in ("objective", "update_distance", "batch_statistics", "total_variation")
    }
    assert [step for step, _ in record["curves"]["round1/objective"]] == [1, 2, 3]
    assert [attack["cell"]["round"] for attack in record["details"]["attacks"]] == [1, 2]


def test_the_record_has_what_a_recursive_inversion_found_of_each_layer(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [{"layer": "b", "gap": 40.0, "residual": 0.1, "doubtful": 3}]
    layers += [{"layer": "a", "gap": None, "residual": 0.2, "doubtful": 5}]
    monkeypatch.setattr(optimise, "invert", lambda *seen, **more: replace(invert(*seen, **more), layers=layers))
    succeed(*invert_arguments(run / "gaussian-1", "site-9", tmp_path, attack=SHORT))
    record = read_json(tmp_path / "site-9.json")
    assert [attack["layers"] for attack in record["details"]["attacks"]] == [layers, layers]
    assert record["curves"]["round2/layer_residual"] == [[1, 0.1], [2, 0.2]]
    assert record["curves"]["round2/layer_doubtful"] == [[1, 3.0], [2, 5.0]]


def test_help_lists_every_command_in_a_group_with_a_whole_summary() -> None:
    said = succeed("--help").output
    for title, group in GROUPS.items():
        assert f"\n{title}:\n" in said
        for name, summary in group.items():
            assert re.search(rf"^  {name} +{re.escape(summary)}$", said, flags=re.MULTILINE)
            assert succeed(name, "--help").output.count("\n") > 5
    assert max(map(len, said.splitlines())) <= 80
    modules = {path.stem.replace("_", "-") for path in (PROJECT / "src/leakpipe/cli").glob("*.py")}
    assert modules - {
        "--init--",
        "allocator",
        "audit-lock",
        "audit-progress",
        "cells",
        "main",
        "options",
        "terminal",
    } == set(COMMANDS)


def test_check_says_how_much_work(tmp_path: Path) -> None:
    said = succeed("check", PROJECT / "params.yaml", PROJECT / "experiments" / "quick.yaml").output
    assert re.match(r"quick: 2 federations, 5 cells \(.*\), 10 attacks, 19 jobs\n", said)
    for word, unit in (("time: ", "(seconds|minutes) on "), ("memory: ", "GB"), ("disk: ", "MB")):
        assert re.search(rf"^{word}.*(about|up to) [\d.]+ {unit}", said, flags=re.MULTILINE)
    quick = PROJECT / "params.yaml", PROJECT / "experiments" / "deep-resnet18.yaml"
    assert "time:   more than" in succeed("check", *quick, "--cores", "8").output
    (tmp_path / "bad.yaml").write_text("federation: {rouns: 3}")
    assert "federation.rouns: unknown key" in refuse("check", PROJECT / "params.yaml", tmp_path / "bad.yaml")


def test_settings_may_come_from_a_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "attack.yaml").write_text("iterations: 2\noptimizer: signed-adam\n")
    succeed(*invert_arguments(run / "gaussian-1", "site-9", tmp_path, attack=str(tmp_path / "attack.yaml")))
    assert json.loads((tmp_path / "site-9.json").read_text())["details"]["attacks"][0]["iterations"] == 2


@pytest.mark.parametrize(
    ("attack", "said", "code"),
    [
        ('{"iterations": 0}', "--attack: iterations: 0 is not valid: input should be greater than or equal to 1", 1),
        ('{"steps": 3}', "--attack: steps: unknown key; known here: adam_softening, averaging", 1),
        ("nowhere.yaml", "nowhere.yaml: cannot be read", 2),
        ('{"iterations": ', "not JSON", 2),
    ],
)
def test_bad_settings(run: Path, tmp_path: Path, attack: str, said: str, code: int) -> None:
    arguments = invert_arguments(run / "gaussian-1", "site-9", tmp_path, attack=attack)
    assert said in refuse(*arguments, code=1 if code == 1 or "nowhere" in attack else 2)
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_what_the_attacker_is_granted_is_the_threat_models(run: Path, tmp_path: Path) -> None:
    """Labels, running statistics and exact statistics reach the attack only where they are granted."""
    assert federate(run, NOISE, tmp_path / "gaussian-1", "--exact-statistics").exit_code == 0
    shutil.copy(run / "prior.safetensors", tmp_path)
    shutil.copy(run / "prior.json", tmp_path)

    def attack(settings: dict[str, object], threat_model: dict[str, object]) -> list[object]:
        return invert_arguments(
            tmp_path / "gaussian-1", "site-1", tmp_path / "out", attack=json.dumps({"iterations": 2, **settings}),
            threat_model=json.dumps(threat_model),
        )  # fmt: skip

    def notes() -> str:
        return str(json.loads((tmp_path / "out" / "site-1.json").read_text())["details"]["attacks"][0]["notes"])

    succeed(*attack({}, {"labels": "unknown"}))
    assert "Labels were recovered" in notes()
    succeed(*attack({}, {}))
    assert "Labels were recovered" not in notes()
    matching: dict[str, object] = {"batch_norm_weight": 1.0}
    assert "withheld" in refuse(*attack(matching, {"batch_norm": "none"}))
    said = refuse(*attack({"batch_norm": "exact", **matching}, {}))
    assert said.startswith(f"Error: {tmp_path}")
    assert "exact batch statistics, but none are granted" in said
    succeed(*attack({"batch_norm": "exact", **matching}, {"batch_norm": "exact"}))
    lacking = invert_arguments(
        run / "gaussian-1", "site-1", tmp_path / "out",
        attack=json.dumps({"batch_norm": "exact", **matching}), threat_model='{"batch_norm": "exact"}',
    )  # fmt: skip
    assert "run federate with --exact-statistics" in refuse(*lacking)


def test_an_attack_needs_no_true_image(run: Path, tmp_path: Path) -> None:
    """Of the data stage, only the prior image is there when the attack runs."""
    for name in ("prior.safetensors", "prior.json"):
        shutil.copy(run / name, tmp_path)
    shutil.copytree(run / "gaussian-1", tmp_path / "gaussian-1")
    succeed(*invert_arguments(tmp_path / "gaussian-1", "site-9", tmp_path / "out", attack=SHORT))
    name = "round1/site-9/test.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (run / "out" / name).read_bytes()


def interrupt(arguments: list[object], checkpoints: Path, signal_sent: signal.Signals) -> str:
    """Stop an attack after its first checkpoint; what it says."""
    command = [sys.executable, "-m", "leakpipe", *map(str, arguments)]
    # A shell that runs the tests in the background has them, and so this child, ignore Ctrl-C.
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    while not list(checkpoints.glob("round*.safetensors")):
        assert running.poll() is None, "the attack ended before it could be interrupted"
        time.sleep(0.01)
    running.send_signal(signal_sent)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 130
    return said


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a long attack wrote that nobody interrupted; its folder."""
    folder = tmp_path_factory.mktemp("whole")
    succeed(*invert_arguments(run / "gaussian-1", "site-1", folder, attack=LONG))
    return folder


@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_attack_says_so_and_continues_to_the_same_bytes(
    run: Path, whole: Path, tmp_path: Path, signal_sent: signal.Signals
) -> None:
    broken = invert_arguments(run / "gaussian-1", "site-1", tmp_path / "broken", attack=LONG)
    said = interrupt(broken, tmp_path / "broken" / "checkpoints", signal_sent)
    assert "Interrupted: the same command continues from the last checkpoint" in said
    assert not (tmp_path / "broken" / "site-1.json").exists()
    succeed(*broken)
    for number in (1, 2):
        name = f"round{number}/site-1/test.safetensors"
        assert (whole / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()
    assert list((tmp_path / "broken" / "checkpoints").iterdir()) == []


def test_an_attack_is_watched_while_it_runs_and_is_one_whole_run_in_the_end(
    run: Path, tmp_path: Path, mlflow_uri: str
) -> None:
    def tracked() -> tuple[list[Run], dict[str, dict[int, list[float]]]]:
        """The runs of the attack, and the curves of the newest."""
        experiment = client.get_experiment_by_name("leakpipe/tiny")
        runs = client.search_runs([experiment.experiment_id], "tags.rule = 'invert'")
        names = [name for name in runs[0].data.metrics if name.startswith("round")]
        return runs, {name: values_by_step(client.get_metric_history(runs[0].info.run_id, name)) for name in names}

    client = MlflowClient(mlflow_uri)
    arguments = invert_arguments(run / "gaussian-1", "site-1", tmp_path, attack=LONG)
    arguments += ["--label", "experiment=tiny", "--label", "client=site-1"]
    interrupt(arguments, tmp_path / "checkpoints", signal.SIGTERM)
    watch = ["watch", tmp_path / "checkpoints", "--uri", mlflow_uri, "--once"]
    assert "new points" in succeed(*watch).output
    assert "new points" not in succeed(*watch).output
    (live,), begun = tracked()
    assert live.info.status == "RUNNING"

    succeed(*arguments)
    succeed("track", tmp_path / "site-1.json", "--uri", mlflow_uri)
    assert "new points" not in succeed(*watch).output
    (finished,), whole = tracked()
    assert (finished.info.status, finished.info.run_name) == ("FINISHED", live.info.run_name)
    curves = json.loads((tmp_path / "site-1.json").read_text())["curves"]
    assert whole == {name: {step: [value] for step, value in curve} for name, curve in curves.items()}
    assert "round1/objective" in begun
    assert all(begun[name].items() <= whole[name].items() for name in begun)


def values_by_step(history: list[Metric]) -> dict[int, list[float]]:
    steps = sorted({point.step for point in history})
    return {step: [point.value for point in history if point.step == step] for step in steps}


def test_bad_names_list_the_known_ones(tmp_path: Path) -> None:
    asked = json.dumps({"dataset": "mnist", "image_size": 16})
    said = refuse("prepare-data", "--images", asked, "--out", tmp_path / "x.safetensors")
    assert said.startswith("Error: --images: dataset: ")
    assert "known: covid-radiography, cxr-phantom, findings-phantom, image-folder" in said
    assert list(tmp_path.iterdir()) == []


def drop_tensor(path: Path) -> None:
    arrays, metadata = read_arrays(path, "leakpipe/update")
    del arrays["weights/head.bias"]
    write_arrays(path, "leakpipe/update", arrays, metadata)


def spoil_value(path: Path) -> None:
    arrays, _ = read_arrays(path, "leakpipe/update")
    arrays["weights/head.bias"][0] = np.nan
    path.write_bytes(save(arrays))
    sidecar = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**sidecar, "sha256": hash_file(path)}))


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:100]), "is truncated or not the file"),
    "of another kind": (
        lambda path: write_arrays(path, "other", *read_arrays(path, "leakpipe/update")),
        "'other' version 1, expected 'leakpipe/update'",
    ),
    "without a tensor": (drop_tensor, "tensor 'weights/head.bias' is missing"),
    "with NaN": (spoil_value, "not finite"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_update_is_refused(how: str, run: Path, tmp_path: Path) -> None:
    for name in ("prior.safetensors", "prior.json"):
        shutil.copy(run / name, tmp_path)
    copied = Path(shutil.copytree(run / "gaussian-1", tmp_path / "gaussian-1"))
    path = copied / "round1" / "site-9" / "update.safetensors"
    spoil, expected = SPOILT[how]
    spoil(path)
    said = refuse(*invert_arguments(copied, "site-9", copied / "out", attack=SHORT))
    assert str(path.with_suffix("")) in said
    assert expected in said
    assert not (copied / "out").exists()


def test_an_unwritable_results_folder(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = federate(run, [], tmp_path / "file" / "none")
    assert result.exit_code == 1
    assert f"Error: {tmp_path / 'file' / 'none' / 'round1'}" in result.output
    assert "cannot be written" in result.output


def test_usage_errors_exit_with_2(run: Path) -> None:
    arguments = invert_arguments(run / "gaussian-1", "site-9", run, attack=SHORT)
    arguments.remove("--prior")
    arguments.remove(run / "prior.safetensors")
    assert "Missing option '--prior'" in refuse(*arguments, code=2)
    arguments = invert_arguments(run / "gaussian-1", "site-9", run, attack=SHORT)
    del arguments[7:9]
    assert "must be as many" in refuse(*arguments, code=2)
    assert "expected KEY=VALUE" in refuse("collect", "--label", "x", code=2)


def test_a_reconstruction_without_its_split(run: Path, tmp_path: Path) -> None:
    split = json.loads((run / "split.json").read_text())
    (tmp_path / "split.json").write_text(json.dumps({**split, "seed": 9}))
    said = refuse("score", "--images", run / "images.safetensors", "--split", tmp_path / "split.json",
                  "--reconstruction", run / "out/round1/site-9/test.safetensors",
                  "--scoring", "{}", "--out", tmp_path / "s.csv")  # fmt: skip
    assert "its seed 3 has no --split" in said


def test_default_parameters_are_what_params_dumps_and_reads() -> None:
    from leakpipe.experiment.reading import load_params

    params = load_params(PROJECT / "params.yaml")
    assert Params.model_validate(json.loads(params.model_dump_json())) == params
