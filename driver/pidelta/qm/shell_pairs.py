"""Which shells of basis functions overlap, so that integrals over pairs that do not are left out.

PySCF leaves out what is below the precision of numbers. In molecules of some tens of atoms half of the pairs
are above that, and still make nothing of an energy or a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pidelta.state import FloatArray, IntArray

_NEGLIGIBLE = 1e-9  # largest product of two functions; integrals at point charges are about as large
_STEP = 0.2  # bohr, of radii
_FARTHEST = 40.0
_DIFFUSE = 11.0  # bohr: shells that meet others like them beyond this are a group of their own


@dataclass(frozen=True)
class ShellGroup:
    """Some shells of one atom, and all shells that overlap with one of them.

    Attributes:
        molecule: PySCF's, of these shells alone, those of the atom first.
        slices: (0, a, a, b) of its shells: those of the atom, and those that overlap, as PySCF's integrals
            take them.
        own, partners: indices of their functions in the whole molecule.
    """

    molecule: Any
    slices: tuple[int, int, int, int]
    own: IntArray
    partners: IntArray

    @property
    def place(self) -> tuple[IntArray, IntArray]:
        """Of the pairs (partners, own) in a matrix of the whole molecule."""
        return self.partners[:, None], self.own

    @property
    def multiplicities(self) -> FloatArray:
        """(partners, 1) how often each pair counts that is there once: 1 within the group, and else 2."""
        return np.where(np.isin(self.partners, self.own), 1.0, 2.0)[:, None]


def with_shells(molecule: Any, shells: IntArray) -> Any:
    """PySCF's molecule with some of its shells, in this order."""
    some = molecule.view(type(molecule))
    some._bas = molecule._bas[shells]
    return some


def functions_of(molecule: Any, shells: IntArray) -> IntArray:
    """Indices of the functions of some shells, in this order."""
    starts = molecule.ao_loc_nr()
    ranges = [np.arange(starts[shell], starts[shell + 1]) for shell in shells]
    return np.concatenate([np.arange(0), *ranges])


def shell_groups(molecule: Any, *, once: bool = False) -> Iterator[ShellGroup]:
    """The groups of a molecule: each ordered pair of functions that overlap is in one of them.

    Those of an atom that are diffuse are apart from the others, which have fewer partners.

    Args:
        molecule: PySCF's.
        once: leave out the shells of earlier groups, so that only pairs within a group are there in both
            orders.
    """
    atoms: IntArray = molecule._bas[:, 0]
    kinds, profiles = _profiles(molecule)
    reach = _reach(profiles)
    places = molecule.atom_coords()[atoms]
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    overlaps = distances <= reach[kinds][:, kinds]
    diffuse = np.diag(reach)[kinds] > _DIFFUSE
    waiting = np.ones(molecule.nbas, dtype=bool)
    for atom in range(molecule.natm):
        for chosen in ((atoms == atom) & ~diffuse, (atoms == atom) & diffuse):
            own = np.flatnonzero(chosen)
            if not len(own):
                continue
            partners = np.flatnonzero(overlaps[own].any(axis=0) & waiting)
            if once:
                waiting[own] = False
            yield ShellGroup(
                molecule=with_shells(molecule, np.concatenate([own, partners])),
                slices=(0, len(own), len(own), len(own) + len(partners)),
                own=functions_of(molecule, own),
                partners=functions_of(molecule, partners),
            )


def _profiles(molecule: Any) -> tuple[IntArray, FloatArray]:
    """Kinds of the shells (shells,), and log10 of their largest value beyond each radius (kinds, radii)."""
    radii = np.arange(0.0, _FARTHEST, _STEP)
    found: dict[tuple[object, ...], int] = {}
    kinds = np.empty(molecule.nbas, dtype=np.int64)
    profiles = []
    for shell in range(molecule.nbas):
        angular, exponents = molecule.bas_angular(shell), molecule.bas_exp(shell)
        factors = np.abs(molecule._libcint_ctr_coeff(shell)).max(axis=1)  # of normalised functions
        key = (angular, *exponents, *factors)
        if key not in found:
            found[key] = len(found)
            values = factors @ np.exp(-exponents[:, None] * radii**2) * radii**angular
            profiles.append(np.maximum.accumulate(values[::-1])[::-1])
        kinds[shell] = found[key]
    return kinds, np.log10(np.maximum(profiles, 1e-300))


def _reach(profiles: FloatArray) -> FloatArray:
    """(kinds, kinds) bohr up to which the product of two functions is above `_NEGLIGIBLE` somewhere.

    It is largest on the line between their atoms.
    """
    reach = np.zeros((len(profiles),) * 2)
    for steps in range(1, profiles.shape[1]):
        here, there = profiles[:, None, :steps], profiles[None, :, steps - 1 :: -1]
        above = (here + there).max(axis=2) > np.log10(_NEGLIGIBLE)
        if not above.any():
            return reach
        reach[above] = steps * _STEP
    reach[above] = np.inf  # such diffuse functions meet everywhere
    return reach
