"""Everything runs on the device of its tensors: torch's default device is one that holds no values.

On the CPU the results are, bit for bit, those without that default; on a GPU they agree with the CPU's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from leakpipe.attacks.checkpoint import Checkpoint
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.presets import PRESETS
from leakpipe.attacks.reconstruction import Reconstruction
from leakpipe.cli.options import use_device
from leakpipe.client.batches import Batch
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.data.partition import Split
from leakpipe.defenses.compose import DEFENSES, apply_defenses
from leakpipe.defenses.flower import FlowerServer
from leakpipe.errors import LeakpipeError
from leakpipe.federation.pretraining import pretrain
from leakpipe.federation.simulate import simulate_federation
from leakpipe.models.catalog import MODELS
from leakpipe.models.state import build_module, forward_frozen, initial_state
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.defenses import DefenseSteps
from leakpipe.params.federation import ClientParams, FederationParams
from leakpipe.params.models import ModelParams, PretrainingParams
from leakpipe.params.privacy import DpSgdParams
from tests.conftest import small_batches, small_state
from tests.unit.attacking import changed, observe, observe_small, random_images, small_model
from tests.unit.test_client_training import TRAININGS, settings_of
from tests.unit.test_defenses import EXAMPLES

NO_GPU = not torch.cuda.is_available()
GPU = pytest.mark.skipif(NO_GPU, reason="torch sees no CUDA device")
EACH = [torch.device("cpu"), pytest.param(torch.device("cuda"), marks=GPU)]
DEVICES = pytest.mark.parametrize("device", EACH, ids=["cpu", "cuda"])
NOISE = {"kind": "gaussian", "sigma0": 0.1}
MIXUP = {"kind": "mixup"}


@contextmanager
def nowhere() -> Iterator[None]:
    """A tensor that is made without a device has no values, and what is computed with it fails."""
    with torch.device("meta"):
        yield


def assert_agree(found: Any, expected: Any, device: torch.device, *, tolerance: float = 1e-4) -> None:
    """Bits on the CPU; within a tolerance elsewhere, where sums have another order."""
    exact = device.type == "cpu"
    torch.testing.assert_close(
        found, expected, rtol=0 if exact else tolerance, atol=0 if exact else tolerance, check_device=False
    )


def as_tensors(update: ClientUpdate, device: torch.device) -> dict[str, Tensor]:
    tensors = {**update.weights, **update.statistics}
    assert all(value.device.type == device.type for value in tensors.values())
    return tensors


def moved(batches: list[Batch], device: torch.device) -> list[Batch]:
    return [Batch(batch.images.to(device), batch.labels.to(device)) for batch in batches]


def test_a_forgotten_device_would_fail() -> None:
    with nowhere(), pytest.raises((RuntimeError, NotImplementedError)):
        float((torch.ones(2, device="cpu") + torch.zeros(2)).sum())


@DEVICES
@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)
def test_clients_train_where_their_tensors_are(training: dict[str, Any], device: torch.device) -> None:
    state, batches, settings = small_state(), small_batches(2, 2, 2), settings_of(training)
    expected = as_tensors(local_update(state, batches, settings), torch.device("cpu"))
    with nowhere():
        found = local_update(state.to(device), moved(batches, device), settings)
    assert_agree(as_tensors(found, device), expected, device)


@DEVICES
def test_dp_sgd_draws_its_noise_on_the_cpu(device: torch.device) -> None:
    params = ModelParams(name="convnet-bn", normalization="group", widths=(4,), strides=(1,))
    state = initial_state(build_module(params, classes=2, image_size=8), seed=0, dtype=torch.float64)
    settings = LocalSettings(learning_rate=0.05, dp_sgd=DpSgdParams(kind="dp-sgd", clip_norm=1.0, noise_multiplier=1.0))
    batches = small_batches(2)

    def train(at: torch.device) -> dict[str, Tensor]:
        noise = torch.Generator().manual_seed(0)
        return as_tensors(local_update(state.to(at), moved(batches, at), settings, noise=noise), at)

    expected = train(torch.device("cpu"))
    with nowhere():
        assert_agree(train(device), expected, device)


@DEVICES
@pytest.mark.parametrize("kind", DEFENSES)
def test_defences_act_where_the_update_is(kind: str, device: torch.device) -> None:
    update = local_update(small_state(), small_batches(2), settings_of({}))
    example = {"kind": kind, **EXAMPLES[kind], **({"exclude": ["head.bias"]} if "exclude" in EXAMPLES[kind] else {})}
    steps = DefenseSteps.model_validate([example])

    def defend(given: ClientUpdate) -> ClientUpdate:
        return apply_defenses(given, steps, generator=torch.Generator().manual_seed(1)).update

    expected = as_tensors(defend(update), torch.device("cpu"))
    with nowhere():
        assert_agree(as_tensors(defend(update.to(device)), device), expected, device)


OBSERVED: dict[str, Callable[[], Observation]] = {
    "one step": observe_small,
    "two steps": lambda: observe_small(images=4, batch_size=2),
    "labels unknown": lambda: changed(observe_small(images=3), labels=None),
    "known noise": lambda: observe_small(defense=DefenseSteps.model_validate([NOISE])),
    "adam": lambda: observe(
        small_model(), random_images(1, dtype=torch.float32), [1], trained=settings_of({"optimizer": {"kind": "adam"}})
    ),
}
SETTINGS = {
    **{name: PRESETS[name].settings for name in PRESETS if name != "recursive"},
    "joint": AttackSettings(labels="joint"),
    "absolute statistics": AttackSettings(batch_norm_weight=1.0, batch_norm_distance="absolute"),
    "several orders": AttackSettings(orders=2),
    "restarts": AttackSettings(restarts=3, group_weight=0.1),
}
SHORT = {"iterations": 3, "pyramid": ()}
CASES = [
    *((name, "one step") for name in SETTINGS),
    *(("bn-cosine", observed) for observed in list(OBSERVED)[1:]),
    ("several orders", "two steps"),
]


@DEVICES
@pytest.mark.parametrize(("name", "observed"), CASES)
def test_attacks_run_where_the_observation_is(name: str, observed: str, device: torch.device) -> None:
    observation = OBSERVED[observed]()
    if name == "modern":  # compares colours
        observation = observe(small_model(), random_images(2, channels=3, dtype=torch.float32), [0, 1])
    settings = SETTINGS[name].model_copy(update=SHORT)
    expected = invert(observation, settings, seed=0)
    with nowhere():
        found = invert(observation.to(device), settings, seed=0)
    assert found.images.device.type == found.labels.device.type == device.type
    assert_agree(found.images, expected.images, device, tolerance=0.02)
    assert_agree(found.labels, expected.labels, device)


@DEVICES
def test_a_search_continues_on_another_device(tmp_path: Path, device: torch.device) -> None:
    observation, settings = observe_small(), PRESETS["bn-cosine"].settings.model_copy(update={"iterations": 6})
    expected = invert(observation, settings, seed=0)
    checkpoint = Checkpoint(tmp_path / "saved.safetensors", key="", seconds=0)

    class KilledError(Exception): ...

    def kill(iteration: int, _objective: float) -> None:
        if iteration == 3:
            raise KilledError

    with pytest.raises(KilledError):
        invert(observation, settings, seed=0, on_iteration=kill, checkpoint=checkpoint)
    with nowhere():
        found = invert(observation.to(device), settings, seed=0, checkpoint=checkpoint)
    assert_agree(found.images, expected.images, device, tolerance=0.02)


@DEVICES
def test_recursive_inversion_runs_where_the_observation_is(device: torch.device) -> None:
    state = initial_state(build_module(ModelParams(name="resnet20"), classes=2, image_size=16), seed=0)
    observation = observe(state, random_images(1, size=16, dtype=torch.float32), [1])
    settings = PRESETS["recursive"].settings.model_copy(update={"iterations": 21})

    def attack(seen: Observation) -> Reconstruction:
        return invert(seen, settings, seed=0)

    expected = attack(observation)
    assert expected.layers
    with nowhere():
        found = attack(observation.to(device))
    assert [layer["how"] for layer in found.layers] == [layer["how"] for layer in expected.layers]
    assert_agree(found.images, expected.images, device, tolerance=0.05)


@DEVICES
@pytest.mark.parametrize("step", [None, NOISE, {"kind": "flower-adaptive-clipping", "noise_multiplier": 0}, MIXUP])
def test_federation_runs_where_its_images_are(step: dict[str, Any] | None, device: torch.device) -> None:
    state, images = small_state(dtype=torch.float32), random_images(12, dtype=torch.float32)
    labels = torch.arange(12) % 2
    split = Split(clients={"one": (0, 1), "two": (2, 3, 4)}, validation=(5,), test=(6, 7), public=(8, 9, 10))
    clients = {"one": ClientParams(images=2, batch_size=1), "two": ClientParams(images=3, batch_size=2)}
    params = FederationParams(
        rounds=2, captured_rounds=(2,), learning_rate=0.05, local_epochs=1, batch_norm_momentum=0.1, clients=clients
    )
    steps = DefenseSteps.model_validate([] if step is None else [step])

    def run(at: torch.device) -> tuple[dict[str, Tensor], list[float]]:
        start = pretrain(state.to(at), images.to(at), labels.to(at), PretrainingParams(epochs=1), seed=0)
        result = simulate_federation(
            start, images.to(at), labels.to(at), split, params, defense=steps, attacked=["one"], seed=0
        )
        return as_tensors(result.captured[0].update, at), [each.test for each in result.accuracy]

    expected = run(torch.device("cpu"))
    with nowhere():
        assert_agree(run(device), expected, device, tolerance=1e-3)


def test_servers_noise_needs_no_default_device() -> None:
    state = small_state()
    steps = DefenseSteps.model_validate([{"kind": "flower-adaptive-clipping", "noise_multiplier": 0.05}])
    server = FlowerServer.start(steps, clients=2)
    update = local_update(state, small_batches(2), settings_of({}))

    def serve() -> tuple[Tensor, float]:
        generator = torch.Generator().manual_seed(0)
        released = server.release(state, generator=generator)
        after = server.next_round([update, update], generator=generator).clipping
        assert after is not None
        return released.weights["head.bias"], after.clipping_norm

    expected = serve()
    with nowhere():
        assert serve() == (pytest.approx(expected[0].tolist()), expected[1])


@DEVICES
@pytest.mark.parametrize("name", MODELS)
def test_networks_are_drawn_on_the_cpu_and_evaluated_where_they_are(name: str, device: torch.device) -> None:
    size = 16 if name.startswith(("convnet", "resnet", "preact")) else 64

    def evaluate(at: torch.device) -> Tensor:
        module = build_module(ModelParams(name=name), classes=2, image_size=size)
        state = initial_state(module, seed=0).to(at)
        images = torch.rand(
            2, 1, *[size] * MODELS[name].axes, generator=torch.Generator().manual_seed(0), device="cpu"
        ).to(at)
        with torch.no_grad():
            return forward_frozen(state, images)

    expected = evaluate(torch.device("cpu"))
    with nowhere():
        found = evaluate(device)
    if name == "vit_b_32":  # torch runs its fused attention in evaluation, which any mode switches off
        torch.testing.assert_close(found, expected, check_device=False, rtol=1e-3, atol=1e-5)
    else:
        assert_agree(found, expected, device)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mps", "it has no float64"),
        pytest.param("cuda", "torch sees none", marks=pytest.mark.skipif(not NO_GPU, reason="torch sees one")),
    ],
)
def test_a_device_that_cannot_compute_is_refused(name: str, said: str) -> None:
    with pytest.raises(LeakpipeError, match=rf"^--device: {name}, .*{said}"):
        use_device(name)


@DEVICES
def test_auto_is_the_gpu_where_there_is_one(device: torch.device) -> None:
    if device.type == "cpu" and not NO_GPU:
        pytest.skip("torch sees a CUDA device")
    assert use_device("auto") == device
    if device.type == "cuda":
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.allow_tf32
