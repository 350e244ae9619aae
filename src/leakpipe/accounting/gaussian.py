"""The Gaussian mechanism in closed form: ε at δ, composition, and an upper bound on any attack's success.

A mechanism is μ-GDP (Dong, Roth, Su 2022, "Gaussian differential privacy") if distinguishing two neighbours by what it
releases is at least as hard as distinguishing N(0, 1) from N(μ, 1). Noise of standard deviation σ on a value that
differs by at most Δ between neighbours gives μ = Δ/σ, and T adaptive releases give μ·√T. This composition is exact, so
no numerical accountant can give a smaller ε.
"""

from math import exp, expm1, inf, sqrt

from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

from leakpipe.errors import LeakpipeError


def compose_gaussians(mu: float, releases: int) -> float:
    """Returns the μ of `releases` adaptive releases that are μ-GDP each: μ·√releases."""
    return mu * sqrt(releases)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Returns the smallest δ for which a μ-GDP mechanism is (ε, δ)-DP (Balle and Wang 2018, theorem 8).

    Args:
        mu: Sensitivity over standard deviation, ≥ 0; `inf` is a release without noise.
        epsilon: ≥ 0.

    Returns:
        δ(ε) = Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 − ε/μ), in [0, 1].
    """
    if mu == 0:
        return 0.0
    if mu == inf:
        return 1.0
    upper, lower = log_ndtr(mu / 2 - epsilon / mu), epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return float(-exp(upper) * expm1(min(lower - upper, 0.0)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Returns the smallest ε for which a μ-GDP mechanism is (ε, δ)-DP: the inverse of `gaussian_delta`.

    Args:
        mu: ≥ 0; `inf` (no noise) has ε = ∞.
        delta: Strictly between 0 and 1.
    """
    if not 0 < delta < 1:
        raise LeakpipeError(f"delta {delta!r} must lie between 0 and 1")
    if mu == inf:
        return inf
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    # δ(ε) < Φ(μ/2 − ε/μ), which is δ at this ε: a bound from above that needs no search.
    highest = mu * (mu / 2 - float(ndtri(delta)))
    return float(brentq(lambda epsilon: gaussian_delta(mu, epsilon) - delta, 0.0, highest, xtol=1e-12, rtol=1e-12))


def success_bound(prior_success: float, mu: float) -> float:
    """Returns the largest probability with which any attack can reconstruct its target: Φ(Φ⁻¹(κ) + μ).

    Reconstruction robustness (Balle, Cherubin, Hayes 2022; Hayes, Mahloujifar, Balle 2023, theorem 2): if the
    best guess without the release succeeds with probability κ, an attack that sees it succeeds at most with the blow-up
    sup{P(E): Q(E) ≤ κ}, where P is the distribution of the target's release and Q that of any release that does not
    depend on it. For N(μ, 1) against N(0, 1) this is the power of the likelihood-ratio test at level κ.

    Args:
        prior_success: κ in [0, 1].
        mu: Distance between the releases with and without the target, over the standard deviation of the noise, ≥ 0.
            Q may be the noise alone, which is C away from an update of norm ≤ C; two clients' updates are 2C apart.
    """
    if not 0 <= prior_success <= 1:
        raise LeakpipeError(f"prior success {prior_success!r} must lie in [0, 1]")
    if prior_success in (0, 1):
        return float(prior_success)
    return float(ndtr(ndtri(prior_success) + mu))
