"""`observe`: from a captured update and a threat model to what the attacker sees."""

from typing import Any

import pytest
import torch
from torch import Tensor

from leakpipe.attacks.observation import Observation
from leakpipe.attacks.threat_model import observe
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import local_update
from leakpipe.errors import LeakpipeError
from leakpipe.federation.files import CohortMember, StoredUpdate
from leakpipe.models.state import forward_training
from leakpipe.params.attacks import ThreatModel
from leakpipe.params.defenses import DefenseSteps
from tests.unit.attacking import CLIENT, random_images, small_model

STATE, IMAGES, SCHEDULE = small_model(), random_images(3, dtype=torch.float32), [[0, 2, 1]]
LABELS = [1, 0, 2]
PAIR = DefenseSteps.model_validate([{"kind": "secure-aggregation", "clients": 2}])


def captured(**changes: Any) -> StoredUpdate:
    update = local_update(STATE, make_batches(IMAGES, torch.tensor(LABELS), SCHEDULE), CLIENT)
    given = {"update": update, "cell": {}, "schedule": SCHEDULE, "labels": LABELS, "settings": CLIENT}
    return StoredUpdate(**{**given, **changes})


def priors(labels: Any) -> Tensor:
    """Of one gray value per class."""
    return torch.tensor(labels).view(-1, 1, 1, 1) / 4 * torch.ones(1, 1, 8, 8)


def seen(stored: StoredUpdate | None = None, **granted: Any) -> Observation:
    return observe(STATE, stored or captured(), ThreatModel(**granted), priors=priors, public=IMAGES)


def test_only_what_is_granted_is_seen() -> None:
    usual, least = seen(), seen(labels="unknown", batch_norm="none")
    assert (usual.client.images, usual.client.batch_size, usual.client.epochs) == (3, 3, 1)
    assert usual.client.labels is not None
    assert usual.client.labels.tolist() == LABELS
    assert usual.client.prior is not None
    assert usual.client.prior[:, 0, 0, 0].tolist() == [0.25, 0.0, 0.5]
    assert (usual.client.schedule, usual.exact_statistics, usual.image_shape) == (None, None, (1, 8, 8))
    assert (least.client.labels, least.update.statistics) == (None, {})
    assert seen(batch_order="known").client.schedule == SCHEDULE
    assert usual.public is IMAGES
    assert seen(prior="gray").public is None, "who has no prior has no images behind it"


def test_exact_statistics_are_those_of_the_batch_whatever_the_update_says() -> None:
    stored = captured()
    noisy = {name: value + 1 for name, value in stored.update.statistics.items()}
    update = type(stored.update)(stored.update.weights, noisy, 1)
    found = seen(captured(update=update, exact_statistics=stored.update.statistics), batch_norm="exact")
    expected = forward_training(STATE, IMAGES)[1]["features.1"]
    assert found.exact_statistics is not None
    torch.testing.assert_close(found.exact_statistics["features.1"].mean, expected.mean)
    with pytest.raises(LeakpipeError, match="no exact statistics"):
        seen(batch_norm="exact")


def test_the_cohort_is_seen_by_an_attacker_who_knows_the_defence() -> None:
    stored = captured(cohort=[CohortMember("other", [[0], [1]], [2, 2])])
    naive, adaptive = (
        observe(STATE, stored, ThreatModel(defense=known), priors=priors, defense=PAIR)  # type: ignore[arg-type]
        for known in ("unknown", "known")
    )
    assert (naive.cohort, naive.defense) == ([], None)
    (other,) = adaptive.cohort
    assert (other.images, other.batch_size, other.epochs, adaptive.defense) == (2, 1, 1, PAIR)
