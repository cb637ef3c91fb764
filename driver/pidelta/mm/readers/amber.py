"""AMBER prmtop files (https://ambermd.org/FileFormats.php), sections parsed by ParmEd."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from parmed.amber import AmberFormat

from pidelta.core.elements import contradiction, guess_elements, misfit
from pidelta.core.virtual_sites import LINEAR, VirtualSites
from pidelta.errors import TopologyError
from pidelta.mm.readers.conversion import multiplicities
from pidelta.mm.topology import CMAPs, Harmonic, Pairs14, Topology, Torsions, unique_pairs
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM, DALTON_IN_ELECTRON_MASS, KCAL_PER_MOL

_POINTERS = {"NATOM": 0, "NTYPES": 1, "NRES": 11, "IFPERT": 20, "IFBOX": 27, "IFCAP": 29}

_USED = {
    "TITLE", "POINTERS", "ATOM_NAME", "CHARGE", "ATOMIC_NUMBER", "MASS", "ATOM_TYPE_INDEX",
    "NUMBER_EXCLUDED_ATOMS", "NONBONDED_PARM_INDEX", "RESIDUE_LABEL", "RESIDUE_POINTER",
    "BOND_FORCE_CONSTANT", "BOND_EQUIL_VALUE", "ANGLE_FORCE_CONSTANT", "ANGLE_EQUIL_VALUE",
    "DIHEDRAL_FORCE_CONSTANT", "DIHEDRAL_PERIODICITY", "DIHEDRAL_PHASE", "SCEE_SCALE_FACTOR",
    "SCNB_SCALE_FACTOR", "LENNARD_JONES_ACOEF", "LENNARD_JONES_BCOEF", "BONDS_INC_HYDROGEN",
    "BONDS_WITHOUT_HYDROGEN", "ANGLES_INC_HYDROGEN", "ANGLES_WITHOUT_HYDROGEN", "DIHEDRALS_INC_HYDROGEN",
    "DIHEDRALS_WITHOUT_HYDROGEN", "EXCLUDED_ATOMS_LIST", "HBOND_ACOEF", "HBOND_BCOEF", "IPOL",
    "CTITLE", "CHARMM_UREY_BRADLEY_COUNT", "CHARMM_UREY_BRADLEY", "CHARMM_UREY_BRADLEY_FORCE_CONSTANT",
    "CHARMM_UREY_BRADLEY_EQUIL_VALUE", "CHARMM_NUM_IMPROPERS", "CHARMM_IMPROPERS", "CHARMM_NUM_IMPR_TYPES",
    "CHARMM_IMPROPER_FORCE_CONSTANT", "CHARMM_IMPROPER_PHASE", "LENNARD_JONES_14_ACOEF",
    "LENNARD_JONES_14_BCOEF",
}  # fmt: skip
_CMAP = re.compile(r"(CHARMM_)?CMAP_(COUNT|RESOLUTION|INDEX|PARAMETER_\d+)")

# no part of the energy in vacuum or periodic explicit solvent
_WITHOUT_ENERGY = {
    "SOLTY", "HBCUT", "AMBER_ATOM_TYPE", "TREE_CHAIN_CLASSIFICATION", "JOIN_ARRAY", "IROTAT",
    "SOLVENT_POINTERS", "ATOMS_PER_MOLECULE", "BOX_DIMENSIONS", "RADIUS_SET", "RADII", "SCREEN",
    "RESIDUE_NUMBER", "RESIDUE_CHAINID", "RESIDUE_ICODE", "ATOM_ELEMENT", "ATOM_NUMBER", "ATOM_OCCUPANCY",
    "ATOM_BFACTOR", "CAP_INFO", "CAP_INFO2", "FORCE_FIELD_TYPE",
}  # fmt: skip


def read_amber(path: Path) -> Topology:
    """Read a prmtop file, of AMBER or of CHARMM terms (made by chamber or ParmEd).

    Constraints are no part of the format: bonds of water are taken as flexible. The extra point of a
    four-point model of water becomes a virtual site, see `_extra_points`.

    Raises:
        TopologyError: the file is malformed or has a term that pidelta does not evaluate.
    """
    sections = _Sections(path)
    n_rows, n_types = sections.pointers["NATOM"], sections.pointers["NTYPES"]
    types = sections.indices("ATOM_TYPE_INDEX", 1, n_types, n_rows) - 1
    names = [str(name).strip() for name in sections.get("ATOM_NAME", n_rows)]
    numbers = _elements(sections, names)
    starts = sections.indices("RESIDUE_POINTER", 1, n_rows, sections.pointers["NRES"]) - 1
    residues = np.searchsorted(starts, np.arange(n_rows), side="right") - 1
    labels = [str(label).strip() for label in sections.get("RESIDUE_LABEL", sections.pointers["NRES"])]
    real, rows = np.flatnonzero(numbers > 0), np.flatnonzero(numbers <= 0)
    masses = sections.floats("MASS", n_rows)[real]
    if not (masses > 0.0).all():
        atom = int(np.flatnonzero(~(masses > 0.0))[0])
        raise TopologyError(
            f"{path}: MASS: expected a mass above 0, found {masses[atom]:g} of atom {real[atom] + 1} "
            f"({names[real[atom]]})"
        )
    order = np.concatenate([real, rows])
    particles = np.argsort(order)
    bonds = _harmonic(sections, "BOND", 2, ANGSTROM)
    sites = _extra_points(path, rows, numbers, residues, bonds)
    torsions, pairs14 = _dihedrals(sections, types)
    c6, c12 = _lennard_jones(sections, "LENNARD_JONES", n_types)
    tables = {
        "bonds": bonds.select(np.asarray((numbers[bonds.atoms] > 0).all(axis=1))),
        "angles": _harmonic(sections, "ANGLE", 3, 1.0),
        "urey_bradley": _charmm_terms(sections, "UREY_BRADLEY", 2),
        "torsions": torsions,
        "impropers": _charmm_terms(sections, "IMPROPER", 4),
        "cmaps": _cmaps(sections),
    }
    for name, table in tables.items():
        if (numbers[table.atoms] <= 0).any():
            raise TopologyError(f"{path}: {name} of extra points are not evaluated by pidelta")
    return Topology(
        source=str(path),
        numbers=numbers[real],
        masses=masses * DALTON_IN_ELECTRON_MASS,
        charges=sections.floats("CHARGE", n_rows)[order],
        names=tuple(names[row] for row in real),
        residue_names=tuple(labels[r] for r in residues[real]),
        residue_indices=residues[real],
        residue_numbers=sections.residue_numbers()[residues[real]],
        segments=tuple(sections.chains()[r] for r in residues[real]),
        lj_types=types[order],
        lj_c6=c6,
        lj_c12=c12,
        exclusions=unique_pairs(particles[_exclusions(sections, n_rows)]),
        pairs14=pairs14.renumbered(particles),
        sites=replace(sites, parents=particles[sites.parents]),
        massless_rows=rows,
        periodic=sections.pointers["IFBOX"] > 0,
        cell_angle=_cell_angle(sections),
        **{name: table.renumbered(particles) for name, table in tables.items()},  # type: ignore[arg-type]
    )


def _elements(sections: _Sections, names: list[str]) -> IntArray:
    """(NATOM,) as the file has them, 0 for extra points; from masses, types and names where it has none.

    Files of before AmberTools 12 have none, and tleap writes -1 of what it does not know.
    """
    count = len(names)
    masses = sections.floats("MASS", count)
    types = [""] * count
    if "AMBER_ATOM_TYPE" in sections:
        types = [str(kind).strip() for kind in sections.get("AMBER_ATOM_TYPE", count)]
    numbers = np.full(count, -1)
    if "ATOMIC_NUMBER" in sections:
        numbers = sections.integers("ATOMIC_NUMBER", count)
    found = np.where(numbers >= 0, numbers, guess_elements(masses, types, names))
    wrong = np.flatnonzero(found < 0)
    refused = contradiction(numbers, masses)
    if len(wrong):
        atom = int(wrong[0])
        refused = atom, misfit(float(masses[atom]), types[atom], names[atom])
    if refused:
        atom, problem = refused
        raise TopologyError(f"{sections.path}: atom {atom + 1} ({names[atom]}): {problem}")
    return found


def _cell_angle(sections: _Sections) -> float | None:
    """That of a truncated octahedron, or 90 degrees; a triclinic cell has its angles in the restart alone."""
    kind = sections.pointers["IFBOX"]
    if kind == 2:
        return float(np.rad2deg(np.arccos(-1.0 / 3.0)))
    if kind == 1 and "BOX_DIMENSIONS" in sections:
        return float(sections.floats("BOX_DIMENSIONS")[0])
    return 90.0 if kind < 2 else None


def _extra_points(
    path: Path, rows: IntArray, numbers: IntArray, residues: IntArray, bonds: Harmonic
) -> VirtualSites:
    """Sites of four-point water, parents as rows of the file.

    The file says only how far the extra point is from the oxygen; AMBER keeps the molecule rigid, so any rule
    that puts the point there in the rigid geometry will do. As in OpenMM it is linear in the positions.
    """
    parents, parameters = [], []
    lengths = {frozenset(pair): x0 for pair, x0 in zip(bonds.atoms.tolist(), bonds.x0.tolist(), strict=True)}
    for row in rows.tolist():
        members = np.arange(*np.searchsorted(residues, [residues[row], residues[row] + 1]))
        oxygen, hydrogens = members[numbers[members] == 8], members[numbers[members] == 1]
        if (len(members), len(oxygen), len(hydrogens)) != (4, 1, 2):
            raise TopologyError(
                f"{path}: row {row} is an extra point; they are known in four-point water only"
            )
        i, j, k = int(oxygen[0]), int(hydrogens[0]), int(hydrogens[1])
        try:
            out, along, across = (lengths[frozenset(pair)] for pair in ((i, row), (i, j), (j, k)))
        except KeyError:
            raise TopologyError(
                f"{path}: row {row}: expected bonds O-EP, O-H and H-H that place the extra point"
            ) from None
        weight = 0.5 * out / np.sqrt(along**2 - 0.25 * across**2)
        parents.append([i, j, k])
        parameters.append([weight, weight, 0.0])
    return VirtualSites(
        np.array(parents, dtype=np.int64).reshape(-1, 3),
        np.full(len(rows), LINEAR),
        np.array(parameters, dtype=np.float64).reshape(-1, 3),
    )


class _Sections:
    """The arrays of a prmtop file, with checks of presence and length."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = AmberFormat()
                # Of a name a compiled reader is used, which truncated files crash.
                with path.open(encoding="utf-8", errors="replace") as file:
                    content.rdparm(file)
                self._data: dict[str, list[Any]] = content.parm_data
        except Exception as error:  # ParmEd raises whatever its parsing meets
            raise TopologyError(
                f"{path}: not a readable prmtop file ({' '.join(str(error).split())})"
            ) from error
        pointers = self.get("POINTERS")
        if len(pointers) < 30:
            raise TopologyError(f"{path}: POINTERS: expected at least 30 integers, found {len(pointers)}")
        try:  # words where the FORMAT of this section is another
            self.pointers = {name: int(pointers[i]) for name, i in _POINTERS.items() if i < len(pointers)}
        except ValueError as error:
            raise TopologyError(f"{path}: POINTERS: expected integers ({error})") from None
        self._refuse_unknown()

    def _refuse_unknown(self) -> None:
        known = _USED | _WITHOUT_ENERGY
        unknown = sorted(flag for flag in self._data if flag not in known and not _CMAP.fullmatch(flag))
        if unknown:
            raise TopologyError(f"{self.path}: {unknown[0]} is a term that pidelta does not evaluate")
        for pointer, meaning in (("IFPERT", "perturbed atoms"), ("IFCAP", "a solvent cap")):
            if self.pointers[pointer]:
                raise TopologyError(f"{self.path}: {meaning} ({pointer}) are not evaluated by pidelta")
        for flag in ("HBOND_ACOEF", "HBOND_BCOEF", "IPOL"):
            if np.any(np.asarray(self._data.get(flag, []), dtype=float)):
                raise TopologyError(f"{self.path}: {flag} is a term that pidelta does not evaluate")

    def __contains__(self, flag: str) -> bool:
        return flag in self._data

    def get(self, flag: str, size: int | None = None) -> list[Any]:
        """A section, checked to have `size` entries."""
        if flag not in self._data:
            raise TopologyError(f"{self.path}: expected a section {flag}, found none (truncated?)")
        data = self._data[flag]
        if size is not None and len(data) != size:
            raise TopologyError(
                f"{self.path}: {flag}: expected {size} entries, found {len(data)} (truncated?)"
            )
        return data

    def integers(self, flag: str, size: int | None = None) -> IntArray:
        return np.asarray(self.get(flag, size), dtype=np.int64)

    def indices(self, flag: str, low: int, high: int, size: int | None = None) -> IntArray:
        """A section of integers, checked to be from `low` to `high`."""
        values = self.integers(flag, size)
        self._check_range(flag, values, low, high)
        return values

    def _check_range(self, flag: str, values: IntArray, low: int, high: int) -> None:
        wrong = values[(values < low) | (values > high)]
        if len(wrong):
            raise TopologyError(
                f"{self.path}: {flag}: expected numbers from {low} to {high}, found {wrong[0]}"
            )

    def floats(self, flag: str, size: int | None = None) -> FloatArray:
        return np.asarray(self.get(flag, size), dtype=np.float64)

    def terms(self, kind: str, n_atoms: int) -> tuple[IntArray, IntArray]:
        """Atoms (n, k), signs kept, and parameter indices (n,), from 0, of bonds, angles or dihedrals."""
        both = [self.integers(f"{kind}S_{part}_HYDROGEN") for part in ("INC", "WITHOUT")]
        for part in both:
            if len(part) % (n_atoms + 1):
                raise TopologyError(f"{self.path}: {kind}S: the list ends within a term; is it truncated?")
        rows = np.concatenate(both).reshape(-1, n_atoms + 1)
        offsets = np.abs(rows[:, :-1])  # three for each atom
        bad = np.flatnonzero(
            (offsets % 3 != 0).any(axis=1) | (offsets >= 3 * self.pointers["NATOM"]).any(axis=1)
        )
        if len(bad):
            raise TopologyError(
                f"{self.path}: {kind}S: expected multiples of 3 below {3 * self.pointers['NATOM']}, "
                f"found {rows[bad[0], :-1].tolist()}"
            )
        return rows[:, :-1], rows[:, -1] - 1

    def rows(self, flag: str, width: int) -> IntArray:
        """A section of integers as rows of atoms, from 1, and one index of another meaning."""
        values = self.integers(flag)
        if len(values) % width:
            raise TopologyError(f"{self.path}: {flag}: the list ends within a term; is it truncated?")
        rows = values.reshape(-1, width)
        self._check_range(flag, rows[:, :-1].ravel(), 1, self.pointers["NATOM"])
        return rows

    def parameters(self, flag: str, indices: IntArray) -> FloatArray:
        values = self.floats(flag)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(values):
            raise TopologyError(
                f"{self.path}: {flag}: expected {indices.max() + 1} entries, found {len(values)}"
            )
        return values[indices]

    def residue_numbers(self) -> IntArray:
        """(R,) as ParmEd's addPDB keeps those of a .pdb file, else 1, 2, ..."""
        count = self.pointers["NRES"]
        if "RESIDUE_NUMBER" in self:
            return self.integers("RESIDUE_NUMBER", count)
        return np.arange(1, count + 1)

    def chains(self) -> list[str]:
        """(R,) likewise, '' where there are none."""
        count = self.pointers["NRES"]
        if "RESIDUE_CHAINID" in self:
            return [str(chain).strip() for chain in self.get("RESIDUE_CHAINID", count)]
        return [""] * count

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


def _charmm_terms(sections: _Sections, kind: str, n_atoms: int) -> Harmonic:
    """Urey-Bradley terms or impropers of a CHARMM force field, K (x - x0)^2, atoms from 1, angles in rad."""
    flag = "CHARMM_UREY_BRADLEY" if kind == "UREY_BRADLEY" else "CHARMM_IMPROPERS"
    if flag not in sections:
        return Harmonic.none(n_atoms)
    rows = sections.rows(flag, n_atoms + 1)
    index = rows[:, -1] - 1
    unit, x0 = (ANGSTROM, "EQUIL_VALUE") if n_atoms == 2 else (1.0, "PHASE")
    k = 2.0 * sections.parameters(f"CHARMM_{kind}_FORCE_CONSTANT", index) * KCAL_PER_MOL / unit**2
    values = sections.parameters(f"CHARMM_{kind}_{x0}", index) * unit
    return Harmonic(rows[:, :-1] - 1, k, values if n_atoms == 2 else _in_radians(values))


def _in_radians(phases: FloatArray) -> FloatArray:
    """Older programs (chamber, ParmEd before 2.0) wrote phases of impropers in degrees, newer in radians."""
    in_degrees = np.abs(phases).max(initial=0.0) > 2.0 * np.pi
    return np.deg2rad(phases) if in_degrees else phases


def _cmaps(sections: _Sections) -> CMAPs:
    """CMAP terms as ff19SB and chamber write them; the second angle runs fastest, both from -pi."""
    prefix = "CHARMM_" if "CHARMM_CMAP_COUNT" in sections else ""
    if f"{prefix}CMAP_COUNT" not in sections:
        return CMAPs()
    n_terms, n_maps = sections.integers(f"{prefix}CMAP_COUNT", 2)
    sizes = sections.integers(f"{prefix}CMAP_RESOLUTION", int(n_maps))
    if len(set(sizes.tolist())) > 1:
        raise TopologyError(
            f"{sections.path}: CMAP_RESOLUTION: expected one size of maps, found {sizes.tolist()}"
        )
    grids = [
        sections.floats(f"{prefix}CMAP_PARAMETER_{m + 1:02d}", int(size) ** 2).reshape(size, size)
        for m, size in enumerate(sizes)
    ]
    rows = sections.rows(f"{prefix}CMAP_INDEX", 6)
    if len(rows) != n_terms or (len(rows) and not 1 <= rows[:, 5].min() <= rows[:, 5].max() <= n_maps):
        raise TopologyError(f"{sections.path}: CMAP_INDEX: expected {n_terms} terms of {n_maps} maps")
    return CMAPs(rows[:, :5] - 1, rows[:, 5] - 1, np.array(grids) * KCAL_PER_MOL)


def _lennard_jones(sections: _Sections, flag: str, n_types: int) -> tuple[FloatArray, FloatArray]:
    """c6 and c12 (T, T); the table of the file holds every combination of types, exceptions included."""
    size = n_types * (n_types + 1) // 2
    table = sections.indices("NONBONDED_PARM_INDEX", -size, size, n_types**2).reshape(n_types, n_types)
    c12 = sections.floats(f"{flag}_ACOEF", size) * KCAL_PER_MOL * ANGSTROM**12
    c6 = sections.floats(f"{flag}_BCOEF", size) * KCAL_PER_MOL * ANGSTROM**6
    # negative entries point to 10-12 hydrogen bonds, which have been found to be zero
    used = table > 0
    return np.where(used, c6[table - 1], 0.0), np.where(used, c12[table - 1], 0.0)


def _dihedrals(sections: _Sections, types: IntArray) -> tuple[Torsions, Pairs14]:
    """Torsions, and the 1-4 pairs of those whose third and fourth atoms are not negative.

    CHARMM force fields have tables of their own for these pairs, and no scaling.
    """
    charmm = "LENNARD_JONES_14_ACOEF" in sections
    lj14 = "LENNARD_JONES_14" if charmm else "LENNARD_JONES"
    c6, c12 = _lennard_jones(sections, lj14, sections.pointers["NTYPES"])
    signed, index = sections.terms("DIHEDRAL", 4)
    atoms = np.abs(signed) // 3
    periodicity = "DIHEDRAL_PERIODICITY"
    torsions = Torsions(
        atoms,
        sections.parameters("DIHEDRAL_FORCE_CONSTANT", index) * KCAL_PER_MOL,
        np.abs(multiplicities(f"{sections.path}: {periodicity}", sections.parameters(periodicity, index))),
        sections.parameters("DIHEDRAL_PHASE", index),
    )
    ends = (signed[:, 2] >= 0) & (signed[:, 3] >= 0)
    pairs = np.sort(atoms[ends][:, [0, 3]], axis=1)
    pairs, chosen = np.unique(pairs, axis=0, return_index=True)
    kinds = types[pairs]
    index = index[ends][chosen]
    lj_scale = _inverse(sections.scale("SCNB_SCALE_FACTOR", index, 1.0 if charmm else 2.0))
    return torsions, Pairs14(
        pairs,
        c6[kinds[:, 0], kinds[:, 1]] * lj_scale,
        c12[kinds[:, 0], kinds[:, 1]] * lj_scale,
        _inverse(sections.scale("SCEE_SCALE_FACTOR", index, 1.0 if charmm else 1.2)),
    )


def _inverse(scale: FloatArray) -> FloatArray:
    return np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0.0)


def _exclusions(sections: _Sections, n_atoms: int) -> IntArray:
    counts = sections.indices("NUMBER_EXCLUDED_ATOMS", 0, n_atoms, n_atoms)
    partners = sections.indices("EXCLUDED_ATOMS_LIST", 0, n_atoms, int(counts.sum())) - 1
    first = np.repeat(np.arange(n_atoms), counts)
    # an atom without exclusions is listed with the partner 0, that is -1 here
    listed = partners >= 0
    return unique_pairs(np.stack([first[listed], partners[listed]], axis=1))
