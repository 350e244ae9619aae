"""The test whether an update looks as the training that the attacker believes in would have made it.

A wrong belief weakens an attack without a word: a full state taken for a difference, a sign, a learning rate, a number
of steps, another optimiser, images that were scaled first. Five things show it, without the client's images:

- The head. With p the predictions and y the labels, its bias moves by −η·mean(p − y) and its weights by
  −η·mean((p − y) ⊗ h). Their ratio gives the features h, these the predictions, and both what the believed training
  would have done to the bias: for one image in one step exactly, for more nearly.
- The sizes of values. Adam's first step moves every weight by nearly the learning rate; gradients differ by magnitudes.
- The believed training on plausible images: the prior, and smooth noise. The head's change is compared with theirs, and
  the norms of all tensors. A network that is sure of some plausible images may have been right, and surer, about the
  client's: its update may be as small as it likes.
- Weights before batch normalisation, which no training makes shorter: the two states may be swapped
  (`leakpipe.attacks.norm_growth`). One step of Adam shows its own settings (`leakpipe.attacks.adam_step`).
- The batch statistics. A recovered variance below 0 has no images, and one step of SGD obeys an equation between the
  statistics and the weights before them (`leakpipe.attacks.one_step`). Those of the first layer say in which range
  its input was (`leakpipe.attacks.input_range`).

The thresholds were chosen on some draws and judged on others (`python -m tests.benchmarks.beliefs`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakpipe.attacks.adam_step import doubt_adam_step
from leakpipe.attacks.head_factor import HeadFactor, drawn_head_factor, head_factor
from leakpipe.attacks.input_range import doubt_input_range
from leakpipe.attacks.norm_growth import doubt_order
from leakpipe.attacks.observation import Observation
from leakpipe.attacks.one_step import examine_steps
from leakpipe.attacks.plausible import Plausible, simulate_plausible
from leakpipe.attacks.recovered_statistics import recover_batch_statistics, statistics_by_layer, weight_of_batches
from leakpipe.client.optimizers import is_adaptive
from leakpipe.client.update import combine_updates
from leakpipe.models.state import Tensors

FULL_STATE = 0.75  # share of the global weights in an update, as `leakpipe.captured.matching` judges it
EXACT_FACTOR, NEAR_FACTOR = 1.2, 1.5  # of one image in one step; of more, beyond the spread among draws
SIGN_LIKE, PLAIN = 0.9, 0.75  # mean over root mean square of absolute changes: 1 for a sign, 0.8 for normal values
ADAPTIVE_FACTOR = 1.4  # of all norms, of several steps of Adam, whose size hardly depends on the images
NORM_FACTOR, PROFILE = 3.0, 1.0  # beyond the spread among draws: of all norms; of each, in e-folds
NEGLIGIBLE = 1e-6  # of the largest change
OPPOSITE = 0.5  # least cosine with minus the update
# How two notes begin, which whoever has counted the client's batches needs not say.
STEPS_UNCHECKED, SIGN_UNCHECKED = "Not checked: whether the client took", "Not checked: the update's sign"
ROUNDING = 0.01  # of a running variance
SURE = 0.5  # error of predictions over that of guessing, below which a network is trained and errors may be tiny


@dataclass(frozen=True)
class Examination:
    """The testimony of an update about the believed training, in sentences.

    Attributes:
        doubts: What speaks against it.
        unchecked: What of it could be wrong all the same, where nothing speaks against it.
    """

    doubts: Sequence[str] = ()
    unchecked: Sequence[str] = ()


def examine_belief(observation: Observation) -> Examination:
    """Compares an update with the believed training.

    Of an aggregate, an update that is all zero and one whose defence the attacker knows, nothing is checked.
    """
    defended = observation.defense is not None and observation.defense.root
    if observation.cohort or defended or not observation.has_signal:
        return Examination()
    said = _doubt_values(observation) or _doubt_statistics(observation)
    if said:
        return Examination(said)
    simulated = simulate_plausible(observation)
    if said := doubt_order(observation, simulated) or doubt_adam_step(observation):
        return Examination(said)
    said, counted = _doubt_training(observation, simulated)
    return Examination(said) if said else Examination([], _list_unchecked(observation, simulated, counted=counted))


def _doubt_values(observation: Observation) -> list[str]:
    share = _share_of_global(observation)
    if share > FULL_STATE:
        return [
            f"The update holds {100 * share:.0f} % of the global weights, as a full state does and a difference does "
            "not: subtract the global model from it."
        ]
    spread = _spread(observation.update.weights)
    adaptive = is_adaptive(observation.settings.training.optimizer)
    clipping = observation.settings.training.clipping
    clipped = clipping is not None and clipping.kind == "value"  # its largest values are alike, too
    if spread > SIGN_LIKE and not adaptive and not clipped:
        return [
            f"All weights moved by nearly the same amount (mean over root mean square {spread:.2f}), as by Adam or a "
            "sign and not by the believed SGD: check training.optimizer."
        ]
    if spread < PLAIN and adaptive and observation.update.steps == 1:
        return [
            f"Weights moved by different amounts (mean over root mean square {spread:.2f}), as by SGD and not by the "
            "believed Adam's first step: check training.optimizer."
        ]
    return []


def _doubt_statistics(observation: Observation) -> list[str]:
    update, settings = observation.update, observation.settings
    if not update.statistics:
        return []
    weight = weight_of_batches(settings.batch_norm_momentum, [update.steps])
    recovered = recover_batch_statistics(observation.before, update, weight)
    running = statistics_by_layer(observation.before, observation.before.statistics)
    impossible = sum(
        int((seen.variance < -ROUNDING * running[name].variance.abs()).sum()) for name, seen in recovered.items()
    )
    if not impossible:
        return []
    return [
        f"The batch variances of {impossible} channels come out below 0: check batch_norm_momentum "
        f"({settings.batch_norm_momentum:g}), the number of local steps ({update.steps}), the update's sign, or "
        "whether a defence was applied."
    ]


def _doubt_training(observation: Observation, simulated: Plausible) -> tuple[list[str], bool]:
    """Returns what speaks against the believed training, and whether the number of its steps was checked."""
    adaptive = is_adaptive(observation.settings.training.optimizer)
    single, trained = observation.client.images == 1, simulated.least_error < SURE
    exact = single and not adaptive
    if exact:
        head, spread = head_factor(observation), 1.0
        limit = EXACT_FACTOR if observation.update.steps == 1 else NEAR_FACTOR
    else:
        weights = [update.weights for update in simulated.updates]
        (head, spread), limit = drawn_head_factor(observation, weights), NEAR_FACTOR
        if trained and head is not None and 0 < head.factor < 1 / simulated.error:
            head = replace(head, factor=1.0)  # as large as surer or less sure predictions make it
    said = [] if head is None else _doubt_head(observation, head, limit * spread)
    of_steps, counted = examine_steps(observation, simulated)
    said = said or of_steps or doubt_input_range(observation, simulated.images)
    said = said or _doubt_norms(observation, simulated, scale=head is None)
    return said, counted or (exact and head is not None and observation.update.steps == 1)


def _list_unchecked(observation: Observation, simulated: Plausible, *, counted: bool) -> list[str]:
    """Names what of a belief that nothing speaks against could be wrong all the same."""
    update, unchecked = observation.update, []
    if not counted:
        other = f"the believed {update.steps} local steps, or one" if update.steps > 1 else "one local step, or several"
        unchecked.append(f"{STEPS_UNCHECKED} {other}.")
    adaptive, spread = is_adaptive(observation.settings.training.optimizer), _spread(update.weights)
    if (adaptive and spread <= SIGN_LIKE) or (update.steps > 1 and spread >= PLAIN):
        unchecked.append(
            f"Not checked: the optimiser; SGD and Adam may both move weights by such amounts (mean over root mean "
            f"square {spread:.2f})."
        )
    opposite = replace(observation, update=combine_updates(lambda change, _: -change, update, update))
    if not (_doubt_statistics(opposite) or _doubt_training(opposite, simulated)[0]):
        unchecked.append(f"{SIGN_UNCHECKED}; nothing would speak against its opposite.")
    batch, rate = observation.client.images > 1, f"the learning rate ({observation.settings.learning_rate:g})"
    if simulated.least_error < SURE and (batch or head_factor(observation) is None):
        unchecked.append(
            f"Not checked: {rate}; the model is sure of its predictions, and gradients may then be as small as they "
            "like."
        )
    elif batch:
        unchecked.append(f"Not checked: {rate} within the factor that images of a batch make of it, often 2 or more.")
    return unchecked


def _doubt_head(observation: Observation, head: HeadFactor, limit: float) -> list[str]:
    if head.factor < 0 and head.agreement < -OPPOSITE:
        return [
            "The head moved against the labels' gradient: the update's sign is flipped (expected after minus before), "
            "or the labels are others."
        ]
    clipped = observation.settings.training.clipping is not None and head.factor < 1
    if head.factor <= 0 or clipped or 1 / limit < head.factor < limit:
        return []
    rate = observation.settings.learning_rate
    return [
        f"The head moved {head.factor:.3g} times as far as the believed training would move it: check learning_rate "
        f"({rate:g}; {rate * head.factor:.3g} would fit), the number of local steps ({observation.update.steps}), "
        "momentum, and the loss's reduction and factor."
    ]


def _doubt_norms(observation: Observation, simulated: Plausible, *, scale: bool) -> list[str]:
    """Compares each tensor's norm with those of the believed training on plausible images."""
    drawn_weights = [update.weights for update in simulated.updates]
    every = [observation.update.weights, *drawn_weights]
    names = [name for name in observation.update.weights if all(bool(run[name].any()) for run in every)]
    if len(names) < 2:
        return []
    drawn = torch.stack([torch.stack([run[name].double().norm().log() for name in names]) for run in drawn_weights])
    observed = torch.stack([observation.update.weights[name].double().norm().log() for name in names])
    shift, profile = norm_gaps(observed, drawn)
    others = [norm_gaps(drawn[k], torch.cat([drawn[:k], drawn[k + 1 :]])) for k in range(len(drawn))]
    most_shift, most_profile = (max(abs(gap[part]) for gap in others) for part in (0, 1))
    adaptive = is_adaptive(observation.settings.training.optimizer)
    factor = ADAPTIVE_FACTOR if adaptive else NORM_FACTOR
    unusual = abs(shift) > most_shift + math.log(factor)
    if simulated.least_error < SURE and not adaptive:
        unusual = shift > most_shift + math.log(factor / simulated.error)
    if (scale or adaptive) and unusual:
        return [
            f"The update is {math.exp(shift):.2g} times as large as the believed training makes it on plausible "
            "images: check learning_rate, the number of local steps, the optimiser and the loss's reduction, or "
            "whether a defence was applied."
        ]
    if profile > most_profile + PROFILE:
        return [
            f"The norms of the update's tensors differ by a factor of {math.exp(profile):.2g} from those that the "
            "believed training gives them on plausible images: check the optimiser, the network, its weights, or "
            "whether a defence was applied."
        ]
    return []


def norm_gaps(observed: Tensor, drawn: Tensor) -> tuple[float, float]:
    """Returns the common factor of norms beside those drawn, as a logarithm, and what differs beyond it.

    Args:
        observed: Logarithms of the tensors' norms, shape (tensors,).
        drawn: The same of draws, shape (draws, tensors).
    """
    gaps = observed - drawn.mean(dim=0)
    shift = gaps.median()
    return float(shift), float((gaps - shift).abs().mean())


def _share_of_global(observation: Observation) -> float:
    """⟨update, global⟩ / ‖global‖²: about 1 of a full state and 0 of a difference."""
    inner = squared = 0.0
    for name, change in observation.update.weights.items():
        weight = observation.before.weights[name].double()
        inner += float((change.double() * weight).sum())
        squared += float(weight.square().sum())
    return inner / squared if squared else 0.0


def _spread(changes: Tensors) -> float:
    """Mean over root mean square of all absolute changes that are not negligible."""
    values = torch.cat([change.double().abs().flatten() for change in changes.values()])
    values = values[values > NEGLIGIBLE * values.max()]
    return float(values.mean() / values.square().mean().sqrt())
