"""Weighted cosine coefficients against scipy's transform."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from leakpipe.attacks.spectrum import cosine_basis, from_coefficients, to_coefficients


def images(height: int = 7, width: int = 5) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_without_decay_coefficients_are_scipys() -> None:
    expected = dctn(images().numpy(), axes=(-2, -1), norm="ortho")
    np.testing.assert_allclose(to_coefficients(images(), 0.0).numpy(), expected, atol=1e-13)


def test_the_basis_is_orthonormal() -> None:
    basis = cosine_basis(9)
    torch.testing.assert_close(basis @ basis.T, torch.eye(9, dtype=torch.float64))


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.3])
def test_images_come_back(decay: float) -> None:
    torch.testing.assert_close(from_coefficients(to_coefficients(images(), decay), decay), images())


def test_weights_fall_with_frequency_by_the_given_power() -> None:
    """On one coefficient each, against the definition: (cycles a pixel)^−decay over the mean of all."""
    size, decay = 8, 0.7
    frequency = np.hypot(*np.meshgrid(np.arange(size), np.arange(size), indexing="ij")) / (2 * size)
    weights = np.maximum(frequency, 1 / size) ** -decay
    weights /= weights.mean()
    ones = torch.ones(size, size, dtype=torch.float64)
    drawn = dctn(from_coefficients(ones, decay).numpy(), norm="ortho")
    np.testing.assert_allclose(drawn, weights, atol=1e-12)
    assert weights[0, 0] == weights.max() > weights[-1, -1] == weights.min()
