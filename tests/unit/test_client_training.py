"""Clients' optimisers, losses and precision against torch.optim step by step, and against finite differences."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leakpipe.client.batches import Batch
from leakpipe.client.local_update import LocalSettings, continue_training, local_update
from leakpipe.client.optimizers import OptimizerState
from leakpipe.errors import LeakpipeError
from leakpipe.models.state import ModelState
from leakpipe.params.privacy import DpSgdParams
from leakpipe.params.reading import parse_section
from leakpipe.params.training import TrainingParams
from tests.conftest import small_batches, small_state
from tests.unit.test_local_update import TorchNet

RATE, STEPS = 0.02, 5
TRAININGS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"optimizer": {"kind": "sgd", "momentum": 0.9}},
    "dampened": {"optimizer": {"kind": "sgd", "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}},
    "nesterov": {"optimizer": {"kind": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}},
    "adam": {"optimizer": {"kind": "adam"}},
    "adam-decay": {"optimizer": {"kind": "adam", "betas": [0.8, 0.95], "eps": 1e-4, "weight_decay": 0.1}},
    "adamw": {"optimizer": {"kind": "adamw", "weight_decay": 0.3}},
    "clip-norm": {"clipping": {"kind": "norm", "limit": 0.5}},
    "clip-norm-wide": {"clipping": {"kind": "norm", "limit": 1e3}},
    "clip-value": {"clipping": {"kind": "value", "limit": 0.02}},
    "accumulation": {"accumulation": 2, "optimizer": {"kind": "sgd", "momentum": 0.5}},
    "linear": {"schedule": {"kind": "linear", "start_factor": 0.2, "end_factor": 0.9}},
    "cosine": {"schedule": {"kind": "cosine", "end_factor": 0.1}, "optimizer": {"kind": "adam"}},
    "exponential": {"schedule": {"kind": "exponential", "gamma": 0.7}},
    "proximal": {"proximal_weight": 3.0, "clipping": {"kind": "norm", "limit": 0.5}},
    "class-weights": {"loss": {"class_weights": [0.3, 2.0]}},
    "smoothing": {"loss": {"label_smoothing": 0.2, "class_weights": [1.0, 3.0]}},
    "sum": {"loss": {"reduction": "sum", "factor": 0.5}},
    "binary": {"loss": {"kind": "binary-cross-entropy", "class_weights": [0.5, 2.0]}},
    "everything": {
        "optimizer": {"kind": "adamw"},
        "clipping": {"kind": "norm", "limit": 1.0},
        "accumulation": 2,
        "schedule": {"kind": "cosine"},
        "proximal_weight": 0.1,
        "loss": {"label_smoothing": 0.1, "factor": 4.0},
        "loss_scale": 64.0,
    },
}
EACH = pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)


def training_of(content: dict[str, Any]) -> TrainingParams:
    return parse_section(TrainingParams, content, source="test")


def settings_of(content: dict[str, Any]) -> LocalSettings:
    return LocalSettings(learning_rate=RATE, training=training_of(content))


def torch_loss(logits: Tensor, labels: Tensor, content: dict[str, Any]) -> Tensor:
    given = dict(content.get("loss", {}))
    kind, factor = given.pop("kind", "cross-entropy"), given.pop("factor", 1.0)
    weights = given.pop("class_weights", None)
    weight = None if weights is None else torch.tensor(weights, dtype=logits.dtype)
    if kind == "cross-entropy":
        return factor * nn.CrossEntropyLoss(weight=weight, **given)(logits, labels)
    targets = nn.functional.one_hot(labels, 2).to(logits.dtype)
    return factor * nn.BCEWithLogitsLoss(pos_weight=weight, **given)(logits, targets)


def torch_optimizer(net: nn.Module, content: dict[str, Any]) -> torch.optim.Optimizer:
    given = dict(content.get("optimizer", {"kind": "sgd"}))
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    kind = kinds[given.pop("kind")]
    return kind(net.parameters(), lr=RATE, **given)


def torch_scheduler(optimizer: torch.optim.Optimizer, content: dict[str, Any], steps: int) -> Any:
    given = dict(content.get("schedule", {"kind": "constant"}))
    schedulers = torch.optim.lr_scheduler
    kind = given.pop("kind")
    if kind == "linear":
        return schedulers.LinearLR(optimizer, given["start_factor"], given["end_factor"], total_iters=steps)
    if kind == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, T_max=steps, eta_min=RATE * given.get("end_factor", 0.0))
    return schedulers.ExponentialLR(optimizer, given.get("gamma", 1.0))


def train_with_torch(state: ModelState, batches: list[Batch], content: dict[str, Any]) -> list[dict[str, Tensor]]:
    """States after every step of the optimiser, of a training loop as anybody writes it."""
    net = TorchNet().to(next(iter(state.weights.values())).dtype)
    net.load_state_dict({**state.weights, **state.statistics}, strict=False)
    size, clipping = content.get("accumulation", 1), content.get("clipping")
    steps = -(-len(batches) // size)
    optimizer = torch_optimizer(net.train(), content)
    scheduler = torch_scheduler(optimizer, content, steps)
    states = []
    for step in range(steps):
        optimizer.zero_grad()
        for place, batch in enumerate(batches[size * step : size * (step + 1)]):
            loss = torch_loss(net(batch.images), batch.labels, content) / size
            if mu := content.get("proximal_weight"):
                apart = [(value - state.weights[name]).square().sum() for name, value in net.named_parameters()]
                loss = loss + (mu / 2 * sum(apart) if place == 0 else 0)
            loss.backward()
        if clipping and clipping["kind"] == "norm":
            nn.utils.clip_grad_norm_(net.parameters(), clipping["limit"])
        elif clipping:
            nn.utils.clip_grad_value_(net.parameters(), clipping["limit"])
        optimizer.step()
        scheduler.step()
        states.append({name: value.detach().clone() for name, value in net.state_dict().items()})
    return states


@EACH
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-6)])
def test_every_step_equals_torch(training: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    """With schedules, which depend on the number of steps, the whole round is compared and not its beginnings."""
    size = training.get("accumulation", 1)
    state, batches = small_state(dtype=dtype), small_batches(*[2, 3, 4] * 4, dtype=dtype)[: STEPS * size]
    for steps in [STEPS] if "schedule" in training else range(1, STEPS + 1):
        given = batches[: steps * size]
        update, trained = local_update(state, given, settings_of(training)), train_with_torch(state, given, training)
        for name, before in {**state.weights, **state.statistics}.items():
            found = before + {**update.weights, **update.statistics}[name]
            torch.testing.assert_close(found, trained[-1][name], rtol=0, atol=tolerance)


@EACH
def test_gradient_equals_finite_differences(training: dict[str, Any]) -> None:
    """Through two steps of the optimiser, in images and in shares of labels."""
    if training.get("optimizer", {}).get("kind", "sgd") != "sgd":  # else as rough as its ε is small
        training = {**training, "optimizer": {**training["optimizer"], "eps": 0.01}}
    state, settings = small_state(), settings_of(training)
    sizes = [2, 1] * training.get("accumulation", 1)
    generator = torch.Generator().manual_seed(3)
    inputs = [batch.images.requires_grad_() for batch in small_batches(*sizes)]
    inputs += [torch.rand(size, 2, generator=generator, dtype=torch.float64).requires_grad_() for size in sizes]
    probes = {name: torch.randn(value.shape, generator=generator).double() for name, value in state.weights.items()}

    def objective(*values: Tensor) -> Tensor:
        given = [Batch(image, share) for image, share in zip(values[: len(sizes)], values[len(sizes) :], strict=True)]
        update = local_update(state, given, settings)
        return torch.stack([(probes[name] * value).sum() for name, value in update.weights.items()]).sum()

    assert torch.autograd.gradcheck(objective, inputs, eps=1e-6, atol=1e-6, rtol=1e-4)


@EACH
def test_differentiated_or_not_the_update_is_the_same(training: dict[str, Any]) -> None:
    state, batches, settings = small_state(), small_batches(2, 3, 2), settings_of(training)
    tracked = [Batch(batch.images.clone().requires_grad_(), batch.labels) for batch in batches]
    plain, found = local_update(state, batches, settings), local_update(state, tracked, settings)
    for name, value in plain.weights.items():
        assert not value.requires_grad
        torch.testing.assert_close(found.weights[name].detach(), value, rtol=0, atol=1e-14)


@pytest.mark.parametrize("training", [TRAININGS["dampened"], TRAININGS["adamw"]], ids=["sgd", "adamw"])
def test_kept_optimizer_goes_on_where_it_was(training: dict[str, Any]) -> None:
    """Two rounds with a kept optimiser are one round of both; with a fresh one they are not."""
    state, batches, settings = small_state(), small_batches(2, 3), settings_of(training)
    whole = local_update(state, batches, settings)
    first, kept = continue_training(state, batches[:1], settings, OptimizerState())
    between = state.with_tensors(
        {name: value + first.weights[name] for name, value in state.weights.items()},
        {name: value + first.statistics[name] for name, value in state.statistics.items()},
    )
    second, _ = continue_training(between, batches[1:], settings, kept)
    fresh = local_update(between, batches[1:], settings)
    name = "head.weight"
    torch.testing.assert_close(first.weights[name] + second.weights[name], whole.weights[name], rtol=0, atol=1e-12)
    assert not torch.allclose(first.weights[name] + fresh.weights[name], whole.weights[name], rtol=1e-3, atol=0)


@pytest.mark.parametrize(("precision", "scale"), [("bf16", 1.0), ("fp16", 1024.0)])
def test_mixed_precision_equals_torch_autocast(precision: str, scale: float) -> None:
    state, batches = small_state(dtype=torch.float32), small_batches(2, 3, dtype=torch.float32)
    content = {"precision": precision, "loss_scale": scale, "loss": {"label_smoothing": 0.1}}
    net = TorchNet().train()
    net.load_state_dict({**state.weights, **state.statistics}, strict=False)
    optimizer = torch_optimizer(net, content)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=precision == "fp16")
    for batch in batches:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16 if precision == "bf16" else torch.float16):
            loss = torch_loss(net(batch.images), batch.labels, content)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    trained, update = net.state_dict(), local_update(state, batches, settings_of(content))
    exact = local_update(state, batches, settings_of({**content, "precision": "float32"}))
    for name, before in {**state.weights, **state.statistics}.items():
        changes = {**update.weights, **update.statistics}
        assert changes[name].dtype == torch.float32
        torch.testing.assert_close(before + changes[name], trained[name], rtol=0, atol=2e-6)
    assert not torch.allclose(update.weights["head.weight"], exact.weights["head.weight"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_differentiated_straight_through(precision: str) -> None:
    """The gradient is that of float32 up to the rounding of the passes."""
    state, (batch,) = small_state(dtype=torch.float32), small_batches(3, dtype=torch.float32)

    def gradient(given: str) -> Tensor:
        images = batch.images.clone().requires_grad_()
        update = local_update(state, [Batch(images, batch.labels)], settings_of({"precision": given}))
        torch.stack([value.square().sum() for value in update.weights.values()]).sum().backward()
        assert images.grad is not None
        return images.grad.flatten()

    assert torch.cosine_similarity(gradient(precision), gradient("float32"), dim=0) > 0.98


def test_step_whose_scaled_gradients_overflow_is_left_out() -> None:
    state, batches = small_state(dtype=torch.float32), small_batches(2, dtype=torch.float32)
    update = local_update(state, batches, settings_of({"precision": "fp16", "loss_scale": 2.0**24}))
    assert not any(value.any() for value in update.weights.values())
    assert all(value.any() for value in update.statistics.values())


def test_private_training_is_plain_sgd() -> None:
    private = DpSgdParams(kind="dp-sgd", clip_norm=1.0, noise_multiplier=0.0)
    settings = LocalSettings(learning_rate=RATE, training=training_of(TRAININGS["adam"]), dp_sgd=private)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with pytest.raises(LeakpipeError, match="plain SGD"):
        local_update(ModelState.of(module), small_batches(2, dtype=torch.float32), settings)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"optimizer": {"kind": "sgd", "nesterov": True}}, "nesterov: needs momentum above 0"),
        ({"optimizer": {"kind": "sgd", "betas": [0.9, 0.99]}}, "unknown key"),
        ({"optimizer": {"kind": "rmsprop"}}, "rmsprop"),
        ({"loss": {"kind": "binary-cross-entropy", "label_smoothing": 0.1}}, "label_smoothing"),
        ({"loss": {"class_weights": [0.0, 0.0]}}, "class_weights: all are 0"),
    ],
)
def test_contradicting_trainings_are_refused(content: dict[str, Any], said: str) -> None:
    with pytest.raises(LeakpipeError, match=said):
        training_of(content)
