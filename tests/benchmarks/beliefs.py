"""Counts how often a wrong belief about the client's training is noticed, and a right one doubted.

A cell `3+1/5` has five updates, of which three raise a doubt, and one does not but a note that this was not checked.

`python -m tests.benchmarks.beliefs --seeds 100 110`; thresholds were chosen on the seeds 0 to 5.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

import torch
from skimage.data import lfw_subset
from torch import Tensor

from leakpipe.attacks.belief import examine_belief
from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.client.batches import assume_schedule, make_batches, schedule_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate, combine_updates
from leakpipe.models.state import ModelState, build_module, initial_state
from leakpipe.params.models import ModelParams
from leakpipe.params.training import AdamParams, AdamWParams, SgdParams, TrainingParams

SIZE, FACES = 24, 100  # pixels; faces come before background
AGES = ("untrained", "trained", "settled")
ADAM = TrainingParams(optimizer=AdamParams(kind="adam"))
RATES = {"sgd": (0.003, 0.03), "adam": (0.001, 0.003)}
SUBJECTS = {  # of the note that a wrong belief was not checked, by the belief's first word
    **{"flipped": "sign", "learning": "learning rate", "one": "local step", "two": "local step"},
    **{"SGD": "optimiser", "Adam": "optimiser"},
}
MODELS = (("convnet-bn", 2), ("convnet-bn", 10), ("resnet20", 2))


def main() -> None:
    """Print one row per belief: how many of the updates raise a doubt, by what is known and by the model's age."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.beliefs", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(100, 110), metavar=("FIRST", "END"))
    parser.add_argument("--ages", nargs="*", choices=AGES, default=AGES, help="of the model")
    parser.add_argument("--rounded", action="store_true", help="send differences of float32 weights")
    parser.add_argument("--show", action="store_true", help="print every doubt about a right belief")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    counts: dict[str, dict[str, list[tuple[bool, bool]]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(*chosen.seeds):
        for column, belief, observation in cases(seed, chosen.ages, rounded=chosen.rounded):
            examined = examine_belief(observation)
            said, subject = examined.doubts, SUBJECTS.get(belief.split()[0])
            named = subject is not None and any(subject in note for note in examined.unchecked)
            counts[belief][column].append((bool(said), named))
            if said and chosen.show and belief.startswith("right"):
                print(seed, column, observation.settings.learning_rate, *said)
    columns = sorted({column for row in counts.values() for column in row})
    print("| belief |", " | ".join(columns), "|")
    print("|---" * (len(columns) + 1) + "|")
    for belief, row in counts.items():
        print(f"| {belief} |", " | ".join(_count(row[c]) if c in row else "" for c in columns), "|")


def _count(cells: Sequence[tuple[bool, bool]]) -> str:
    doubted, named = (sum(each) for each in zip(*cells, strict=True))
    return f"{doubted}+{named}/{len(cells)}" if named else f"{doubted}/{len(cells)}"


def cases(seed: int, ages: Sequence[str] = AGES, *, rounded: bool = False) -> Iterator[tuple[str, str, Observation]]:
    generator = torch.Generator().manual_seed(seed)
    name, classes = MODELS[seed % len(MODELS)]
    for age in ages:
        state = _model(name, classes, seed, age)
        for images, labels in ((1, "granted"), (1, "unknown"), (4, "granted"), (4, "unknown")):
            seen = torch.randperm(100, generator=generator)[:images]
            candidates, truth = _faces()[seen], torch.randint(classes, (images,), generator=generator)
            if age == "settled":  # of the classes that the model has learned
                seen = torch.randperm(40, generator=generator)[:images] + 80
                candidates, truth = _faces()[seen], (seen >= FACES).long()
            for belief, observation in _beliefs(state, candidates, truth, seed, rounded=rounded):
                client = observation.client if labels == "granted" else replace(observation.client, labels=None)
                yield f"{age}, {images}, {labels}", belief, replace(observation, client=client)


def _beliefs(
    state: ModelState, images: Tensor, labels: Tensor, seed: int, *, rounded: bool
) -> Iterator[tuple[str, Observation]]:
    sgd = LocalSettings(learning_rate=RATES["sgd"][seed % 2])
    adam = LocalSettings(learning_rate=RATES["adam"][seed % 2], training=ADAM)
    adamw = replace(adam, training=TrainingParams(optimizer=AdamWParams(kind="adamw")))
    momentum = replace(sgd, training=TrainingParams(optimizer=SgdParams(kind="sgd", momentum=0.9)))
    observe = partial(_observe, state, images, labels, rounded=rounded)
    yield "right: SGD", observe(sgd, sgd)
    yield "right: SGD, two epochs", observe(sgd, sgd, epochs=2, believed_epochs=2)
    yield "right: momentum, two epochs", observe(momentum, momentum, epochs=2, believed_epochs=2)
    yield "right: Adam", observe(adam, adam)
    yield "right: Adam, two epochs", observe(adam, adam, epochs=2, believed_epochs=2)
    yield "full state for a difference", observe(sgd, sgd, change=lambda value, before: before + value)
    yield "flipped sign", observe(sgd, sgd, change=lambda value, _: -value)
    for factor in (0.1, 0.5, 2, 10):
        yield f"learning rate × {factor}", observe(sgd, replace(sgd, learning_rate=factor * sgd.learning_rate))
    for factor, epochs in ((0.5, 1), (2, 1), (0.5, 2), (2, 2)):
        other = replace(adam, learning_rate=factor * adam.learning_rate)
        yield f"Adam's learning rate × {factor}, {epochs}", observe(adam, other, epochs=epochs, believed_epochs=epochs)
    yield "right: AdamW", observe(adamw, adamw)
    yield "Adam for AdamW", observe(adamw, adam)
    for name, settings, epochs in (("SGD", sgd, 1), ("SGD, two epochs", sgd, 2), ("Adam", adam, 1)):
        right = observe(settings, settings, epochs=epochs, believed_epochs=epochs)
        yield f"files swapped: {name}", swap_files(right)
    yield "one step for two", observe(sgd, sgd, epochs=2)
    yield "two steps for one", observe(sgd, sgd, believed_epochs=2)
    yield "SGD for Adam", observe(adam, sgd)
    yield "SGD for Adam, two epochs", observe(adam, sgd, epochs=2, believed_epochs=2)
    yield "Adam for SGD", observe(sgd, adam)


def _observe(
    state: ModelState,
    images: Tensor,
    labels: Tensor,
    trained: LocalSettings,
    believed: LocalSettings,
    *,
    epochs: int = 1,
    believed_epochs: int = 1,
    rounded: bool = False,
    change: Callable[[Tensor, Tensor], Tensor] = lambda value, _: value,
) -> Observation:
    update = local_update(
        state, make_batches(images, labels, assume_schedule(len(images), len(images), epochs)), trained
    )
    before = ClientUpdate(state.weights, state.statistics, 1)
    if rounded:
        update = combine_updates(lambda value, weight: (weight + value) - weight, update, before)
    sent = combine_updates(change, update, before)
    return Observation(
        before=state,
        update=replace(sent, steps=believed_epochs),
        settings=believed,
        image_shape=(1, SIZE, SIZE),
        client=KnownClient(
            images=len(images),
            batch_size=len(images),
            epochs=believed_epochs,
            labels=labels,
            prior=_faces()[100:].mean(dim=0, keepdim=True).repeat(len(images), 1, 1, 1),
        ),
    )


def move(state: ModelState, update: ClientUpdate) -> ModelState:
    """The state after an update."""
    changes = {**update.weights, **update.statistics}
    values = {**state.weights, **state.statistics}
    return state.replacing({name: value + changes[name] for name, value in values.items()})


def swap_files(observation: Observation) -> Observation:
    """The observation of an attacker who takes the client's state for the global model, and the other way round."""
    update = observation.update
    backwards = combine_updates(lambda change, _: -change, update, update)
    return replace(observation, before=move(observation.before, update), update=replace(backwards, steps=update.steps))


@cache
def _faces() -> Tensor:
    return torch.from_numpy(lfw_subset()).float()[:, None, :SIZE, :SIZE].contiguous()


@cache
def _model(name: str, classes: int, seed: int, age: str) -> ModelState:
    """Untrained; trained on random classes; or on the true ones, faces and background, until the loss is small."""
    state = initial_state(build_module(ModelParams(name=name), classes=classes, image_size=SIZE), seed=seed)
    if age == "untrained":
        return state
    images = _faces()[100:]
    labels = torch.randint(classes, (100,), generator=torch.Generator().manual_seed(seed))
    if age == "settled":
        images, labels = _faces()[60:140], (torch.arange(60, 140) >= FACES).long()
    epochs = 8 if age == "trained" else 40
    schedule = schedule_batches(len(images), 10, epochs, torch.Generator().manual_seed(seed))
    settings = LocalSettings(learning_rate=0.03)
    return move(state, local_update(state, make_batches(images, labels, schedule), settings))


if __name__ == "__main__":
    main()
