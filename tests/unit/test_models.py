"""Registered networks: nothing left out of their state; ResNets against torchvision and torch's functions."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from leakpipe.client.batches import Batch
from leakpipe.client.local_update import local_update
from leakpipe.models.catalog import MODELS
from leakpipe.models.choices import LAYER_NORMALIZED, has_batch_norm
from leakpipe.models.normalization import group_norm
from leakpipe.models.preprocessing import normalize_input
from leakpipe.models.state import ModelState, build_module, forward_frozen, forward_training, initial_state
from leakpipe.models.torchvision_network import VIT_TINY
from leakpipe.params.models import ModelParams
from tests.conftest import SETTINGS, small_batches

Forward = Callable[[dict[str, Tensor], Tensor], Tensor]


def drawn_state(name: str, *, classes: int = 2, seed: int = 0) -> ModelState:
    """A state in float64 whose batch normalisation is not the identity, so that mixed-up layers show."""
    module = build_module(ModelParams(name=name), classes=classes, image_size=32)
    state = initial_state(module, seed=seed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed + 1)

    def near(value: Tensor) -> Tensor:
        return value + torch.rand(value.shape, generator=generator, dtype=value.dtype) / 2

    weights = {tensor: near(value) if value.dim() == 1 else value for tensor, value in state.weights.items()}
    return state.with_tensors(weights, {tensor: near(value) for tensor, value in state.statistics.items()})


def check_image_gradient(state: ModelState, batch: Batch, reference: Forward) -> None:
    """Gradient in the images of Σ probe·ΔW after one step of SGD, against autograd through `reference` alone."""
    generator = torch.Generator().manual_seed(2)
    probe = {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in state.weights.items()
    }
    candidate = Batch(batch.images.clone().requires_grad_(), batch.labels)
    update = local_update(state, [candidate], SETTINGS)
    (gradient,) = torch.autograd.grad(sum((probe[n] * v).sum() for n, v in update.weights.items()), candidate.images)

    images = batch.images.clone().requires_grad_()
    leaves = {name: value.clone().requires_grad_() for name, value in state.weights.items()}
    loss = F.cross_entropy(reference(leaves, images), batch.labels)
    slopes = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
    objective = sum((probe[name] * value).sum() for name, value in zip(leaves, slopes, strict=True))
    (expected,) = torch.autograd.grad(-SETTINGS.learning_rate * objective, images)
    assert expected.isfinite().all()
    assert expected.any()
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("name", MODELS)
def test_the_state_holds_every_tensor_of_the_module(name: str) -> None:
    """No layer works in place, and drawing a state leaves torch's own generator alone."""
    module, before = build_module(ModelParams(name=name), classes=3, image_size=32), torch.get_rng_state()
    state = initial_state(module, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(getattr(layer, "inplace", False) for layer in module.modules())
    empty = ModelState.of(module)
    assert len(empty.statistics) * 3 == len(list(module.named_buffers())) * 2  # but the counters
    for held, own in ((state.weights, empty.weights), (state.statistics, empty.statistics)):
        assert [(name, value.shape) for name, value in held.items()] == [(n, v.shape) for n, v in own.items()]
        assert all(value.is_meta for value in own.values())
        assert all(value.isfinite().all() for value in held.values())
    assert bool(state.statistics) == (name not in LAYER_NORMALIZED)


@pytest.mark.parametrize("normalization", ["batch", "group"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_a_step(name: str, normalization: str) -> None:
    """In float32, as clients do; every weight moves, and running statistics only where there are any."""
    params = ModelParams(name=name, normalization=normalization)
    size = max(MODELS[name].lone_size(params) + 1, MODELS[name].multiple)
    size = max(size, 32) if name in LAYER_NORMALIZED else size
    state = initial_state(build_module(params, classes=2, image_size=size), seed=0)
    assert (
        bool(state.statistics) == has_batch_norm(params) == (normalization == "batch" and name not in LAYER_NORMALIZED)
    )
    (batch,) = small_batches(2, image_size=size, dtype=torch.float32)
    if MODELS[name].axes == 3:
        batch = replace(batch, images=torch.rand(2, 1, size, size, size))
    update = local_update(state, [batch], SETTINGS)
    assert update.weights.keys() == state.weights.keys()
    assert update.statistics.keys() == state.statistics.keys()
    for part in (update.weights, update.statistics):
        assert all(value.isfinite().all() for value in part.values())
    still = [name for name, value in update.weights.items() if not value.any()]
    assert still == []


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (96, 32), (32, 16), (16, 8), (6, 3), (7, 1), (1, 1)])
def test_groups_hold_two_channels_or_more(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_group_normalisation_sees_every_image_by_itself() -> None:
    params = ModelParams(name="resnet20", normalization="group")
    state = initial_state(build_module(params, classes=2, image_size=16), seed=0)
    (batch,) = small_batches(3, image_size=16, dtype=torch.float32)
    with torch.no_grad():
        together = forward_training(state, batch.images)[0]
        alone = torch.cat([forward_training(state, image[None])[0] for image in batch.images])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, forward_frozen(state, batch.images).detach())


@pytest.mark.parametrize("name", [name for name in MODELS if name not in LAYER_NORMALIZED])
def test_one_image_trains_from_where_the_lone_size_says(name: str) -> None:
    """As large as that, the last feature map that is normalised is one pixel; one more pixel makes it four."""
    params = ModelParams(name=name)
    lone = MODELS[name].lone_size(params)
    for size, trains in ((lone, False), (lone + 1, True)):
        state = initial_state(build_module(params, classes=2, image_size=size), seed=0)
        image = torch.rand(1, 1, *[size] * MODELS[name].axes, generator=torch.Generator().manual_seed(1))
        if trains:
            assert forward_training(state, image)[0].isfinite().all()
        else:
            with pytest.raises(ValueError, match="needs 2 values per channel to train"):
                forward_training(state, image)


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("resnet34", 1000, 21_797_672),
        ("resnet50", 1000, 25_557_032),
        ("densenet121", 1000, 7_978_856),
        ("vgg11_bn", 1000, 132_868_840),
        ("resnet18", 1000, 11_689_512),
        ("resnet18", 2, 11_177_538),
        ("resnet20", 10, 269_722),
        ("resnet20", 2, 269_202),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, classes: int, count: int) -> None:
    module = build_module(ModelParams(name=name), classes=classes, image_size=32)
    assert sum(parameter.numel() for parameter in module.parameters()) == count


PREFIX = "network."


def torchvision_network(name: str, state: ModelState) -> nn.Module:
    """torchvision's own network, with its own batch normalisation and in-place ReLUs, holding `state`."""
    options = {"vgg11_bn": {"dropout": 0.0}, "convnext_tiny": {"stochastic_depth_prob": 0.0}}.get(name, {})
    construct = getattr(torchvision.models, name, partial(VIT_TINY, image_size=32))
    network = construct(num_classes=2, **options).double()
    tensors = {name.removeprefix(PREFIX): value for name, value in {**state.weights, **state.statistics}.items()}
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert not unexpected
    return network


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("convnext_tiny", 32),
        ("vit_tiny", 32),
        ("resnet18", 32),
        ("resnet18", 64),
        ("resnet34", 64),
        ("resnet50", 64),
        ("densenet121", 64),
        ("vgg11_bn", 64),
    ],
)
def test_torchvisions_networks_run_and_train_as_its_own(name: str, size: int) -> None:
    state, (batch,) = drawn_state(name), small_batches(2, image_size=size)
    network = torchvision_network(name, state)
    images = normalize_input(batch.images)
    with torch.no_grad():
        frozen, expected = forward_frozen(state, batch.images), network.eval()(images)
        logits = forward_training(state, batch.images)[0]
    torch.testing.assert_close(frozen, expected, rtol=1e-10, atol=0)
    expected = network.train()(images)
    torch.testing.assert_close(logits, expected.detach(), rtol=1e-10, atol=0)
    if name == "vgg11_bn":
        return  # a gigabyte of gradients
    optimizer = torch.optim.SGD(network.parameters(), lr=SETTINGS.learning_rate)
    F.cross_entropy(expected, batch.labels).backward()
    optimizer.step()
    trained = {PREFIX + name: value.detach() for name, value in network.state_dict().items()}
    update = local_update(state, [batch], SETTINGS)
    for name, before in state.weights.items():
        moved = trained[name] - before
        assert moved.any(), name
        torch.testing.assert_close(update.weights[name], moved, rtol=1e-8, atol=1e-8 * float(moved.abs().max()) + 1e-15)
    for name, before in state.statistics.items():
        torch.testing.assert_close(before + update.statistics[name], trained[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_torchvisions_networks_differentiate_as_its_own(name: str) -> None:
    state, (batch,) = drawn_state(name), small_batches(1, image_size=64)
    network = torchvision_network(name, state).train()

    def reference(weights: dict[str, Tensor], images: Tensor) -> Tensor:
        own = {name.removeprefix(PREFIX): value for name, value in weights.items()}
        return torch.func.functional_call(network, own, (normalize_input(images),))

    check_image_gradient(state, batch, reference)


def resnet20_by_hand(weights: dict[str, Tensor], images: Tensor, running: dict[str, Tensor] | None = None) -> Tensor:
    """ResNet-20 as the paper tells it, option A; normalised with the batch where `running` is not given."""

    def normalized(x: Tensor, layer: str) -> Tensor:
        scale, shift = weights[f"{layer}.weight"].view(1, -1, 1, 1), weights[f"{layer}.bias"].view(1, -1, 1, 1)
        if running is None:
            mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        else:
            mean, variance = (running[f"{layer}.running_{kind}"].view(1, -1, 1, 1) for kind in ("mean", "var"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    x = F.conv2d(normalize_input(images), weights["stem.0.weight"], padding=1)
    x = normalized(x, "stem.1").clamp(min=0)
    for stage, width in enumerate((16, 32, 64)):
        for block in range(3):
            name = f"stages.{stage}.{block}.residual"
            stride = 2 if stage > 0 and block == 0 else 1
            y = F.conv2d(x, weights[f"{name}.0.weight"], stride=stride, padding=1)
            y = normalized(y, f"{name}.1").clamp(min=0)
            y = normalized(F.conv2d(y, weights[f"{name}.3.weight"], padding=1), f"{name}.4")
            if stride == 2:
                x = torch.cat([x[:, :, 0::2, 0::2], torch.zeros_like(y[:, width // 2 :])], dim=1)
            x = (x + y).clamp(min=0)
    return F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), weights["head.weight"], weights["head.bias"])


@pytest.mark.parametrize("size", [16, 19])
def test_resnet20_gives_the_logits_of_the_paper(size: int) -> None:
    state, (batch,) = drawn_state("resnet20", classes=10), small_batches(3, image_size=size)
    weights, running = dict(state.weights), dict(state.statistics)
    with torch.no_grad():
        training, frozen = forward_training(state, batch.images)[0], forward_frozen(state, batch.images)
    torch.testing.assert_close(training, resnet20_by_hand(weights, batch.images), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(frozen, resnet20_by_hand(weights, batch.images, running), rtol=1e-10, atol=1e-12)
    check_image_gradient(state, Batch(batch.images[:1], batch.labels[:1]), resnet20_by_hand)


def preactivation_by_hand(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """Pre-activation ResNet-18 as the paper tells it, normalised with the batch."""

    def activated(x: Tensor, layer: str) -> Tensor:
        return F.batch_norm(x, None, None, weights[f"{layer}.weight"], weights[f"{layer}.bias"], training=True).relu()

    x = F.conv2d(normalize_input(images), weights["stem.weight"], padding=1)
    for block in range(8):
        name, stride = f"blocks.{block}", 2 if block in (2, 4, 6) else 1
        a = activated(x, f"{name}.activation.0")
        y = F.conv2d(a, weights[f"{name}.residual.0.weight"], stride=stride, padding=1)
        y = F.conv2d(activated(y, f"{name}.residual.1"), weights[f"{name}.residual.3.weight"], padding=1)
        x = y + (x if stride == 1 else F.conv2d(a, weights[f"{name}.projection.weight"], stride=2))
    return F.linear(activated(x, "last.0").mean((2, 3)), weights["head.weight"], weights["head.bias"])


def test_preactivation_resnet18_gives_the_logits_of_the_paper() -> None:
    state, (batch,) = drawn_state("preact_resnet18"), small_batches(2, image_size=17)
    with torch.no_grad():
        logits = forward_training(state, batch.images)[0]
    torch.testing.assert_close(logits, preactivation_by_hand(dict(state.weights), batch.images), rtol=1e-9, atol=1e-12)
    check_image_gradient(state, batch, preactivation_by_hand)
