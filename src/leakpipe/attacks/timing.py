"""The time that one iteration of an attack takes on this machine."""

import time

import torch

from leakpipe.attacks.halving import plan_rungs
from leakpipe.attacks.observation import KnownClient, Observation, usable_settings
from leakpipe.attacks.search import Search
from leakpipe.client.batches import assume_schedule, make_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.models.state import ModelState
from leakpipe.params.attack_settings import AttackSettings

TIMED_ITERATIONS = 3


def observe_noise(
    state: ModelState, settings: LocalSettings, *, images: int, batch_size: int, epochs: int, size: int, classes: int
) -> Observation:
    """Returns the update of a client that trained on random images; a step on it takes as long as on any other."""
    generator = torch.Generator().manual_seed(0)
    truth, prior = torch.rand(2, images, 1, size, size, generator=generator, device="cpu").to(state.device)
    labels = torch.arange(images, device=state.device) % classes
    schedule = assume_schedule(images, batch_size, epochs)
    return Observation(
        before=state,
        update=local_update(state, make_batches(truth, labels, schedule), settings),
        settings=settings,
        image_shape=(1, size, size),
        client=KnownClient(images=images, batch_size=batch_size, epochs=epochs, labels=labels, prior=prior),
    )


def seconds_per_iteration(observation: Observation, settings: AttackSettings) -> float:
    """Returns the time of one iteration, measured with all restarts and averaged over the rungs of the search."""
    settings, _ = usable_settings(observation, settings)
    any_labels = torch.zeros(observation.candidates, dtype=torch.int64, device=observation.before.device)
    search = Search(observation, settings, any_labels, seed=0)
    state = search.advance(search.start())  # the first takes longer
    started = time.perf_counter()
    for _ in range(TIMED_ITERATIONS):
        state = search.advance(state)
    searched = sum(rung.iterations * rung.survivors for rung in plan_rungs(settings))
    share = searched / (settings.iterations * settings.restarts)
    return share * (time.perf_counter() - started) / TIMED_ITERATIONS
