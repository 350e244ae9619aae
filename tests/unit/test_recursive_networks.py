"""Networks that recursive inversion reads: torchvision's ResNets as they are, wrapped, changed, and lookalikes."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.recursive import image as image_search
from leakpipe.attacks.recursive import invert
from leakpipe.attacks.recursive.descent import descend
from leakpipe.attacks.recursive.forward import FixedNetwork
from leakpipe.attacks.recursive.found import Descent, LayerReport
from leakpipe.attacks.recursive.image import (
    DEEP_POOLED,
    FINISH,
    FLOOR,
    LEARNED,
    POOLED,
    Candidate,
    ImageSearch,
    ImageSettings,
    Stage,
)
from leakpipe.attacks.recursive.invert import RecursiveSettings, invert_recursively
from leakpipe.attacks.recursive.learned import LearnedSettings
from leakpipe.attacks.recursive.reading import read_layers
from leakpipe.attacks.recursive.structure import Chain, read_chain
from leakpipe.attacks.recursive.unmixing import order_like
from leakpipe.audit.plan import applicable_attacks
from leakpipe.errors import LeakpipeError
from leakpipe.models.state import ModelState, forward_training
from tests.unit.attacking import observe, random_images

SIZE = 64


class Scaled(nn.Module):
    """A user's own: gray images are repeated and scaled, the network is an attribute of another name."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.backbone(2 * images.expand(-1, 3, -1, -1) - 1)
        return output


class Squared(BasicBlock):
    """A lookalike: torchvision's names, another function."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.square())


class Shortcut(BasicBlock):
    """Widespread in networks for CIFAR: another name for the shortcut, which is empty where it has no parameters."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.shortcut = self.downsample or nn.Sequential()
        del self.downsample

    def forward(self, features: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(features)))
        output: Tensor = self.relu(self.bn2(self.conv2(inner)) + self.shortcut(features))
        return output


def network(block: type[BasicBlock | Bottleneck] = BasicBlock) -> ResNet:
    torch.manual_seed(0)
    return ResNet(block, [1, 2, 1, 1], num_classes=3)


def without_pool() -> ResNet:
    changed = network()
    changed.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    changed.maxpool = nn.Identity()  # type: ignore[assignment]
    return changed


def doubled() -> ResNet:
    changed = network()
    changed.layer3[0].downsample = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(128, 256, 1), nn.BatchNorm2d(256))
    return changed


def seen(module: nn.Module, *, channels: int = 3) -> tuple[Observation, Tensor]:
    image = random_images(1, channels=channels, size=SIZE, dtype=torch.float32)
    return observe(ModelState.of(module), image, [1]), image


def what_is_read(observation: Observation, chain: Chain, images: Tensor) -> dict[str, Tensor]:
    """What every convolution in a block reads in training."""
    read: dict[str, Tensor] = {}
    names = [unit.convolution for block in chain.blocks for unit in block.residual]
    handles = [
        observation.before.module.get_submodule(name).register_forward_hook(
            lambda _layer, inputs, _output, name=name: read.update({name: inputs[0]})
        )
        for name in names
    ]
    forward_training(observation.before, images)
    for handle in handles:
        handle.remove()
    return read


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "torchvision's": (network, 3),
    "wrapped": (lambda: Scaled(network()), 1),
    "in a sequence": (lambda: nn.Sequential(nn.Identity(), network()), 3),
    "without max-pool": (without_pool, 3),
    "shortcuts of another name": (lambda: network(Shortcut), 3),
    "bottlenecks": (lambda: network(Bottleneck), 3),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_maps_of_the_chain_are_what_the_networks_convolutions_read_in_training(case: str) -> None:
    build, channels = NETWORKS[case]
    observation, image = seen(build(), channels=channels)
    chain = read_chain(observation.before.module)
    read = what_is_read(observation, chain, image)
    maps = FixedNetwork(chain, read_layers(observation, chain), observation.before, torch.float32).maps(image, read)
    for name, features in read.items():
        assert torch.allclose(maps[name], features, atol=1e-2), name


@pytest.mark.parametrize("images", [1, 2])
def test_maps_of_bottleneck_blocks_come_out(images: int) -> None:
    """A stage's first block has a stride, which leaves the means of every second pixel to other equations."""
    torch.manual_seed(0)
    narrow = ResNet(Bottleneck, [1, 1, 2, 2], num_classes=3, width_per_group=32)
    smooth = random_images(images, channels=3, size=8, dtype=torch.float32)
    image = nn.functional.interpolate(smooth, (SIZE, SIZE), mode="bicubic").clamp(0, 1)
    observation = observe(ModelState.of(narrow), image, [1, 2][:images])
    chain = read_chain(observation.before.module)
    found = descend(chain, read_layers(observation, chain), torch.Generator().manual_seed(0))
    read = what_is_read(observation, chain, image)
    order = order_like(read["layer4.1.conv2"].double(), found.maps["layer4.1.conv2"])
    for name, features in read.items():
        if name.startswith(("layer1", "layer2", "layer3.0.conv1")):  # more unknowns than equations
            continue
        assert (found.maps[name][order] - features).norm() < 1e-3 * features.norm(), name


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: network(Squared), "in ResNet layer1.0.conv1 reads something else"),
        (doubled, "expects a convolution layer3.0.downsample.0"),
    ],
)
def test_lookalikes_are_refused_in_one_sentence(build: Callable[[], nn.Module], said: str) -> None:
    observation, _ = seen(build())
    with pytest.raises(LeakpipeError, match=said) as caught:
        read_layers(observation, read_chain(observation.before.module))
    assert "\n" not in str(caught.value)


def knows_one_map(observation: Observation, image: Tensor, name: str, *, error: float) -> Descent:
    """One map of the image's, said to be off by `error`."""
    found = Descent()
    read = what_is_read(observation, read_chain(observation.before.module), image)[name]
    found.keep(LayerReport(name, "least squares", None, error, 0.0, 0), read.double().detach())
    return found


@pytest.mark.parametrize(
    ("name", "error", "deep"), [("layer3", 1e-4, True), ("layer3", 0.2, False), ("layer2", 1e-4, False)]
)
def test_statistics_take_part_below_many_convolutions(
    monkeypatch: pytest.MonkeyPatch, name: str, error: float, deep: bool
) -> None:
    monkeypatch.setattr(image_search, "POLISH", ())
    observation, image = seen(network(Bottleneck))
    chain = read_chain(observation.before.module)
    known = FixedNetwork(chain, read_layers(observation, chain), observation.before, torch.float32)
    found = knows_one_map(observation, image, f"{name}.0.conv2", error=error)
    search = ImageSearch(known, found, ImageSettings(iterations=24, cycles=1, refinement=()))
    assert (search.is_deep, bool(search.matched)) == (deep, deep)
    assert search.compare(image) < 1e-3 < search.compare(1 - image)
    finish = FINISH if error < FLOOR else ()
    for learned, pooled in ((False, POOLED), (True, (*LEARNED, *finish))):
        candidates = list(search.candidates(1 - image, torch.Generator().manual_seed(0), is_learned=learned))
        assert len(candidates) == (len(DEEP_POOLED) + 1 if deep else len(pooled))  # a cycle, or none


@pytest.mark.parametrize(
    ("block", "name", "held", "share", "error", "steps"),
    [
        (BasicBlock, "layer2.0.conv2", 9, 0.1, 0.0, [200]),
        (BasicBlock, "layer2.0.conv2", 9, 0.1, 1.0, [200]),
        (BasicBlock, "layer4.0.conv1", 9, 0.001, 0.0, [200]),
        (BasicBlock, "layer4.0.conv1", 9, 0.001, 1.0, [200, 800]),  # the search matches none, far below the maps
        (BasicBlock, "layer2.0.conv2", 9, 1.0, 0.0, [200]),  # no nearer than the prior
        (BasicBlock, "layer2.0.conv2", 7, 0.1, 0.0, []),  # too few images
        (Bottleneck, "layer3.0.conv2", 9, 0.1, 0.0, []),  # statistics take part
    ],
)
def test_search_through_a_max_pool_starts_from_learned_images(
    monkeypatch: pytest.MonkeyPatch,
    block: type[BasicBlock | Bottleneck],
    name: str,
    held: int,
    share: float,
    error: float,
    steps: list[int],
) -> None:
    observation, image = seen(network(block))
    observation = replace(observation, public=random_images(held, channels=3, size=SIZE, dtype=torch.float32))
    found = knows_one_map(observation, image, name, error=1e-4)
    monkeypatch.setattr(invert, "descend", lambda *_arguments, **_options: found)
    near = image + share * (observation.client.prior - image)
    learned, started = list[int](), list[tuple[Tensor, bool]]()

    def learn(_network: object, _errors: object, _public: object, settings: LearnedSettings, _generator: object) -> Any:
        learned.append(settings.steps)
        return SimpleNamespace(rebuild=lambda _maps: near, squared_error=1.0, public=[])

    def candidates(_search: ImageSearch, start: Tensor, *_: object, is_learned: bool) -> Iterator[Candidate]:
        started.append((start, is_learned))
        yield Candidate(1, error, 0.0, image)

    monkeypatch.setattr(invert, "LearnedInverse", learn)
    monkeypatch.setattr(ImageSearch, "candidates", candidates)
    left = invert_recursively(observation, RecursiveSettings(), torch.Generator().manual_seed(0))
    assert torch.equal(left.images, image)
    ((start, by_inverse),) = started
    assert by_inverse == (200 in steps and share < 1)
    assert torch.equal(start, near if by_inverse else observation.client.prior)
    assert learned == steps
    assert any("starts from images" in note for note in left.notes) == by_inverse


@pytest.mark.parametrize(("share", "is_believed"), [(0.02, True), (0.9, False)])
def test_image_that_matches_precise_maps_is_believed_below_many_convolutions(
    monkeypatch: pytest.MonkeyPatch, share: float, is_believed: bool
) -> None:
    observation, image = seen(network(Bottleneck))
    found = knows_one_map(observation, image, "layer3.0.conv2", error=1e-4)
    monkeypatch.setattr(invert, "descend", lambda *_arguments, **_options: found)
    monkeypatch.setattr(invert, "bounded_distance", lambda *_: 0.5)  # no image is closer than the prior
    near = image + share * (observation.client.prior - image)
    monkeypatch.setattr(ImageSearch, "candidates", lambda *_, **_options: iter([Candidate(1, 0.0, 0.0, near)]))
    left = invert_recursively(observation, RecursiveSettings(), torch.Generator().manual_seed(0))
    assert torch.equal(left.images, near) == is_believed
    assert any("so it is the prior" in note for note in left.notes) != is_believed


def test_an_audit_plans_it_for_a_users_own_residual_network() -> None:
    names = [name for name, *_ in applicable_attacks(seen(network())[0])]
    assert "recursive" in names
    assert "recursive" not in [name for name, *_ in applicable_attacks(seen(network(Squared))[0])]


def test_colour_image_of_torchvisions_network_comes_out() -> None:
    smooth = nn.functional.interpolate(
        random_images(1, channels=3, size=6, dtype=torch.float32), (SIZE, SIZE), mode="bicubic"
    )
    image = smooth.clamp(0, 1)
    observation = observe(ModelState.of(network()), image, [1])
    settings = RecursiveSettings(
        ImageSettings(iterations=1200, stages=(Stage(0.1), Stage(0.01)), refinement=(), cycles=0)
    )
    found = invert_recursively(observation, settings, torch.Generator().manual_seed(0))
    assert (found.images - image).norm() < 0.1 * (image - 0.5).norm()
