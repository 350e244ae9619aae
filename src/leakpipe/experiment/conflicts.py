"""What cannot be run though every field of params.yaml is valid by itself: settings that contradict each other."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

from leakpipe.attacks.presets import resolve_settings, resolve_threat_model
from leakpipe.attacks.requirements import RECURSIVE_MODELS, matches_weights, needs_statistics, unfit_for_aggregates
from leakpipe.client.batches import count_local_steps
from leakpipe.data.datasets import DATASETS
from leakpipe.defenses.steps import count_aggregated, training_step, withholds_statistics
from leakpipe.errors import LeakpipeError
from leakpipe.experiment.cells import Cell, list_cells, undefended
from leakpipe.files.quoting import explain_braces
from leakpipe.models.catalog import MODELS
from leakpipe.models.choices import (
    LAYER_NORMALIZED,
    has_batch_norm,
    starting_weights,
    weights_file,
    why_no_batch_norm,
)
from leakpipe.params.attack_settings import AttackSettings
from leakpipe.params.attacks import AttackParams, ThreatModel
from leakpipe.params.claims import ClaimsParams
from leakpipe.params.defenses import MixupParams
from leakpipe.params.experiment import Params
from leakpipe.params.federation import ClientParams
from leakpipe.params.privacy import WHY_NO_BATCH_NORM, WHY_PLAIN_SGD, DpSgdParams
from leakpipe.params.training import TrainingParams

IMAGE_AXES = 2


def find_conflicts(params: Params) -> Iterator[str]:
    """Yields what cannot be run though every field is valid by itself."""
    yield from _check_model(params)
    yield from _check_data(params)
    yield from _check_training(params)
    for field, path in (("data.datalists", params.data.datalists), ("model.weights", weights_file(params.model))):
        if problem := explain_braces(field, str(path or "")):
            yield problem
    unresolved: list[str] = []
    for name, attack in params.attacks.items():
        for target in attack.targets:
            try:
                granted = resolve_threat_model(attack, params.threat_model)
                settings = resolve_settings(attack, target)
                missing = _find_missing_knowledge(params, settings, granted)
                if settings.method == "recursive":
                    missing = missing or _find_unfit_for_recursion(params, attack, target)
            except LeakpipeError as error:
                unresolved.append(f"attacks.{name}: {error}")
                continue
            if missing:
                yield f"attacks.{name}: preset {attack.preset!r} {missing}"
    yield from _check_contrasts(params)
    yield from _check_comparisons(params)
    yield from unresolved
    if not unresolved:
        yield from _check_defenses(params)


def _check_model(params: Params) -> Iterator[str]:
    """The model: images that are too small for it, weights that do not exist."""
    model, entry = params.model, MODELS[params.model.name]
    replaced = why_no_batch_norm(model)
    if params.data.image_size % entry.multiple:
        yield f"data.image_size: {params.data.image_size}, expected a multiple of {entry.multiple} for {model.name!r}"
    if model.name in LAYER_NORMALIZED and model.normalization != "batch":
        yield f"model.normalization: {model.normalization} replaces batch normalisation, {replaced}; set it to batch"
    contents = DATASETS[params.data.dataset].contents(params.data)
    if contents and contents.axes != entry.axes:
        kind = {2: "images", 3: "volumes"}
        data_set = f"data set {params.data.dataset!r} has {kind[contents.axes]}"
        yield f"model.name: {model.name!r} is for {kind[entry.axes]}, {data_set}"
    if entry.axes != IMAGE_AXES:
        yield from _check_volumes(params)
    if params.data.image_size < entry.least_size:
        yield f"data.image_size: {params.data.image_size}, expected {entry.least_size} or more for {model.name!r}"
    if params.federation.batch_norm_sharing == "local" and not has_batch_norm(model):
        yield f"federation.batch_norm_sharing: local keeps batch normalisation with the clients, {replaced}"
    field, weights = "model.weights", starting_weights(model)
    if model.weights == "public":
        field = "model.pretraining.start"
        if _has_lone_values(params, params.data.public, min(model.pretraining.batch_size, params.data.public)):
            yield f"model.pretraining.batch_size: {_lone_values(params)}"
    if weights in ("imagenet", "augnet"):
        if weights not in entry.published:
            known = ", ".join(name for name, other in MODELS.items() if weights in other.published)
            yield f"{field}: there are no weights {weights!r} for {model.name!r}; there are for {known}"
        if not has_batch_norm(model):
            yield f"{field}: {weights!r} were trained with batch normalisation, {replaced}"


def _check_volumes(params: Params) -> Iterator[str]:
    """Yields what is made for images and not for volumes."""
    if params.scoring.lpips:
        yield "scoring.lpips: true, expected false: LPIPS compares images, and the network is for volumes"
    for name in params.identifiability.embedders:
        if "resnet" in name:
            yield f"identifiability.embedders: {name!r} reads images, and the network is for volumes; leave it out"


def _check_data(params: Params) -> Iterator[str]:
    """The data set: too few images, classes that it lacks, batches of one image."""
    contents = DATASETS[params.data.dataset].contents(params.data)
    held = params.data.test + params.data.validation + params.data.public
    held += sum(client.images for client in params.federation.clients.values())
    if contents and held > contents.images:
        yield (
            f"data, federation.clients: clients, validation, test and public part need {held} images "
            f"but data set {params.data.dataset!r} has {contents.images}"
        )
    for name, client in params.federation.clients.items():
        where = f"federation.clients.{name}"
        if params.data.datalists and client.classes:
            yield f"{where}.classes: must be null, data.datalists list the images that a client holds"
        for class_name in client.classes or ():
            if contents and class_name not in contents.classes:
                yield f"{where}.classes: unknown class {class_name!r}; known: {', '.join(contents.classes)}"
        if _has_lone_values(params, client.images, client.batch_size):
            yield f"{where}: {_lone_values(params)}"


def _check_training(params: Params) -> Iterator[str]:
    """Trainings that do not fit the data set's classes, or DP-SGD."""
    contents, federation = DATASETS[params.data.dataset].contents(params.data), params.federation
    own = {f"federation.clients.{name}.training": each.training for name, each in federation.clients.items()}
    believed = {f"attacks.{name}.training": each.training for name, each in params.attacks.items()}
    for where, training in {"federation.training": federation.training, **own, **believed}.items():
        weights = training.loss.class_weights if training else None
        if contents and weights is not None and len(weights) != len(contents.classes):
            yield (
                f"{where}.loss.class_weights: {len(weights)} weights, expected one for each of the classes "
                f"{', '.join(contents.classes)}"
            )
    trainings = [training or federation.training for training in own.values()]
    if contents and contents.multi_label:
        yield from _check_multi_label(params, trainings)
    for name, steps in params.defenses.items():
        private = isinstance(training_step(steps), DpSgdParams)
        if private and any(each != TrainingParams(loss=each.loss) for each in trainings):
            yield f"defenses.{name}: {WHY_PLAIN_SGD}"


def _check_multi_label(params: Params, trainings: Sequence[TrainingParams]) -> Iterator[str]:
    """Yields what does not fit images with several labels."""
    several = f"data set {params.data.dataset!r} has several labels for an image"
    if any(training.loss.kind != "binary-cross-entropy" for training in trainings):
        yield f"federation.training.loss.kind: cross-entropy, expected binary-cross-entropy: {several}"
    if params.model.weights == "public":
        yield f"model.weights: public is trained by cross-entropy on one class an image, and {several}"
    for name, attack in params.attacks.items():
        if resolve_threat_model(attack, params.threat_model).prior == "class":
            yield f"attacks.{name}: threat_model.prior: class, expected all or gray: {several}"
        if attack.labels == "joint":
            yield f"attacks.{name}.labels: joint searches one class for each image, and {several}"
    for name, steps in params.defenses.items():
        if isinstance(training_step(steps), MixupParams):
            yield f"defenses.{name}: mixup blends one class with another, and {several}"


def _has_lone_values(params: Params, images: int, batch_size: int) -> bool:
    """Returns whether batch normalisation would see one value per channel in a step of an epoch over so many images."""
    lone_size = MODELS[params.model.name].lone_size(params.model)
    smallest_batch = images % batch_size or batch_size
    return has_batch_norm(params.model) and smallest_batch == 1 and params.data.image_size <= lone_size


def _lone_values(params: Params) -> str:
    return (
        f"model {params.model.name!r} at data.image_size {params.data.image_size} leaves one value per channel of a "
        "batch of one image, which batch normalisation cannot train on"
    )


def _find_missing_knowledge(params: Params, settings: AttackSettings, granted: ThreatModel) -> str | None:
    """Describes what an attack needs that model or threat model do not give; None if it has everything."""
    kept = "federation.batch_norm_sharing: local keeps with the client"
    is_kept = params.federation.batch_norm_sharing == "local"
    if is_kept and granted.batch_norm == "exact":
        return f"is granted exact batch statistics by threat_model.batch_norm: exact, which {kept}"
    if not needs_statistics(settings):
        return None
    if not has_batch_norm(params.model):
        return f"needs batch normalisation, {why_no_batch_norm(params.model)}"
    if settings.batch_norm == "update" and is_kept:
        return f"needs running statistics in the update, which {kept}"
    if settings.batch_norm == "update" and granted.batch_norm == "none":
        return "needs running statistics in the update, which threat_model.batch_norm: none withholds"
    if settings.batch_norm == "exact" and granted.batch_norm != "exact":
        return f"needs exact batch statistics, which threat_model.batch_norm: {granted.batch_norm} does not grant"
    return None


def _find_unfit_for_recursion(params: Params, attack: AttackParams, client: str) -> str | None:
    """Describes why a client's images cannot be recovered recursively; None if nothing speaks against it."""
    if params.model.name not in RECURSIVE_MODELS:
        return f"needs a residual network, one of {', '.join(RECURSIVE_MODELS)}, not model.name: {params.model.name}"
    where, trained = f"federation.clients.{client}", params.federation.clients[client]
    if (steps := _steps(params, trained)) > 1:
        return f"needs an update of one local step, but {where} takes {steps}"
    if attack.budget is not None:
        return "solves equations, which take the time that they take: remove budget, or set iterations"
    return None


def _check_contrasts(params: Params) -> Iterator[str]:
    """Pairs of clients that do not differ as their role in the claims demands."""
    wanted: dict[str, Callable[[ClientParams, ClientParams], bool]] = {
        "more_images": lambda less, more: more.images > less.images,
        "larger_batches": lambda less, more: more.images == less.images and more.batch_size > less.batch_size,
        "more_steps": lambda less, more: more.images == less.images and _steps(params, more) > _steps(params, less),
    }
    for role, differ in wanted.items():
        pair = getattr(params.claims, role, None)
        if pair and not differ(*(params.federation.clients[name] for name in pair)):
            expected = ClaimsParams.model_fields[role].description
            yield f"claims.{role}: {pair[0]!r} and {pair[1]!r} do not differ so; expected: {expected}"


def _steps(params: Params, client: ClientParams) -> int:
    """Local steps of a client in one round."""
    return count_local_steps(client.images, client.batch_size, client.local_epochs or params.federation.local_epochs)


def _check_comparisons(params: Params) -> Iterator[str]:
    """Attacks of a comparison that are not run where comparisons are drawn."""
    defense = undefended(params)
    run = {(cell.attack, cell.client) for cell in list_cells(params) if cell.defense == defense}
    for name, comparison in params.comparisons.items():
        for attack, client in product(comparison.attacks, comparison.clients):
            if (attack, client) not in run:
                yield (
                    f"comparisons.{name}: attack {attack!r} is not run on client {client!r} under defence {defense!r}, "
                    "which comparisons are drawn under"
                )


def _check_defenses(params: Params) -> Iterator[str]:
    """Defences that need clients or gradients that do not exist, or that leave an attack nothing to match."""
    clients = len(params.federation.clients)
    for name, steps in params.defenses.items():
        if isinstance(training_step(steps), DpSgdParams) and has_batch_norm(params.model):
            yield f"defenses.{name}: {WHY_NO_BATCH_NORM}"
        if count_aggregated(steps) > clients:
            yield f"defenses.{name}: secure-aggregation of {count_aggregated(steps)} clients, but there are {clients}"
    for cell in list_cells(params):
        problem = _find_unfit_cell(params, cell)
        if problem:
            where = f"attacks.{cell.attack}.targets.{cell.client}"
            yield f"{where}: {problem}; name the other defences in `defenses`"
    bounds = any(
        step.kind in ("dp-gaussian", "dp-sgd") and step.noise_multiplier > 0
        for steps in params.defenses.values()
        for step in steps.root
    )
    if "bound" in params.figures and not bounds:
        yield "figures: 'bound' needs a defence with a step dp-gaussian or dp-sgd that adds noise; there is none"


def _find_unfit_cell(params: Params, cell: Cell) -> str | None:
    """Describes why an attack cannot be run under a defence; None if it can."""
    attack, defense = params.attacks[cell.attack], params.defenses[cell.defense]
    settings = resolve_settings(attack, cell.client)
    if withholds_statistics(defense) and settings.method == "recursive":
        return f"needs running statistics in the update, which defence {cell.defense!r} withholds"
    if withholds_statistics(defense) and not matches_weights(settings) and settings.batch_norm == "update":
        return f"matches nothing but BN statistics, which defence {cell.defense!r} withholds"
    granted = resolve_threat_model(attack, params.threat_model)
    if granted.defense == "known" and count_aggregated(defense) > 1:
        clients = params.federation.clients.values()
        if any(client.training or client.learning_rate for client in clients):
            return (
                f"knows of the aggregate of defence {cell.defense!r} and believes that all its clients train alike, "
                "but federation.clients have a training or learning_rate of their own"
            )
        unfit = unfit_for_aggregates(settings, labels_known=granted.labels == "known")
        return unfit and f"knows of the aggregate of defence {cell.defense!r}, but {unfit}"
    return None
