"""The passes by hand against automatic differentiation of the simulated update, which is their oracle."""

import gc
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import Normalize

from leakpipe.attacks.distances import Products
from leakpipe.attacks.engines.autograd import Autograd
from leakpipe.attacks.engines.double_backward import compared
from leakpipe.attacks.engines.double_backward.engine import ComparedGradients, Comparison, DoubleBackward
from leakpipe.attacks.engines.engine import UnfitError
from leakpipe.attacks.objective import Objective
from leakpipe.attacks.recovered_statistics import recover_batch_statistics, weight_of_batches
from leakpipe.attacks.search import Search
from leakpipe.attacks.surrogate import with_surrogate_relus
from leakpipe.client.batches import Batch, make_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.models.batchnorm import BatchStatistics
from leakpipe.models.catalog import MODELS
from leakpipe.models.choices import LAYER_NORMALIZED
from leakpipe.models.preprocessing import normalize_input
from leakpipe.models.state import ModelState, build_module, forward_training, initial_state
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.models import ModelParams
from tests.unit.attacking import CLIENT, observe, observe_small, random_images, small_model
from tests.unit.attacking import searching as searching_small

DOUBLE = torch.float64
SHAPES: dict[str, dict[str, Any]] = {"convnet-bn": {"widths": (4, 8, 12), "strides": (1, 2, 2)}}


def untrained(name: str, *, size: int = 32, dtype: torch.dtype = DOUBLE, **changes: Any) -> ModelState:
    """Of VGG with 16 units in place of 4096 in its fully connected layers, which in float64 fill the memory."""
    params = ModelParams(name=name, **SHAPES.get(name, {}) | changes)
    module = build_module(params, classes=3, image_size=size)
    for parent in [*module.modules()] if name == "vgg11_bn" else []:
        for child, layer in parent.named_children():
            if isinstance(layer, nn.Linear):
                sizes = [16 if features == 4096 else features for features in (layer.in_features, layer.out_features)]
                setattr(parent, child, nn.Linear(*sizes, device=layer.weight.device))
    return initial_state(module, seed=1, dtype=dtype)


def trained(state: ModelState) -> ModelState:
    """With running statistics that are not those of before all training."""
    generator = torch.Generator().manual_seed(5)
    moved = {
        name: value + 0.1 * torch.rand(value.shape, generator=generator, dtype=value.dtype)
        for name, value in state.statistics.items()
    }
    return state.with_tensors(state.weights, moved)


def products(gradients: dict[str, Tensor], targets: dict[str, Tensor]) -> Products:
    rows = [(gradients[name], target) for name, target in targets.items()]
    inner, squared, gaps = (
        torch.stack([function(mine, theirs).sum() for mine, theirs in rows])
        for function in (torch.mul, lambda mine, _: mine.square(), lambda mine, theirs: (mine - theirs).square())
    )
    return Products(inner, squared, gaps)


def some_function(products: Products, statistics: Mapping[str, Any]) -> Tensor:
    """Of all that the passes give, with a slope of its own in each."""
    slopes = torch.linspace(-1, 2, len(products.inner), dtype=products.inner.dtype)
    total = (slopes * products.inner).sum() + (slopes.flip(0).exp() * products.squared).sqrt().sum()
    if products.gaps is not None:
        total = total + (slopes * (products.gaps + 1).log()).sum()
    return total + sum((layer.mean.sin() + layer.variance.sqrt()).sum() for layer in statistics.values())


def explain_one(explainer: Comparison, images: Tensor, labels: Tensor) -> ComparedGradients:
    """Of one restart, without the dimension of restarts."""
    return of_restart(explainer.compare(images[None], labels[None]), 0)


def of_restart(found: ComparedGradients, restart: int) -> ComparedGradients:
    layers = {
        name: BatchStatistics(layer.mean[restart], layer.variance[restart]) for name, layer in found.statistics.items()
    }
    return ComparedGradients(
        Products(*(value if value is None else value[restart] for value in found.products)), layers
    )


def compare_with_autograd(
    state: ModelState, images: Tensor, labels: Tensor, *, differs: bool = False, batch_norm: str = "training"
) -> None:
    settings = LocalSettings(learning_rate=1.0, batch_norm=batch_norm)  # type: ignore[arg-type]
    truth = local_update(state, [Batch(images.flip(-1), labels)], settings)
    targets = {name: -value for name, value in truth.weights.items()}
    wanted = [value.detach().clone().requires_grad_() for value in (images, labels) if value.is_floating_point()]
    batch = Batch(wanted[0], wanted[1] if len(wanted) > 1 else labels)

    update = local_update(state, [batch], settings)
    statistics = forward_training(state, batch.images)[1] if batch_norm == "training" else {}
    theirs = products({name: -value for name, value in update.weights.items()}, targets)
    theirs = theirs if differs else theirs._replace(gaps=None)
    expected = torch.autograd.grad(some_function(theirs, statistics), wanted)

    found = explain_one(Comparison(state, targets, settings, differs=differs), batch.images, batch.labels)
    derivatives = torch.autograd.grad(some_function(found.products, found.statistics), wanted)
    assert (found.products.gaps is None) == (theirs.gaps is None)
    pairs = [*zip(found.products, theirs, strict=True), *zip(derivatives, expected, strict=True)]
    for mine, their in pairs:
        if their is not None:
            torch.testing.assert_close(mine, their, rtol=1e-7, atol=1e-9 * their.detach().abs().max().item())


@pytest.mark.parametrize("few", [0.0, compared.FEW_POSITIONS, 1e9], ids=["paired", "as chosen", "formed"])
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("slope", [0.0, 4.0])
def test_small_network(images: int, slope: float, few: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared, "FEW_POSITIONS", few)
    state = untrained("convnet-bn", size=16)
    state = with_surrogate_relus(state, slope) if slope else state
    compare_with_autograd(state, random_images(images, size=16, dtype=DOUBLE), torch.arange(images) % 3)


@pytest.mark.parametrize("name", ["convnet-bn", "resnet20", "vgg11_bn"])
def test_restarts_side_by_side_are_explained_as_one_by_one(name: str) -> None:
    """Of labels of each, too; `resnet20` pads channels, `vgg11_bn` has pooling and several fully connected layers."""
    state = untrained(name)
    targets = {key: value * 0.1 for key, value in state.weights.items()}
    images = random_images(6, size=32, dtype=DOUBLE).view(3, 2, 1, 32, 32).requires_grad_()
    shares = torch.rand(3, 2, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(3)).requires_grad_()

    def derive(found: list[ComparedGradients]) -> tuple[Tensor, ...]:
        total = sum(some_function(each.products, each.statistics) for each in found)
        return torch.autograd.grad(total, (images, shares))

    one = Comparison(state, targets, CLIENT)
    apart = [explain_one(one, *given) for given in zip(images, shares, strict=True)]
    together = Comparison(state, targets, CLIENT, restarts=3).compare(images, shares)
    beside = [of_restart(together, restart) for restart in range(3)]
    pairs = [*zip(derive(beside), derive(apart), strict=True)]
    pairs += [(one.products.inner, two.products.inner) for one, two in zip(beside, apart, strict=True)]
    pairs += [(one.products.squared, two.products.squared) for one, two in zip(beside, apart, strict=True)]
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9 * theirs.detach().abs().max().item())


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vgg11_bn"])
def test_networks(name: str) -> None:
    compare_with_autograd(untrained(name, size=64), random_images(2, size=64, dtype=DOUBLE), torch.tensor([2, 0]))


@pytest.mark.parametrize("batch_norm", ["training", "frozen"])
@pytest.mark.parametrize("differs", [False, True])
@pytest.mark.parametrize("name", ["convnet-bn", "resnet20"])
def test_differences_and_frozen_batch_normalisation(name: str, differs: bool, batch_norm: str) -> None:
    state = trained(untrained(name))
    images = random_images(2, size=32, dtype=DOUBLE)
    compare_with_autograd(state, images, torch.tensor([2, 0]), differs=differs, batch_norm=batch_norm)


def test_colour_images_and_labels_that_are_searched() -> None:
    shares = torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.1, 0.9]], dtype=DOUBLE)
    state = untrained("convnet-bn", size=16)
    compare_with_autograd(state, random_images(2, channels=3, size=16, dtype=DOUBLE), shares)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "signed-adam"},
        {"objective": "layer-cosine"},
        {"objective": "l2", "batch_norm": "frozen"},
        {"objective": "layer-norms", "batch_norm_distance": "absolute"},
        {"objective": "relative-l2", "layer_weighting": 0.0},
        {"batch_norm": "frozen", "batch_norm_weight": 0.0},
    ],
    ids=str,
)
def test_a_search_takes_the_same_path(changes: dict[str, Any]) -> None:
    """1e-10 over 50 steps in float64. (Without total variation: its slope jumps where two pixels are equal.)"""
    searches = {step: searching(DOUBLE, engine=step, **changes) for step in ("double-backward", "autograd")}
    assert isinstance(searches["double-backward"].objective.engine, DoubleBackward)
    assert type(searches["autograd"].objective.engine) is Autograd
    states = {step: search.start() for step, search in searches.items()}
    for _ in range(50):
        states = {step: searches[step].advance(state) for step, state in states.items()}
        assert states["double-backward"].reached == pytest.approx(states["autograd"].reached, abs=1e-10)
        torch.testing.assert_close(
            states["double-backward"].variables, states["autograd"].variables, rtol=0, atol=1e-10
        )


def test_a_search_in_single_precision_stays_as_near_as_rounding_lets_it() -> None:
    """1e-4 over 50 small steps: larger ones meet a ReLU's step sooner, from which on roundings tell paths apart."""
    searches = [searching(torch.float32, engine=step, step_size=0.003) for step in ("double-backward", "autograd")]
    states = [search.start() for search in searches]
    for _ in range(50):
        states = [search.advance(state) for search, state in zip(searches, states, strict=True)]
    torch.testing.assert_close(states[0].variables, states[1].variables, rtol=0, atol=1e-4)


def searching(dtype: torch.dtype, **changes: Any) -> Search:
    state = untrained("convnet-bn", size=16, dtype=dtype)
    images = random_images(2, size=16, dtype=dtype)
    observation = observe(state, images, [0, 2], prior=random_images(2, size=16, seed=9, dtype=dtype) * 0.6 + 0.2)
    given = {"batch_norm_weight": 1.0, "surrogate_slope": 4.0, "layer_weighting": 0.5, "iterations": 50, **changes}
    return Search(observation, AttackSettings(**given), observation.client.labels, seed=0)


UNFIT: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
    ({"engine": "autograd"}, {}, None),
    ({"objective_weight": 0.0, "batch_norm_weight": 1.0}, {}, None),
    ({"update_gradient": "detached"}, {}, "released tool"),
    ({"global_model": "drifting"}, {}, "released tool"),
    ({"variance": "biased"}, {}, "released tool"),
    ({"local_batches": "single"}, {"batch_size": 1}, "released tool"),
    ({"orders": 2}, {"batch_size": 1, "epochs": 2}, "one order"),
]


@pytest.mark.parametrize(("changes", "sizes", "said"), UNFIT, ids=str)
def test_autograd_takes_over_what_the_double_backward_does_not_know(
    changes: dict[str, Any], sizes: dict[str, Any], said: str | None
) -> None:
    """With a note that says why, unless the settings ask for autograd or there is no update to compare."""
    known = Objective(observe_small(), AttackSettings(), seed=0)
    assert (type(known.engine), known.notes) == (DoubleBackward, [])
    other = Objective(observe_small(**sizes), AttackSettings(**changes), seed=0)
    assert isinstance(other.engine, Autograd)
    assert len(other.notes) == (said is not None)
    assert said is None or said in other.notes[0]


@pytest.mark.parametrize("batch_norm", ["training", "frozen"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_several_steps(epochs: int, batch_norm: str) -> None:
    """Of batches of 2 and 1 images, and, at two epochs, with every image in two steps; labels are searched, too."""
    settings = LocalSettings(learning_rate=0.3, batch_norm=batch_norm)  # type: ignore[arg-type]
    state = trained(untrained("convnet-bn", size=16))
    state.weights["features.4.weight"][0] = 0  # a normalisation that scales with 0 must not be divided by
    schedule = [[0, 2], [1], [2, 1], [0]][: 2 * epochs]
    images = random_images(3, size=16, dtype=DOUBLE).requires_grad_()
    shares = torch.rand(3, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(3)).requires_grad_()
    truth = local_update(state, make_batches(images.detach().flip(-1), shares.detach(), schedule), settings)
    targets = {name: value / -settings.learning_rate for name, value in truth.weights.items()}

    update = local_update(state, make_batches(images, shares, schedule), settings)
    theirs = products({name: value / -settings.learning_rate for name, value in update.weights.items()}, targets)
    weight = weight_of_batches(settings.batch_norm_momentum, [len(schedule)])
    recovered = recover_batch_statistics(state, update, weight) if batch_norm == "training" else {}
    expected = torch.autograd.grad(some_function(theirs, recovered), (images, shares))

    found = explain_one(Comparison(state, targets, settings, schedule=schedule, differs=True), images, shares)
    derivatives = torch.autograd.grad(some_function(found.products, found.statistics), (images, shares))
    for mine, their in [*zip(found.products, theirs, strict=True), *zip(derivatives, expected, strict=True)]:
        torch.testing.assert_close(mine, their, rtol=1e-7, atol=1e-9 * their.detach().abs().max().item())


@pytest.mark.parametrize("changes", [{}, {"objective": "layer-norms"}, {"batch_norm": "frozen"}], ids=str)
def test_a_search_over_several_steps_takes_the_same_path(changes: dict[str, Any]) -> None:
    observation = observe_small(images=3, batch_size=2, epochs=2, dtype=DOUBLE)
    given = {"batch_norm_weight": 1.0, "surrogate_slope": 4.0, "start_jitter": 0.1, "iterations": 50, **changes}
    searches = [searching_small(observation, engine=step, **given) for step in ("double-backward", "autograd")]
    assert isinstance(searches[0].objective.engine, DoubleBackward)
    states = [search.start() for search in searches]
    for _ in range(50):
        states = [search.advance(state) for search, state in zip(searches, states, strict=True)]
        torch.testing.assert_close(states[0].variables, states[1].variables, rtol=0, atol=1e-10)


def test_unknown_layers_are_named_and_left_to_autograd() -> None:
    state = untrained("convnet-bn", size=16, normalization="group")
    with pytest.raises(UnfitError, match="GroupNorm"):
        Comparison(state, state.weights, CLIENT)
    objective = Objective(observe(state, random_images(1, size=16, dtype=DOUBLE), [0]), AttackSettings(), seed=0)
    assert isinstance(objective.engine, Autograd)
    (note,) = objective.notes
    assert "GroupNorm" in note


class Own(nn.Module):
    """A network of somebody who audits an update: it says itself what it does to images first."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.again = nn.Conv2d(6, 6, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(0.4))
        self.register_buffer("deviation", torch.tensor([[[0.2]]]))
        self.normalize = Normalize([0.4], [0.2])
        self.head = nn.Linear(6 * 4 * 4, 3)
        self.run = forward

    def forward(self, images: Tensor) -> Tensor:
        return self.run(self, images)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda _, x: x,
        lambda _, x: (x - 0.5) / 0.25,
        lambda net, x: (x - net.mean) / net.deviation,
        lambda net, x: net.normalize(x),
        lambda _, x: 2 * x.square() - 1,
    ],
    ids=["none", "constants", "buffers", "torchvision", "not linear"],
)
@pytest.mark.parametrize("slope", [0.0, 4.0])
def test_a_network_that_prepares_images_itself(prepare: Callable[[nn.Module, Tensor], Tensor], slope: float) -> None:
    network = Own(lambda net, x: net.head(net.again(net.features(prepare(net, x))).flatten(1).view(-1, 96)))
    state = initial_state(network, seed=1, dtype=DOUBLE)
    state = with_surrogate_relus(state, slope) if slope else state
    compare_with_autograd(state, random_images(2, size=8, dtype=DOUBLE), torch.tensor([2, 0]))
    apart = random_images(4, size=8, dtype=DOUBLE).view(2, 2, 1, 8, 8)
    labels = torch.tensor([[0, 1], [2, 2]])
    together = Comparison(state, state.weights, CLIENT, restarts=2).compare(apart, labels)
    for restart in range(2):
        one = explain_one(Comparison(state, state.weights, CLIENT), apart[restart], labels[restart])
        torch.testing.assert_close(of_restart(together, restart).products.inner, one.products.inner)


def test_layers_that_give_other_logits_than_the_network_are_left_to_autograd() -> None:
    network = Own(lambda net, x: net.head(net.again(net.features(x)).flatten(1)))
    network.again.register_forward_hook(lambda _layer, _inputs, output: 2 * output)
    (note,) = Objective(
        observe(ModelState.of(network), random_images(1, dtype=torch.float32), [0]), AttackSettings(), seed=0
    ).notes
    assert "give other logits than the network" in note


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (lambda net, x: net.head(net.again(net.features(x) - 0.5).flatten(1)), "calls of sub"),
        (lambda net, x: net.head(net.features(x).flatten(1)), r"not read by a layer \(again.bias\)"),
        (
            lambda net, x: net.head(net.again(net.features(x)).flatten(1) * net.head.bias[0]),
            r"outside of layers \(head.bias\)",
        ),
        (lambda net, x: net.head(net.again(net.again(net.features(x))).flatten(1)), r"used twice \(again\)"),
        (lambda net, x: net.head(normalize_input(net.again(net.features(x))).flatten(1)), "normalises something else"),
    ],
)
def test_what_a_network_of_somebody_does_is_known_or_named(
    forward: Callable[[nn.Module, Tensor], Tensor], said: str
) -> None:
    state = initial_state(Own(forward), seed=1)
    with pytest.raises(UnfitError, match=said):
        Comparison(state, state.weights, CLIENT)


def test_batch_normalisation_without_weights_is_named() -> None:
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(4 * 6 * 6, 3)
    state = ModelState.of(nn.Sequential(*layers))
    with pytest.raises(UnfitError, match=r"with weights and running statistics \(1\)"):
        Comparison(state, state.weights, CLIENT)


def test_one_value_per_channel_cannot_be_normalised() -> None:
    state = small_model(size=4)
    explainer = Comparison(state, state.weights, CLIENT)
    with pytest.raises(ValueError, match="2 values per channel"):
        explain_one(explainer, torch.rand(1, 1, 4, 4), torch.tensor([0]))


def test_parameters_without_a_target_are_left_out() -> None:
    """As where a client keeps its batch normalisation (FedBN)."""
    state = small_model(dtype=DOUBLE)
    targets = {name: value for name, value in state.weights.items() if value.dim() > 1}
    images = random_images(2, dtype=DOUBLE).requires_grad_()
    labels = torch.tensor([0, 1])
    found = explain_one(Comparison(state, targets, CLIENT), images, labels)
    update = local_update(state, [Batch(images, labels)], LocalSettings(learning_rate=1.0))
    inner, squared, _ = products({name: -value for name, value in update.weights.items()}, targets)
    torch.testing.assert_close(found.products.inner, inner)
    mine = torch.autograd.grad((found.products.inner + found.products.squared).sum(), images)
    torch.testing.assert_close(mine, torch.autograd.grad((inner + squared).sum(), images))


def test_nothing_of_a_step_is_kept_alive() -> None:
    state = small_model()
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    found = Comparison(state, state.weights, CLIENT).compare(images[None], torch.tensor([[0, 1]]))
    run = weakref.ref(found.products.inner.grad_fn.run)  # type: ignore[union-attr, attr-defined]
    torch.autograd.grad(found.products.inner.sum(), images)
    gc.disable()
    try:
        del found
        assert run() is None
    finally:
        gc.enable()


def test_every_registered_model_is_known_or_named() -> None:
    known = {}
    for name in MODELS:
        state = untrained(name, dtype=torch.float32, size=64)
        try:
            Comparison(state, state.weights, CLIENT)
            known[name] = True
        except UnfitError:
            known[name] = False
    assert known == {name: name not in LAYER_NORMALIZED and MODELS[name].axes == 2 for name in MODELS}
