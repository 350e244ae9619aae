"""Networks as others write them: trained as torch trains them, differentiated twice, and never changed."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from leakpipe.attacks.objective import Objective
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.surrogate import with_surrogate_relus
from leakpipe.client.batches import Batch
from leakpipe.client.local_update import local_update
from leakpipe.errors import LeakpipeError
from leakpipe.models.any_module import active_dropout
from leakpipe.models.catalog import MODELS
from leakpipe.models.normalization import NORMALIZATIONS
from leakpipe.models.state import ModelState, forward_frozen, forward_training
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.models import ModelParams
from tests.conftest import SETTINGS
from tests.unit.attacking import CLIENT, observe, random_images

DOUBLE = torch.float64
SMALL_VIT = partial(
    torchvision.models.VisionTransformer,
    image_size=64,
    patch_size=32,
    num_layers=2,
    num_heads=2,
    hidden_dim=8,
    mlp_dim=8,
)
CONSTRUCTORS: dict[str, Callable[..., nn.Module]] = {
    **{
        name: getattr(torchvision.models, name)
        for name in (
            *("resnet18", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf"),
            *("convnext_tiny", "swin_t", "shufflenet_v2_x0_5", "mnasnet0_5", "squeezenet1_1"),
        )
    },
    "googlenet": partial(torchvision.models.googlenet, aux_logits=False, init_weights=True),
    "vision transformer": SMALL_VIT,
}


def registered(name: str, *, num_classes: int, size: int = 64) -> nn.Module:
    params = ModelParams(name=name)
    return MODELS[name].build(params, NORMALIZATIONS[params.normalization], num_classes, size)


ALL = CONSTRUCTORS | {
    f"registered {name}": partial(registered, name, size=16 if name == "convnet3d" else 64) for name in MODELS
}


def appearance(network: nn.Module) -> list[Any]:
    """Everything of a network that a caller can see, tensors as their bytes."""
    seen: list[Any] = [(name, value.clone()) for name, value in network.state_dict().items()]
    for name, layer in network.named_modules():
        kept = {key: value for key, value in vars(layer).items() if isinstance(value, int | float | str | tuple)}
        seen.append((name, type(layer), kept, len(layer._forward_hooks), len(layer._forward_pre_hooks)))
    return [*seen, [(parameter.requires_grad, parameter.grad is None) for parameter in network.parameters()]]


def check_same(found: list[Any], expected: list[Any]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        same = torch.equal(mine[1], theirs[1]) if isinstance(theirs[1], Tensor) else mine == theirs
        assert same, theirs[0]


@pytest.mark.parametrize("name", ALL)
def test_the_callers_network_stays_as_it_is(name: str) -> None:
    torch.manual_seed(0)
    network = ALL[name](num_classes=3).eval()
    before = appearance(network)
    state = with_surrogate_relus(ModelState.of(network, dropout=False), 4.0)
    shape = (2, 1, 16, 16, 16) if name == "registered convnet3d" else (2, 3, 64, 64)
    images, labels = torch.rand(shape), torch.tensor([0, 2])
    first = local_update(state, [Batch(images, labels)], SETTINGS)
    forward_frozen(state, images)
    candidates = images.clone().requires_grad_()
    again = local_update(state, [Batch(candidates, labels)], SETTINGS)
    (slope,) = torch.autograd.grad(sum(value.square().sum() for value in again.weights.values()), candidates)
    assert slope.isfinite().all()
    assert slope.any()
    check_same(appearance(network), before)
    for tensor, value in first.weights.items():
        torch.testing.assert_close(again.weights[tensor].detach(), value, rtol=1e-3, atol=1e-5)
        assert not value.requires_grad


# Two have 129 and 88 million weights, which take half a minute; the latter is `vit_tiny` in large.
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"vgg11_bn", "vit_b_32"}))
def test_an_attack_leaves_the_network_and_the_observation_as_they_are(name: str) -> None:
    torch.manual_seed(0)
    volume = name == "convnet3d"
    network = registered(name, num_classes=3, size=16 if volume else 32)
    state = ModelState.of(network, dropout=False)
    seen = observe(state, torch.rand((2, 1, 16, 16, 16) if volume else (2, 3, 32, 32)), [0, 2])
    given = [*state.weights.values(), *state.statistics.values(), *seen.update.weights.values()]
    given += [*seen.update.statistics.values(), seen.client.labels, seen.client.prior]  # type: ignore[list-item]
    before, copies = appearance(network), [value.clone() for value in given]
    found = invert(seen, AttackSettings(iterations=1, surrogate_slope=4.0), seed=0)
    assert found.images.isfinite().all()
    check_same(appearance(network), before)
    assert all(torch.equal(value, copy) for value, copy in zip(given, copies, strict=True))


class Attention(nn.Module):
    """A transformer's block on patches, whose second attention is a call."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.attention = nn.Conv2d(1, 4, 4, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        values = self.norm(self.patches(images).flatten(2).transpose(1, 2))
        values = values + self.attention(values, values, values, need_weights=False)[0]
        values = values + F.scaled_dot_product_attention(values, values.sin(), values)
        return self.head(values.mean(dim=1))


class Tied(nn.Module):
    """Layers that share a weight, one that is frozen, one that is not used, and a buffer of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(64, 5, bias=False), nn.Linear(5, 5), nn.Linear(5, 5)
        self.third.weight = self.second.weight
        self.frozen, self.unused, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.frozen.requires_grad_(False)
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 4]))

    def forward(self, images: Tensor) -> Tensor:
        values = self.second(self.first(images.flatten(1)).tanh()).tanh()
        return self.head(self.frozen(self.third(values)[:, self.order]).tanh())


def convolutional(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), *layers, nn.Flatten(), nn.Linear(4 * 36, 3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "attention": Attention,
    "tied, frozen, unused": Tied,
    "instance normalisation that counts": lambda: convolutional(
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    ),
    "group normalisation": lambda: convolutional(nn.GroupNorm(2, 4), nn.GELU()),
    "layer normalisation": lambda: convolutional(nn.LayerNorm([4, 6, 6]), nn.SiLU(inplace=True)),
    "batch normalisation without statistics": lambda: convolutional(nn.BatchNorm2d(4, track_running_stats=False)),
    "steps in place": lambda: convolutional(nn.BatchNorm2d(4), nn.ReLU6(inplace=True), nn.Hardswish(inplace=True)),
    "hard sigmoid": lambda: convolutional(nn.BatchNorm2d(4), nn.Hardsigmoid()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_trains_as_with_torch_and_can_be_differentiated(name: str) -> None:
    torch.manual_seed(1)
    network = NETWORKS[name]().double()
    images, labels = random_images(2, dtype=DOUBLE), torch.tensor([2, 0])
    state, before = ModelState.of(network), appearance(network)

    def train(candidates: Tensor) -> Tensor:
        update = local_update(state, [Batch(candidates, labels)] * 2, SETTINGS)
        return torch.cat([value.flatten() for value in update.weights.values()])

    found = train(images)
    assert torch.autograd.gradcheck(train, images.clone().requires_grad_(), eps=1e-6, atol=1e-6, fast_mode=True)
    assert torch.equal(train(images), found), "a call must leave nothing behind"
    check_same(appearance(network), before)

    trained = copy.deepcopy(network).train()
    optimizer = torch.optim.SGD(
        [value for value in trained.parameters() if value.requires_grad], lr=CLIENT.learning_rate
    )
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(trained(images), labels).backward()
        optimizer.step()
    after, held = dict(trained.named_parameters()), dict(network.named_parameters())
    assert state.weights.keys() == {tensor for tensor, value in held.items() if value.requires_grad}
    moved = torch.cat([(after[tensor] - held[tensor]).detach().flatten() for tensor in state.weights])
    torch.testing.assert_close(found, moved, rtol=1e-6, atol=1e-12)


def test_training_a_network_on_does_not_change_its_state() -> None:
    network = Tied()
    state = ModelState.of(network)
    before = {name: value.clone() for name, value in state.weights.items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in state.weights.items())
    (batch,) = [Batch(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]))]
    assert torch.equal(forward_training(state, batch.images)[0], forward_training(state, batch.images)[0])


def test_wrappers_are_taken_off() -> None:
    network = convolutional(nn.ReLU())
    wrapped = nn.DataParallel(network)
    assert ModelState.of(wrapped).weights.keys() == ModelState.of(network).weights.keys()


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (nn.Sequential(nn.LazyLinear(3)), "'0.weight' has no shape yet"),
        (nn.Linear(3, 3).requires_grad_(False), "no parameter requires a gradient"),
    ],
)
def test_networks_without_anything_to_train_are_refused(network: nn.Module, said: str) -> None:
    with pytest.raises(LeakpipeError, match=said) as refusal:
        ModelState.of(network)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(64, 3)), ["1.p = 0.25"]),
        (nn.Sequential(nn.Dropout(0.0), nn.Linear(64, 3)), []),
        (nn.MultiheadAttention(4, 2, dropout=0.1), ["dropout = 0.1"]),
        (torchvision.ops.StochasticDepth(0.3, "row"), ["p = 0.3"]),
    ],
)
def test_dropout_is_named_and_can_be_believed_away(network: nn.Module, found: list[str]) -> None:
    assert active_dropout(network) == found
    if list(network.parameters()):
        assert active_dropout(ModelState.of(network, dropout=False).module) == []
    assert active_dropout(network) == found


class Rectified(nn.Module):
    """A network whose ReLU is a layer or a call."""

    def __init__(self, rectify: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 3)
        self.rectify = rectify

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.rectify(self.norm(self.first(images))).flatten(1))


def overwritten(values: Tensor) -> Tensor:
    F.relu(values, inplace=True)  # its result is not taken: the values themselves must be
    return values


@pytest.mark.parametrize("engine", ["autograd", "double-backward"])
@pytest.mark.parametrize(
    "rectify",
    [F.relu, torch.relu, torch.relu_, Tensor.relu, overwritten, partial(F.relu, inplace=True), nn.ReLU(inplace=True)],
)
def test_a_called_relu_is_as_good_as_a_layer(rectify: Callable[[Tensor], Tensor], engine: str) -> None:
    """The same gradient for the attacker, and another one than without a surrogate."""

    def slope(call: Callable[[Tensor], Tensor], engine: str, *, surrogate: float = 4.0) -> Tensor:
        state = ModelState.of(Rectified(call).double())
        observation = observe(state, random_images(2, dtype=DOUBLE), [0, 2])
        settings = AttackSettings(engine=engine, surrogate_slope=surrogate)  # type: ignore[arg-type]
        images = random_images(2, seed=5, dtype=DOUBLE).requires_grad_()
        found = Objective(observation, settings, seed=0).evaluate(images, torch.tensor([0, 2]))
        return torch.autograd.grad(found.objective, images)[0]

    expected = slope(nn.ReLU(), "autograd")
    torch.testing.assert_close(slope(rectify, engine), expected, rtol=1e-8, atol=1e-12)
    assert not torch.allclose(slope(rectify, engine, surrogate=0.0), expected, rtol=1e-2)
