"""The picture of how a training went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pidelta.output_files import replacing
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL


def plot_learning_curve(history: Sequence[dict[str, float]], path: Path) -> None:
    """Draw losses and validation errors over the epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for name in ("train_loss", "validation_loss"):
        left.semilogy(epochs, [row[name] for row in history], label=name.replace("_loss", ""))
    left.set(xlabel="epoch", ylabel="loss / loss of the low level")
    per_angstrom = HARTREE_IN_KCAL_PER_MOL / BOHR_IN_ANGSTROM
    for name, unit, label in (
        ("energy_rmse", HARTREE_IN_KCAL_PER_MOL, "energy, kcal/mol"),
        ("qm_gradient_rmse", per_angstrom, "QM gradient, kcal/mol/Å"),
        ("mm_gradient_rmse", per_angstrom, "MM gradient · d / 3 Å, kcal/mol/Å"),
    ):
        right.semilogy(epochs, [row[name] * unit for row in history], label=label)
    right.set(xlabel="epoch", ylabel="validation RMSE")
    left.legend()
    right.legend()
    with replacing(path, "wb") as stream:
        figure.savefig(stream, format="png", dpi=150)
