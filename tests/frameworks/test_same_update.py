"""Whatever the framework, the optimiser and what is sent (state or difference), the same update is read, bit by bit.

So an attack on what a framework left is the attack on what torch's own files hold.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from leakpipe.captured.matching import match_update
from leakpipe.captured.pairs import find_pairs
from leakpipe.captured.reading import read_state
from tests.conftest import PROJECT

CLIENTS = """\
import os

import torch
import torchvision
from torch import nn

NAMES = ["site-1", "site-2", "site-3"]
OPTIMIZERS = {
    "site-1": lambda weights: torch.optim.SGD(weights, lr=0.01),
    "site-2": lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.9, weight_decay=1e-4),
    "site-3": lambda weights: torch.optim.Adam(weights, lr=1e-3),
}


class Small(nn.Sequential):
    def __init__(self):
        torch.manual_seed(5)
        first = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()
        super().__init__(*first, nn.Flatten(), nn.Linear(8 * 32 * 32, 2))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.net = torchvision.models.resnet18(num_classes=2)

    def forward(self, images):
        return self.net(images)


Network = {"Small": Small, "ResNet": ResNet}[os.environ["NETWORK"]]


def train(model, name):
    torch.set_num_threads(1)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    model.train()
    optimizer = OPTIMIZERS[name](model.parameters())
    nn.functional.cross_entropy(model(image), torch.tensor([0])).backward()
    optimizer.step()
"""
NVFLARE_CLIENT = """\
import nvflare.client as flare
from clients import Network, train

flare.init()
while flare.is_running():
    received = flare.receive()
    model = Network()
    model.load_state_dict(received.params)
    train(model, flare.get_site_name())
    flare.send(flare.FLModel(params=model.state_dict()))
"""
NVFLARE = """\
import os
from pathlib import Path

from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.client.config import TransferType
from nvflare.recipe.sim_env import SimEnv

from clients import NAMES, Network
from leakpipe.captured.nvflare import CaptureFilter

if __name__ == "__main__":
    how = TransferType.FULL if os.environ["SENT"] == "full" else TransferType.DIFF
    recipe = FedAvgRecipe(name="same", model=Network(), min_clients=3, num_rounds=1, train_script="nvflare_client.py",
                          params_transfer_type=how)
    recipe.add_client_file("clients.py")
    recipe.add_server_file("clients.py")
    folder = str(Path("captured").resolve())
    recipe.add_client_input_filter(CaptureFilter(folder), tasks=["train"])
    recipe.add_client_output_filter(CaptureFilter(folder), tasks=["train"])
    recipe.execute(SimEnv(clients=NAMES, workspace_root="workspace"))
"""
FLOWER = """\
import os

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from clients import NAMES, Network, train
from leakpipe.captured.flower import CaptureMod

client_app = ClientApp(mods=[CaptureMod(os.path.abspath("captured"), kind=os.environ["SENT"])])
server_app = ServerApp()


@client_app.train()
def train_client(message, context):
    model, before = Network(), message.content["arrays"].to_torch_state_dict()
    model.load_state_dict(before)
    train(model, NAMES[int(context.node_config["partition-id"])])
    sent = model.state_dict()
    if os.environ["SENT"] == "difference":
        sent = {name: value - before[name] for name, value in sent.items()}
    content = RecordDict({"arrays": ArrayRecord(sent), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=content, reply_to=message)


@server_app.main()
def serve(grid, context):
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    strategy.start(grid, ArrayRecord(Network().state_dict()), num_rounds=1)


if __name__ == "__main__":
    run_simulation(server_app, client_app, num_supernodes=3)
"""


@pytest.mark.parametrize("sent", ["full", "difference"])
@pytest.mark.parametrize("network", ["Small", "ResNet"])
@pytest.mark.parametrize(("package", "federation"), [("flwr", FLOWER), ("nvflare", NVFLARE)])
def test_what_frameworks_leave_is_what_torch_trained(
    package: str, federation: str, network: str, sent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed: make test-frameworks")
    files = {"clients.py": CLIENTS, "nvflare_client.py": NVFLARE_CLIENT, "federation.py": federation}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setenv("NETWORK", network)
    variables = {"SENT": sent, "PYTHONPATH": f"{PROJECT / 'src'}:{tmp_path}", "FLWR_TELEMETRY_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "federation.py"],
        cwd=tmp_path,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "clients", raising=False)
    import clients

    pairs = find_pairs(tmp_path / "captured")
    found = [match_update(clients.Network(), read_state(pair.before), read_state(pair.shared)).update for pair in pairs]
    assert len(found) == len(clients.NAMES)
    for client in clients.NAMES:
        local, before = clients.Network(), clients.Network().state_dict()
        clients.train(local, client)
        changes = {name: value - before[name] for name, value in local.state_dict().items()}
        same = [
            all(torch.equal(value, changes[name]) for name, value in {**each.weights, **each.statistics}.items())
            for each in found
        ]
        assert same.count(True) == 1, client
