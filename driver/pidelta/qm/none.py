"""No low-level method: the learned term alone describes the QM region."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from pidelta.qm.base import EmbeddingKind, QMResult
from pidelta.state import FloatArray, IntArray


class NoEngine:
    """Zero energy and gradient (a `pidelta.qm.base.QMEngine`), so that a model learns the reference itself.

    It makes the low-level labels of such a training. A run evaluates the models and leaves it out.

    Args:
        numbers: (n,) atomic numbers.
    """

    identity = "none"
    embedding: EmbeddingKind = "electrostatic"
    properties: tuple[str, ...] = ()

    def __init__(self, numbers: IntArray) -> None:
        self.numbers = numbers
        self.program = f"pidelta {version('pidelta')}"

    def evaluate(
        self, positions: FloatArray, potential: FloatArray, coulomb_correction: FloatArray | None = None
    ) -> QMResult:
        """Zeros for a batch; see `pidelta.qm.base.QMEngine.evaluate` for shapes."""
        batch, n, _ = positions.shape
        return QMResult(np.zeros(batch), np.zeros(positions.shape), np.zeros((batch, n)))
