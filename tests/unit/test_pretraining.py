"""Training on public images against a plain torch loop."""

import pytest
import torch
from torch import nn

from leakpipe.client.batches import schedule_batches
from leakpipe.errors import LeakpipeError
from leakpipe.federation.pretraining import Epoch, pretrain
from leakpipe.params.models import PretrainingParams
from tests.conftest import small_batches, small_state
from tests.unit.test_local_update import TorchNet

SETTINGS = PretrainingParams(epochs=3, batch_size=4, learning_rate=0.05, momentum=0.9, weight_decay=0.01)


def test_equals_a_plain_torch_loop() -> None:
    state, (public,) = small_state(), small_batches(10)
    before = {name: value.clone() for name, value in state.weights.items()}
    epochs: list[Epoch] = []
    trained = pretrain(state, public.images, public.labels, SETTINGS, seed=6, on_epoch=epochs.append)

    net = TorchNet().double()
    net.load_state_dict({**before, **state.statistics}, strict=False)
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    generator, losses = torch.Generator().manual_seed(6), []
    for _ in range(3):
        total = 0.0
        for batch in schedule_batches(10, 4, 1, generator):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(public.images[batch]), public.labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch) / 10
        losses.append(total)
    expected = net.state_dict()
    for name, value in {**trained.weights, **trained.statistics}.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12)
    assert [epoch.loss for epoch in epochs] == pytest.approx(losses)
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    assert losses[-1] < losses[0]
    torch.testing.assert_close(dict(state.weights), before, rtol=0, atol=0)


def test_the_same_seed_gives_the_same_weights() -> None:
    (public,) = small_batches(10)
    runs = [pretrain(small_state(), public.images, public.labels, SETTINGS, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (run.weights["head.weight"] for run in runs)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not first.requires_grad


def test_diverging_is_said() -> None:
    (public,) = small_batches(10)
    settings = SETTINGS.model_copy(update={"learning_rate": 1e200})
    with pytest.raises(LeakpipeError, match=r"model\.pretraining\.learning_rate: 1e\+200, .* diverged in epoch 1"):
        pretrain(small_state(), public.images, public.labels, settings, seed=1)
