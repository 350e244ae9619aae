"""What an attack minimises: the objective as a function of candidates, and each of its terms by itself."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from leakpipe.attacks.adaptive import adapt, move_into
from leakpipe.attacks.batch_statistics import (
    STATISTICS_DISTANCES,
    StatisticsByLayer,
    StatisticsNoise,
    discounted_statistics_distance,
    recover_batch_statistics,
    recovered_noise,
    statistics_by_layer,
    weight_of_batches,
)
from leakpipe.attacks.distances import DISTANCES
from leakpipe.attacks.engines.double_backward.comparison import find_comparison
from leakpipe.attacks.observation import Observation, simulated_trainings
from leakpipe.attacks.regularizers import TOTAL_VARIATIONS, group_distance, l2_norm, prior_distance
from leakpipe.attacks.row_space import Seen, find_row_spaces, plain_convolutions, row_space_distance
from leakpipe.attacks.surrogate import with_surrogate_relus
from leakpipe.client.batches import make_batches
from leakpipe.client.local_update import LocalSettings, local_update, mean_loss
from leakpipe.client.update import ClientUpdate, aggregate_updates
from leakpipe.errors import LeakpipeError
from leakpipe.models.batchnorm import BatchStatistics, batch_norm_layers
from leakpipe.models.layers import record_layer_inputs
from leakpipe.models.preprocessing import undo_normalization
from leakpipe.models.state import ModelState, Tensors, forward_training, measure_statistics
from leakpipe.params.attacks import AttackSettings
from leakpipe.params.defenses import DefenseSteps


@dataclass(frozen=True)
class Evaluation:
    """The objective at one point, or at those of several restarts.

    Attributes:
        objective: Weighted sum of the terms, float64, a scalar or of shape (restarts,).
        values: Each term unweighted, by name, of the same shape, without a graph.
        update: What the candidates' local training would have sent, without a graph; None where no term asks for it
            or the passes compare it without making it.
    """

    objective: Tensor
    values: Tensors
    update: ClientUpdate | None

    @property
    def terms(self) -> dict[str, float]:
        """`values` of one point as numbers."""
        return {name: value.item() for name, value in self.values.items()}


class Terms:
    """The objective of one attack on one observation.

    Over candidates x̂ in [0, 1] and their labels ŷ, with the weights of the settings,

        objective · D(ΔŴ(x̂, ŷ), ΔW) + batch_norm · BN(x̂) + row_space · R(x̂) + total_variation · TV(x̂) [· D] + l2 · ‖x̂‖₂
        + prior · ‖x̂ − prior‖² + group · ‖x̂ − mean over restarts‖²

    where ΔŴ is `local_update` on the candidates: what the client would have sent for them (Hatamizadeh 2023). Where
    the attacker is told the defence, ΔW is what `adapt` makes of it; of an aggregate, x̂ are candidates of all clients
    and ΔŴ is averaged as the server does.

    Args:
        settings: As `leakpipe.attacks.observation.usable_settings` returns them.
        seed: Fixes the orders that are averaged over where they are unknown.
    """

    def __init__(self, observation: Observation, settings: AttackSettings, *, seed: int) -> None:
        self.observation, self.settings = observation, settings
        client = observation.settings
        self.belief = LocalSettings(
            learning_rate=client.learning_rate,
            batch_norm_momentum=client.batch_norm_momentum,
            batch_norm="frozen" if settings.batch_norm == "frozen" else "training",
            loss="cross-entropy" if settings.client_loss == "cross-entropy" else "binary-cross-entropy",
        )
        slope = settings.surrogate_slope
        self.global_model = with_surrogate_relus(observation.before, slope) if slope > 0 else observation.before
        self.trainings = simulated_trainings(observation, settings, seed=seed)
        self.told = adapt(observation.update, observation.defense or DefenseSteps(()), shares=observation.shares)
        self.scales = self._scale_tensors()
        self.observed = {name: value * self.scales[name] for name, value in self.told.weights.items()}
        self.prior = observation.candidate_prior
        self.statistics_noise: StatisticsNoise = {}
        self.row_spaces = self._find_row_spaces() if settings.row_space_weight > 0 else {}
        self.target = self._known_statistics() if settings.batch_norm_weight > 0 else {}
        if not (observation.has_signal or any(bool((layer.variance > 0).any()) for layer in self.target.values())):
            raise LeakpipeError(
                "the update is all zero and no recovered variance is positive: nothing is left to attack"
            )
        self.explains = observation.has_signal and settings.objective_weight > 0
        self.comparison = find_comparison(self) if self.explains else None
        if not (self.explains or self.row_spaces or settings.batch_norm_weight > 0):
            raise LeakpipeError(
                "no convolution has fewer positions than channels, or noise drowns all that have: the row-space term, "
                "and so the attack, has nothing to match"
            )

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the terms."""
        notes = []
        if self.told.left:
            notes.append(f"What each client's {' and '.join(self.told.left)} did before the average was not undone.")
        if self.settings.row_space_weight > 0:
            layers = len(self.row_spaces)
            notes.append(f"The update gives away the row space of what {layers} convolutions read.")
        unusable = sum(int((layer.variance <= 0).sum()) for layer in self.target.values())
        if unusable:
            handled = "left out" if self.settings.batch_norm_distance == "normalized" else "matched as 0"
            handled = "taken for as small as the noise" if self.statistics_noise else handled
            notes.append(f"{unusable} channels with a recovered variance that is not positive were {handled}.")
        drowned = len(self.observation.update.weights) - len(self.observed)
        if drowned:
            notes.append(f"{drowned} tensors of the update, which the defence leaves nothing of, were not compared.")
        return notes

    @property
    def together(self) -> int:
        """How many restarts `evaluate_all` takes at once."""
        measures_apart = self.settings.batch_norm_weight > 0 and self.settings.batch_norm == "frozen"
        return 1 if self.comparison is None or self.row_spaces or measures_apart else self.comparison.together

    def evaluate_all(
        self, images: Tensor, labels: Tensor, *, drift: Tensors | None = None, consensus: Tensor | None = None
    ) -> Evaluation:
        """`evaluate` of at most `together` restarts.

        Args:
            images: Shape (restarts, images, channels, height, width).
            labels: Of each restart, shape (restarts, …).
            drift: As `evaluate`.
            consensus: As `evaluate`.
        """
        if len(images) == 1:
            one = self.evaluate(images[0], labels[0], drift=drift, consensus=consensus)
            values = {name: value[None] for name, value in one.values.items()}
            return Evaluation(one.objective[None], values, one.update)
        assert self.comparison is not None
        distances, measured = self.comparison.compare(self._inputs(images), labels)
        means = {name: layer.mean for name, layer in measured.items()}
        variances = {name: layer.variance for name, layer in measured.items()}

        def weigh(images: Tensor, distance: Tensor, means: Tensors, variances: Tensors) -> tuple[Tensor, Tensors]:
            statistics = {name: BatchStatistics(mean, variances[name]) for name, mean in means.items()}
            matches = self.settings.batch_norm_weight > 0
            gap = self._statistics_distance(statistics, self.target) if matches else None
            return self._weigh(images, distance, gap, None, consensus)

        objectives, terms = torch.vmap(weigh)(images, distances, means, variances)
        return Evaluation(objectives, terms, None)

    def evaluate(
        self, images: Tensor, labels: Tensor, *, drift: Tensors | None = None, consensus: Tensor | None = None
    ) -> Evaluation:
        """The objective of one restart's candidates.

        Args:
            images: Shape (images, channels, height, width); may require a gradient.
            labels: As in `leakpipe.client.local_update.Batch`; may require a gradient.
            drift: How far the simulated client's model has drifted from the global one (`global_model: drifting`).
            consensus: Mean of all restarts' candidates, where there is a group term.
        """
        settings = self.settings
        model = self._model_of_the_client(drift)
        inputs = self._inputs(images)
        # One step's statistics are those of one forward pass: no training has to be simulated for them.
        several_steps = self.observation.update.steps > 1 or bool(self.observation.companions)
        needs_update = self.explains or several_steps or self._statistics_within_bounds
        trains = (self.comparison is None and needs_update) or drift is not None
        simulated = self._simulate(model, inputs, labels) if trains else None
        distance: Tensor | None = None
        measured: StatisticsByLayer | None = None
        if self.comparison is not None:
            distances, found = self.comparison.compare(inputs[None], labels[None])
            distance = distances[0]
            measured = {name: BatchStatistics(layer.mean[0], layer.variance[0]) for name, layer in found.items()}
        elif self.explains and simulated is not None:
            distance = self._update_distance(model, inputs, labels, simulated)
        seen: Seen = {}
        gap = outside = None
        if settings.batch_norm_weight > 0:
            with record_layer_inputs(model.module, self.row_spaces) as seen:
                statistics = measured or self._measure_statistics(inputs, simulated)
            gap = self._statistics_distance(statistics, self._statistics_to_match(simulated))
        if self.row_spaces:
            if simulated is not None or several_steps or not seen or settings.statistics_model == "updated":
                # else that one forward pass was through the global model
                seen = self._look(inputs, self.row_spaces)
            outside = row_space_distance(model.module, seen, self.row_spaces, centred=self._centred)
        objective, values = self._weigh(images, distance, gap, outside, consensus)
        return Evaluation(objective, values, _detached(simulated) if simulated is not None else None)

    def _weigh(
        self,
        images: Tensor,
        distance: Tensor | None,
        gap: Tensor | None,
        outside: Tensor | None,
        consensus: Tensor | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective and its terms, from what candidates look like and from those of the terms that are given."""
        settings = self.settings
        terms: dict[str, tuple[float, Tensor]] = {}
        if distance is not None:
            terms["update_distance"] = settings.objective_weight, distance
        if gap is not None:
            terms["batch_statistics"] = settings.batch_norm_weight, gap
        if outside is not None:
            terms["row_space"] = settings.row_space_weight, outside
        variation = TOTAL_VARIATIONS[settings.total_variation](images)
        if settings.total_variation_scale == "distance" and distance is not None:
            variation = variation * distance
        terms["total_variation"] = settings.total_variation_weight, variation
        if settings.l2_weight > 0:
            terms["l2_norm"] = settings.l2_weight, l2_norm(images)
        if settings.prior_weight > 0 and self.prior is not None:
            terms["prior_distance"] = settings.prior_weight, prior_distance(images, self.prior)
        if consensus is not None:
            terms["group_distance"] = settings.group_weight, group_distance(images, consensus)
        objective = torch.stack([weight * term.double() for weight, term in terms.values()]).sum()
        return objective, {name: term.detach() for name, (_, term) in terms.items()}

    def _inputs(self, images: Tensor) -> Tensor:
        """What the simulated client trains on."""
        if self.settings.candidate_input == "normalized":
            return images
        raw = undo_normalization(images.flatten(0, -4))
        return raw.view(*images.shape[:-3], *raw.shape[1:])

    def _model_of_the_client(self, drift: Tensors | None) -> ModelState:
        if drift is None:
            return self.global_model
        moved = {name: weight + drift[name] for name, weight in self.global_model.weights.items()}
        return self.global_model.with_tensors(moved, self.global_model.statistics)

    def _simulate(self, model: ModelState, images: Tensor, labels: Tensor) -> ClientUpdate:
        """The update that the candidates explain, averaged over clients and over the schedules that are possible."""
        if self.settings.update_gradient == "detached":
            images, labels = images.detach(), labels.detach()
        updates = [
            local_update(model, make_batches(images, labels, schedule), self.belief) for schedule, _ in self.trainings
        ]
        return updates[0] if len(updates) == 1 else aggregate_updates(updates, [share for _, share in self.trainings])

    def _update_distance(self, model: ModelState, images: Tensor, labels: Tensor, simulated: ClientUpdate) -> Tensor:
        mine = {name: simulated.weights[name] * self.scales[name] for name in self.observed}
        distance = DISTANCES[self.settings.objective](mine, self._weights_to_match(simulated))
        if self.settings.update_gradient == "through-update":
            return distance
        # The released tool's term has no gradient; what its simulated training leaves behind is that of the loss,
        # at full size whatever the term's weight.
        loss = mean_loss(forward_training(model, images)[0], labels, self.belief)
        return distance.detach() + (loss - loss.detach()) / self.settings.objective_weight

    def _weights_to_match(self, simulated: ClientUpdate) -> Tensors:
        """Observed differences, scaled; where they are known within bounds, moved towards the candidates' own."""
        if not self.told.weight_bounds:
            return self.observed
        nearest = move_into(self.told.weight_bounds, simulated.weights)
        return {name: (self.observed[name] + value * self.scales[name]) / 2 for name, value in nearest.items()}

    def _statistics_to_match(self, simulated: ClientUpdate | None) -> StatisticsByLayer:
        """Observed batch statistics; where the update has them within bounds, the candidates' own moved into those."""
        if simulated is None or not self._statistics_within_bounds:
            return self.target
        nearest = ClientUpdate({}, move_into(self.told.statistic_bounds, simulated.statistics), simulated.steps)
        return recover_batch_statistics(self.global_model, nearest, self._weight_of_batches(nearest))

    @property
    def _statistics_within_bounds(self) -> bool:
        return self.settings.batch_norm == "update" and bool(self.told.statistic_bounds)

    def _statistics_distance(self, candidate: StatisticsByLayer, target: StatisticsByLayer) -> Tensor:
        if self.statistics_noise and self.settings.batch_norm_distance == "normalized":
            return discounted_statistics_distance(candidate, target, self.statistics_noise)
        return STATISTICS_DISTANCES[self.settings.batch_norm_distance](candidate, target)

    def _measure_statistics(self, images: Tensor, simulated: ClientUpdate | None) -> StatisticsByLayer:
        settings, before = self.settings, self.global_model
        frozen = settings.batch_norm == "frozen"
        deviates = settings.statistics_model == "updated" or settings.variance == "biased"
        if simulated is None or frozen or deviates or settings.update_gradient == "detached":
            if settings.statistics_model == "updated":
                change = self.observation.update
                moved = {name: weight + change.weights.get(name, 0) for name, weight in before.weights.items()}
                before = before.with_tensors(moved, before.statistics)
            measured = measure_statistics(before, images, frozen=frozen)
            if settings.variance == "biased":
                return {layer: statistics.with_biased_variance() for layer, statistics in measured.items()}
            return measured
        return recover_batch_statistics(before, simulated, self._weight_of_batches(simulated))

    def _weight_of_batches(self, update: ClientUpdate) -> float:
        """Of the batches in the observed update, or in one that candidates explain."""
        seen = self.observation
        steps = [update.steps, *(len(client.assumed_schedule) for client in seen.companions)]
        return weight_of_batches(self.belief.batch_norm_momentum, steps, seen.shares)

    def _look(self, images: Tensor, layers: Iterable[str]) -> Seen:
        """What convolutions read of images, one tensor per local step.

        Before the k-th of n steps the client's model is taken to have gone (k − 1)/n of the way that the update says.
        """
        before, moved = self.global_model, self.observation.update.weights
        with record_layer_inputs(before.module, layers) as seen:
            schedule = self.trainings[0][0]
            for step, positions in enumerate(schedule):
                model, share = before, step / len(schedule)
                if step:
                    weights = {name: value + share * moved.get(name, 0) for name, value in before.weights.items()}
                    model = before.with_tensors(weights, before.statistics)
                measure_statistics(model, images[positions], frozen=self.belief.batch_norm == "frozen")
        return seen

    def _find_row_spaces(self) -> dict[str, Tensor]:
        module = self.global_model.module
        like = next(iter(self.global_model.weights.values()))
        blank = like.new_zeros(self.observation.images, *self.observation.image_shape)
        with torch.no_grad():
            seen = self._look(blank, plain_convolutions(module))
        return find_row_spaces(module, self.observation.update.weights, seen, centred=self._centred)

    @property
    def _centred(self) -> bool:
        """Whether gradients of convolutions' outputs sum to zero, as they do before batch normalisation in training."""
        return self.belief.batch_norm == "training" and bool(batch_norm_layers(self.global_model.module))

    def _scale_tensors(self) -> dict[str, float]:
        """What each tensor of an update is multiplied with before updates are compared."""
        settings, client = self.settings, self.observation.settings
        unit = client.learning_rate if settings.objective in ("l2", "layer-norms") else 1.0
        norms = {name: float(value.double().norm()) for name, value in self.told.weights.items()}
        largest = max(norms.values())
        weighting = 0.0 if self.told.equal_noise else settings.layer_weighting
        return {name: (norm / largest) ** -weighting / unit if norm > 0 else 1 / unit for name, norm in norms.items()}

    def _known_statistics(self) -> StatisticsByLayer:
        observation = self.observation
        if self.settings.batch_norm == "frozen":
            return statistics_by_layer(observation.before, observation.before.statistics)
        if self.settings.batch_norm == "exact":
            assert observation.exact_statistics is not None  # `usable_settings` has seen to it
            return observation.exact_statistics
        weight = self._weight_of_batches(observation.update)
        recovered = recover_batch_statistics(observation.before, observation.update, weight)
        if self.told.statistic_noise:
            self.statistics_noise = recovered_noise(self.told.statistic_noise, recovered, weight=weight)
        return recovered


def _detached(update: ClientUpdate) -> ClientUpdate:
    return ClientUpdate(
        {name: value.detach() for name, value in update.weights.items()},
        {name: value.detach() for name, value in update.statistics.items()},
        update.steps,
    )
