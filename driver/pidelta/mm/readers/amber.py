"""AMBER prmtop files (https://ambermd.org/FileFormats.php), sections parsed by ParmEd."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from parmed.amber import AmberFormat

from pidelta.errors import TopologyError
from pidelta.mm.topology import Harmonic, Pairs14, Topology, Torsions, unique_pairs
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM, DALTON_IN_ELECTRON_MASS, KCAL_PER_MOL

_POINTERS = {"NATOM": 0, "NTYPES": 1, "NRES": 11, "IFPERT": 20, "IFCAP": 29}

_USED = {
    "TITLE", "POINTERS", "ATOM_NAME", "CHARGE", "ATOMIC_NUMBER", "MASS", "ATOM_TYPE_INDEX",
    "NUMBER_EXCLUDED_ATOMS", "NONBONDED_PARM_INDEX", "RESIDUE_LABEL", "RESIDUE_POINTER",
    "BOND_FORCE_CONSTANT", "BOND_EQUIL_VALUE", "ANGLE_FORCE_CONSTANT", "ANGLE_EQUIL_VALUE",
    "DIHEDRAL_FORCE_CONSTANT", "DIHEDRAL_PERIODICITY", "DIHEDRAL_PHASE", "SCEE_SCALE_FACTOR",
    "SCNB_SCALE_FACTOR", "LENNARD_JONES_ACOEF", "LENNARD_JONES_BCOEF", "BONDS_INC_HYDROGEN",
    "BONDS_WITHOUT_HYDROGEN", "ANGLES_INC_HYDROGEN", "ANGLES_WITHOUT_HYDROGEN", "DIHEDRALS_INC_HYDROGEN",
    "DIHEDRALS_WITHOUT_HYDROGEN", "EXCLUDED_ATOMS_LIST", "HBOND_ACOEF", "HBOND_BCOEF", "IPOL",
}  # fmt: skip

# no part of the energy in vacuum or periodic explicit solvent
_WITHOUT_ENERGY = {
    "SOLTY", "HBCUT", "AMBER_ATOM_TYPE", "TREE_CHAIN_CLASSIFICATION", "JOIN_ARRAY", "IROTAT",
    "SOLVENT_POINTERS", "ATOMS_PER_MOLECULE", "BOX_DIMENSIONS", "RADIUS_SET", "RADII", "SCREEN",
    "RESIDUE_NUMBER", "RESIDUE_CHAINID", "RESIDUE_ICODE", "ATOM_ELEMENT", "ATOM_NUMBER", "ATOM_OCCUPANCY",
    "ATOM_BFACTOR", "CAP_INFO", "CAP_INFO2", "FORCE_FIELD_TYPE",
}  # fmt: skip


def read_amber(path: Path) -> Topology:
    """Read a prmtop file; constraints are no part of the format, bonds of water are taken as flexible.

    Raises:
        TopologyError: the file is malformed or has a term that pidelta does not evaluate.
    """
    sections = _Sections(path)
    n_atoms, n_types = sections.pointers["NATOM"], sections.pointers["NTYPES"]
    types = sections.integers("ATOM_TYPE_INDEX", n_atoms) - 1
    c6, c12 = _lennard_jones(sections, n_types)
    numbers = sections.integers("ATOMIC_NUMBER", n_atoms)
    names = [str(name).strip() for name in sections.get("ATOM_NAME", n_atoms)]
    if (numbers <= 0).any():
        atom = int(np.argmax(numbers <= 0))
        raise TopologyError(f"{path}: atom {atom} ({names[atom]}) is a virtual site, which pidelta lacks")
    starts = sections.integers("RESIDUE_POINTER", sections.pointers["NRES"]) - 1
    residues = np.searchsorted(starts, np.arange(n_atoms), side="right") - 1
    labels = [str(label).strip() for label in sections.get("RESIDUE_LABEL", sections.pointers["NRES"])]
    torsions, pairs14 = _dihedrals(sections, types, c6, c12)
    return Topology(
        source=str(path),
        numbers=numbers,
        masses=sections.floats("MASS", n_atoms) * DALTON_IN_ELECTRON_MASS,
        charges=sections.floats("CHARGE", n_atoms),
        names=tuple(names),
        residue_names=tuple(labels[r] for r in residues),
        residue_indices=residues,
        bonds=_harmonic(sections, "BOND", 2, ANGSTROM),
        angles=_harmonic(sections, "ANGLE", 3, 1.0),
        urey_bradley=Harmonic.none(2),
        torsions=torsions,
        impropers=Harmonic.none(4),
        lj_types=types,
        lj_c6=c6,
        lj_c12=c12,
        exclusions=_exclusions(sections, n_atoms),
        pairs14=pairs14,
    )


class _Sections:
    """The arrays of a prmtop file, with checks of presence and length."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = AmberFormat()
                with path.open() as file:  # of a name, a compiled reader is used, which truncated files crash
                    content.rdparm(file)
                self._data: dict[str, list[Any]] = content.parm_data
        except Exception as error:  # ParmEd raises whatever its parsing meets
            raise TopologyError(
                f"{path}: not a readable prmtop file ({' '.join(str(error).split())})"
            ) from error
        pointers = self.get("POINTERS")
        if len(pointers) < 30:
            raise TopologyError(f"{path}: POINTERS: expected at least 30 integers, found {len(pointers)}")
        self.pointers = {name: int(pointers[i]) for name, i in _POINTERS.items() if i < len(pointers)}
        self._refuse_unknown()

    def _refuse_unknown(self) -> None:
        unknown = sorted(set(self._data) - _USED - _WITHOUT_ENERGY)
        if "CTITLE" in unknown:
            raise TopologyError(f"{self._path}: CHARMM (chamber) prmtop files are not supported")
        if unknown:
            raise TopologyError(f"{self._path}: {unknown[0]} is a term that pidelta does not evaluate")
        for pointer, meaning in (("IFPERT", "perturbed atoms"), ("IFCAP", "a solvent cap")):
            if self.pointers[pointer]:
                raise TopologyError(f"{self._path}: {meaning} ({pointer}) are not evaluated by pidelta")
        for flag in ("HBOND_ACOEF", "HBOND_BCOEF", "IPOL"):
            if np.any(np.asarray(self._data.get(flag, []), dtype=float)):
                raise TopologyError(f"{self._path}: {flag} is a term that pidelta does not evaluate")

    def get(self, flag: str, size: int | None = None) -> list[Any]:
        """A section, checked to have `size` entries."""
        if flag not in self._data:
            raise TopologyError(f"{self._path}: expected a section {flag}, found none (truncated?)")
        data = self._data[flag]
        if size is not None and len(data) != size:
            raise TopologyError(
                f"{self._path}: {flag}: expected {size} entries, found {len(data)} (truncated?)"
            )
        return data

    def integers(self, flag: str, size: int | None = None) -> IntArray:
        return np.asarray(self.get(flag, size), dtype=np.int64)

    def floats(self, flag: str, size: int | None = None) -> FloatArray:
        return np.asarray(self.get(flag, size), dtype=np.float64)

    def terms(self, kind: str, n_atoms: int) -> tuple[IntArray, IntArray]:
        """Atoms (n, k), signs kept, and parameter indices (n,), from 0, of bonds, angles or dihedrals."""
        both = [self.integers(f"{kind}S_{part}_HYDROGEN") for part in ("INC", "WITHOUT")]
        for part in both:
            if len(part) % (n_atoms + 1):
                raise TopologyError(f"{self._path}: {kind}S: the list ends within a term; is it truncated?")
        rows = np.concatenate(both).reshape(-1, n_atoms + 1)
        offsets = np.abs(rows[:, :-1])  # three for each atom
        bad = np.flatnonzero(
            (offsets % 3 != 0).any(axis=1) | (offsets >= 3 * self.pointers["NATOM"]).any(axis=1)
        )
        if len(bad):
            raise TopologyError(
                f"{self._path}: {kind}S: expected multiples of 3 below {3 * self.pointers['NATOM']}, "
                f"found {rows[bad[0], :-1].tolist()}"
            )
        return rows[:, :-1], rows[:, -1] - 1

    def parameters(self, flag: str, indices: IntArray) -> FloatArray:
        values = self.floats(flag)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(values):
            raise TopologyError(
                f"{self._path}: {flag}: expected {indices.max() + 1} entries, found {len(values)}"
            )
        return values[indices]

    def scale(self, flag: str, indices: IntArray, default: float) -> FloatArray:
        """Scaling factors of 1-4 pairs, a default where the file is of before they were written."""
        if flag not in self._data:
            return np.full(len(indices), default)
        return self.parameters(flag, indices)


def _harmonic(sections: _Sections, kind: str, n_atoms: int, unit: float) -> Harmonic:
    """AMBER's terms are K (x - x0)^2: k = 2 K."""
    atoms, index = sections.terms(kind, n_atoms)
    k = 2.0 * sections.parameters(f"{kind}_FORCE_CONSTANT", index) * KCAL_PER_MOL / unit**2
    return Harmonic(atoms // 3, k, sections.parameters(f"{kind}_EQUIL_VALUE", index) * unit)


def _lennard_jones(sections: _Sections, n_types: int) -> tuple[FloatArray, FloatArray]:
    """c6 and c12 (T, T); the table of the file holds every combination of types, exceptions included."""
    table = sections.integers("NONBONDED_PARM_INDEX", n_types**2).reshape(n_types, n_types)
    size = n_types * (n_types + 1) // 2
    c12 = sections.floats("LENNARD_JONES_ACOEF", size) * KCAL_PER_MOL * ANGSTROM**12
    c6 = sections.floats("LENNARD_JONES_BCOEF", size) * KCAL_PER_MOL * ANGSTROM**6
    # negative entries point to 10-12 hydrogen bonds, which have been found to be zero
    used = table > 0
    return np.where(used, c6[table - 1], 0.0), np.where(used, c12[table - 1], 0.0)


def _dihedrals(
    sections: _Sections, types: IntArray, c6: FloatArray, c12: FloatArray
) -> tuple[Torsions, Pairs14]:
    """Torsions, and the 1-4 pairs of those whose third and fourth atoms are not negative."""
    signed, index = sections.terms("DIHEDRAL", 4)
    atoms = np.abs(signed) // 3
    torsions = Torsions(
        atoms,
        sections.parameters("DIHEDRAL_FORCE_CONSTANT", index) * KCAL_PER_MOL,
        np.abs(np.rint(sections.parameters("DIHEDRAL_PERIODICITY", index))).astype(np.int64),
        sections.parameters("DIHEDRAL_PHASE", index),
    )
    ends = (signed[:, 2] >= 0) & (signed[:, 3] >= 0)
    pairs = np.sort(atoms[ends][:, [0, 3]], axis=1)
    pairs, chosen = np.unique(pairs, axis=0, return_index=True)
    kinds = types[pairs]
    index = index[ends][chosen]
    lj_scale = _inverse(sections.scale("SCNB_SCALE_FACTOR", index, 2.0))
    return torsions, Pairs14(
        pairs,
        c6[kinds[:, 0], kinds[:, 1]] * lj_scale,
        c12[kinds[:, 0], kinds[:, 1]] * lj_scale,
        _inverse(sections.scale("SCEE_SCALE_FACTOR", index, 1.2)),
    )


def _inverse(scale: FloatArray) -> FloatArray:
    return np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0.0)


def _exclusions(sections: _Sections, n_atoms: int) -> IntArray:
    counts = sections.integers("NUMBER_EXCLUDED_ATOMS", n_atoms)
    partners = sections.integers("EXCLUDED_ATOMS_LIST", int(counts.sum())) - 1
    first = np.repeat(np.arange(n_atoms), counts)
    # an atom without exclusions is listed with the partner 0, that is -1 here
    listed = partners >= 0
    return unique_pairs(np.stack([first[listed], partners[listed]], axis=1))
