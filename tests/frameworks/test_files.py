"""Files that installed NVFlare and Flower write are read; --fix writes the small files that other tests read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leakpipe.captured.reading import read_state
from leakpipe.errors import LeakpipeError
from tests.unit.test_captured_messages import RECORDED, STATE, check

ARRAYS = {name: value.numpy() for name, value in STATE.items()}


def dxo(kind: str, data: Any, **meta: Any) -> Any:
    pytest.importorskip("nvflare", reason="NVFlare is not installed: make test-frameworks")
    from nvflare.apis.dxo import DXO
    from nvflare.app_common.decomposers import numpy_decomposers
    from nvflare.app_opt.pt.decomposers import TensorDecomposer
    from nvflare.fuel.utils import fobs

    numpy_decomposers.register()
    fobs.register(TensorDecomposer)
    return DXO(kind, data=data, meta=meta)


def flower() -> Any:
    pytest.importorskip("flwr", reason="Flower is not installed: make test-frameworks")
    import flwr.app
    import flwr.common.serde

    return flwr


def array_record(flwr: Any) -> bytes:
    return flwr.common.serde.array_record_to_proto(flwr.app.ArrayRecord(STATE)).SerializeToString()


def record_dict(flwr: Any) -> bytes:
    content = flwr.app.RecordDict(
        {
            "arrays": flwr.app.ArrayRecord(STATE),
            "metrics": flwr.app.MetricRecord({"loss": 0.5}),
            "config": flwr.app.ConfigRecord({"lr": 0.1}),
        }
    )
    return flwr.common.serde.recorddict_to_proto(content).SerializeToString()


def parameters(flwr: Any) -> bytes:
    packed = flwr.common.ndarrays_to_parameters([*ARRAYS.values()])
    return flwr.common.serde.parameters_to_proto(packed).SerializeToString()


def numbered(flwr: Any) -> bytes:
    record = flwr.app.ArrayRecord.from_numpy_ndarrays([*ARRAYS.values()])
    return flwr.common.serde.array_record_to_proto(record).SerializeToString()


WRITERS: dict[str, Callable[[], bytes]] = {
    "nvflare-arrays": lambda: dxo("WEIGHT_DIFF", ARRAYS, NUM_STEPS_CURRENT_ROUND=3).to_bytes(),
    "nvflare-tensors": lambda: dxo("WEIGHTS", STATE).to_bytes(),
    "nvflare-collection": lambda: dxo("COLLECTION", {"site-1": dxo("WEIGHTS", STATE)}).to_bytes(),
    "flower-parameters": lambda: parameters(flower()),
    "flower-record": lambda: array_record(flower()),
    "flower-record-numbered": lambda: numbered(flower()),
    "flower-dict": lambda: record_dict(flower()),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_framework_writes_is_read(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = RECORDED / f"{name}.bin" if request.config.getoption("--fix") else tmp_path / "message"
    path.write_bytes(WRITERS[name]())
    check(name, read_state(path))


def test_long_values_lie_in_sections_of_their_own(tmp_path: Path) -> None:
    large = {"a": np.arange(3_000_000, dtype=np.float32), "b": torch.arange(3_000_000.0)}
    dxo("WEIGHTS", large).to_file(str(tmp_path / "large.fobs"))
    state = read_state(tmp_path / "large.fobs")
    assert all(torch.equal(value, large["b"]) for value in state.tensors.values())
    content = (tmp_path / "large.fobs").read_bytes()
    (tmp_path / "large.fobs").write_bytes(content[:-1])
    with pytest.raises(LeakpipeError, match="truncated one"):
        read_state(tmp_path / "large.fobs")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: dxo("METRICS", {"loss": 0.5}), "data_kind: 'METRICS', expected one of WEIGHTS, WEIGHT_DIFF"),
        (lambda: dxo("COLLECTION", {n: dxo("WEIGHTS", STATE) for n in "ab"}), "holds 2 updates"),
        (lambda: dxo("WEIGHTS", {"a": {1, 2}}), "'a' is a set, expected an array or a tensor"),
    ],
)
def test_other_dxos_are_refused(make: Callable[[], Any], said: str, tmp_path: Path) -> None:
    make().to_file(str(tmp_path / "other.fobs"))
    with pytest.raises(LeakpipeError, match=said):
        read_state(tmp_path / "other.fobs")
