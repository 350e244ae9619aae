"""ε and bounds on success: closed forms against Opacus, integrals and simulated tests of hypotheses."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom, norm

from leakpipe.accounting.gaussian import compose_gaussians, gaussian_delta, gaussian_epsilon, success_bound
from leakpipe.accounting.guarantees import CALIBRATED, NOTHING, UNNOISED, guarantees
from leakpipe.accounting.renyi import sampled_gaussian_epsilon, sampled_gaussian_rdp
from leakpipe.accounting.table import PRIVACY_COLUMNS, tabulate_guarantees
from leakpipe.errors import LeakpipeError
from leakpipe.params.federation import FederationParams

FEDERATION = FederationParams.model_validate(
    {
        "rounds": 9,
        "captured_rounds": [1],
        "learning_rate": 0.1,
        "local_epochs": 1,
        "batch_norm_momentum": 0.1,
        "clients": {
            "one": {"images": 1, "batch_size": 1},
            "six": {"images": 6, "batch_size": 4, "local_epochs": 4},
        },
    }
)
DP = {"kind": "dp-gaussian", "clip_norm": 0.7, "noise_multiplier": 5.0}
DP_SGD = {"kind": "dp-sgd", "clip_norm": 0.7, "noise_multiplier": 5.0}
QUANTIZE = {"kind": "quantize", "bits": 8}


@pytest.mark.parametrize(("mu", "epsilon"), [(0.1, 0.05), (1.0, 0.0), (1.0, 2.0), (3.0, 5.0), (8.0, 40.0)])
def test_delta_is_the_excess_of_one_density_over_the_other(mu: float, epsilon: float) -> None:
    def excess(x: float) -> float:
        return max(0.0, norm.pdf(x, mu) - math.exp(epsilon) * norm.pdf(x))

    crossing = mu / 2 + epsilon / mu
    expected, _ = quad(excess, crossing, crossing + 40, epsabs=1e-14)
    assert gaussian_delta(mu, epsilon) == pytest.approx(expected, rel=1e-7, abs=1e-13)


@pytest.mark.parametrize(("mu", "delta"), list(product([1e-3, 0.1, 1.0, 5.0, 60.0], [1e-10, 1e-5, 1e-2])))
def test_epsilon_is_the_smallest_that_delta_allows(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    assert gaussian_delta(mu, epsilon) <= delta * (1 + 1e-6)
    if epsilon:
        assert gaussian_delta(mu, epsilon * (1 - 1e-6)) > delta * (1 - 1e-6)
        assert gaussian_delta(mu, epsilon) == pytest.approx(delta, rel=1e-6)


def test_epsilon_at_the_ends() -> None:
    assert gaussian_epsilon(math.inf, 1e-5) == math.inf
    assert gaussian_epsilon(0.0, 1e-5) == 0
    assert gaussian_delta(0.0, 0.0) == 0
    assert gaussian_delta(math.inf, 3.0) == 1
    with pytest.raises(LeakpipeError, match="delta 0 must lie between 0 and 1"):
        gaussian_epsilon(1.0, 0)


@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (2.0, 10), (5.0, 12), (0.8, 3)])
def test_full_participation_agrees_with_opacus(noise: float, steps: int) -> None:
    accountants = pytest.importorskip("opacus.accountants")
    exact = gaussian_epsilon(compose_gaussians(1 / noise, steps), 1e-5)
    found = {}
    for name in ("PRVAccountant", "RDPAccountant"):
        accountant = getattr(accountants, name)()
        accountant.history = [(noise, 1.0, steps)]
        found[name] = accountant.get_epsilon(delta=1e-5)
    assert exact <= found["PRVAccountant"] <= exact + 0.03  # its bound is 0.01 to 0.02 above what it estimates
    assert exact <= found["RDPAccountant"] <= 1.15 * exact + 0.1


@pytest.mark.parametrize(
    ("rate", "noise", "steps"),
    [
        (1.0, 2.0, 5),
        (0.5, 1.0, 8),
        (0.01, 4.0, 10_000),
        (0.05, 0.5, 200),  # little noise: the best order is below 2
        # The libraries' MNIST tutorials: batch 256 of 60 000, noise 1.1 for 60 epochs, 1.3 for 15.
        (256 / 60_000, 1.1, 60 * 234),
        (256 / 60_000, 1.3, 15 * 234),
    ],
)
def test_sampled_releases_agree_with_opacus(rate: float, noise: float, steps: int) -> None:
    analysis = pytest.importorskip("opacus.accountants.analysis.rdp")
    for order in (1.1, 1.6, 2, 2.5, 3, 17, 64):
        (expected,) = np.atleast_1d(analysis.compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=[order]))
        found = sampled_gaussian_rdp(order, rate=rate, noise_multiplier=noise)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)
    orders = [*(1 + tenths / 10 for tenths in range(1, 100)), *range(11, 64), *range(64, 513, 8)]
    rdp = analysis.compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=orders)
    expected, _ = analysis.get_privacy_spent(orders=orders, rdp=rdp, delta=1e-5)
    found = sampled_gaussian_epsilon(rate=rate, noise_multiplier=noise, steps=steps, delta=1e-5)
    assert found == pytest.approx(expected, rel=0.02)


# ε by Rényi divergence and by privacy loss distributions (all but exact) of dp-accounting 0.6.0:
#   event = SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
#   for accountant in (rdp.RdpAccountant(), pld.PLDAccountant()): accountant.compose(event).get_epsilon(1e-5)
@pytest.mark.parametrize(
    ("rate", "noise", "steps", "renyi", "exact"), [(0.05, 0.5, 200, 28.270, 24.742), (0.02, 0.35, 50, 24.107, 20.220)]
)
def test_orders_below_two_give_what_dp_accounting_prints(
    rate: float, noise: float, steps: int, renyi: float, exact: float
) -> None:
    found = sampled_gaussian_epsilon(rate=rate, noise_multiplier=noise, steps=steps, delta=1e-5)
    assert exact < found <= renyi  # it leaves out orders at which its own series does not converge
    assert found == pytest.approx(renyi, rel=0.012)


@pytest.mark.parametrize("order", [1.1, 1.7, 2, 2.5, 5])
def test_rdp_of_a_sampled_release_is_the_moment_of_its_densities(order: float) -> None:
    rate, noise = 0.3, 0.9

    def moment(x: float) -> float:
        mixture = (1 - rate) * norm.pdf(x, 0, noise) + rate * norm.pdf(x, 1, noise)
        return (mixture / norm.pdf(x, 0, noise)) ** order * norm.pdf(x, 0, noise)

    expected = math.log(quad(moment, -20, 25, limit=500)[0]) / (order - 1)
    assert sampled_gaussian_rdp(order, rate=rate, noise_multiplier=noise) == pytest.approx(expected, rel=1e-8)
    assert sampled_gaussian_rdp(order, rate=1, noise_multiplier=noise) == order / (2 * noise**2)
    assert sampled_gaussian_rdp(order, rate=0, noise_multiplier=noise) == pytest.approx(0, abs=1e-12)
    with pytest.raises(LeakpipeError, match="sampling rate"):
        sampled_gaussian_rdp(order, rate=1.1, noise_multiplier=noise)


@pytest.mark.parametrize(("prior", "mu"), [(0.02, 0.3), (0.02, 2.0), (0.5, 1.0), (0.2, 3.0)])
def test_no_test_of_the_same_level_beats_the_bound_and_the_best_reaches_it(prior: float, mu: float) -> None:
    rng = np.random.default_rng(0)
    without, seen = rng.standard_normal(400_000), mu + rng.standard_normal(400_000)
    reached = (seen > np.quantile(without, 1 - prior)).mean()
    bound = success_bound(prior, mu)
    assert reached == pytest.approx(bound, abs=0.01)
    # Another test of the same level, two-sided, has less power.
    assert (np.abs(seen) > np.quantile(np.abs(without), 1 - prior)).mean() < bound + 0.005


@pytest.mark.parametrize(("candidates", "noise"), [(2, 1.0), (10, 0.7), (40, 2.0)])
def test_the_best_attack_on_one_of_many_stays_under_the_bound(candidates: int, noise: float) -> None:
    """Maximum likelihood among orthogonal updates of norm C = 1: what an attacker who knows all candidates does."""
    rng = np.random.default_rng(1)
    draws = 20_000
    seen = noise * rng.standard_normal((draws, candidates))
    seen[:, 0] += 1
    rate = (seen.argmax(axis=1) == 0).mean()
    bound = success_bound(1 / candidates, 1 / noise)
    low = binom.ppf(0.001, draws, min(rate, 1)) / draws
    assert 1 / candidates < low <= bound
    if candidates == 2:  # centred at their mean the two are 1/√2 from it: there the bound is exact
        assert rate == pytest.approx(success_bound(0.5, math.sqrt(0.5) / noise), abs=0.01)


def test_bounds_at_the_ends() -> None:
    assert success_bound(0.0, 3.0) == 0
    assert success_bound(1.0, 3.0) == 1
    assert success_bound(0.1, 0.0) == pytest.approx(0.1)
    assert success_bound(0.1, math.inf) == 1
    with pytest.raises(LeakpipeError, match="prior success"):
        success_bound(-0.1, 1.0)


def test_a_client_is_promised_what_two_clips_of_distance_allow() -> None:
    server, outsiders = guarantees([DP], FEDERATION, delta=1e-6)
    assert (server.adversary, server.unit, server.releases, server.delta) == ("server", "client", 9, 1e-6)
    assert server.epsilon == pytest.approx(gaussian_epsilon(2 / 5 * 3, 1e-6))
    assert server.signal == pytest.approx(1 / 5)
    # Weights 1/7 and 6/7: noise of the average has √(1 + 36)/7 of one client's, the larger moves it by 6/7.
    assert outsiders.epsilon == pytest.approx(gaussian_epsilon(2 * 6 / math.sqrt(37) / 5 * 3, 1e-6))
    assert outsiders.epsilon < server.epsilon


def test_the_averages_sensitivity_is_that_of_real_averages() -> None:
    """Simulated: replacing the larger client by its opposite moves the average by what is accounted."""
    weights, rng = np.array([1, 6]) / 7, np.random.default_rng(2)
    before = rng.standard_normal((2, 30))
    before *= DP["clip_norm"] / np.linalg.norm(before, axis=1, keepdims=True)
    after = before.copy()
    after[1] *= -1
    moved = np.linalg.norm(weights @ before - weights @ after)
    noise = (weights @ (DP["noise_multiplier"] * DP["clip_norm"] * rng.standard_normal((2, 200_000)))).std()
    _, outsiders = guarantees([DP], FEDERATION, delta=1e-6)
    assert 2 * outsiders.signal == pytest.approx(moved / noise, rel=0.01)


def test_an_image_is_promised_one_release_an_epoch_and_no_amplification() -> None:
    (found,) = guarantees([DP_SGD], FEDERATION, delta=1e-6)
    assert (found.unit, found.releases) == ("image", 9 * 4)
    assert found.epsilon == pytest.approx(gaussian_epsilon(2 / 5 * 6, 1e-6))
    assert found.signal == pytest.approx(2 / 5)
    assert found.epsilon_if_sampled == pytest.approx(
        sampled_gaussian_epsilon(rate=4 / 6, noise_multiplier=5.0, steps=9 * 8, delta=1e-6)
    )


def test_what_comes_after_keeps_a_guarantee_but_not_the_sum_of_noises() -> None:
    alone = guarantees([DP], FEDERATION, delta=1e-6)
    assert guarantees([QUANTIZE, DP], FEDERATION, delta=1e-6) == alone
    assert guarantees([DP, {"kind": "secure-aggregation", "clients": 2}], FEDERATION, delta=1e-6) == alone
    assert guarantees([DP, QUANTIZE], FEDERATION, delta=1e-6) == alone[:1]
    louder = {**DP, "noise_multiplier": 9.0}
    assert guarantees([DP, louder], FEDERATION, delta=1e-6) == guarantees([louder], FEDERATION, delta=1e-6)


def test_laplace_counts_only_where_all_is_clipped_and_noised() -> None:
    laplace = {"kind": "laplace", "clip_norm": 2.0, "scale": 8.0, "scale0": None, "targets": "all"}
    (found,) = guarantees([laplace], FEDERATION, delta=1e-6)
    assert (found.epsilon, found.delta, found.unit) == (9 * 2 * 2 / 8, 0, "client")
    for change in ({"clip_norm": None}, {"scale": None, "scale0": 1.0}, {"targets": "weights"}):
        (found,) = guarantees([{**laplace, **change}], FEDERATION, delta=1e-6)
        assert (found.epsilon, found.unit, found.sentence) == (math.inf, "", CALIBRATED)


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ([], NOTHING),
        ([{"kind": "gaussian", "sigma0": 50}], CALIBRATED),
        ([{"kind": "clip", "clip_norm": 1}, {"kind": "gaussian", "sigma0": 50}], CALIBRATED),
        ([QUANTIZE], UNNOISED),
        ([{**DP, "noise_multiplier": 0}], UNNOISED),
        ([{**DP_SGD, "noise_multiplier": 0.0}], UNNOISED),
    ],
)
def test_nothing_is_called_private_that_is_not(steps: list[dict[str, object]], sentence: str) -> None:
    (found,) = guarantees(steps, FEDERATION, delta=1e-6)
    assert (found.sentence, found.epsilon, found.signal, found.unit) == (sentence, math.inf, math.inf, "")
    assert "no DP guarantee" in found.sentence


def test_the_table_has_a_row_per_defence_and_adversary() -> None:
    table = tabulate_guarantees({"none": [], "dp": [DP], "sgd": [DP_SGD, QUANTIZE]}, FEDERATION, delta=1e-6)
    assert list(table.columns) == PRIVACY_COLUMNS
    assert list(zip(table.defense, table.adversary, strict=True)) == [
        ("none", "server"),
        ("dp", "server"),
        ("dp", "outsiders"),
        ("sgd", "server"),
    ]
    assert list(table.kind) == ["none", "dp-gaussian", "dp-gaussian", "dp-sgd + quantize"]
    assert table.epsilon.isna().tolist() == [True, False, False, False]
    assert table.delta.isna().tolist() == [True, False, False, False]
