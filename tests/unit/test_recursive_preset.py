"""The preset `recursive`: from an observation to an image, and what it refuses before and while it runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from skimage.metrics import structural_similarity as ssim

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimise import explained_of_prior, invert
from leakpipe.attacks.presets import PRESETS, resolve_settings
from leakpipe.attacks.reconstruction import Reconstruction
from leakpipe.attacks.recursive.image import ImageSettings
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.experiment.reading import parse_params
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.attacks import AttackParams
from leakpipe.params.reading import merge, read_yaml
from tests.conftest import PROJECT
from tests.unit.attacking import changed, observe, observe_small
from tests.unit.residual import faces, observe_face, residual_network

SIZE = 16
SHORT = PRESETS["recursive"].settings.model_copy(update={"iterations": 210})
FACES = faces(SIZE)
FACE, PRIOR = FACES[3:4], FACES[10:60].mean(dim=0, keepdim=True)


def similarity(images: torch.Tensor) -> float:
    return float(ssim(images[0, 0].numpy(), FACE[0, 0].numpy(), data_range=1))


@pytest.fixture(scope="module")
def observed() -> Observation:
    return observe_face(FACE, PRIOR)


@pytest.fixture(scope="module")
def found(observed: Observation) -> Reconstruction:
    return invert(observed, SHORT, seed=1)


def test_image_comes_out_of_a_deep_networks_update(found: Reconstruction) -> None:
    assert similarity(PRIOR) < 0.7
    assert similarity(found.images) > 0.98
    assert found.labels.tolist() == [1]
    assert found.objective == found.curves["map_error"][-1]


def test_explained_is_the_share_of_the_priors_distance_to_the_update(
    observed: Observation, found: Reconstruction
) -> None:
    def distance(images: torch.Tensor) -> float:  # simulated and compared by hand
        simulated = local_update(observed.before, make_batches(images, torch.tensor([1]), [[0]]), observed.settings)
        both = [
            torch.cat([update.weights[name].detach().double().flatten() for name in observed.update.weights])
            for update in (simulated, observed.update)
        ]
        return 1 - float(torch.cosine_similarity(*both, dim=0))

    def explained(images: torch.Tensor) -> float | None:
        return explained_of_prior(observed, SHORT, images, torch.tensor([1]), seed=0)

    assert found.explained == pytest.approx(max(0.0, 1 - distance(found.images) / distance(PRIOR)), abs=1e-6)
    assert explained(FACE) == pytest.approx(1, abs=1e-4)  # float32
    assert explained(PRIOR) == 0
    wrong = explained(FACES[70:71])
    assert wrong is not None
    assert wrong < 0.3


@pytest.mark.parametrize("deviation", [0.1, 0.3, 1.0])
def test_noisy_maps_never_lead_away_from_what_the_prior_explains(observed: Observation, deviation: float) -> None:
    noisy = changed(observed, update=blurred(observed.update, deviation))
    left = invert(noisy, SHORT, seed=1)
    fell_back = torch.equal(left.images, PRIOR)
    assert fell_back == any("prior" in note for note in left.notes)
    assert fell_back or statistics_distance(noisy, left.images) < 0.7 * statistics_distance(noisy, PRIOR)
    assert similarity(left.images) > similarity(PRIOR) - 1e-6


def blurred(update: ClientUpdate, deviation: float) -> ClientUpdate:
    """Noise in units of each tensor's own deviation."""
    generator = torch.Generator().manual_seed(3)

    def blur(value: torch.Tensor) -> torch.Tensor:
        return value + deviation * value.std() * torch.randn(value.shape, generator=generator)

    weights, statistics = ({name: blur(v) for name, v in part.items()} for part in (update.weights, update.statistics))
    return ClientUpdate(weights, statistics, update.steps)


def statistics_distance(observation: Observation, images: torch.Tensor) -> float:
    """By hand, from a simulated update: running statistics move by a tenth (the momentum) of what a batch's differ."""
    simulated = local_update(
        observation.before, make_batches(images, torch.tensor([1]), [[0]]), observation.settings
    ).statistics
    shares = []
    for name in (name for name in simulated if name.endswith("running_mean")):
        spread = name.replace("running_mean", "running_var")
        given, seen = (
            [observation.before.statistics[key] + 10 * part[key].detach() for key in (name, spread)]
            for part in (simulated, observation.update.statistics)
        )
        variance = seen[1].clamp_min(1e-12)
        gap = ((given[0] - seen[0]) ** 2 + (given[1].clamp_min(0).sqrt() - variance.sqrt()) ** 2) / variance
        shares += (gap / (1 + gap)).tolist()
    return sum(shares) / len(shares)


def test_every_layer_is_reported(found: Reconstruction) -> None:
    assert [layer["layer"] for layer in found.layers][:2] == ["stages.2.2.residual.3", "stages.2.2.residual.0"]
    gaps = [layer["gap"] for layer in found.layers if layer["how"] == "null space"]
    assert min(gaps) > 1e6
    assert max(layer["residual"] for layer in found.layers) < 1e-4
    assert f"{len(found.layers)} convolutions" in found.notes[0]
    assert "stages.1.0.residual.0" in found.notes[1]  # where it stopped
    assert found.curves["iteration"][-1] == found.iterations <= SHORT.iterations
    assert found.curves["map_error"][-1] < found.curves["map_error"][0]


def test_same_seed_gives_the_same_bytes_and_labels_are_recovered(observed: Observation, found: Reconstruction) -> None:
    seen: list[int] = []
    unlabelled = changed(observed, labels=None)
    again = invert(unlabelled, SHORT, seed=1, on_iteration=lambda iteration, _: seen.append(iteration))
    assert torch.equal(again.images, found.images)
    assert again.labels.tolist() == [1]
    assert "1 of class 1" in again.notes[-1]
    assert seen == found.curves["iteration"]


def drowned(update: ClientUpdate) -> ClientUpdate:
    generator = torch.Generator().manual_seed(0)
    noisy = {name: value + torch.randn(value.shape, generator=generator) for name, value in update.weights.items()}
    return ClientUpdate(noisy, update.statistics, update.steps)


def zeroed(update: ClientUpdate) -> ClientUpdate:
    nothing = {name: torch.zeros_like(value) for name, value in update.weights.items()}
    return ClientUpdate(nothing, update.statistics, update.steps)


@pytest.mark.parametrize(("spoil", "said"), [(drowned, "No map came out"), (zeroed, "all zero")])
def test_prior_is_what_is_left_of_an_update_that_tells_nothing(
    observed: Observation, spoil: Callable[[ClientUpdate], ClientUpdate], said: str
) -> None:
    left = invert(changed(observed, update=spoil(observed.update)), SHORT, seed=1)
    assert torch.equal(left.images, PRIOR)
    assert any(said in note for note in left.notes)
    assert (left.layers, left.objective, left.explained, left.iterations) == ([], None, 0.0, 0)


def test_preset_is_what_recursive_inversion_does_by_itself() -> None:
    settings, usual = PRESETS["recursive"].settings, ImageSettings()
    kept = (settings.total_variation_weight, settings.iterations, settings.spectrum_decay)
    assert kept == (usual.total_variation, usual.iterations, usual.decay)


def withheld(observation: Observation) -> Observation:
    return changed(observation, update=ClientUpdate(observation.update.weights, {}, 1))


UNFIT: dict[str, tuple[Callable[[Observation], Observation], str]] = {
    "group normalisation": (
        lambda _: observe(residual_network(SIZE, normalization="group"), FACE, [1], prior=PRIOR),
        "needs batch normalisation",
    ),
    "another network": (lambda _: observe_small(images=1), "knows ResNet-20 and torchvision's ResNets"),
    "two steps": (lambda seen: observe(seen.before, FACE, [1], epochs=2, prior=PRIOR), "single local step"),
    "no running statistics": (withheld, "withheld"),
    "no prior": (lambda seen: changed(seen, prior=None), "prior image"),
    "an aggregate": (
        lambda seen: changed(seen, cohort=[observe(seen.before, FACE, [0], prior=PRIOR).client]),
        "one client's single local step",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_it_cannot_invert_is_refused_in_one_sentence(observed: Observation, case: str) -> None:
    spoil, said = UNFIT[case]
    with pytest.raises(LeakpipeError, match=said) as caught:
        invert(spoil(observed), SHORT, seed=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("labels", "joint"), ("restarts", 2), ("step_size", 0.5), ("batch_norm_weight", 1.0)]
)
def test_settings_of_the_search_contradict_it(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=rf"{field}: .*method: (recursive|search)"):
        AttackSettings.model_validate({**SHORT.model_dump(), field: value})
    attack = AttackParams.model_validate({"preset": "recursive", "targets": {"a": {}}, field: value})
    with pytest.raises(LeakpipeError, match=rf"preset 'recursive' with these settings: {field}"):
        resolve_settings(attack, "a")


REFUSED = """
model = {name: convnet-bn, widths: [8], strides: [2]} | needs a residual network, one of resnet20, resnet18
model = {name: densenet121} | not model.name: densenet121
model = {normalization: group} | needs batch normalisation, which model.normalization: group replaces
federation = {batch_norm_sharing: local} | needs running statistics in the update
threat_model = {batch_norm: none} | needs running statistics in the update
federation = {clients: {B1: {images: 4, batch_size: 2}}} | one local step, but federation.clients.B1 takes 2
federation = {local_epochs: 2} | one local step, but federation.clients.B1 takes 2
defenses = {kept: [{kind: freeze-bn-statistics}]} | which defence 'kept' withholds
defenses = {pair: [{kind: secure-aggregation, clients: 2}]}; threat_model = {defense: known} | method: recursive is
attacks = {recursive: {row_space_weight: 1}} | attacks.recursive: preset 'recursive' with these settings: row_space
"""


@pytest.mark.parametrize("case", REFUSED.strip().splitlines())
def test_experiment_that_it_cannot_attack_is_refused_before_it_runs(case: str) -> None:
    content = merge(read_yaml(PROJECT / "params.yaml"), read_yaml(PROJECT / "experiments" / "deep-resnet18.yaml"))
    content["attacks"] = {"recursive": {"preset": "recursive", "targets": {"B1": {}}}}
    parse_params(content, source="deep-resnet18.yaml")
    edits, said = case.split(" | ")
    for each in edits.split("; "):
        section, value = each.split(" = ")
        content = merge(content, {section: yaml.safe_load(value)})
    with pytest.raises(LeakpipeError) as caught:
        parse_params(content, source="deep-resnet18.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
