"""A picture of a structure: molecules in the middle of a cell, and a layer of what is around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from pidelta.analysis.plots import new_figure, save
from pidelta.state import FloatArray, IntArray, System
from pidelta.units import BOHR_IN_ANGSTROM

_LAYER = 3.0  # angstrom, before and behind the middle
_INCHES = 6.0


def draw_snapshot(path: Path, system: System, shown: IntArray, bonds: IntArray) -> None:
    """Draw a structure along z: some atoms in full, and of the others those of a layer of 6 angstrom.

    Args:
        path: of the picture.
        system: all atoms, molecules whole, with an orthogonal cell.
        shown: (n,) atoms drawn in full, in front.
        bonds: (m, 2) of all atoms.
    """
    assert system.cell is not None
    positions = system.positions * BOHR_IN_ANGSTROM
    edges = system.cell.diagonal() * BOHR_IN_ANGSTROM
    layer = np.abs(positions[:, 2] - positions[shown, 2].mean()) < _LAYER
    layer[shown] = False
    figure = new_figure(_INCHES, _INCHES)
    axis = figure.add_subplot()
    points_per_angstrom = 0.75 * _INCHES * 72.0 / edges.max()
    for atoms, opacity in ((np.flatnonzero(layer), 0.25), (shown, 1.0)):
        _draw(axis, positions, system.numbers, atoms, bonds, opacity, points_per_angstrom)
    axis.add_patch(Rectangle((0.0, 0.0), edges[0], edges[1], fill=False, linewidth=0.8))
    axis.set_aspect("equal")
    axis.set_xlim(-0.04 * edges[0], 1.04 * edges[0])
    axis.set_ylim(-0.04 * edges[1], 1.04 * edges[1])
    axis.set_xlabel("x / angstrom")
    axis.set_ylabel("y / angstrom")
    save(figure, path)


def _draw(
    axis: Axes,
    positions: FloatArray,
    numbers: IntArray,
    atoms: IntArray,
    bonds: IntArray,
    opacity: float,
    scale: float,
) -> None:
    """Draw atoms, those behind first, and the bonds between them; positions in angstrom."""
    among = bonds[np.isin(bonds, atoms).all(axis=1)]
    axis.add_collection(
        LineCollection(
            list(positions[among][:, :, :2]),
            colors="#5a5a5a",
            linewidths=0.25 * scale,
            alpha=opacity,
            zorder=2,
        )
    )
    order = atoms[np.argsort(positions[atoms, 2])]
    axis.scatter(
        positions[order, 0],
        positions[order, 1],
        s=(0.9 * covalent_radii[numbers[order]] * scale) ** 2,
        c=jmol_colors[numbers[order]],
        edgecolors="#333333",
        linewidths=0.3,
        alpha=opacity,
        zorder=3,
    )
