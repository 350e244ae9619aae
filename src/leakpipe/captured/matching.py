"""Matches what a client received and sent back to a network: the model state and the update that attacks take."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from leakpipe.captured.aligning import Aligned, align
from leakpipe.captured.state import CapturedState, Kind
from leakpipe.captured.steps import count_steps
from leakpipe.client.update import ClientUpdate
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import batch_norm_names
from leakpipe.models.state import ModelState

# Share of the global weights in the shared ones, ⟨shared, global⟩ / ‖global‖²: about 1 for a full state and 0 for a
# difference, also under noise, which is not aligned with the weights.
FULL_ABOVE, DIFFERENCE_BELOW = 0.75, 0.25
LEAST_EXACT = {  # bits of the mantissa
    **{torch.float16: 11, torch.bfloat16: 8},
    **{torch.float8_e4m3fn: 4, torch.float8_e5m2: 3},
}


@dataclass(frozen=True)
class MatchedUpdate:
    """One client's update of one global model, ready for `leakpipe.attacks.observation.Observation`.

    Attributes:
        state: The global model that the client received.
        update: What it sent back, as after minus before. Its `statistics` are empty where none were shared; its
            `weights` lack batch normalisation where the client kept all of it (FedBN), and what its `removed` names.
        notes: What was found, assumed and converted, one sentence each.
    """

    state: ModelState
    update: ClientUpdate
    notes: tuple[str, ...]


def match_update(
    network: nn.Module | ModelState,
    before: CapturedState,
    shared: CapturedState,
    *,
    kind: Kind | None = None,
    steps: int | None = None,
) -> MatchedUpdate:
    """Matches the tensors of two files to a network and subtracts them.

    Args:
        network: The architecture; its own values are not read.
        before: The global model of the round.
        shared: What the client sent back.
        kind: Whether `shared` is the "full" state after training, a "difference" (after minus before) or a
            "reversed-difference" (before minus after). None takes what the file says, or else what its values show.
        steps: How many local steps the client made, where it is known; counters in the files must agree.

    Raises:
        LeakpipeError: The files are not of this network or not of each other, contradict what was declared, hold values
            that are not finite, or do not say the number of steps while `steps` does not either.
    """
    module = (network if isinstance(network, ModelState) else ModelState.of(network)).module
    held, sent = align(module, before), align(module, shared)
    notes = [*before.notes, *shared.notes, *held.notes, *sent.notes]
    if missing := held.missing_weights:
        raise LeakpipeError(
            f"{before.path}: tensor {missing[0]!r} is missing, and {len(missing) - 1} others; expected the whole "
            "global model that the client received"
        )
    if not sent.weights:
        raise LeakpipeError(f"{shared.path}: holds none of the network's weights")
    state = _state(module, held, notes)
    kind = _settle_kind(before, shared, held, sent, declared=kind, notes=notes)
    counted = count_steps(held, sent, kind, declared=steps, notes=notes)
    update = ClientUpdate(
        _changes(held.weights, sent.weights, state.weights, kind),
        _changes(held.statistics, sent.statistics, state.statistics, kind) if _has_statistics(held, sent) else {},
        steps=counted,
    )
    if not any(bool(change.any()) for change in update.weights.values()):
        raise LeakpipeError(
            f"{shared.path}: no weight differs from {before.path.name}: it is the same state, untrained"
        )
    _say_precision(held, sent, kind, notes)
    _say_statistics(state, held, sent, update, notes)
    return _name_missing(state, update, sent, notes)


def _state(module: nn.Module, held: Aligned, notes: list[str]) -> ModelState:
    """Returns the global model in the network's dtype, at least float32."""
    like = ModelState.of(module)
    if held.others:
        module = copy.deepcopy(module)
        module.load_state_dict(dict(held.others), strict=False, assign=True)
    statistics = {
        name: _as(held.statistics.get(name, _fresh(name, value)), value) for name, value in like.statistics.items()
    }
    if lacking := [name for name in like.statistics if name not in held.statistics]:
        notes.append(
            f"{held.path.name}: {len(lacking)} of {len(like.statistics)} running statistics are missing; untrained "
            "ones (mean 0, variance 1) stand in for them."
        )
    return ModelState(
        module, {name: _as(held.weights[name], value) for name, value in like.weights.items()}, statistics
    )


def _fresh(name: str, like: Tensor) -> Tensor:
    return torch.full(like.shape, float(name.endswith("var")))


def _as(value: Tensor, like: Tensor) -> Tensor:
    return value.to(torch.promote_types(like.dtype, torch.float32))


def _changes(
    before: Mapping[str, Tensor], sent: Mapping[str, Tensor], like: Mapping[str, Tensor], kind: Kind
) -> dict[str, Tensor]:
    """Returns after minus before, subtracted in float64."""
    changes = {}
    for name in like:
        if name in sent:
            value = sent[name].double()
            if kind == "full":
                value = value - before[name].double()
            changes[name] = (-value if kind == "reversed-difference" else value).to(like[name].dtype)
    return changes


def _settle_kind(
    before: CapturedState,
    shared: CapturedState,
    held: Aligned,
    sent: Aligned,
    *,
    declared: Kind | None,
    notes: list[str],
) -> Kind:
    """Decides whether the shared tensors are a full state or a difference, and compares that with what was declared."""
    kind = declared or shared.kind
    if declared and shared.kind and (declared == "full") != (shared.kind == "full"):
        raise LeakpipeError(f"{shared.path}: was declared {declared}, but the file itself says {shared.kind}")
    share, size = _compare(held, sent)
    if kind is None and share < 0.5 < size:
        raise LeakpipeError(
            f"{shared.path}: is neither near {before.path.name} nor a small difference: give the global model of the "
            "same round, or declare the kind"
        )
    if kind is None:
        kind = "full" if share > 0.5 else "difference"
        what = "the full state" if kind == "full" else "a difference, after minus before,"
        notes.append(f"{shared.path.name}: was taken for {what} by its values.")
    if kind == "full" and share < DIFFERENCE_BELOW:
        raise LeakpipeError(
            f"{shared.path}: is no full state near {before.path.name}: declare it a difference (`change` in "
            "an audit.yaml), or give the global model of the same round"
        )
    if kind != "full" and share > FULL_ABOVE:
        raise LeakpipeError(
            f"{shared.path}: is no difference but a full state near {before.path.name}: declare it full (`after` in an "
            "audit.yaml)"
        )
    if kind != "full" and size > 0.5:
        notes.append(f"{shared.path.name}: is {size:.0%} as large as the global weights, which is large for an update.")
    return kind


def _compare(held: Aligned, sent: Aligned) -> tuple[float, float]:
    """Returns ⟨shared, global⟩ / ‖global‖² and ‖shared‖ / ‖global‖ over the weights of two axes or more.

    Biases and normalisation are left out: they start from the same values in unrelated models.
    """
    pairs = [(value.double(), held.weights[name].double()) for name, value in sent.weights.items() if value.ndim > 1]
    square = sum(float((old * old).sum()) for _, old in pairs)
    if not square:
        return 0.5, 0.0
    product = sum(float((new * old).sum()) for new, old in pairs)
    return product / square, (sum(float((new * new).sum()) for new, _ in pairs) / square) ** 0.5


def _has_statistics(held: Aligned, sent: Aligned) -> bool:
    return not (held.missing_statistics or sent.missing_statistics)


def _say_precision(held: Aligned, sent: Aligned, kind: Kind, notes: list[str]) -> None:
    for part in (held, sent):
        dtypes = {value.dtype for value in part.weights.values()} - {torch.float32}
        if dtypes:
            names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
            notes.append(f"{part.path.name}: weights are stored as {names}.")
        bits = [LEAST_EXACT[dtype] for dtype in dtypes if dtype in LEAST_EXACT]
        if bits and kind == "full":
            notes.append(
                f"{part.path.name}: this precision rounds each weight to 1 part in {2 ** min(bits)}, so the difference "
                "is coarse; an update stored in full precision would give more away."
            )


def _say_statistics(state: ModelState, held: Aligned, sent: Aligned, update: ClientUpdate, notes: list[str]) -> None:
    if not state.statistics:
        return
    if not update.statistics:
        part = sent if sent.missing_statistics else held
        notes.append(
            f"{part.path.name}: {len(part.missing_statistics)} of {len(state.statistics)} running statistics of batch "
            "normalisation are not there: the attacker has less than with them, and attacks go on without."
        )
    elif not any(bool(change.any()) for change in update.statistics.values()):
        notes.append(
            f"{sent.path.name}: no running statistic changed: the client trained with batch normalisation frozen, or "
            "its running statistics were put back before sharing."
        )


def _name_missing(state: ModelState, update: ClientUpdate, sent: Aligned, notes: list[str]) -> MatchedUpdate:
    """Names the weights that were not shared: nobody compares them, where zeros would mislead an attack."""
    missing = sent.missing_weights
    if missing and set(missing) == batch_norm_names(state.module) & set(state.weights) and not update.statistics:
        notes.append(f"{sent.path.name}: the client kept its batch normalisation (FedBN).")
    elif missing:
        notes.append(
            f"{sent.path.name}: {len(missing)} of {len(state.weights)} weights were not shared ({_first(missing)}): "
            "attacks go on without them."
        )
        update = replace(update, removed=frozenset(missing))
    return MatchedUpdate(state, update, tuple(notes))


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
