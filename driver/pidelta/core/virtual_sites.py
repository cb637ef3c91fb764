"""Virtual sites: particles without mass whose places follow from those of three atoms.

Conventions are those of GROMACS (reference manual, "Virtual interaction sites"), with r_ij = x_j - x_i:

    linear          x_i + a r_ij + b r_ik
    distance        x_i + b (r_ij + a r_jk) / |r_ij + a r_jk|                             (3fd)
    angle           x_i + b cos(a) r_ij / |r_ij| + b sin(a) w / |w|,
                    w = r_jk - (r_ij . r_jk) r_ij / |r_ij|^2                              (3fad)
    out-of-plane    x_i + a r_ij + b r_ik + c r_ij x r_ik                                 (3out)
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from pidelta.core.compilation import compiled
from pidelta.core.vectors import add, add_outer, cross, dot, scale, vector
from pidelta.state import FloatArray, IntArray

LINEAR, DISTANCE, ANGLE, OUT_OF_PLANE = range(4)

_compiled = compiled(nogil=True, error_model="numpy")


@dataclass(frozen=True)
class VirtualSites:
    """Virtual sites; site s is particle N + s, after the N atoms.

    Attributes:
        parents: (S, 3) atoms i, j, k.
        kinds: (S,) LINEAR, DISTANCE, ANGLE or OUT_OF_PLANE.
        parameters: (S, 3) a, b and c; lengths in bohr, angles in rad, c in 1/bohr, zero where not used.
    """

    parents: IntArray = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))
    kinds: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    parameters: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))

    def __post_init__(self) -> None:
        for item in fields(self):
            getattr(self, item.name).setflags(write=False)

    def __len__(self) -> int:
        return len(self.kinds)

    def select(self, keep: npt.NDArray[np.bool_]) -> VirtualSites:
        """The sites where `keep` (S,) is true."""
        return VirtualSites(self.parents[keep], self.kinds[keep], self.parameters[keep])

    def place(self, particles: FloatArray, cell: FloatArray | None) -> None:
        """Put the sites where their atoms say, each near the image of its first atom.

        Args:
            particles: (N + S, 3) in bohr, atoms first; the rows of the sites are written.
            cell: (3, 3) lattice vectors as rows in bohr, or None.
        """
        if len(self):
            sites = particles[len(particles) - len(self) :]
            _place(particles, self.parents, self.kinds, self.parameters, *_lattice(cell), sites)

    def spread(
        self, particles: FloatArray, cell: FloatArray | None, gradient: FloatArray, strain: FloatArray
    ) -> None:
        """Give the gradient of the sites to their parents, by the chain rule.

        Args:
            particles: (N + S, 3) in bohr, atoms first.
            cell: (3, 3) lattice vectors as rows in bohr, or None.
            gradient: (N + S, 3) dE/dR of atoms and sites; that of the sites is zero afterwards.
            strain: (3, 3) dE/d(strain) of atoms and sites taken as free; corrected for the sites that a
                strain of the atoms does not move along with them.
        """
        if len(self):
            first = len(gradient) - len(self)
            _spread(
                particles, self.parents, self.kinds, self.parameters, *_lattice(cell), first, gradient, strain
            )


def join_sites(parts: Sequence[VirtualSites], n_atoms: Sequence[int]) -> VirtualSites:
    """The sites of molecules with the given numbers of atoms, put one after the other."""
    atoms_before = np.cumsum([0, *n_atoms])
    return VirtualSites(
        np.concatenate([part.parents + shift for part, shift in zip(parts, atoms_before[:-1], strict=True)]),
        np.concatenate([part.kinds for part in parts]),
        np.concatenate([part.parameters for part in parts]),
    )


def _lattice(cell: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    if cell is None:
        return np.zeros((3, 3)), np.zeros((3, 3))
    return np.ascontiguousarray(cell), np.asarray(np.linalg.inv(cell), dtype=np.float64)


@_compiled
def _sum(u, v):
    return u[0] + v[0], u[1] + v[1], u[2] + v[2]


@_compiled
def _rejected(v, axis):
    """What is left of v without its part along an axis."""
    return _sum(v, scale(-dot(v, axis) / dot(axis, axis), axis))


@_compiled
def _from_first(kind, a, b, c, ij, ik):
    """Vector from the first parent to the site."""
    if kind == DISTANCE:
        u = _sum(scale(1.0 - a, ij), scale(a, ik))
        return scale(b / np.sqrt(dot(u, u)), u)
    if kind == ANGLE:
        w = _rejected(ik, ij)
        along = scale(b * np.cos(a) / np.sqrt(dot(ij, ij)), ij)
        return _sum(along, scale(b * np.sin(a) / np.sqrt(dot(w, w)), w))
    plane = _sum(scale(a, ij), scale(b, ik))
    if kind == OUT_OF_PLANE:
        return _sum(plane, scale(c, cross(ij, ik)))
    return plane


@_compiled
def _place(x, parents, kinds, parameters, cell, inverse, sites):
    for s in range(len(kinds)):
        i, j, k = parents[s]
        a, b, c = parameters[s]
        ij, ik = vector(x, i, j, cell, inverse), vector(x, i, k, cell, inverse)
        d = _from_first(kinds[s], a, b, c, ij, ik)
        for axis in range(3):
            sites[s, axis] = x[i, axis] + d[axis]


@_compiled
def _pull_back(kind, a, b, c, ij, ik, g):
    """Derivatives with respect to r_ij and r_ik from that with respect to the site."""
    if kind == DISTANCE:
        u = _sum(scale(1.0 - a, ij), scale(a, ik))
        gu = scale(b / np.sqrt(dot(u, u)), _rejected(g, u))
        return scale(1.0 - a, gu), scale(a, gu)
    if kind == ANGLE:
        length2 = dot(ij, ij)
        w = _rejected(ik, ij)
        gw = scale(b * np.sin(a) / np.sqrt(dot(w, w)), _rejected(g, w))
        along = dot(ij, gw) / length2
        gij = scale(b * np.cos(a) / np.sqrt(length2), _rejected(g, ij))
        projection = dot(ik, ij) / length2
        gij = _sum(gij, scale(-along, ik))
        gij = _sum(gij, scale(-projection, gw))
        return _sum(gij, scale(2.0 * projection * along, ij)), _sum(gw, scale(-along, ij))
    gij, gik = scale(a, g), scale(b, g)
    if kind == OUT_OF_PLANE:
        return _sum(gij, scale(c, cross(ik, g))), _sum(gik, scale(c, cross(g, ij)))
    return gij, gik


@_compiled
def _spread(x, parents, kinds, parameters, cell, inverse, first, gradient, strain):
    for s in range(len(kinds)):
        i, j, k = parents[s]
        a, b, c = parameters[s]
        ij, ik = vector(x, i, j, cell, inverse), vector(x, i, k, cell, inverse)
        g = (gradient[first + s, 0], gradient[first + s, 1], gradient[first + s, 2])
        gij, gik = _pull_back(kinds[s], a, b, c, ij, ik, g)
        add(gradient, i, 1.0, g)
        add(gradient, i, -1.0, gij)
        add(gradient, i, -1.0, gik)
        add(gradient, j, 1.0, gij)
        add(gradient, k, 1.0, gik)
        add_outer(strain, gij, ij)
        add_outer(strain, gik, ik)
        add_outer(strain, g, scale(-1.0, _from_first(kinds[s], a, b, c, ij, ik)))
        add(gradient, first + s, -1.0, g)
