"""Estimates of what an experiment takes."""

from typing import Any

import pytest
import yaml

from leakpipe.experiment.reading import load_params, parse_params
from leakpipe.experiment.workload import MILLIONS, MOST_CELLS, count_values, estimate, split_into_jobs
from leakpipe.models.state import build_module
from leakpipe.params.models import ModelParams
from tests.conftest import PROJECT


@pytest.fixture
def content() -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text())
    return params


@pytest.mark.parametrize("name", ["convnet-bn", *MILLIONS])
def test_a_network_is_about_as_large_as_estimated(name: str) -> None:
    convnet = {"widths": (32, 32, 64, 64), "strides": (1, 2, 1, 2)} if name == "convnet-bn" else {}
    model = ModelParams(name=name, **convnet)
    built = build_module(model, classes=2, image_size=32).state_dict().values()
    assert count_values(model, 32) == pytest.approx(sum(tensor.numel() for tensor in built), rel=0.1)


def test_a_hundred_times_the_iterations_take_about_as_many_times_as_long(content: dict[str, Any]) -> None:
    before = estimate(parse_params(content, source="test"))
    for attack in content["attacks"].values():
        attack["iterations"] *= 100
        for target in attack["targets"].values():
            target |= {"iterations": target["iterations"] * 100} if "iterations" in target else {}
    after = estimate(parse_params(content, source="test"))
    assert 30 * before.core_seconds < after.core_seconds < 101 * before.core_seconds
    assert (after.cells, after.attacks, after.disk_mb) == (before.cells, before.attacks, before.disk_mb)


def test_jobs_are_filled_in_order() -> None:
    assert split_into_jobs(range(7), 10) == [range(3), range(3, 6), range(6, 7)]
    assert split_into_jobs(range(2), 1e6) == [range(1), range(1, 2)]
    assert len(split_into_jobs(range(100), 1e-6)[0]) == MOST_CELLS


def test_more_seeds_take_more_of_everything() -> None:
    params = load_params(PROJECT / "params.yaml")
    less = params.model_copy(update={"seeds": params.seeds[:3]})
    more, fewer = estimate(params), estimate(less)
    assert more.federations == 20
    assert fewer.federations == 12
    assert (fewer.core_seconds, fewer.disk_mb) < (more.core_seconds, more.disk_mb)
