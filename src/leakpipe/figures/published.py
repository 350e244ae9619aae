"""The numbers that the paper published, read off its plots, to be drawn beside ours.

Source: Hatamizadeh et al., "Do Gradient Inversion Attacks Make Federated Learning Unsafe?", IEEE TMI 2023,
doi 10.1109/TMI.2023.3239391. Chest X-rays of 224×224 pixels, ResNet-18, 100 rounds: compare trends, not digits.
"""

from collections.abc import Mapping

LABEL = "published, another data set"
SOURCE = (
    "Thin dotted lines with crosses: published by Hatamizadeh et al. (IEEE TMI 2023) on another data set (chest "
    "X-rays), network and prior"
)

_SIGMA0 = (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50)
_RDLV = {
    "site-9": (0.50, 0.60, 0.65, 0.63, 0.39, 0.00, -0.03, -0.04, 0.05, -0.05, -0.39),
    "site-1": (-0.04, -0.05, -0.05, -0.05, -0.06, -0.10, -0.09, -0.13, -0.15, -0.15, -0.22),
    "site-5": (-0.09, -0.11, -0.10, -0.09, -0.09, -0.08, -0.08, -0.08, -0.09, -0.10, -0.11),
}
_ACCURACY = (0.97, 0.98, 0.97, 0.94, 0.94, 0.92, 0.92, 0.90, 0.87, 0.86, 0.89)

# By client, then by σ0; test accuracy by σ0; by client, then by round of federated averaging (σ0 = 0).
RDLV_BY_NOISE: Mapping[str, Mapping[float, float]] = {
    client: dict(zip(_SIGMA0, values, strict=True)) for client, values in _RDLV.items()
}
ACCURACY_BY_NOISE: Mapping[float, float] = dict(zip(_SIGMA0, _ACCURACY, strict=True))
RDLV_BY_ROUND: Mapping[str, Mapping[float, float]] = {"site-9": {20: 0.70, 40: 0.50, 60: 0.42, 80: 0.56}}
