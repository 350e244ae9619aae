"""The inverse that is learned from public images, where a search finds none below the recovered maps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.recursive.forward import FixedNetwork
from leakpipe.attacks.recursive.image import ImageSettings, Stage
from leakpipe.attacks.recursive.invert import RecursiveReconstruction, RecursiveSettings, invert_recursively
from leakpipe.attacks.recursive.learned import (
    LearnedInverse,
    LearnedSettings,
    build_inverse,
    can_learn,
    edge_loss,
    join_maps,
    random_fields,
)
from leakpipe.errors import LeakpipeError
from tests.unit.residual import faces, fixed_network, generator, observe_face

SIZE = 32
FACES = faces(SIZE)
FACE, PUBLIC = FACES[3:4], FACES[10:100]
ERRORS = {"stages.1.1.residual.0": 0.01, "stages.2.0.residual.3": 0.1}  # maps of 16×16 and of 8×8
QUICK = LearnedSettings(steps=150, images=4, channels=32, averaging=0.9)


@pytest.fixture(scope="module")
def observed() -> Observation:
    return replace(observe_face(FACE, PUBLIC.mean(dim=0, keepdim=True)), public=PUBLIC)


@pytest.fixture(scope="module")
def network(observed: Observation) -> FixedNetwork:
    return fixed_network(observed)


def rebuilt(network: FixedNetwork, settings: LearnedSettings = QUICK) -> Tensor:
    inverse = LearnedInverse(network, ERRORS, PUBLIC, settings, generator())
    return inverse.rebuild(network.maps(FACE, list(ERRORS)))


def distance(images: Tensor) -> float:
    return float((images - FACE).square().mean())


def test_held_out_face_comes_out_of_its_maps(network: FixedNetwork) -> None:
    found = rebuilt(network)
    assert found.shape == FACE.shape
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    nearest = min(distance(image) for image in PUBLIC)
    assert distance(found) < 0.4 * min(nearest, distance(PUBLIC.mean(dim=0)))


def test_images_that_it_has_not_learned_from_tell_its_error(network: FixedNetwork) -> None:
    inverse = LearnedInverse(network, ERRORS, PUBLIC, QUICK, generator())
    assert len(inverse.public) == 78  # of 90, without every eighth
    assert not any(torch.equal(image, PUBLIC[8]) for image in inverse.public)
    others = [FACES[number : number + 1] for number in range(100, 116)]  # neither
    gaps = [inverse.rebuild(network.maps(face, list(ERRORS))) - face for face in others]
    assert inverse.squared_error == pytest.approx(float(torch.cat(gaps).square().mean()), rel=0.6)
    assert inverse.squared_error < 0.6 * float((inverse.start - FACES[100:116]).square().mean())


def test_inverse_is_the_public_mean_before_it_has_learned(network: FixedNetwork) -> None:
    learned_from = PUBLIC[torch.arange(len(PUBLIC)) % 8 > 0]
    torch.testing.assert_close(rebuilt(network, replace(QUICK, rate=0.0)), learned_from.mean(dim=0, keepdim=True))


def test_same_generator_learns_the_same_bytes(network: FixedNetwork) -> None:
    few, state = replace(QUICK, steps=3), torch.get_rng_state()
    assert torch.equal(rebuilt(network, few), rebuilt(network, few))
    assert torch.equal(torch.get_rng_state(), state)  # nothing else is drawn from


def test_drawn_images_are_changed_public_ones(network: FixedNetwork) -> None:
    inverse = LearnedInverse(network, ERRORS, PUBLIC, replace(QUICK, steps=1, field=0.0), generator())
    drawn = inverse.draw(200)
    assert drawn.shape == (200, 1, SIZE, SIZE)
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
    mirrored = torch.cat([PUBLIC, PUBLIC.flip(3)])
    moved = torch.cat([mirrored.roll((down, right), (2, 3)) for down in (-1, 0, 1) for right in (-1, 0, 1)])

    def centred(images: Tensor) -> Tensor:
        flat = images.flatten(1) - images.flatten(1).mean(1, keepdim=True)
        return flat / flat.norm(dim=1, keepdim=True)

    # half are mixed with another image; the others differ in contrast and brightness, and where they are cut off
    alike = (centred(drawn) @ centred(moved).T).amax(1) > 0.99
    assert 0.35 < float(alike.float().mean()) < 0.75


@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_amplitude_of_fields_falls_with_the_power_of_the_frequency(exponent: float) -> None:
    fields = random_fields((200, 1, 64, 64), torch.full((200, 1, 1, 1), exponent), generator())
    np.testing.assert_allclose(fields.std((2, 3)).numpy(), 1, rtol=1e-4)
    power = np.abs(np.fft.rfft2(fields[:, 0].numpy())[:, 0]) ** 2  # the first row: horizontal frequencies alone
    frequency = np.arange(2, 30)
    slope = np.polyfit(np.log(frequency), np.log(power.mean(0)[frequency]), 1)[0]
    assert slope == pytest.approx(-2 * exponent, abs=0.1)


@pytest.mark.parametrize(
    ("image", "maps", "fits"),
    [
        ((224, 224), (28, 28), True),
        ((32, 64), (8, 16), True),
        ((32, 32), (32, 32), False),
        ((48, 48), (16, 16), False),
        ((32, 64), (8, 8), False),
        ((33, 33), (16, 16), False),
    ],
)
def test_maps_are_smaller_by_a_power_of_two(image: tuple[int, int], maps: tuple[int, int], *, fits: bool) -> None:
    assert can_learn(image, maps) == fits
    if fits:
        stride = image[0] // maps[0]
        assert not build_inverse(3, 8, stride, 1)(torch.ones(2, 3, *maps)).any()
        assert build_inverse(3, 8, stride, 3)(torch.ones(2, 3, *maps)).shape == (2, 3, *image)


def test_smaller_maps_are_repeated() -> None:
    small = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    joined = join_maps([torch.zeros(1, 2, 4, 4), small])
    assert joined.shape == (1, 3, 4, 4)
    assert torch.equal(joined[:, 2:], small.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_edges_count_half() -> None:
    step = torch.zeros(1, 1, 4, 4)
    step[..., 2:] = 1.0
    assert float(edge_loss(step)) == pytest.approx(0.5 + 0.5 * (1 / 3))


def invert(observation: Observation, error: float, iterations: int = 12) -> RecursiveReconstruction:
    """Inversion by a search that ends early, after which maps count as matched up to an `error`."""
    image = ImageSettings(iterations=iterations, stages=(Stage(1.0),), refinement=(), cycles=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("leakpipe.attacks.recursive.image.LEAST_SOLVED", error)
        return invert_recursively(observation, RecursiveSettings(image, QUICK), generator())


def test_it_is_learned_where_the_search_does_not_match_the_maps(observed: Observation) -> None:
    found = invert(observed, 0.0)
    searched = invert(replace(observed, public=None), 0.0)
    assert distance(found.images) < 0.5 * distance(searched.images)
    (said,) = (note for note in found.notes if "learned" in note)
    assert "78 public images" in said
    assert found.map_error > 0
    for other in (searched, invert(observed, 10.0), invert(replace(observed, public=PUBLIC[:7]), 0.0)):
        assert torch.equal(other.images, searched.images)
        assert not any("learned" in note for note in other.notes)


@pytest.mark.parametrize("error", [1e-6, 1.0])
def test_images_of_the_search_remain_unless_the_inverse_errs_less(
    observed: Observation, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        LearnedInverse, "squared_error", property(lambda _self: error, lambda _self, _value: None), raising=False
    )
    found, searched = (invert(each, 0.0, 600) for each in (observed, replace(observed, public=None)))
    assert distance(searched.images) < 0.9 * distance(PUBLIC.mean(dim=0))
    assert torch.equal(found.images, searched.images) == (error == 1.0)
    assert any("learned" in note for note in found.notes) == (error < 1.0)


def test_public_images_have_the_size_of_the_clients(observed: Observation) -> None:
    with pytest.raises(LeakpipeError, match=r"public: shape \(90, 1, 16, 16\), expected \(images, 1, 32, 32\)"):
        replace(observed, public=PUBLIC[..., ::2, ::2])
