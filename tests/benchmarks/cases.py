"""The timed attacks, on untrained clients."""

from collections.abc import Callable
from dataclasses import dataclass

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.presets import PRESETS
from leakpipe.attacks.search import Search
from leakpipe.attacks.timing import observe_noise
from leakpipe.client.local_update import LocalSettings
from leakpipe.models.state import build_module, initial_state
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.models import ModelParams


@dataclass(frozen=True, kw_only=True)
class Case:
    """One attack.

    Attributes:
        model: Its registered name.
        size: Height and width.
        images: Of the client.
        steps: Local steps, each on as many of them.
        preset: Of the attack; it has one restart.
        rounds: In which each way of taking a step is timed once.
    """

    model: str = "convnet-bn"
    size: int = 32
    images: int = 1
    steps: int = 1
    preset: str = "bn-cosine"
    rounds: int = 60

    @property
    def batch_size(self) -> int:
        """Images in a step."""
        return self.images // self.steps


CASES = {
    "convnet-bn-32-1": Case(),
    "convnet-bn-32-8": Case(images=8, rounds=30),
    "resnet18-64-1": Case(model="resnet18", size=64, rounds=10),
    "resnet18-224-1": Case(model="resnet18", size=224, rounds=5),
    "two-steps-of-4": Case(images=8, steps=2, rounds=30),
    "bn-aware": Case(preset="bn-aware"),
    "inverting-gradients": Case(preset="inverting-gradients"),
}
CLIENT = LocalSettings(learning_rate=0.01)


def observe(case: Case) -> Observation:
    """A client's update from random images, and a prior that is as random."""
    size = case.size
    shape = {"widths": (32, 32, 64, 64), "strides": (1, 2, 1, 2)} if case.model == "convnet-bn" else {}
    module = build_module(ModelParams(name=case.model, **shape), classes=2, image_size=size)
    state, sizes = initial_state(module, seed=0), {"images": case.images, "batch_size": case.batch_size, "epochs": 1}
    return observe_noise(state, CLIENT, **sizes, size=size, classes=2)


def stepper(case: Case, engine: str) -> Callable[[], None]:
    """A function that takes the next step of the attack, whose `AttackSettings.engine` is `engine`."""
    changes = {"engine": engine, "restarts": 1, "group_weight": 0.0}
    return advancing(observe(case), PRESETS[case.preset].settings.model_copy(update=changes))


def advancing(observation: Observation, settings: AttackSettings) -> Callable[[], None]:
    """A function that takes the next step of an attack."""
    attack = Search(observation, settings, observation.client.labels, seed=0)
    state = attack.start()

    def advance() -> None:
        nonlocal state
        state = attack.advance(state)

    return advance
