"""Relative data leakage value (Hatamizadeh 2023)."""


def rdlv(similarity: float, prior_similarity: float) -> float:
    """RDLV = (SIM(T, I) − SIM(P, I)) / SIM(P, I): how much more of I the attack shows than its prior.

    Args:
        similarity: SIM(T, I), of the reconstruction to the training image (SSIM).
        prior_similarity: SIM(P, I), of the prior that the attack started from.

    Returns:
        Above 0: leaked. NaN where the prior's similarity is not positive: a ratio to it has no meaning.
    """
    if prior_similarity <= 0:
        return float("nan")
    return (similarity - prior_similarity) / prior_similarity
