"""The guarantees of a defence against each adversary over all rounds: ε at δ, or the reason why there is none.

docs/privacy.md has the reasoning. Importing this needs no torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, Literal

from leakpipe.accounting.gaussian import compose_gaussians, gaussian_epsilon
from leakpipe.accounting.renyi import sampled_gaussian_epsilon
from leakpipe.client.batches import count_local_steps
from leakpipe.params.federation import FederationParams

Adversary = Literal["server", "outsiders"]
SEES: Mapping[Adversary, str] = {
    "server": "the server, which sees every update of a client",
    "outsiders": "those who see only the released global models and collude with no client",
}

NOTHING = "no DP guarantee: nothing is added"
CALIBRATED = "calibrated noise, no DP guarantee: sensitivity unbounded"
UNNOISED = "no DP guarantee: no step bounds what is sent and adds noise to all of it"


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """The guarantee of one defence against one adversary after all rounds.

    Attributes:
        adversary: "server" sees every client's update, "outsiders" only the global models.
        unit: What is hidden: all data of a "client", or one "image"; either is replaced by any other of the same size.
            Empty if nothing is guaranteed.
        sentence: The guarantee in words, or the reason why there is none.
        epsilon: ε of the worst-off client; infinite if nothing is guaranteed.
        delta: δ of the guarantee; 0 for pure DP and if nothing is guaranteed.
        releases: Number of noisy releases composed: rounds for a client; for an image, its local steps in all rounds.
        signal: Largest distance between one round's releases with and without a target, over the standard deviation of
            the noise, composed over the round's steps: after r rounds, `success_bound` is taken at `signal`·√r.
            Infinite if that bound is void.
        epsilon_if_sampled: ε that DP-SGD libraries would print, as if batches were Poisson samples and examples were
            added or removed. Batches here are shuffled, so it is NOT guaranteed. None for other defences.
    """

    adversary: Adversary
    unit: Literal["client", "image", ""]
    sentence: str
    epsilon: float = inf
    delta: float = 0.0
    releases: int = 0
    signal: float = inf
    epsilon_if_sampled: float | None = None


def guarantees(
    steps: Sequence[Mapping[str, Any]], federation: FederationParams, *, delta: float
) -> tuple[Guarantee, ...]:
    """Returns what a defence guarantees against each adversary.

    One step that bounds the whole update and adds noise to it is enough, whatever comes before it (the bound holds
    anyway) or after it (post-processing). Of several such steps the one with the smallest ε counts.

    Args:
        steps: The steps of the defence in the parameters.
        federation: Rounds and clients. All clients take part in every round.
        delta: δ, the same for every unit.
    """
    private: list[list[Guarantee]] = []
    for index, step in enumerate(steps):
        found = _PROOFS[step["kind"]](step, federation, delta) if step["kind"] in _PROOFS else ()
        # The clients' noises add up in the average only if no other step comes between.
        summed = all(later["kind"] == "secure-aggregation" for later in steps[index + 1 :])
        if found:
            private.append([one for one in found if summed or one.adversary == "server"])
    if private:
        strongest = min(private, key=lambda found: found[0].epsilon)
        return tuple(strongest)
    return (Guarantee(adversary="server", unit="", sentence=_explain_absence(steps)),)


def _explain_absence(steps: Sequence[Mapping[str, Any]]) -> str:
    if not steps:
        return NOTHING
    return CALIBRATED if any(step["kind"] in ("gaussian", "laplace") for step in steps) else UNNOISED


def _account_dp_gaussian(step: Mapping[str, Any], federation: FederationParams, delta: float) -> tuple[Guarantee, ...]:
    """Updates of norm ≤ C with noise of standard deviation zC: two clients' differ by ≤ 2C, so μ = 2/z a round.

    The global model moves by Σ wᵢ(uᵢ + noiseᵢ): a client of weight w moves it by ≤ 2wC, under noise of √(Σ wᵢ²)·zC.
    """
    noise = float(step["noise_multiplier"])
    if noise == 0:
        return ()
    rounds = federation.rounds
    images = [client.images for client in federation.clients.values()]
    largest_weight = max(images) / sqrt(sum(count**2 for count in images))
    return (
        _promise_client("server", rounds=rounds, signal=1 / noise, delta=delta),
        _promise_client("outsiders", rounds=rounds, signal=largest_weight / noise, delta=delta),
    )


def _promise_client(adversary: Adversary, *, rounds: int, signal: float, delta: float) -> Guarantee:
    return Guarantee(
        adversary=adversary,
        unit="client",
        sentence=f"(ε, δ)-DP of a client's whole data (replaced by any of the same size) against {SEES[adversary]}",
        epsilon=gaussian_epsilon(compose_gaussians(2 * signal, rounds), delta),
        delta=delta,
        releases=rounds,
        signal=signal,
    )


def _account_laplace(step: Mapping[str, Any], federation: FederationParams, _delta: float) -> tuple[Guarantee, ...]:
    """Updates of L1 norm ≤ C under Laplace noise of scale b: ε = 2C/b a round, and rounds add up; δ = 0."""
    clip, scale = step.get("clip_norm"), step.get("scale")
    if clip is None or not scale or step.get("targets", "all") != "all":
        return ()
    return (
        Guarantee(
            adversary="server",
            unit="client",
            sentence=f"ε-DP of a client's whole data (replaced by any of the same size) against {SEES['server']}",
            epsilon=federation.rounds * 2 * float(clip) / float(scale),
            releases=federation.rounds,
        ),
    )


def _account_dp_sgd(step: Mapping[str, Any], federation: FederationParams, delta: float) -> tuple[Guarantee, ...]:
    """Every image is in one step of each epoch, known in advance: replacing it moves that step's sum by ≤ 2C.

    Other steps of the epoch run on other images, so they reveal nothing about it by themselves. Batches are shuffled,
    not sampled: no amplification by sampling is claimed (Chua et al. 2024, "How private are DP-SGD implementations?").
    """
    noise = float(step["noise_multiplier"])
    if noise == 0:
        return ()
    clients = federation.clients.values()
    epochs = max(client.local_epochs or federation.local_epochs for client in clients)
    releases = federation.rounds * epochs
    return (
        Guarantee(
            adversary="server",
            unit="image",
            sentence=f"(ε, δ)-DP of one image and its label (replaced by any other) against {SEES['server']}",
            epsilon=gaussian_epsilon(compose_gaussians(2 / noise, releases), delta),
            delta=delta,
            releases=releases,
            signal=sqrt(epochs) / noise,
            epsilon_if_sampled=max(
                sampled_gaussian_epsilon(
                    rate=client.batch_size / client.images,
                    noise_multiplier=noise,
                    steps=federation.rounds
                    * count_local_steps(
                        client.images, client.batch_size, client.local_epochs or federation.local_epochs
                    ),
                    delta=delta,
                )
                for client in clients
            ),
        ),
    )


_PROOFS: Mapping[str, Callable[[Mapping[str, Any], FederationParams, float], tuple[Guarantee, ...]]] = {
    "dp-gaussian": _account_dp_gaussian,
    "laplace": _account_laplace,
    "dp-sgd": _account_dp_sgd,
}
