"""The federations of the how-to pages run in the installed frameworks, and their captures match to updates."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from leakpipe.captured.matching import MatchedUpdate, match_update
from leakpipe.captured.pairs import CapturedPair, find_pairs
from leakpipe.captured.reading import read_state
from tests.conftest import PROJECT
from tests.workflow.test_docs import blocks

ROUNDS, STEPS = 5, {"site-1": 1, "site-2": 1, "site-3": 2}


def federate(example: str, package: str, folder: Path) -> Path:
    """Runs an example of a framework's page where the framework is installed; returns where captures lie."""
    pytest.importorskip(package, reason=f"{package} is not installed: make test-frameworks")
    for page in ("capture", f"capture-{example.partition('_')[0]}"):
        for block in blocks(PROJECT / "docs" / "how-to" / f"{page}.md"):
            if block.file:
                (folder / block.file).write_text(block.content)
    done = subprocess.run(
        [sys.executable, f"{example}_federation.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{PROJECT / 'src'}:{folder}", "FLWR_TELEMETRY_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return folder / "captured"


def matched(pair: CapturedPair, module: torch.nn.Module) -> MatchedUpdate:
    return match_update(module, read_state(pair.before), read_state(pair.shared))


@pytest.mark.parametrize(("framework", "package"), [("flower", "flwr"), ("nvflare", "nvflare")])
def test_a_federation_is_captured_on_both_sides(
    framework: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = federate(framework, package, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "clients", raising=False)
    import clients  # type: ignore[import-not-found]

    sides = [find_pairs(captured / f"{framework}-{side}") for side in ("clients", "server")]
    assert [len(pairs) for pairs in sides] == [3 * ROUNDS, 3 * ROUNDS]
    for ours, theirs in zip(*sides, strict=True):
        assert (ours.round_number, ours.client) == (theirs.round_number, theirs.client)
        update, again = matched(ours, clients.Network()), matched(theirs, clients.Network())
        assert "counters say" in " ".join(update.notes)
        for name, change in update.update.weights.items():
            assert torch.equal(change, again.update.weights[name])
            assert torch.equal(update.state.weights[name], again.state.weights[name])
        if framework == "nvflare":
            assert update.update.steps == STEPS[ours.client]
        check_trained(clients, update, ours.client)
    if framework == "nvflare":
        (left,) = tmp_path.rglob("FL_global_model.pt")
        state = read_state(left)
        assert "'model'" in state.notes[1]
        assert state.tensors.keys() == clients.Network().state_dict().keys()
    steps = sorted(matched(pair, clients.Network()).update.steps for pair in sides[0])
    assert steps == sorted([*STEPS.values()] * ROUNDS)


def check_trained(clients: object, update: MatchedUpdate, client: str) -> None:
    """Training again from the captured global model by the example's own function gives the captured update."""
    model = clients.Network()  # type: ignore[attr-defined]
    model.load_state_dict({**update.state.weights, **update.state.statistics}, strict=False)
    names = [client] if client in STEPS else [name for name, steps in STEPS.items() if steps == update.update.steps]
    off = []
    for name in names:
        local = clients.Network()  # type: ignore[attr-defined]
        local.load_state_dict(model.state_dict())
        clients.train(local, name)  # type: ignore[attr-defined]
        after = local.state_dict()
        changes = {key: after[key] - weight for key, weight in update.state.weights.items()}
        off.append(max(float((change - update.update.weights[key]).abs().max()) for key, change in changes.items()))
    assert min(off) < 1e-6


def test_a_numpy_client_is_captured_without_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = federate("flower_numpy", "flwr", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "clients", raising=False)
    import clients

    pairs = find_pairs(captured / "flower_numpy-clients")
    assert sorted({pair.round_number for pair in pairs}) == [1, 2, 3, 4, 5]
    assert len(pairs) == 3 * ROUNDS
    for pair in pairs:
        update = matched(pair, clients.Network())
        assert "without names" in " ".join(update.notes)
        check_trained(clients, update, pair.client)


def test_flowers_mod_sees_what_other_mods_let_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flwr", reason="flwr is not installed: make test-frameworks")
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.supercore.task_identity import TaskIdentity

    from leakpipe.captured.flower import CaptureMod

    def privacy(msg: Any, ctxt: Any, call_next: Any) -> Any:
        reply = call_next(msg, ctxt)
        arrays = reply.content["arrays"].to_torch_state_dict()
        reply.content["arrays"] = ArrayRecord({name: 2 * value + 1 for name, value in arrays.items()})
        return reply

    app = ClientApp(mods=[CaptureMod(tmp_path), privacy])

    @app.train()  # type: ignore[untyped-decorator]
    def train(msg: Any, _: Any) -> Any:
        return Message(content=RecordDict({"arrays": msg.content["arrays"]}), reply_to=msg)

    for name in ("_run_id", "_node_id", "_task_id"):  # as Flower sets them in the processes that it starts
        monkeypatch.setattr(TaskIdentity, name, 1)
    before = {"a": torch.ones(2), "b": torch.zeros(3)}
    content = RecordDict({"arrays": ArrayRecord(before), "config": ConfigRecord({"server-round": 7})})
    message = Message(content=content, dst_node_id=3, message_type="train")
    app(message, Context(run_id=1, node_id=3, node_config={}, state=RecordDict(), run_config={}))
    (pair,) = find_pairs(tmp_path)
    assert (pair.round_number, pair.client) == (7, "node-3")
    received, sent = read_state(pair.before), read_state(pair.shared)
    for name, value in before.items():
        assert torch.equal(received.tensors[name], value)
        assert torch.equal(sent.tensors[name], 2 * value + 1)


def test_nvflares_filter_writes_what_it_gets_and_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("nvflare", reason="nvflare is not installed: make test-frameworks")
    from nvflare.apis.dxo import DXO, DataKind
    from nvflare.apis.filter import FilterChainType, FilterContextKey
    from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReservedKey
    from nvflare.apis.fl_context import FLContext
    from nvflare.app_common.filters.percentile_privacy import PercentilePrivacy

    from leakpipe.captured.nvflare import CaptureFilter

    context = FLContext()
    for key, value in {
        FLContextKey.TASK_NAME: "train",
        FLContextKey.FILTER_DIRECTION: FilterKey.OUT,
        ReservedKey.IDENTITY_NAME: "site-9",
    }.items():
        context.set_prop(key, value)
    data = {"a": torch.linspace(-1, 1, 20).numpy(), "b": torch.ones(3).numpy()}
    shareable = DXO(DataKind.WEIGHT_DIFF, data=data, meta={"NUM_STEPS_CURRENT_ROUND": 2}).to_shareable()
    shareable.set_header("current_round", 4)
    capture = CaptureFilter(str(tmp_path))
    capture.set_prop(FilterContextKey.CHAIN_TYPE, FilterChainType.TASK_RESULT_CHAIN)
    for each in (PercentilePrivacy(percentile=50), capture):
        shareable = each.process(shareable, context)
    state = read_state(tmp_path / "round-0004" / "site-9-sent.safetensors")
    assert (state.kind, state.facts["steps"], state.facts["client"]) == ("difference", 2, "site-9")
    assert float(state.tensors["a"].abs().max()) == pytest.approx(0.02)  # NVFlare's bound of 0.01 a step
    assert all((state.tensors[name].numpy() == value).all() for name, value in shareable["DXO"]["data"].items())
