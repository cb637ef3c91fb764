"""Real spherical harmonics of s, p and d orbitals as polynomials of the direction cosines.

Order: s; x, y, z; xy, yz, z^2, xz, x^2 - y^2. Normalised so that the squares of one l sum to 1 on the unit
sphere, which makes Y_a(n) Y_b(n) the sigma part of a Slater-Koster block along n. The pi part is
(T_a . T_b) / (c_l1 c_l2) with the tangential gradient T = grad Y - l Y n and c_l = sqrt(l (l + 1) / 2),
because the squares of any component of T sum to c_l^2 over one l.
"""

from __future__ import annotations

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.state import FloatArray

_compiled = compiled(nogil=True, error_model="numpy")

ANGULAR_MOMENTUM = (0, 1, 1, 1, 2, 2, 2, 2, 2)


def _d_forms() -> FloatArray:
    """Symmetric traceless Q (5, 3, 3) with Y_d(n) = n.Q n."""
    forms = np.zeros((5, 3, 3))
    for row, (i, j) in {0: (0, 1), 1: (1, 2), 3: (0, 2)}.items():
        forms[row, i, j] = forms[row, j, i] = np.sqrt(3.0) / 2.0
    forms[2] = np.diag([-0.5, -0.5, 1.0])
    forms[4] = np.diag([1.0, -1.0, 0.0]) * np.sqrt(3.0) / 2.0
    return forms


_D_FORMS = _d_forms()


def count(l_max: int) -> int:
    """Return the number of harmonics up to and with `l_max`."""
    return (l_max + 1) ** 2


def gradient_products(l_max: int) -> dict[tuple[int, int], dict[int, float]]:
    """Expand grad Y_a . grad Y_b in harmonics on the unit sphere.

    Returns:
        For each pair (a, b) of p and d harmonics with a non-zero product, the coefficients k_c of
        grad Y_a . grad Y_b = sum_c k_c Y_c.
    """
    products = {(a, a): {0: 1.0} for a in range(1, count(l_max)) if ANGULAR_MOMENTUM[a] == 1}
    if l_max < 2:
        return products
    norms = np.einsum("kij,kij->k", _D_FORMS, _D_FORMS)
    for d, form in enumerate(_D_FORMS, start=4):
        for axis in range(3):
            linear = {1 + c: 2.0 * form[axis, c] for c in range(3) if form[axis, c] != 0.0}
            if linear:
                products[1 + axis, d] = products[d, 1 + axis] = linear
        for other, other_form in enumerate(_D_FORMS, start=4):
            quadratic = 2.0 * (form @ other_form + other_form @ form)
            # n.n = 1: the trace is the s part, the rest is expanded in the orthogonal d forms.
            parts = {0: float(np.trace(quadratic)) / 3.0}
            overlaps = np.einsum("ij,kij->k", quadratic, _D_FORMS) / norms
            parts.update({4 + k: float(overlap) for k, overlap in enumerate(overlaps)})
            products[d, other] = {c: value for c, value in parts.items() if abs(value) > 1e-14}
    return products


@_compiled
def harmonics(directions: FloatArray, l_max: int) -> FloatArray:
    """Evaluate all harmonics up to `l_max` at unit vectors (M, 3); returns (M, (l_max + 1)^2)."""
    values = np.ones((len(directions), (l_max + 1) ** 2))
    for row, n in enumerate(directions):
        for a in range(1, values.shape[1]):
            if a < 4:
                values[row, a] = n[a - 1]
                continue
            values[row, a] = 0.0
            for i in range(3):
                for j in range(3):
                    values[row, a] += n[i] * _D_FORMS[a - 4, i, j] * n[j]
    return values


@_compiled
def pullback(directions: FloatArray, adjoints: FloatArray) -> FloatArray:
    """Sum adjoint_a grad Y_a over the harmonics of adjoints (M, K); returns (M, 3), not yet tangential."""
    result = np.zeros((len(directions), 3))
    for row, n in enumerate(directions):
        for a in range(1, adjoints.shape[1]):
            if a < 4:
                result[row, a - 1] += adjoints[row, a]
                continue
            for i in range(3):
                for j in range(3):
                    result[row, i] += 2.0 * adjoints[row, a] * _D_FORMS[a - 4, i, j] * n[j]
    return result
