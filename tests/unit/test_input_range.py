"""In which range the first layer's input was: compared with the values that it really got."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from leakpipe.attacks.input_range import doubt_input_range, measure_input
from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.attacks.rehearsal import rehearse
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.models.state import ModelState

SIZE, LABELS = 24, torch.tensor([0, 1])
SCALINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda images: images,
    "standardised": lambda images: (images - images.mean()) / images.std(),
    "-1 to 1": lambda images: 2 * images - 1,
}


class Scaled(nn.Module):
    """A network that scales its input itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(SCALINGS["-1 to 1"](images))
        return found


def network(channels: int, filters: int) -> nn.Sequential:
    torch.manual_seed(0)
    convolution = nn.Conv2d(channels, filters, 3, 2, 1)
    return nn.Sequential(
        convolution,
        nn.BatchNorm2d(filters),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(16 * filters, 2),
    )


def smooth_images(channels: int) -> Tensor:
    """Dark images, smooth as photographs are."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(2, channels, 4, 4, generator=generator)
    return 0.6 * nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(0, 1)


def observe(module: nn.Module, seen: Tensor, **settings: object) -> Observation:
    """One step on what the network is given, which the attacker takes for images."""
    state = ModelState.of(module)
    training = LocalSettings(learning_rate=0.01, **settings)  # type: ignore[arg-type]
    update = local_update(state, make_batches(seen, LABELS, [[0, 1]]), training)
    client = KnownClient(images=2, batch_size=2, epochs=1, labels=LABELS)
    return Observation(before=state, update=update, settings=training, image_shape=seen.shape[1:], client=client)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(("channels", "filters"), [(1, 8), (3, 32)])
def test_scaled_images_are_doubted_and_others_are_not(scaling: str, channels: int, filters: int) -> None:
    seen = SCALINGS[scaling](smooth_images(channels))
    observation = observe(network(channels, filters), seen)
    measured = measure_input(observation, torch.zeros_like(seen))
    assert measured is not None
    assert measured.mean == pytest.approx(float(seen.mean()), abs=0.1)
    assert measured.square == pytest.approx(float(seen.square().mean()), abs=0.3)
    assert bool(doubt_input_range(observation, torch.zeros_like(seen))) == (scaling != "none")
    said = " ".join(rehearse(observation))
    assert ("scales its images before the network" in said) == (scaling != "none")


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        (Scaled(network(1, 8)), {}),  # the first layer does not read images
        (network(1, 3), {}),  # too few filters
        (network(1, 8), {"batch_norm": "frozen"}),  # statistics of other images
        (nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, 2)), {}),
    ],
)
def test_where_the_first_layer_does_not_tell_nothing_is_said(module: nn.Module, settings: dict[str, object]) -> None:
    seen = SCALINGS["standardised"](smooth_images(1))
    assert measure_input(observe(module, seen, **settings), torch.zeros_like(seen)) is None
