"""The cost of an experiment: seconds, memory and disk of its jobs, roughly, and the division of its cells among jobs.

The seconds were measured on one core of a current machine with the default experiment's network. A deeper network takes
longer, so for any other than a convnet they are a lower bound. Cheap to import (no torch): the Snakefile does so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from leakpipe.attacks.halving import plan_rungs
from leakpipe.attacks.presets import resolve_settings
from leakpipe.data.datasets import DATASETS
from leakpipe.experiment.cells import captured_clients, group_cells, list_cells
from leakpipe.models.catalog import MODELS
from leakpipe.params.experiment import Params
from leakpipe.params.models import ModelParams

# Starting Python and torch takes seconds, so a job takes cells until it is expected to need half a minute. Jobs are
# filled in order: one cell more changes no job but the last of its kind.
JOB_SECONDS, MOST_CELLS = 30, 10
START_SECONDS, FIGURE_SECONDS, LOOKUP_SECONDS, SCORE_SECONDS = 3.0, 4.0, 1.0, 0.06
FEDERATE_MB, INVERT_MB = 3500, 2000
OTHER_JOBS, OTHER_MB = 7, 12  # preparation, tables, figures, report, crate, tracking; what they leave on the disk
# Parameters and buffers with 1000 classes or fewer, in millions; those of a convnet follow from its widths.
MILLIONS = {
    "convnet3d": 0.16,
    "resnet20": 0.27,
    "preact_resnet18": 11.2,
    "resnet18": 11.2,
    "resnet34": 21.3,
    "resnet50": 23.6,
    "densenet121": 7.0,
    "vgg11_bn": 128.8,
    "convnext_tiny": 27.8,
    "vit_tiny": 5.5,
    "vit_b_32": 87.5,
}
Item = TypeVar("Item")


@dataclass(frozen=True)
class Workload:
    """An estimate of what an experiment takes.

    Attributes:
        federations: Simulated federations.
        cells: Attacks on one client of one federation, each over all captured rounds.
        attacks: Attacks on one update.
        jobs: Jobs that Snakemake runs from nothing.
        core_seconds: Seconds of all jobs on one core.
        memory_mb: Memory that the largest job requests.
        disk_mb: Size of the results.
    """

    federations: int
    cells: int
    attacks: int
    jobs: int
    core_seconds: float
    memory_mb: int
    disk_mb: float


def estimate(params: Params) -> Workload:
    """Returns what an experiment takes, roughly, if nothing has been made yet."""
    cells, rounds, seeds = list_cells(params), len(params.federation.captured_rounds), len(params.seeds)
    federations = len(params.defenses) * seeds
    embedded = len(group_cells(cells)) if params.identifiability.embedders else 0
    attacking: dict[tuple[str, str, str], float] = {}
    jobs = OTHER_JOBS + len(split_into_jobs(params.seeds, 1)) + (2 if embedded else 1) * len(scoring_jobs(params))
    jobs += params.model.weights == "public"
    jobs += len(params.defenses) * len(split_into_jobs(params.seeds, seconds_to_train(params)))
    for cell in cells:
        key = (cell.defense, cell.client, cell.attack)
        attacking[key] = attacking.get(key, 0) + seconds_to_attack(params, cell.attack, cell.client)
    for (_, client, attack), total in attacking.items():
        each = seconds_to_attack(params, attack, client)
        jobs += len(split_into_jobs(range(round(total / each)), each))
    seconds = sum(attacking.values()) + federations * seconds_to_train(params)
    seconds += len(cells) * seconds_to_score(params) + embedded * LOOKUP_SECONDS
    seconds += jobs * START_SECONDS + len(params.figures) * FIGURE_SECONDS
    kept = sum(1 + len(captured_clients(params, defense)) for defense in params.defenses)  # models, updates
    models = seeds * rounds * kept * count_values(params.model, params.data.image_size)
    rebuilt = sum(params.federation.clients[cell.client].images for cell in cells) * rounds
    pixels = (data_values(params) or 0) + 3 * params.data.image_size ** MODELS[params.model.name].axes * (
        rebuilt + seeds
    )
    return Workload(
        federations=federations,
        cells=len(cells),
        attacks=len(cells) * rounds,
        jobs=jobs,
        core_seconds=seconds,
        memory_mb=max(memory_mb(params, FEDERATE_MB), INVERT_MB),
        disk_mb=4 * (models + pixels) / 1e6 + OTHER_MB,
    )


def split_into_jobs(cells: Sequence[Item], seconds: float) -> list[Sequence[Item]]:
    """Cuts a list of cells that take so many seconds each into jobs."""
    size = max(1, min(MOST_CELLS, round(JOB_SECONDS / seconds)))
    return [cells[start : start + size] for start in range(0, len(cells), size)]


def scoring_jobs(params: Params) -> list[tuple[tuple[tuple[int, str], ...], Sequence[tuple[str, str]]]]:
    """Returns the (seed, client) of the cells that each job scores, and its tables' (defence, attack).

    Tables of one job are those of attacks on the same clients with the same seeds.
    """
    alike: dict[tuple[tuple[int, str], ...], list[tuple[str, str]]] = {}
    for pair, cells in sorted(group_cells(list_cells(params)).items()):
        alike.setdefault(tuple((cell.seed, cell.client) for cell in cells), []).append(pair)
    seconds = seconds_to_score(params)
    return [
        (made_of, pairs) for made_of, group in alike.items() for pairs in split_into_jobs(group, seconds * len(made_of))
    ]


def seconds_to_train(params: Params) -> float:
    """Returns what a federation takes."""
    held = sum(client.images for client in params.federation.clients.values())
    return 0.0015 * _area(params) * held * params.federation.rounds * params.federation.local_epochs


def seconds_to_attack(params: Params, attack: str, client: str) -> float:
    """Returns what an attack on a client takes, over all captured rounds."""
    settings, victim = resolve_settings(params.attacks[attack], client), params.federation.clients[client]
    passes = victim.images * (victim.local_epochs or params.federation.local_epochs)
    evaluations = sum(rung.iterations * rung.survivors for rung in plan_rungs(settings))
    steps = len(params.federation.captured_rounds) * evaluations
    return 0.001 * steps * (5 + 2 * _area(params) * passes)


def seconds_to_score(params: Params) -> float:
    """Returns what scoring one cell takes."""
    return SCORE_SECONDS * _area(params) * len(params.federation.captured_rounds)


def memory_mb(params: Params, base: int) -> int:
    """Returns the memory of a job that needs `base` MB and holds the data set, a copy of it and its file's bytes."""
    return base + 3 * 4 * (data_values(params) or 0) // 1_000_000


def data_values(params: Params) -> int | None:
    """Returns the number of values in all images of the data set; None if only its folder says how many there are."""
    contents = DATASETS[params.data.dataset].contents(params.data)
    return contents.images * contents.channels * params.data.image_size**contents.axes if contents else None


def count_values(model: ModelParams, image_size: int) -> float:
    """Returns the number of parameters and buffers of a network, roughly."""
    if model.name in MILLIONS:
        return 1e6 * MILLIONS[model.name]
    widths = (3, *(model.widths or ()))
    side = -(-image_size // math.prod(model.strides or ()))
    head = 2 * widths[-1] * side**2
    return head + sum(9 * before * after + 5 * after for before, after in pairwise(widths))


def _area(params: Params) -> float:
    """Returns the pixels of an image, in images of 32×32 pixels."""
    return float(params.data.image_size ** MODELS[params.model.name].axes / 32**2)
