"""Budgets in seconds become iterations by a record, which is measured once."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from leakpipe.attacks.budgets import RECORD, budgeted, keep_budgets, step_of
from leakpipe.attacks.presets import resolve_settings
from leakpipe.cli.main import main
from leakpipe.errors import LeakpipeError
from leakpipe.experiment.reading import load_params, parse_params
from leakpipe.params.experiment import Params
from leakpipe.params.reading import merge, read_yaml
from tests.conftest import PROJECT

BASE = PROJECT / "params.yaml"
ATTACK = {"preset": "bn-cosine", "budget": "3 s", "targets": {"site-9": {"seeds": [1]}, "site-5": {"iterations": 7}}}


def with_attack(changes: dict[str, Any]) -> Params:
    overlay = {"attacks": {"timed": {**ATTACK, **changes}}}
    return parse_params(merge(read_yaml(BASE), overlay), source="here")


def steps(params: Params) -> dict[str, int]:
    attack = params.attacks["timed"]
    return {client: resolve_settings(attack, client).iterations for client in attack.targets}


@pytest.mark.parametrize(("budget", "expected"), [("3 s", 240), ("0.05 min", 240), ("1h", 288_000), ("0.1 s", 20)])
def test_as_many_iterations_as_fit(budget: str, expected: int) -> None:
    params = with_attack({"budget": budget})
    record = {step_of(params, client, settings): 12.5 for _, client, settings in budgeted(params)}
    assert steps(keep_budgets(params, record)) == {"site-9": expected, "site-5": 7}


def test_what_a_step_depends_on_names_it() -> None:
    def named(**changes: Any) -> str:
        ((_, client, settings),) = budgeted(with_attack(changes))
        return step_of(with_attack(changes), client, settings)

    assert named() == named(budget="9 min")
    assert len({named(), named(restarts=2), named(engine="autograd"), named(targets={"site-1": {}})}) == 4


@pytest.mark.parametrize("budget", ["60", "s", "-3 s", "3 days"])
def test_what_is_no_time_is_refused(budget: str) -> None:
    with pytest.raises(LeakpipeError, match="budget"):
        with_attack({"budget": budget})


def test_budget_and_iterations_exclude_each_other() -> None:
    with pytest.raises(LeakpipeError, match="budget: has no effect beside iterations; remove one of them"):
        with_attack({"iterations": 5})


def test_steps_are_timed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(json.dumps({"attacks": {"timed": ATTACK}}))
    with pytest.raises(LeakpipeError, match="no time of its step on client 'site-9'; run leakpipe time-steps"):
        load_params(BASE, overlay)
    arguments = ["time-steps", str(BASE), str(overlay)]
    assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code == 0
    ((name, found),) = json.loads(RECORD.read_text()).items()
    assert 0.1 < found < 10_000
    RECORD.write_text(json.dumps({name: 50.0}))
    assert "50.0 ms a step" in CliRunner().invoke(main, arguments, catch_exceptions=False).output
    assert steps(load_params(BASE, overlay)) == {"site-9": 60, "site-5": 7}


def test_a_recursive_attack_has_no_budget() -> None:
    timed = {"attacks": {"timed": {"preset": "recursive", "budget": "3 s", "targets": {"site-9": {}}}}}
    deep = {"model": {"name": "resnet18", "widths": None, "strides": None}, **timed}
    with pytest.raises(LeakpipeError, match=r"attacks\.timed: preset 'recursive' solves equations.*: remove budget"):
        parse_params(merge(read_yaml(BASE), deep), source="here")
