"""The audit: what it reads, which attacks it chooses, and what it may conclude."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from scipy.stats import binomtest
from torch import nn

from leakpipe.attacks.belief import SIGN_UNCHECKED, STEPS_UNCHECKED
from leakpipe.attacks.explanation import explained_share
from leakpipe.attacks.files import load_reconstruction
from leakpipe.attacks.observation import KnownClient, Observation
from leakpipe.attacks.optimise import invert
from leakpipe.attacks.presets import PRESETS
from leakpipe.audit import plan, planning
from leakpipe.audit.assessment import (
    Attempt,
    Truth,
    assess,
    compare_with_sent,
    measure_agreement,
    take_nearest,
)
from leakpipe.audit.assumptions import list_assumptions
from leakpipe.audit.calibration import NEAREST, Calibration, Case, shipped_calibration
from leakpipe.audit.inputs import AuditedUpdate, load_audit, observe_audited, read_folder, read_public, read_update
from leakpipe.audit.network import takes_other_sizes
from leakpipe.audit.page import AuditFindings, draw_summary, render_audit
from leakpipe.audit.plan import MATCHING, StepTimes, applicable_attacks, choose_attacks, repeat_attack
from leakpipe.audit.planning import make_plan
from leakpipe.audit.tables import describe, tabulate
from leakpipe.audit.what_if import choose_defenses, defend, observe_defended
from leakpipe.captured.steps import COUNTED
from leakpipe.cli.audit_progress import Progress
from leakpipe.cli.main import main
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import LocalSettings, local_update
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.federation.files import load_model, save_custom_model
from leakpipe.metrics.score import score_images
from leakpipe.models.custom import build_custom
from leakpipe.models.state import ModelState, build_module, initial_state
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.audit import AS_SENT, AuditedImages, AuditParams, PlannedAttack
from leakpipe.params.defenses import DefenseSteps
from leakpipe.params.models import ModelParams
from leakpipe.params.reading import parse_section, read_yaml
from leakpipe.params.training import TrainingParams
from leakpipe.randomness import derive_seed
from tests.conftest import PROJECT
from tests.unit.attacking import observe, observe_small, random_images, small_model

LEAKING = Calibration([Case(0.9, 0.9, 0.5)] * 100)
RNG = np.random.default_rng(0)
TRUE, OTHER, NOISE = (RNG.random((2, 1, 16, 16)).astype(np.float32) for _ in range(3))
PRIOR = 0.7 * NOISE + 0.3 * TRUE  # a little like the truth, as priors are


AGGREGATE_OF_4 = [{"kind": "secure-aggregation", "clients": 4}]


def attempt(images: np.ndarray, explained: float | None, **changes: Any) -> Attempt:
    fields = {"update": "u", "defense": AS_SENT, "attack": "a", "seconds": 1.0, "iterations": 9, "notes": ()}
    return Attempt(**{**fields, "images": images, "prior": PRIOR, "explained": explained, **changes})


class TestExplainedShare:
    def test_is_near_one_for_the_truth_and_zero_for_the_start(self) -> None:
        observation = observe_small()
        truth, labels = random_images(2, dtype=torch.float32), torch.tensor([0, 1])
        start = observation.client.prior
        assert start is not None
        assert explained_share(observation, truth, labels) == pytest.approx(1, abs=1e-4)
        assert explained_share(observation, start, labels) == pytest.approx(0, abs=1e-6)
        wrong = explained_share(observation, random_images(2, seed=9, dtype=torch.float32), labels)
        assert wrong is not None
        assert wrong < 0.5

    def test_without_statistics_is_the_naive_formula(self) -> None:
        seen = observe_small()
        observation = replace(seen, update=replace(seen.update, statistics={}))
        guess, labels = random_images(2, seed=5, dtype=torch.float32), torch.tensor([0, 1])

        def distance(images: torch.Tensor) -> float:
            made = local_update(seen.before, make_batches(images, labels, [[0, 1]]), seen.settings).weights
            one, two = (
                torch.cat([each[name].flatten() for name in made]).double() for each in (made, seen.update.weights)
            )
            return 1 - float(one @ two / one.norm() / two.norm())

        assert seen.client.prior is not None
        expected = 1 - distance(guess) / distance(seen.client.prior)
        assert explained_share(observation, guess, labels) == pytest.approx(expected, abs=1e-4)

    def test_of_an_update_that_says_nothing_is_none(self) -> None:
        seen = observe_small()
        nothing = {name: torch.zeros_like(value) for name, value in seen.update.weights.items()}
        observation = replace(seen, update=replace(seen.update, weights=nothing, statistics={}))
        assert explained_share(observation, random_images(2, dtype=torch.float32), torch.tensor([0, 1])) is None


class TestAssessment:
    def test_with_the_truth_one_image_that_came_back_leaks(self) -> None:
        half = np.stack([OTHER[0], TRUE[1]])
        found = assess([attempt(OTHER, 0.9), attempt(half, 0.1, attack="b")], Calibration([]), Truth(TRUE))
        assert (found.word, found.leaked, found.strongest.attack) == ("leaks", 1, "b")
        assert "1 of its 2 images" in found.why

    def test_with_the_truth_and_no_similar_image_nothing_can_be_told(self) -> None:
        found = assess([attempt(OTHER, 0.9), attempt(OTHER, 0.9)], LEAKING, Truth(TRUE))
        assert found.word == "cannot tell"

    def test_recognition_alone_leaks(self) -> None:
        others = RNG.random((400, 1, 16, 16)).astype(np.float32)
        candidates = np.concatenate([TRUE, others])
        faint = attempt(np.clip(TRUE + 0.35 * RNG.standard_normal(TRUE.shape), 0, 1).astype(np.float32), 0.1)
        recognised = assess([replace(faint, prior=TRUE)], Calibration([]), Truth(TRUE, candidates))
        assert (recognised.leaked, recognised.word) == (0, "leaks")
        assert "recognised" in recognised.why

    @pytest.mark.parametrize(
        ("explained", "word"), [(0.95, "leaks"), (0.2, "cannot tell"), (None, "cannot tell"), (-3.0, "cannot tell")]
    )
    def test_without_the_truth_known_cases_decide(self, explained: float | None, word: str) -> None:
        found = assess([attempt(TRUE, explained), attempt(TRUE, explained, attack="b")], LEAKING)
        assert found.word == word
        assert found.word != "no leak found"

    def test_without_agreement_there_is_no_leak_to_call(self) -> None:
        apart = assess([attempt(TRUE, 0.95), attempt(OTHER, 0.94)], Calibration([Case(0.95, 1.0, 0.5)] * 100))
        assert (apart.word, apart.predicted.cases) == ("cannot tell", 0)

    def test_the_best_attempt_is_chosen_without_the_truth(self) -> None:
        found = assess([attempt(TRUE, 0.3), attempt(OTHER, 0.6, attack="b")], Calibration([]), Truth(TRUE))
        assert (found.best.attack, found.strongest.attack) == ("b", "a")

    def test_agreement_does_not_depend_on_the_order_of_images(self) -> None:
        assert measure_agreement([attempt(TRUE, 1), attempt(TRUE[::-1], 1)]) == pytest.approx(1)
        assert math.isnan(measure_agreement([attempt(TRUE, 1)]))

    def test_of_an_aggregate_the_image_of_any_client_may_be_the_audited_ones(self) -> None:
        found = take_nearest(OTHER, np.concatenate([NOISE, TRUE[::-1]]), TRUE)
        assert np.array_equal(found, TRUE)

    @pytest.mark.parametrize(("under", "word"), [(TRUE, "leaks"), (OTHER, "cannot tell")])
    def test_without_the_truth_a_defence_under_which_the_same_comes_back_leaks(self, under: Any, word: str) -> None:
        sent = assess([attempt(TRUE, 0.95), attempt(TRUE, 0.95, attack="b")], LEAKING)
        defended = assess([attempt(under[::-1], None, defense="x")], LEAKING)
        assert (sent.word, defended.word) == ("leaks", "cannot tell")
        found = compare_with_sent(defended, sent, LEAKING)
        assert found.word == word
        assert found.likeness == pytest.approx(1 if word == "leaks" else 0, abs=0.2)

    def test_a_single_attempt_under_a_defence_must_agree_with_what_was_sent(self) -> None:
        unlike = assess([attempt(TRUE, 0.9), attempt(OTHER, 0.9, attack="b")], LEAKING)
        defended = assess([attempt(OTHER, 0.95, defense="x")], LEAKING)
        assert (unlike.word, defended.word) == ("cannot tell", "leaks")
        found = compare_with_sent(defended, unlike, LEAKING)
        assert (found.word, found.agreement) == ("cannot tell", found.likeness)
        alike = assess([attempt(OTHER, 0.9), attempt(TRUE, 0.9, attack="b")], LEAKING)
        assert compare_with_sent(defended, alike, LEAKING).word == "leaks"

    def test_a_part_of_the_update_is_compared_with_the_truth_or_with_the_best_attempt(self) -> None:
        tried = [attempt(TRUE, 0.9), attempt(OTHER, 0.1, attack="weights-alone")]
        similar = measure_agreement([attempt(TRUE, 0), attempt(OTHER, 0)])
        assert assess(tried, LEAKING).parts == {"weight differences": similar}
        scored = score_images(OTHER, TRUE, PRIOR)
        most = max(scored, key=lambda row: row["ssim"] - row["ssim_prior"])
        assert assess(tried, LEAKING, Truth(TRUE)).parts == {"weight differences": most["ssim"]}

    def test_what_is_written_has_no_nan(self) -> None:
        said = describe(assess([attempt(TRUE, None)], Calibration([])))
        assert said["chosen"]["explained"] is said["agreement"] is said["predicted"]["gain"] is None
        assert said["nearest_truth"] is None

    def test_every_number_that_is_written_is_of_the_attack_beside_it(self) -> None:
        tried = [attempt(TRUE, 0.3), attempt(OTHER, 0.6, attack="b")]
        found = assess(tried, Calibration([]), Truth(TRUE))
        similar = {
            each.attack: max(row["ssim"] for row in score_images(each.images, TRUE, each.prior)) for each in tried
        }
        for name, attack, explained in (("chosen", "b", 0.6), ("nearest_truth", "a", 0.3)):
            said = describe(found)[name]
            assert (said["attack"], said["explained"]) == (attack, explained)
            assert said["ssim"] == pytest.approx(similar[attack])
        rows = {row["attack"]: row for row in tabulate([found], tried)}
        assert [(row["chosen"], row["nearest_truth"]) for row in (rows["a"], rows["b"])] == [
            (False, True),
            (True, False),
        ]
        assert rows["b"]["ssim"] == pytest.approx(similar["b"])


class TestCalibration:
    def test_the_interval_is_that_of_scipy(self) -> None:
        cases = [Case(0.5, 0.5, 0.2)] * 24 + [Case(0.5, 0.5, 0.0)] * 6
        found = Calibration(cases).predict(0.5, 0.5)
        assert (found.cases, found.leaked) == (30, 24)
        assert found.low == pytest.approx(binomtest(24, 30).proportion_ci(0.95, method="exact").low)

    def test_the_nearest_cases_are_asked(self) -> None:
        cases = [Case(x, x, x) for x in np.linspace(0, 1, 101)]
        near = Calibration(cases).predict(0.8, 0.8)
        assert near.cases == NEAREST
        assert near.gain == pytest.approx(0.8, abs=0.01)
        assert Calibration(cases).predict(-2, 0.1).cases == 0

    def test_the_shipped_one_has_cases_of_both_kinds(self) -> None:
        gains = [case.gain for case in shipped_calibration().cases]
        assert len(gains) >= 30
        assert min(gains) < 0.05 < max(gains)

    def test_the_page_says_which_clients_the_shipped_one_knows(self) -> None:
        folder = PROJECT / "src" / "leakpipe" / "audit"
        cases = pd.read_csv(folder / "calibration.csv")
        assert (set(cases["network"]), set(cases["images"])) == ({"convnet-bn"}, {1, 4})
        page = " ".join((folder / "page.html.j2").read_text(encoding="utf-8").split())
        assert "one or four images of 32×32 pixels and the small network convnet-bn. For other networks" in page


class TestPlan:
    def names(self, observation: Observation) -> list[str]:
        return [name for name, *_ in applicable_attacks(observation)]

    def test_the_network_decides_which_attacks_apply(self) -> None:
        seen = observe_small()
        assert {"statistics-alone", MATCHING, "inverting-gradients"} <= set(self.names(seen))
        without = replace(seen, update=replace(seen.update, statistics={}))
        assert "statistics-alone" not in self.names(without)
        assert "recursive" not in self.names(seen)
        plain = ModelState.of(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)))
        observation = observe(plain, random_images(1, dtype=torch.float32), [0])
        for _, settings, _, _ in applicable_attacks(observation):
            assert settings.batch_norm_weight == 0

    def test_more_time_gives_more_iterations_up_to_the_presets(self) -> None:
        seen = observe_small()
        times = StepTimes()
        short, long = (choose_attacks(seen, times, seconds=seconds, defended=0) for seconds in (0.01, 1e6))
        for name, attack in long.items():
            assert short[name].settings.iterations == 20 < attack.settings.iterations == attack.wanted <= 5000

    @pytest.mark.parametrize("defended", [0, 1, 5])
    def test_known_times_are_not_measured_again_and_all_time_is_given(self, defended: int) -> None:
        seen = observe_small()
        known = {name: 0.01 if name == "statistics-alone" else 0.5 for name in self.names(seen)}
        number = f"{seen.client.images} in {seen.update.steps}"
        times = StepTimes({f"{name}, {number}": each for name, each in known.items()})
        before = dict(times.known)
        planned = choose_attacks(seen, times, seconds=1000, defended=defended)
        repeated = repeat_attack(planned[MATCHING], seen, times, seconds=1000, defended=defended) if defended else None
        assert times.known == before
        assert planned["statistics-alone"].settings.iterations == planned["statistics-alone"].wanted
        spent = sum(each.seconds for each in planned.values()) + (defended * repeated.seconds if repeated else 0)
        assert 990 < spent <= 1000
        if repeated:
            assert repeated.settings.iterations <= planned[MATCHING].settings.iterations

    @pytest.mark.parametrize(("name", "share"), [("resnet18", 0.1), ("resnet20", 0.8)])
    def test_recursive_inversion_takes_longer_where_it_searches_again(
        self, name: str, share: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plan, "seconds_per_iteration", lambda *_: 2.0)
        state = initial_state(build_module(ModelParams(name=name), classes=2, image_size=64), seed=0)
        seen = observe(state, random_images(1, size=64, dtype=torch.float32), [0])
        assert StepTimes().measure("recursive", seen, PRESETS["recursive"].settings) == 2 * share

    @pytest.mark.parametrize(("images", "labels"), [(1, "granted"), (2, "joint")])
    def test_labels_that_cannot_be_recovered_are_searched(self, images: int, labels: str) -> None:
        seen = observe_small(images=images)
        adam = replace(seen.settings, training=TrainingParams.model_validate({"optimizer": {"kind": "adam"}}))
        seen = replace(seen, settings=adam, client=replace(seen.client, labels=None))
        planned = choose_attacks(seen, StepTimes(), seconds=0.01, defended=1)
        assert {attack.settings.labels for attack in planned.values()} == {labels}
        repeated = repeat_attack(planned[MATCHING], seen, StepTimes(), seconds=0.01, defended=1)
        assert invert(seen, repeated.settings, seed=0).images.shape[0] == images

    def test_a_network_with_few_positions_gives_away_row_spaces(self) -> None:
        for size, applies in ((16, False), (4, True)):
            network = nn.Sequential(
                nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(2 * size**2, 3)
            )
            image = random_images(1, size=size, dtype=torch.float32)
            assert ("row-space" in self.names(observe(ModelState.of(network), image, [0]))) == applies

    def test_noise_is_met_with_less_smoothing(self) -> None:
        seen = observe_small()
        defenses = choose_defenses(seen, None)
        times = StepTimes()
        strongest = choose_attacks(seen, times, seconds=10, defended=len(defenses))[MATCHING]
        weights = {
            name: repeat_attack(
                strongest, replace(seen, defense=defenses[name]), times, seconds=10, defended=4
            ).settings.total_variation_weight
            for name in ("noise-5", "no-statistics")
        }
        assert weights["noise-5"] < weights["no-statistics"]

    def test_unknown_defences_are_refused(self) -> None:
        assert list(choose_defenses(observe_small(), ())) == []
        with pytest.raises(LeakpipeError, match=r"what_if: unknown defence 'magic'; known: noise-5"):
            choose_defenses(observe_small(), ("magic",))
        assert list(choose_defenses(observe_small(), ("aggregate-of-7",))) == ["aggregate-of-7"]
        with pytest.raises(LeakpipeError, match="unknown defence 'aggregate-of-1'"):
            choose_defenses(observe_small(), ("aggregate-of-1",))


class TestCustomNetworks:
    def test_a_factory_gets_its_arguments(self) -> None:
        network = build_custom("torch.nn:Linear", {"in_features": 3, "out_features": 2})
        assert isinstance(network, nn.Linear)

    @pytest.mark.parametrize(
        ("factory", "said"),
        [
            ("no.such:thing", "cannot be imported"),
            ("torch.nn:Nothing", "cannot be imported"),
            ("torch.nn:Linear", "failed: TypeError"),
            ("builtins:dict", "returned a dict, expected a torch.nn.Module"),
        ],
    )
    def test_what_is_no_network_is_refused(self, factory: str, said: str) -> None:
        with pytest.raises(LeakpipeError, match=rf"network\.factory: '?{factory}.*{said}"):
            build_custom(factory, {})

    def test_a_model_file_runs_no_factory_that_was_not_passed(self, tmp_path: Path) -> None:
        state, path = ModelState.of(nn.Linear(2, 1)), tmp_path / "global.safetensors"
        save_custom_model(path, state, factory="torch.nn:Linear", arguments={"in_features": 2, "out_features": 1})
        loaded = load_model(path, factory="torch.nn:Linear")
        assert torch.equal(loaded.weights["weight"], state.weights["weight"])
        for given in (None, "os:system"):
            with pytest.raises(LeakpipeError, match=r"metadata\.factory: 'torch\.nn:Linear', expected .*--network"):
                load_model(path, factory=given)


def dropping() -> nn.Module:
    """The same network with dropout behind it."""
    return nn.Sequential(fixed_size(), nn.Identity(), nn.Dropout(0.3))


def fixed_size() -> nn.Module:
    """The network of `small_model` for images of 16 pixels."""
    return small_model(size=16).module


def own_network() -> nn.Module:
    """A network as people write them, for gray images of 16 pixels."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    """An audit.yaml of a client that trained a registered network on one image."""
    return capture(tmp_path)


def capture(tmp_path: Path) -> Path:
    seen = observe(small_model(size=16), random_images(1, size=16, dtype=torch.float32), [1])
    before = {**seen.before.weights, **seen.before.statistics}
    changes = {**seen.update.weights, **seen.update.statistics}
    torch.save(before, tmp_path / "before.pth")
    torch.save({name: value + changes[name] for name, value in before.items()}, tmp_path / "after.pth")
    torch.save(changes, tmp_path / "change.pth")
    for folder, images in {"none": 0, "own": 2}.items():
        (tmp_path / folder).mkdir()
        for number in range(images):
            Image.new("L", (16, 16), 40 * number).save(tmp_path / folder / f"{number}.png")
    write(tmp_path)
    return tmp_path / "audit.yaml"


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The plan of such an audit."""
    audit = capture(tmp_path_factory.mktemp("planned"))
    write(audit.parent, minutes=0.01, what_if=[])
    return make_plan(load_audit(audit), cores=1).model_dump_json()


def write(folder: Path, **changes: Any) -> None:
    content = {
        "audit": "tiny",
        "updates": {"one": {"before": "before.pth", "after": "after.pth"}},
        "network": {
            "architecture": {"name": "convnet-bn", "widths": [3, 4], "strides": [2, 2]},
            "classes": 3,
        },
        "images": {"size": 16},
        "training": {"learning_rate": 0.05},
    }
    (folder / "audit.yaml").write_text(yaml.safe_dump({**content, **changes}))


def read_one(params: AuditParams) -> AuditedUpdate:
    return read_update(params, "one", read_public(params))


class TestInputs:
    def test_a_full_state_and_a_difference_are_one_update(self, captured: Path) -> None:
        first = read_one(load_audit(captured))
        write(captured.parent, updates={"one": {"before": "before.pth", "change": "change.pth"}})
        second = read_one(load_audit(captured))
        for name, value in first.stored.update.weights.items():
            assert torch.allclose(value, second.stored.update.weights[name], atol=1e-6)

    @pytest.mark.parametrize(
        ("optimizer", "make"),
        [
            ({"kind": "sgd"}, lambda weights: torch.optim.SGD(weights, lr=0.01)),
            ({"kind": "sgd", "momentum": 0.9}, lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.9)),
            ({"kind": "adam"}, lambda weights: torch.optim.Adam(weights, lr=0.01)),
        ],
    )
    def test_an_attack_on_an_audits_files_is_the_librarys(
        self, captured: Path, monkeypatch: pytest.MonkeyPatch, optimizer: dict[str, Any], make: Any
    ) -> None:
        """The commands that an audit runs, and torch's own tensors given to the library, rebuild the same image."""
        monkeypatch.chdir(captured.parent)
        network = own_network()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        torch.save(before, "before.pth")
        stepper = make(network.parameters())
        image = random_images(1, size=16, dtype=torch.float32)
        nn.functional.cross_entropy(network(image), torch.tensor([1])).backward()
        stepper.step()
        torch.save(network.state_dict(), "after.pth")
        factory = "tests.unit.test_audit:own_network"
        write(captured.parent, network={"factory": factory}, training={"learning_rate": 0.01, "optimizer": optimizer})
        audit, settings = load_audit(captured).model_dump_json(), {"iterations": 5}
        read = ["read-update", "--audit", audit, "--update", "one", "--out-dir", "u"]
        files = ["--global-model", "u/global.safetensors", "--update", "u/as-sent/update.safetensors"]
        files += ["--prior", "u/prior.safetensors", "--out", "found.safetensors", "--network", factory]
        attack = ["invert", "--attack", json.dumps(settings), "--threat-model", '{"labels": "unknown"}', *files]
        for command in (read, [*attack, "--name", "x"]):
            done = CliRunner().invoke(main, command)
            assert done.exit_code == 0, done.output
        state, after = ModelState.of(network).replacing(before), network.state_dict()
        weights, statistics = (
            {name: after[name] - before[name] for name in part} for part in (state.weights, state.statistics)
        )
        update = ClientUpdate(weights, statistics, steps=1)
        believed = LocalSettings(learning_rate=0.01, training=TrainingParams.model_validate({"optimizer": optimizer}))
        client = KnownClient(images=1, batch_size=1, epochs=1, labels=None, prior=torch.full((1, 1, 16, 16), 0.5))
        seen = Observation(before=state, update=update, settings=believed, image_shape=(1, 16, 16), client=client)
        seed = derive_seed("attack", *load_reconstruction(Path("found.safetensors")).cell.values())
        expected = invert(seen, AttackSettings.model_validate(settings), seed=seed)
        assert np.array_equal(load_reconstruction(Path("found.safetensors")).images, expected.images.numpy())

    def test_an_observation_grants_what_was_declared(self, captured: Path) -> None:
        params = load_audit(captured)
        observation = observe_audited(read_one(params), params)
        assert observation.client.labels is None
        assert observation.client.prior is not None
        assert torch.equal(observation.client.prior, torch.full((1, 1, 16, 16), 0.5))
        assert observation.settings.learning_rate == 0.05

    @pytest.mark.parametrize("public", [None, "own"])
    def test_an_aggregate_holds_the_update_and_those_of_simulated_clients(
        self, captured: Path, public: str | None
    ) -> None:
        write(captured.parent, public=public)
        params = load_audit(captured)
        alone, steps = read_one(params), DefenseSteps.model_validate(AGGREGATE_OF_4)
        made, again = (defend(alone, params, "aggregate-of-4", steps).stored for _ in range(2))
        others = [4 * made.update.weights[name] - value for name, value in alone.stored.update.weights.items()]
        assert len(made.cohort) == 3
        assert all(bool(change.any()) for change in others)
        assert all(torch.equal(value, again.update.weights[name]) for name, value in made.update.weights.items())
        seen = observe_defended(replace(alone, stored=made), params, steps)
        assert (len(seen.clients), seen.candidates, seen.candidate_labels) == (4, 4, None)
        assert explained_share(seen, torch.full((1, 1, 16, 16), 0.5), torch.tensor([0])) is None

    def test_simulated_clients_train_on_public_images(self, captured: Path) -> None:
        write(captured.parent, public="none")
        params, steps = load_audit(captured), DefenseSteps.model_validate(AGGREGATE_OF_4)
        Image.fromarray((255 * random_images(1, size=16, dtype=torch.float32)[0, 0].numpy()).astype(np.uint8)).save(
            captured.parent / "none" / "only.png"
        )
        alone = read_one(params)
        image = torch.from_numpy(read_folder("public", str(captured.parent / "none"), params.images))
        sums = [
            local_update(alone.before, make_batches(image, torch.tensor([label]), [[0]]), alone.stored.settings).weights
            for label in range(3)
        ]
        made = defend(alone, params, "x", steps).stored
        labels = [member.labels[0] for member in made.cohort]
        for name, mean in made.update.weights.items():
            expected = (alone.stored.update.weights[name] + sum(sums[label][name] for label in labels)) / 4
            assert torch.allclose(mean, expected, atol=1e-7)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"updates": {}}, "updates: there are none"),
            ({"updates": {"one": {"before": "before.pth"}}}, "expected exactly one of `after`"),
            ({"updates": {"one": {"before": "no.pth", "after": "after.pth"}}}, "updates.one.before: 'no.pth'"),
            ({"network": {}}, "expected one of `factory`"),
            ({"network": {"factory": "no colon"}}, "network.factory"),
            ({"client": {"labels": [0, 1]}}, "labels: 2 given, expected one for each"),
            ({"client": {"batch_size": 2}}, "batch_size 2 is larger"),
            ({"client": {"images": 10**9}}, "client.images: 1000000000 is not valid"),
            ({"client": {"truth": "no"}}, "client.truth: 'no': there is no such folder"),
            ({"training": {}}, "training.learning_rate: required"),
            ({"training": {"learning_rate": 0}}, "training.learning_rate"),
            ({"training": {"learning_rate": 0.1, "momentun": 1}}, "training.momentun: unknown key"),
            ({"public": "nowhere"}, "public: 'nowhere': there is no such folder"),
            ({"candidates": "."}, "candidates: needs client.truth"),
            ({"minutes": 0}, "minutes"),
            ({"publik": "."}, "did you mean 'public'"),
            ({"training": {"learning_rate": 0.1, "optimizer": "Adam"}}, "optimizer: 'Adam' .* such as {kind: adam};"),
            ({"training": {"learning_rate": 0.1, "optimizer": {"momentum": 0.9}}}, "known kinds: sgd, adam, adamw"),
            (
                {"training": {"learning_rate": 0.1, "clipping": 1.0}},
                "a mapping such as {kind: …, limit: …}; known keys",
            ),
            ({"images": 16}, "images: 16 is not valid: expected a mapping such as {size: …}"),
            ({"client": None}, "client: null is not valid: expected a mapping such as {images: …}"),
            ({"client": {"labels": 0}}, r"labels: 0 is not valid: expected a list, such as \[0\]"),
            ({"what_if": "noise-5"}, r"what_if: 'noise-5' is not valid: expected a list, such as \[noise-5\]"),
            ({"defense": {"kind": "sign"}}, r"defense: .* expected a list, such as \[{kind: sign}\]"),
            ({"defense": ["sign"]}, "defense.0: 'sign' is not valid: expected a mapping such as {kind: sign}"),
            (
                {"updates": {"before": "before.pth", "after": "after.pth"}},
                "under a name: {round1: {before: …, after: …}}",
            ),
            ({"updates": ["after.pth"]}, "updates: expected the files of each update under a name"),
            (
                {"network": {"architecture": {"name": "resnet19"}}},
                "network.architecture.name: unknown model 'resnet19'",
            ),
            ({"network": {"factory": "Network"}}, "expected package.module:function, such as network:Network"),
            ({"audit": "my/audit"}, "audit: 'my/audit' is not valid: expected a name of letters"),
            ({"clients": {"site-1": {}}}, "clients.site-1: no update is of this client"),
            (
                {"updates": {"one": {"before": "before.pth", "after": "after.pth", "client": "b"}}},
                "updates.one.client: 'b' is none of .clients.",
            ),
        ],
    )
    def test_mistakes_are_said_in_a_sentence(self, captured: Path, changes: dict[str, Any], said: str) -> None:
        write(captured.parent, **changes)
        with pytest.raises(LeakpipeError, match=said.replace("`", ".")):
            load_audit(captured)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            (
                {"images": {"size": 40}, "network": {"factory": "tests.unit.test_audit:fixed_size"}},
                r"does not take gray images of 40×40 .*; set images.size: a number from 13 to 16$",
            ),
            (
                {"network": {"factory": "torchvision.models:resnet18"}},
                r"does not take gray images of 16×16 .*; set images.channels: color$",
            ),
            ({"client": {"truth": "own"}}, "truth: own holds 2 images, but client.images is 1; put exactly"),
            ({"public": "none"}, "public: .*none: holds no image"),
            ({"client": {"labels": [3]}}, "updates.one: .*class indices below 3"),
            ({"updates": {"one": {"before": "before.pth", "change": "before.pth"}}}, "no difference but a full state"),
            ({"network": {"architecture": {"name": "resnet20"}}}, "of another network"),
            ({"network": {"factory": "no.such:thing"}}, "cannot be imported"),
            ({"network": {"factory": "sys:exit"}}, r"network.factory: sys:exit\(\) failed: SystemExit"),
            ({"what_if": ["magic"]}, "unknown defence 'magic'"),
            (
                {"network": {"factory": "tests.unit.test_audit:dropping"}},
                r"network: 2\.p = 0\.3 drops values .*; set network\.dropout: false, which states",
            ),
        ],
    )
    def test_the_plan_refuses_what_cannot_be_attacked_and_writes_nothing(
        self, captured: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
    ) -> None:
        monkeypatch.chdir(captured.parent)
        before = sorted(captured.parent.rglob("*"))
        write(captured.parent, **changes)
        result = CliRunner().invoke(main, ["audit", "audit.yaml"])
        assert result.exit_code == 1
        assert re.search(said, result.output)
        assert "Traceback" not in result.output
        assert sorted(captured.parent.rglob("*")) == before

    def test_a_wrong_belief_is_said_before_the_attack(self, captured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(captured.parent)
        write(captured.parent, training={"learning_rate": 0.005}, minutes=0.01)
        result = CliRunner().invoke(main, ["audit", "audit.yaml", "--dry-run"])
        assert result.exit_code == 0, result.output
        assert re.search("Note on one: .*local steps", result.output)
        assert not (captured.parent / "results").exists()

    def test_what_contradicts_a_client_of_many_is_said_with_its_name(self, captured: Path) -> None:
        files = {"before": "before.pth", "change": "after.pth", "client": "node-7"}
        write(captured.parent, updates={"one": files}, clients={"node-7": {}})
        with pytest.raises(LeakpipeError, match=r"^clients\.node-7: .*no difference but a full state"):
            read_one(load_audit(captured))

    def test_public_images_that_are_the_clients_own_are_said(
        self, captured: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They make what was known before look like more, and the leak like less."""
        monkeypatch.chdir(captured.parent)
        Path("own/1.png").unlink()
        Image.new("L", (16, 16), 90).save("none/other.png")
        write(captured.parent, client={"truth": "own"}, public="none", minutes=0.01, what_if=[])
        said = []
        for _ in range(2):
            said.append(CliRunner().invoke(main, ["audit", "audit.yaml", "--dry-run"]).output)
            Path("none/copy.png").write_bytes(Path("own/0.png").read_bytes())
        assert ["1 image of none is among the client's own" in each for each in said] == [False, True]

    def test_without_a_file_it_is_said_what_writes_one(self, tmp_path: Path) -> None:
        with pytest.raises(LeakpipeError, match="there is no such file; `leakpipe audit --init` writes one"):
            load_audit(tmp_path / "audit.yaml")

    def test_the_run_does_what_the_dry_run_said(self, captured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(captured.parent)
        write(captured.parent, minutes=0.01, what_if=[])
        started, options = [], ["--profile", "slurm"]

        def run(*command: object, **_: object) -> int:
            started.append(command)
            return 1

        monkeypatch.setattr("leakpipe.cli.audit.run_shown", run)
        dry, real = (CliRunner().invoke(main, ["audit", "audit.yaml", *how]) for how in (["--dry-run"], options))
        assert started[0][0][-2:] == options
        assert "measuring" not in real.output
        assert real.stdout.startswith(dry.stdout)
        torch.save(torch.load("after.pth"), "after.pth")  # another file, of which nobody knows the doubts
        assert "measuring" in CliRunner().invoke(main, ["audit", "audit.yaml", "--dry-run"]).output

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda plan: plan.pop("cells"), "cells: required, but missing"),
            (lambda plan: plan["cells"]["one"].pop("as-sent"), r"cells\.one: .*expected as-sent"),
            (lambda plan: plan["cells"].pop("one"), "cells: .*expected one for each of .audit.updates."),
            (lambda plan: plan["doubts"].clear(), "doubts: .*expected one for each of .audit.updates."),
            (lambda plan: plan.update(cells=[]), "cells: .* is not valid"),
            (lambda plan: plan["cells"]["one"]["as-sent"]["matching"].pop("seconds"), "matching.seconds: required"),
            (lambda plan: plan.pop("version"), "version: required"),
            (lambda plan: plan["audit"].clear(), "audit.audit: required"),
            (None, "is not JSON"),
        ],
    )
    def test_a_damaged_plan_is_said_in_a_sentence(
        self, captured: Path, monkeypatch: pytest.MonkeyPatch, planned: str, damage: Any, said: str
    ) -> None:
        monkeypatch.chdir(captured.parent)
        content = json.loads(planned)
        if damage is not None:
            damage(content)
        Path(".leakpipe/plans").mkdir(parents=True)
        Path(".leakpipe/plans/tiny.json").write_text(json.dumps(content)[: None if damage else 100])
        result = CliRunner().invoke(main, ["audit", "audit.yaml"])
        assert result.exit_code == 1
        assert re.search(f"^Error: .leakpipe/plans/tiny.json: .*{said}", result.output)
        assert result.output.count("\n") == 1
        assert result.output.strip().endswith("remove this file, and the same command plans the audit anew")
        assert not Path("results").exists()

    def test_an_edit_keeps_the_iterations_of_attacks_that_it_is_not_about(
        self, captured: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(captured.parent)
        Image.new("L", (16, 16), 40).save("none/only.png")
        write(captured.parent, minutes=0.05, what_if=["noise-5"])
        first = make_plan(load_audit(captured), cores=1)
        sent = first.cells["one"]["as-sent"]
        for changes in ({"client": {"truth": "none"}}, {"public": "own"}, {"what_if": ["noise-20"]}):
            write(captured.parent, **{"minutes": 0.05, "what_if": ["noise-5"], **changes})
            assert make_plan(load_audit(captured), cores=1, earlier=[first]).cells["one"]["as-sent"] == sent
        write(captured.parent, minutes=0.05, training={"learning_rate": 0.05, "optimizer": {"kind": "adam"}})
        assert make_plan(load_audit(captured), cores=1, earlier=[first]).step_seconds != first.step_seconds

    def test_options_replace_or_stand_for_the_file(self, captured: Path) -> None:
        changed = load_audit(captured, {"training.learning_rate": "0.5", "client.labels": "[2]", "minutes": "3"})
        assert (changed.training.learning_rate, changed.client.labels, changed.minutes) == (0.5, (2,), 3)
        options = {
            "audit": "tiny",
            "updates.one.before": "before.pth",
            "updates.one.after": "after.pth",
            "network.architecture": "{name: convnet-bn, widths: [3, 4], strides: [2, 2]}",
            "network.classes": "3",
            "images.size": "16",
            "training.learning_rate": "0.05",
        }
        given = load_audit(captured)
        captured.unlink()
        assert load_audit(captured, options) == given
        with pytest.raises(LeakpipeError, match=r"training\.learning_rate: 'fast' is not valid"):
            load_audit(captured, {**options, "training.learning_rate": "fast"})

    def test_the_file_that_init_writes_is_an_audit_once_filled_in_and_is_not_overwritten(
        self, captured: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(captured.parent)
        made = ["audit", "new.yaml", "--init", "--image-size", "16", "--network", "tests.unit.test_audit:fixed_size"]
        assert CliRunner().invoke(main, made).exit_code == 0
        with pytest.raises(LeakpipeError, match=r"training\.learning_rate: null .*\n.*client\.images: null "):
            load_audit(Path("new.yaml"))  # neither may be left to a default that nobody looked at
        params = load_audit(Path("new.yaml"), {"client.images": "1", "training.learning_rate": "0.1"})
        assert (params.images.size, params.network.factory) == (16, "tests.unit.test_audit:fixed_size")
        assert "exists already" in CliRunner().invoke(main, made).output

    def test_what_init_is_given_is_read_back_whatever_its_characters(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder := tmp_path / "o'br {v} a:b \u00e9").mkdir()
        monkeypatch.chdir(folder)
        files = ["b #1: {v}.pth", "*after: yes"]
        made = CliRunner().invoke(main, ["audit", "--init", "--before", files[0], "--after", files[1]])
        assert made.exit_code == 0, made.output
        content = read_yaml(Path("audit.yaml"))
        assert content["updates"]["round1"] == dict(zip(("before", "after"), files, strict=True))
        assert content["audit"] == "o-br-v-a-b"

    @pytest.mark.parametrize("place", ["b{v}.pth", "people/x {y}.png"])
    def test_braces_in_names_of_files_are_refused(self, place: str, captured: Path) -> None:
        folder = captured.parent
        (folder / "people").mkdir()
        (folder / place).write_bytes((folder / "before.pth").read_bytes())
        before = place if place.endswith("pth") else "before.pth"
        write(folder, updates={"one": {"before": before, "after": "after.pth"}}, public="people")
        with pytest.raises(LeakpipeError, match=r"has braces, which Snakemake takes for wildcards") as raised:
            load_audit(captured)
        field = "updates.one.before" if before == place else "public"
        assert str(raised.value).startswith(f"{captured}: {field}: ")

    @pytest.mark.parametrize(("channels", "kind"), [(1, "gray"), (3, "color")])
    def test_init_sees_in_the_state_which_images_the_network_takes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, kind: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        torch.save(
            {"a": torch.zeros(5), "b": torch.zeros(2, channels, 3, 3), "c": torch.zeros(2, 2, 3, 3)}, "before.pth"
        )
        assert CliRunner().invoke(main, ["audit", "--init"]).exit_code == 0
        assert f"channels: {kind}  # gray or color, as the first convolution takes" in Path("audit.yaml").read_text()

    def test_files_that_contradict_each_other_are_refused(self, captured: Path) -> None:
        write(captured.parent, updates={"one": {"before": "before.pth", "change": "after.pth"}})
        with pytest.raises(LeakpipeError, match=r"after\.pth: is no difference but a full state"):
            read_one(load_audit(captured))


SNAKEMAKE = """\
rule invert:
    output: x.safetensors
    jobid: 4
    wildcards: captured=one, defense=noise-5, attack=matching
Finished jobid: 4 (Rule: invert)
1 of 3 steps (33%) done
localrule assess:
    jobid: 1
Finished jobid: 1 (Rule: assess)
2 of 3 steps (67%) done
localrule all:
    jobid: 0
Finished jobid: 0 (Rule: all)
3 of 3 steps (100%) done
Error in rule track:
    jobid: 2
    log: logs/audit/tiny/track.log (check log file(s) for error details)
"""


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("told", [True, False])
def test_what_files_have_checked_is_not_called_unchecked(
    counted: bool, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [f"{STEPS_UNCHECKED} one local step, or several.", f"{SIGN_UNCHECKED}; nothing …", "Not checked: the rate."]
    monkeypatch.setattr(
        planning, "observe_audited", lambda *_: SimpleNamespace(image_shape=(1, 8, 8), before=small_model())
    )
    monkeypatch.setattr(planning, "rehearse", lambda *_: list(said))
    monkeypatch.setattr(planning, "measure_input", lambda *_: told or None)
    audited = SimpleNamespace(notes=[f"client.pt: {COUNTED} 1 local step."] if counted else [])
    expected = [*(said[2:] if counted else said), *([] if told else [planning.SCALING_UNCHECKED])]
    params = SimpleNamespace(images=AuditedImages(size=8, channels="color"))
    expected.append("Not checked: whether images have 8×8 pixels; the network takes others, too.")
    assert planning._rehearse(audited, params) == expected  # type: ignore[arg-type]


def test_a_network_that_pools_adaptively_does_not_tell_the_size_of_images() -> None:
    images = AuditedImages(size=16)
    assert takes_other_sizes(nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), images)
    slack = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 2))  # takes 17×17, too
    assert takes_other_sizes(slack, images)
    assert not takes_other_sizes(nn.Sequential(nn.Flatten(), nn.Linear(256, 2)), images)


def test_progress_has_a_line_for_every_step_and_the_time_that_is_left() -> None:
    progress = Progress({("invert", "one", "noise-5", "matching"): 10.0, ("assess", "", "", ""): 5.0})
    progress._started -= 60  # as if the first had taken a minute
    said = [each for line in SNAKEMAKE.splitlines() if (each := progress.read(line))]
    assert said == [
        "[1/3] one, noise-5: attack matching finished after 0 s; about 30 s left",
        "[2/3] judged; the page is written after 0 s",
    ]
    assert progress.failed == Path("logs/audit/tiny/track.log")
    others = {("read_update", str(number), "", ""): 10.0 for number in range(4)}
    resumed = Progress({("invert", "one", "noise-5", "matching"): 10.0, **others})
    resumed._started -= 30  # three of six steps are done again: 25 s of 50, of which 10 are done in half a minute
    said = [each for line in SNAKEMAKE.splitlines() if (each := resumed.read(line))]
    assert said[0].endswith("; about 45 s left")


def test_the_page_shows_images_only_after_a_click_and_escapes_names(tmp_path: Path) -> None:
    tried = [attempt(TRUE, 0.4), attempt(OTHER, 0.5, attack="b")]
    found = assess(tried, LEAKING, Truth(TRUE))
    write(tmp_path, training={"learning_rate": 0.1, "optimizer": {"kind": "sgd", "momentum": 0.9}})
    params = parse_section(AuditParams, yaml.safe_load((tmp_path / "audit.yaml").read_text()), source="audit.yaml")
    findings = AuditFindings(
        "<b>x",
        [found],
        tried,
        list_assumptions(params, ["<i>note"], doubts={"u": ["<u>doubt", "Not checked: steps."]}),
        dict.fromkeys("ab", PlannedAttack(settings=PRESETS["bn-cosine"].settings, wanted=800, seconds=1, why="why")),
        truths={"u": TRUE},
    )
    page = render_audit(findings)
    assert "9 of 800" in page
    assert "quarter of the iterations" not in page
    assert "quarter of the iterations" in render_audit(replace(findings, hardly_begun=True))
    assert "simulated client whose images are known" not in page
    alone = replace(findings, assessments=[assess(tried, LEAKING)], truths={})
    assert "simulated client whose images are known" in render_audit(alone)
    assert "All updates" not in page
    second = assess([attempt(OTHER, 0.1, update="v")], LEAKING)
    several = render_audit(replace(findings, assessments=[found, second], attempts=[*tried, second.best]))
    assert several.count('<span class="what">') == 1  # of the worst
    assert '<b>v</b></td><td class="text">Cannot tell, 10\u202f% explained' in several.replace("\xa0", "\u202f")
    assert "<b>x" not in page
    assert "&lt;i&gt;note" in page
    doubt = page.index("Rehearsal of u: &lt;u&gt;doubt")
    assert page.index("speaks against what was declared") < doubt < page.index('<ul class="cards"')
    assert page.count("Not checked: steps.") == 1  # in the table alone: nothing speaks against it
    came = re.findall(r"((?:no )?more than was known before)</td>", page)
    assert came == ["more than was known before", "no more than was known before"]  # though b explains more
    assert page.index("<details>") < page.index("<img") < page.index("</details>")
    assert "momentum 0.9" in page
    captions = re.findall("<figcaption>(.*?)</figcaption>", page)[:4]
    assert captions[0].startswith("known before, SSIM 0.")
    assert re.fullmatch(r"the attacker&#39;s own choice: b, explains 50.%, SSIM (−?0\.\d\d)", captions[1])
    assert re.fullmatch(r"nearest the truth, the upper bound: a, explains 40.%, SSIM 1\.00", captions[2])
    aggregated = assess([attempt(OTHER, None, defense="aggregate-of-2")], LEAKING, Truth(TRUE))
    both = replace(findings, assessments=[found, aggregated], attempts=[*tried, aggregated.best])
    assert "Nearest the truth among the images of all clients: a in 9 iterations, <abbr" in " ".join(
        render_audit(both).split()
    )
    (axes,) = draw_summary(both).figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "a, after aggregate-of-2"]
    assert axes.patches[0].get_width() == pytest.approx(1.0)  # similarity of the true image
    blind = assess([attempt(OTHER, None, defense="aggregate-of-2")], LEAKING)
    unknown = replace(alone, assessments=[*alone.assessments, blind], attempts=[*tried, blind.best])
    (axes,) = draw_summary(unknown).figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]  # no empty bar where nothing is known
    assert findings.sentence.startswith("2 of its 2 images came back")
    assert draw_summary(findings).caption.startswith("Leaks: 2 of its 2 images came back")
    many = replace(findings, name="many", assumptions=100 * findings.assumptions)
    for drawing in (draw_summary(findings), draw_summary(many)):
        page = drawing.figure.bbox
        for text in drawing.figure.texts:
            box = text.get_window_extent()
            assert page.x0 < box.x0 < box.x1 < page.x1, text.get_text()
            assert page.y0 < box.y0 < box.y1 < page.y1, text.get_text()
