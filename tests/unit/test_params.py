"""params.yaml: what is refused, and how it is said; the generated schema; overlays."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pydantic
import pytest
import yaml

from leakpipe.attacks.presets import PRESETS, resolve_settings, resolve_threat_model
from leakpipe.defenses.compose import DEFENSES, ELSEWHERE
from leakpipe.errors import LeakpipeError
from leakpipe.experiment.cells import attacked_clients, captured_clients, list_cells, undefended
from leakpipe.experiment.reading import load_params, params_schema, parse_params
from leakpipe.metrics.embedders import EMBEDDERS
from leakpipe.metrics.matching import ASSIGNMENTS
from leakpipe.models.catalog import MODELS
from leakpipe.models.weights import LPIPS, WEIGHTS
from leakpipe.params.defenses import DefenseStep
from leakpipe.params.experiment import AssignmentName, EmbedderName
from leakpipe.params.models import ModelParams
from leakpipe.params.reading import merge
from tests.conftest import PROJECT

SCHEMA = PROJECT / "workflow" / "schemas" / "params.schema.json"


def comparison(**changes: Any) -> dict[str, Any]:
    known = {"title": "What it knows", "attacks": {"leakpipe": "much", "bn-aware": 2}, "clients": ["site-9"]}
    return {**known, **changes}


@pytest.fixture
def content() -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text())
    return {**params, "comparisons": {}}


def edit(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split("/")
    node = content
    for key in parents:
        node = node[key]
    node[last] = value
    return content


@pytest.mark.skipif(
    f"\npydantic=={pydantic.VERSION}\n" not in (PROJECT / "requirements.lock").read_text(encoding="utf-8"),
    reason="versions of pydantic word the same schema differently",
)
def test_schema_is_generated_from_the_models(request: pytest.FixtureRequest) -> None:
    generated = json.dumps(params_schema(), indent=2) + "\n"
    if request.config.getoption("--fix"):
        SCHEMA.write_text(generated)
    assert SCHEMA.read_text() == generated, "run: pytest tests/unit/test_params.py --fix"


def test_every_field_says_what_it_is() -> None:
    schema = json.loads(SCHEMA.read_text())
    unsaid = [
        f"{name}.{field}"
        for name, section in schema["$defs"].items()
        for field, said in section.get("properties", {}).items()
        if "description" not in said and "$ref" not in said and field != "kind"
    ]
    assert unsaid == []


@pytest.mark.parametrize(
    ("names", "registry"),
    [
        (AssignmentName, ASSIGNMENTS),  # whose registries need scipy and torch
        (EmbedderName, EMBEDDERS),
    ],
    ids=["assignments", "embedders"],
)
def test_names_that_params_admit_are_those_registered(names: Any, registry: Any) -> None:
    assert set(get_args(names)) == set(registry)


def test_every_published_file_of_weights_is_of_use() -> None:
    of_models = {name for entry in MODELS.values() for name in entry.published.values()}
    assert of_models <= set(WEIGHTS) <= of_models | set(EMBEDDERS) | set(LPIPS)


def test_defences_that_params_admit_are_those_registered() -> None:
    steps = get_args(get_args(DefenseStep)[0])
    on_updates = {get_args(step.model_fields["kind"].annotation)[0] for step in steps if step not in ELSEWHERE}
    assert on_updates == set(DEFENSES)


@pytest.mark.parametrize("overlay", sorted((PROJECT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_overlays_are_runnable(overlay: Path) -> None:
    assert list_cells(load_params(PROJECT / "params.yaml", overlay))


# Edits of params.yaml (the value at a path replaced, or merged into) | what the error must say.
WRONG = """
federation/round = 3 | federation.round: unknown key; known here: batch_norm_momentum, batch_norm_sharing
federation/clients/site-9/size = 1 | federation.clients.site-9.size: unknown key; known here: batch_size
attacks/leakpipe/iteration = 1 | attacks.leakpipe.iteration: unknown key; known here: adam_softening
model/name = vgg | model.name: unknown model 'vgg'; known: convnet-bn, convnet3d, convnext_tiny
data/dataset = mnist | data.dataset: unknown data set 'mnist'; known: covid-radiography
data/root = x | data.root: only 'covid-radiography' and 'image-folder' and 'medmnist' can have it; not
data/subset = x | data.subset: only 'medmnist' can have it; not 'lfw-faces': got 'x'
data += {dataset: image-folder} | data: root: required for data set 'image-folder', but missing
data += {dataset: medmnist} | data: subset: required for data set 'medmnist', but missing
data += {dataset: medmnist, subset: chestmnist} | federation.training.loss.kind: cross-entropy, expected binary
data += {dataset: medmnist, subset: ../x} | data.subset: '../x' is not valid: string should match pattern
data += {dataset: medmnist, classes: [a, b]} | data.classes: only 'covid-radiography' and 'image-folder' can
data += {dataset: covid-radiography, classes: [Normal, Flu]} | data.classes: 'Flu' is not a class of 'covid-r
data += {dataset: covid-radiography, classes: [Normal]} | data.classes: ['Normal'] is not valid: value should
data += {dataset: covid-radiography, classes: [Normal, ../x]} | data.classes.1: '../x' is not valid
data += {dataset: covid-radiography, images: 100} | need 183 images but data set 'covid-radiography' has 100
data += {dataset: covid-radiography} | federation.clients.site-9.classes: unknown class 'face'; known: Normal
data += {dataset: covid-radiography, datalists: x} | federation.clients.site-9.classes: must be null, data.da
model/name = resnet20 | model.widths: only 'convnet-bn' has widths and strides; both must be null for
model = {name: resnet18, strides: [1]} | model.strides: only 'convnet-bn' has widths and strides
model = {name: resnet18} | federation.clients.site-9: model 'resnet18' at data.image_size 32 leaves one
model = {name: vgg11_bn, weights: imagenett} | model.weights: 'imagenett', expected random, imagenet,
model = {name: resnet20, weights: imagenet} | there are no weights 'imagenet' for 'resnet20'; there a
model = {name: resnet34, weights: augnet} | 'augnet' for 'resnet34'; there are for resnet50
model = {name: resnet20, weights: public, pretraining: {start: augnet}} | start: there are no weights 'augnet'
model = {name: resnet18, weights: imagenet, normalization: group} | were trained with batch normalisation
model = {name: resnet18, weights: public, pretraining: {batch_size: 41}} | pretraining.batch_size: model
model/pretraining = {start: public} | model.pretraining.start: 'public', expected random, imagenet, aug
model = {name: vit_tiny}; data/image_size = 40 | data.image_size: 40, expected a multiple of 16 for 'vit_tiny'
model = {name: vit_tiny, normalization: group} | model.normalization: group replaces batch normalisation, which
model = {name: vgg11_bn}; data/image_size = 16 | data.image_size: 16, expected 32 or more for 'vgg11_bn'
federation/training = {loss: {class_weights: [1, 2, 3]}} | federation.training.loss.class_weights: 3 weights, exp
attacks/leakpipe/training = {loss: {class_weights: [1]}} | attacks.leakpipe.training.loss.class_weights: 1 weights
federation/training = {optimizer: {kind: lion}} | training.optimizer: {'kind': 'lion'} is not valid: expected
federation/training = {optimizer: {kind: sgd, nesterov: true}} | nesterov: needs momentum above 0 and dampening 0
federation/training = {accumulation: 2}; defenses/p = [{kind: dp-sgd, clip_norm: 1, noise_multiplier: 1}] | leave only
federation/batch_norm_sharing = local | preset 'bn-cosine' needs running statistics in the update, which fed
model/normalization = group; federation/batch_norm_sharing = local | sharing: local keeps batch normalisation
threat_model = {batch_norm: exact}; federation/batch_norm_sharing = local | is granted exact batch statistics
attacks/leakpipe/preset = rgap | attacks.leakpipe.preset: unknown attack preset 'rgap'; known: bn-aware, bn-cosine, dlg
attacks/leakpipe/batch_norm = none | attacks.leakpipe: preset 'bn-cosine' with these settings: batch_norm_w
attacks/leakpipe/pyramid = [32, 8] | attacks.leakpipe.pyramid: sizes must grow, got [32, 8]
threat_model = {batch_norm: none} | needs running statistics in the update, which threat_model.batch_no
threat_model = {prior: class, labels: unknown} | threat_model: prior: class needs labels: known
attacks/leakpipe/threat_model = {batch_norm: none} | attacks.leakpipe: preset 'bn-cosine' needs running
attacks/leakpipe/threat_model = {prior: mine} | attacks.leakpipe.threat_model.prior: 'mine' is not
defenses/none = [{kind: hope}] | none.0: {'kind': 'hope'} is not valid: expected a mapping such as {kind: gaussian};
defenses/none = [{kind: sign, bits: 1}] | 0.sign.bits: unknown key; known here: error_feedback, kind
defenses/none = [{kind: secure-aggregation, clients: 9}] | secure-aggregation of 9 clients, but there
federation/learning_rate = -1 | federation.learning_rate: -1 is not valid: input should be greater than 0
federation/rounds = 2.5 | federation.rounds: 2.5 is not valid
federation/rounds = null | federation.rounds: null is not valid
federation/captured_rounds = [1, 99] | federation: captured_rounds [1, 99] go past the 12 rounds
federation/clients/site-9/batch_size = 2 | batch_size 2 is larger than the client's images (1)
federation/clients/site-9/classes = [cat] | unknown class 'cat'; known: face, background
data/test = 190 | need 313 images but data set 'lfw-faces' has 200
seeds = [1, 1] | seeds: values must differ, got [1, 1]
attacks/leakpipe/targets = {site-7: {}} | attacks.leakpipe.targets: 'site-7' is not among site-9
attacks/leakpipe/targets = {site-9: {seeds: [9]}} | 9 is not among 1, 2, 3, 4, 5
attacks/leakpipe/targets = {site-9: {defenses: [dp]}} | 'dp' is not among none, gaussian-1
claims/paper_attack = bn-awere | claims.paper_attack: 'bn-awere' is not among leakpipe, leakpipe-adapted, bn-aw
claims/earlier_attacks = [dlg] | claims.earlier_attacks: 'dlg' is not among leakpipe, leakpipe-adapted, bn-aw
claims/low_risk = [site-1, site-7] | claims.low_risk: 'site-7' is not among site-9, site-5, site-1
claims/low_risk = [site-1, site-1] | claims.low_risk: values must differ, got ['site-1', 'site-1']
claims/more_images = [site-9] | claims.more_images.1: required, but missing
claims/more_images = [site-5, site-1] | claims.more_images: 'site-5' and 'site-1' do not differ so; exp
claims/larger_batches = [site-2, site-5] | claims.larger_batches: 'site-2' and 'site-5' do not differ
claims/larger_batches = [site-5, site-1] | expected: Two clients with as many images: the second has la
claims/more_steps = [site-1, site-5] | claims.more_steps: 'site-1' and 'site-5' do not differ so
model/strides = [1, 2] | model: widths (4) and strides (2) must be as many
scoring = {assignment: best} | scoring.assignment: 'best' is not valid: input should be 'optimal' or
defenses/bad name = [] | defenses.bad name
figures = [effects] | figures: 'effects' draws the comparisons, of which there are none
comparisons/x = {title: T, attacks: {absent: a}, clients: [site-9]} | comparisons.x.attacks: 'absent' is not
comparisons/x = {title: T, attacks: {bn-aware: a}, clients: [site-1]} | (attack 'bn-aware'): 'site-1' is not
identifiability/embedders = [eyes] | 'eyes' is not valid: input should be 'pixels', 'pixel-correlation'
identifiability/embedders = [] | figures: 'identifiability' needs at least one of identifiability.embedders
identifiability/top = [5] | identifiability.top: top [5] must hold 1
identifiability/top = [1, 0] | 0 is not valid: input should be greater than or equal to 1
identifiability/k = 1 | identifiability.k: unknown key; known here: embedders, top
"""


@pytest.mark.parametrize("case", WRONG.strip().splitlines())
def test_what_is_wrong_is_said_in_one_sentence(content: dict[str, Any], case: str) -> None:
    edits, said = case.split(" | ")
    for each in edits.split("; "):
        path, operator, value = re.split(r" (\+?=) ", each)
        new = yaml.safe_load(value)
        edit(content, path, merge(content[path], new) if operator == "+=" else new)
    with pytest.raises(LeakpipeError) as caught:
        parse_params(content, source="params.yaml")
    assert said in str(caught.value)
    count, *problems = str(caught.value).splitlines()
    if problems:
        assert count == f"params.yaml: {len(problems)} problems"
    assert all(problem.startswith("params.yaml: ") for problem in map(str.strip, problems or [count]))


def test_all_mistakes_are_said_at_once_each_with_its_file(content: dict[str, Any], tmp_path: Path) -> None:
    base, overlay = tmp_path / "params.yaml", tmp_path / "overlay.yaml"
    base.write_text(yaml.safe_dump({**content, "sedes": [1], "seeds": [1, 1]}))
    overlay.write_text(
        "federation: {rouns: 3, learning_rate: -1, xyz: 1}\nmodel: {name: vgg}\n"
        "defenses: {sign: [{kind: sign, bits: 1}]}\nattacks: {x: {targets: {}}}\n"
    )
    with pytest.raises(LeakpipeError) as caught:
        load_params(base, overlay)
    count, *problems = str(caught.value).splitlines()
    assert count == f"{base} + {overlay}: 9 problems"
    for file, said in (
        (base, "sedes: unknown key; .*did you mean 'seeds'"),
        (base, r"seeds: values must differ, got \[1, 1\]"),
        (overlay, "federation.rouns: unknown key; .*did you mean 'rounds'"),
        (overlay, "federation.xyz: unknown key; .*remove it"),
        (overlay, "federation.learning_rate: -1 is not valid: .*greater than 0"),
        (overlay, "model.name: unknown model 'vgg'; known: "),
        (overlay, "defenses.sign.0.sign.bits: unknown key; known here: "),
        (overlay, "attacks.x.preset: required, but missing: add it"),
        (overlay, "attacks.x.targets: .* at least 1"),
    ):
        assert sum(bool(re.match(f"  {re.escape(str(file))}: {said}", problem)) for problem in problems) == 1, said


def test_mistakes_that_no_field_shows_alone_are_said_together(content: dict[str, Any]) -> None:
    edit(content, "attacks/leakpipe/targets/site-7", {"seeds": [8, 9]})
    edit(content, "claims/high_risk", "site-8")
    with pytest.raises(LeakpipeError, match=r"^params.yaml: 4 problems\n") as caught:
        parse_params(content, source="params.yaml")
    assert {said.split(": ")[1] for said in str(caught.value).splitlines()[1:]} == {
        "attacks.leakpipe.targets",
        "attacks.leakpipe.targets.site-7.seeds",
        "claims.high_risk",
    }


def test_an_overlay_alone_is_answered_with_the_command() -> None:
    overlay = PROJECT / "experiments" / "quick.yaml"
    with pytest.raises(LeakpipeError, match=rf"has no data, model,.*: leakpipe check params.yaml {overlay}$"):
        load_params(overlay)


def test_an_attack_must_run_where_its_comparison_is_drawn(content: dict[str, Any]) -> None:
    edit(content, "comparisons/known", comparison())
    edit(content, "attacks/bn-aware/targets", {"site-9": {"defenses": ["gaussian-1"]}})
    with pytest.raises(LeakpipeError, match=r"comparisons\.known: attack 'bn-aware' is not run on client 'site-9'"):
        parse_params(content, source="params.yaml")


def test_a_missing_section_is_named(content: dict[str, Any]) -> None:
    del content["federation"]
    with pytest.raises(LeakpipeError, match=r"params.yaml: federation: required, but missing"):
        parse_params(content, source="params.yaml")


def test_an_attack_that_needs_batch_norm_refuses_a_model_without(
    content: dict[str, Any],
) -> None:
    edit(content, "model/normalization", "group")
    with pytest.raises(LeakpipeError, match=r"attacks\.leakpipe: preset 'bn-cosine' needs batch normalisation"):
        parse_params(content, source="params.yaml")


def test_what_reads_one_clients_update_is_refused_under_a_told_aggregate(content: dict[str, Any]) -> None:
    edit(content, "defenses/pair", [{"kind": "secure-aggregation", "clients": 2}])
    edit(content, "attacks/rows", {"preset": "row-space", "targets": {"site-9": {}}})
    edit(content, "attacks/rows/threat_model", {"defense": "unknown"})
    parse_params(content, source="params.yaml")  # an attack that does not know takes the mean for one client's
    edit(content, "attacks/rows/threat_model", {"defense": "known"})
    edit(content, "federation/clients/site-5/learning_rate", 0.1)
    with pytest.raises(LeakpipeError, match="believes that all its clients train alike"):
        parse_params(content, source="params.yaml")
    edit(content, "federation/clients/site-5/learning_rate", None)
    said = r"attacks.rows.targets.site-9: knows of the aggregate of defence 'pair', but row_space_weight: above 0 .*"
    with pytest.raises(LeakpipeError, match=rf"^params.yaml: {said}; name the other defences in `defenses`$"):
        parse_params(content, source="params.yaml")


def test_updates_are_kept_of_the_clients_that_are_attacked_under_a_defence() -> None:
    params = load_params(PROJECT / "params.yaml", PROJECT / "experiments" / "claims-cxr.yaml")
    assert attacked_clients(params) == captured_clients(params, "none")
    assert captured_clients(params, "gaussian-20") == ["site-9"]
    changes = {"attacks": {"leakpipe": None, "leakpipe-adapted": None}, "claims": None}
    nobody = load_params(PROJECT / "params.yaml", changes=changes)
    assert captured_clients(nobody, "gaussian-20") == attacked_clients(nobody) == ["site-9"]


@pytest.mark.parametrize(
    "images", [{"dataset": "covid-radiography"}, {"dataset": "medmnist", "subset": "pneumoniamnist"}]
)
def test_the_papers_claims_are_judged_on_other_radiographs_by_their_name(images: dict[str, str]) -> None:
    files = [PROJECT / "params.yaml", PROJECT / "experiments" / "claims-cxr.yaml"]
    phantoms, real = load_params(*files), load_params(*files, changes={"data": images})
    assert real.data.dataset == images["dataset"]
    assert list_cells(real) == list_cells(phantoms)


def test_null_switches_an_inherited_entry_off(tmp_path: Path) -> None:
    overlay = tmp_path / "less.yaml"
    overlay.write_text(
        "defenses: {gaussian-5: null}\nseeds: [7]\n"
        "attacks: {leakpipe: {targets: {site-5: null, site-1: null}}, bn-aware: null, inverting-gradients: null,\n"
        "  leakpipe-adapted: null, leakpipe-weights: null, leakpipe-statistics: null}\nclaims: null\n"
    )
    params = load_params(PROJECT / "params.yaml", overlay)
    assert list(params.defenses) == ["none", "gaussian-1", "gaussian-20"]
    assert list(params.attacks) == ["leakpipe"]
    assert attacked_clients(params) == ["site-9"]
    assert {cell.seed for cell in list_cells(params)} == {7}


def test_an_overlay_can_switch_the_model(tmp_path: Path) -> None:
    overlay = tmp_path / "deeper.yaml"
    overlay.write_text("model: {name: resnet20, widths: null, strides: null}\n")
    model = load_params(PROJECT / "params.yaml", overlay).model
    assert model == ModelParams(name="resnet20")
    assert ModelParams.model_validate(model.model_dump(mode="json")) == model


def test_what_is_stored_of_a_convnet_says_all_of_it() -> None:
    resolved = ModelParams(name="convnet-bn", widths=(32, 32, 64, 64), strides=(1, 2, 1, 2))
    assert ModelParams(name="convnet-bn") == ModelParams(name="convnet-bn", widths=None) == resolved
    assert ModelParams.model_validate(resolved.model_dump(mode="json")) == resolved


@pytest.mark.parametrize(("images", "batch_size", "trains"), [(9, 8, False), (10, 8, True), (8, 8, True)])
def test_a_last_batch_of_one_image_counts(content: dict[str, Any], images: int, batch_size: int, trains: bool) -> None:
    edit(content, "model", {"name": "resnet18"})
    edit(content, "claims", None)
    clients = {"site-9": {"images": images, "batch_size": batch_size}}
    edit(content, "federation/clients", clients)
    for attack in content["attacks"].values():
        attack["targets"] = {"site-9": {}}
    if trains:
        assert parse_params(content, source="params.yaml").model.name == "resnet18"
    else:
        with pytest.raises(LeakpipeError, match="leaves one value per channel of a batch of one image"):
            parse_params(content, source="params.yaml")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    broken, listed = tmp_path / "broken.yaml", tmp_path / "list.yaml"
    broken.write_text("a: [1\nb: 2")
    listed.write_text("- 1")
    for path, said in ((broken, "line 2"), (listed, "expected a mapping"), (tmp_path / "none.yaml", "No such file")):
        with pytest.raises(LeakpipeError) as caught:
            load_params(path)
        assert str(path) in str(caught.value)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_comparisons_name_attacks_that_run_on_their_clients(content: dict[str, Any]) -> None:
    content |= {"comparisons": {"known": comparison(), "off": None}, "figures": ["noise", "effects"]}
    params = parse_params(content, source="params.yaml")
    assert list(params.comparisons) == ["known"]
    assert params.comparisons["known"].attacks == {"leakpipe": "much", "bn-aware": 2}
    assert undefended(params) == "none"


def test_cells_respect_targets(content: dict[str, Any]) -> None:
    params = parse_params(content, source="params.yaml")
    counts: dict[tuple[str, str], int] = {}
    for cell in list_cells(params):
        counts[cell.attack, cell.client] = counts.get((cell.attack, cell.client), 0) + 1
    seeds, defenses = len(params.seeds), len(params.defenses)
    assert counts["leakpipe", "site-9"] == seeds * defenses
    assert counts["leakpipe", "site-1"] == 3 * defenses
    assert counts["inverting-gradients", "site-9"] == seeds


def test_settings_come_from_preset_then_attack_then_client(content: dict[str, Any]) -> None:
    edit(content, "attacks/inverting-gradients/targets", {"site-9": {}, "site-5": {"iterations": 7}})
    attack = parse_params(content, source="params.yaml").attacks["inverting-gradients"]
    published = PRESETS["inverting-gradients"].settings
    assert resolve_settings(attack, "site-9").iterations == content["attacks"]["inverting-gradients"]["iterations"]
    assert resolve_settings(attack, "site-5").iterations == 7
    assert resolve_settings(attack, "site-9").step_size == published.step_size
    assert resolve_settings(attack, "site-9").batch_norm == "frozen"


def test_an_attack_may_be_granted_something_else(content: dict[str, Any]) -> None:
    edit(content, "threat_model", {"prior": "class", "batch_order": "known"})
    edit(content, "attacks/bn-aware/threat_model", {"prior": "gray"})
    edit(content, "attacks/inverting-gradients/threat_model", {"prior": "all", "labels": "unknown"})
    params = parse_params(content, source="params.yaml")
    granted = {name: resolve_threat_model(attack, params.threat_model) for name, attack in params.attacks.items()}
    assert granted["leakpipe"] == params.threat_model
    assert granted["bn-aware"] == params.threat_model.model_copy(update={"prior": "gray"})
    assert granted["inverting-gradients"].labels == "unknown"
    assert granted["inverting-gradients"].batch_order == "known"


def test_what_an_attack_is_granted_must_fit_the_experiments(content: dict[str, Any]) -> None:
    edit(content, "threat_model", {"prior": "class"})
    edit(content, "attacks/bn-aware/threat_model", {"labels": "unknown"})
    said = r"attacks\.bn-aware: threat_model together with the experiment's: prior: class needs labels: known$"
    with pytest.raises(LeakpipeError, match=said):
        parse_params(content, source="params.yaml")


def test_roles_may_be_played_by_clients_that_differ_as_they_say(content: dict[str, Any]) -> None:
    pairs = {
        "more_images": ["site-9", "site-5"],
        "larger_batches": ["site-1", "site-5"],
        "more_steps": ["site-5", "site-1"],
    }
    for role, pair in pairs.items():
        edit(content, f"claims/{role}", pair)
    claims = parse_params(content, source="params.yaml").claims
    assert claims is not None
    assert [getattr(claims, role) for role in pairs] == [tuple(pair) for pair in pairs.values()]
    edit(content, "claims", None)
    assert parse_params(content, source="params.yaml").claims is None
