"""What is timed: attacks of the `leakpipe` preset on one step of untrained clients."""

from collections.abc import Callable

import torch

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.presets import PRESETS
from leakpipe.attacks.search import Search
from leakpipe.federation.local import Batch, LocalSettings, local_update
from leakpipe.models.state import build_module, initial_state
from leakpipe.params_models import ModelParams

CASES = {  # model, height and width, images in the batch, rounds
    "convnet-bn-32-1": ("convnet-bn", 32, 1, 60),
    "convnet-bn-32-8": ("convnet-bn", 32, 8, 30),
    "resnet18-64-1": ("resnet18", 64, 1, 10),
    "resnet18-224-1": ("resnet18", 224, 1, 5),
}
CLIENT = LocalSettings(learning_rate=0.01)


def observe(model: str, size: int, images: int) -> Observation:
    """A client's update from random images, and a prior that is as random."""
    shape = {"widths": (32, 32, 64, 64), "strides": (1, 2, 1, 2)} if model == "convnet-bn" else {}
    module = build_module(ModelParams(name=model, **shape), classes=2, image_size=size)
    state = initial_state(module, seed=0)
    generator = torch.Generator().manual_seed(0)
    truth, prior = torch.rand(2, images, 1, size, size, generator=generator)
    labels = torch.arange(images) % 2
    return Observation(
        before=state,
        update=local_update(state, [Batch(truth, labels)], CLIENT),
        settings=CLIENT,
        images=images,
        batch_size=images,
        epochs=1,
        image_shape=(1, size, size),
        labels=labels,
        prior=prior,
    )


def search(observation: Observation, step: str, *, compiled: bool = False) -> Search:
    """The attack, whose `AttackSettings.step` is `step`."""
    settings = PRESETS["leakpipe"].settings.model_copy(update={"step": step, "compile": compiled})
    return Search(observation, settings, observation.labels, seed=0)


def stepper(case: str, step: str, *, compiled: bool = False) -> Callable[[], None]:
    """A function that takes the next step of the attack."""
    attack = search(observe(*CASES[case][:3]), step, compiled=compiled)
    state = attack.start()

    def advance() -> None:
        nonlocal state
        state = attack.advance(state)

    return advance
