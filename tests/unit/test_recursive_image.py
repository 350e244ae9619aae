"""The search below recovered maps: what it compares, and when it goes on."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.recursive import block
from leakpipe.attacks.recursive.descent import descend
from leakpipe.attacks.recursive.forward import FixedNetwork
from leakpipe.attacks.recursive.found import Descent, LayerReport
from leakpipe.attacks.recursive.image import (
    OUTSIDE,
    Candidate,
    ImageSearch,
    ImageSettings,
    Stage,
    smoothed_total_variation,
)
from tests.unit.residual import faces, fixed_network, generator, observe_face

SIZE = 16
FACES = faces(SIZE)
FACE, PRIOR = FACES[3:4], FACES[10:60].mean(dim=0, keepdim=True)
KNOWN = "stages.1.1.residual.0"
SHORT = ImageSettings(iterations=120, cycles=2)


@pytest.fixture(scope="module")
def observed() -> Observation:
    return observe_face(FACE, PRIOR)


@pytest.fixture(scope="module")
def network(observed: Observation) -> FixedNetwork:
    return fixed_network(observed)


def recovered(network: FixedNetwork, *, error: float = 1e-4) -> Descent:
    """One map of the face's, said to be off by `error`."""
    found = Descent()
    found.keep(LayerReport(KNOWN, "least squares", None, error, 0.0, 0), network.maps(FACE, [KNOWN])[KNOWN])
    return found


def search(network: FixedNetwork, start: Tensor, **changes: float) -> list[Candidate]:
    found = ImageSearch(network, recovered(network, **changes), SHORT)
    return list(found.candidates(start, generator()))


def test_distance_of_statistics_is_none_for_the_truth(network: FixedNetwork) -> None:
    names = [unit.convolution for unit in network.chain.trunk_before([KNOWN])]
    assert float(network.run(FACE, [KNOWN], compared=names)[1]) < 1e-6
    assert float(network.run(PRIOR, [KNOWN], compared=names)[1]) > 1e-3
    assert float(network.run(PRIOR, [KNOWN])[1]) == 0


def test_distance_of_statistics_is_that_of_means_and_deviations(network: FixedNetwork) -> None:
    stem = network.chain.stem.convolution
    layer = network.layers[stem]
    output = conv2d(network.prepare(PRIOR).double(), layer.weight.double(), padding=1)
    shares = []
    for channel, mean, deviation in zip(output[0], layer.mean, layer.deviation, strict=True):
        shares += [((channel.mean() - mean) / deviation) ** 2, (channel.std(correction=0) / deviation - 1) ** 2]
    expected = sum(float(share / (1 + share)) for share in shares) / len(shares)
    first = network.chain.blocks[0].residual[0].convolution
    assert float(network.run(PRIOR, [first], compared=[stem])[1]) == pytest.approx(expected, rel=1e-4)
    assert network.chain.trunk_before([first]) == [network.chain.stem]


def test_network_whose_relus_have_a_slope_of_1_is_affine(network: FixedNetwork) -> None:
    ends, middle = (
        [network.run(images, [KNOWN], slope=1.0)[0][KNOWN] for images in each]
        for each in ([FACE, PRIOR], [(FACE + PRIOR) / 2])
    )
    assert torch.allclose((ends[0] + ends[1]) / 2, middle[0], atol=1e-4)
    bent = network.run((FACE + PRIOR) / 2, [KNOWN])[0][KNOWN]
    assert not torch.allclose(bent, middle[0], atol=1e-1)


def test_cycles_go_on_from_the_best_and_never_lose_it(network: FixedNetwork) -> None:
    candidates = search(network, PRIOR)
    stages, cycles = candidates[:-2], candidates[-2:]
    assert stages[-1].error > 0.03  # so few iterations find no image that matches
    misfits = [candidate.misfit for candidate in (stages[-1], *cycles)]
    assert misfits == sorted(misfits, reverse=True)
    assert [each.iterations for each in cycles] == [stages[-1].iterations + done for done in (25, 50)]
    assert all(float(each.images.min()) >= 0 and float(each.images.max()) <= 1 for each in candidates)


def test_matched_maps_end_the_search(network: FixedNetwork) -> None:
    candidates = search(network, FACE)
    assert len(candidates) <= 9  # stages; no cycle
    assert candidates[-1].error < 0.03


def test_statistics_take_no_part_beside_coarse_maps(network: FixedNetwork) -> None:
    precise, coarse = (ImageSearch(network, recovered(network, error=error), SHORT) for error in (0.02, 0.2))
    assert network.chain.stem in precise.matched
    assert coarse.matched == []
    assert len(search(network, PRIOR, error=0.2)) <= 9


def test_newton_steps_find_the_minimum_that_l_bfgs_finds(network: FixedNetwork) -> None:
    search = ImageSearch(network, recovered(network), SHORT)
    stage, start = Stage(0.003), Candidate(0, float("inf"), 0.0, 0.5 * FACE + 0.5 * PRIOR)

    def objective(candidate: Candidate) -> float:
        images = candidate.unbounded
        outside = float((images - images.clamp(0, 1)).square().mean())
        roughness = search.settings.total_variation * stage.total_variation * float(smoothed_total_variation(images))
        return candidate.error**2 + roughness + OUTSIDE * outside

    steps = [replace(start, error=search.compare(start.images))]
    for _ in range(12):
        steps.append(search.run_newton(stage, steps[-1], 60))
    reached = [objective(step) for step in steps]
    assert reached == sorted(reached, reverse=True)
    assert steps[-1].iterations == 12 * 60
    expected = objective(search.run(stage, start, 1000))
    assert expected < 0.5 * reached[0]
    assert reached[-1] == pytest.approx(expected, rel=0.02)


def test_map_that_too_few_equations_determine_is_not_believed(
    network: FixedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = block.trust_channels

    def trust_few(*arguments: Tensor) -> Tensor:
        channels = trusted(*arguments)
        return torch.where(torch.arange(len(channels)) < 4, channels, 0)

    usual = descend(network.chain, network.layers, generator()).reports
    monkeypatch.setattr(block, "trust_channels", trust_few)
    few = descend(network.chain, network.layers, generator()).reports
    assert "gradient" in {report.how for report in usual}
    assert "gradient" not in {report.how for report in few}
