"""Systems for the tests of bonds across the border: alkanes in flexible water, and AMBER files."""

from __future__ import annotations

import lzma
from itertools import combinations
from pathlib import Path

import numpy as np

from mm_systems import water_atoms, water_positions, write_gro
from pidelta.config import load_config
from pidelta.setup import Setup
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM

DATA = Path(__file__).parent / "data" / "links"

# GAFF's c3 and hc; charges by place in the chain are made up so that no half is neutral
HEAD = """[ defaults ]
1 2 yes 0.5 0.8333333333333334
[ atomtypes ]
OW 8 15.9994 0.0 A 0.3165492 0.65029946
HW 1  1.008  0.0 A 0.0       0.0
c3 6 12.01   0.0 A 0.3399670 0.4577296
hc 1  1.008  0.0 A 0.2649533 0.0656888
[ bondtypes ]
c3 c3 1 0.15350 253630.0
c3 hc 1 0.10920 282250.0
[ angletypes ]
c3 c3 c3 1 110.63 528.9
c3 c3 hc 1 110.05 388.0
hc c3 hc 1 108.35 329.9
[ dihedraltypes ]
X c3 c3 X 9 0.0 0.65084 3
"""
WATER = """[ moleculetype ]
SOL 2
[ atoms ]
1 OW 1 SOL OW  1 -0.82 15.9994
2 HW 1 SOL HW1 1  0.41  1.008
3 HW 1 SOL HW2 1  0.41  1.008
[ bonds ]
1 2 1 0.1012 443153.3808
1 3 1 0.1012 443153.3808
[ angles ]
2 1 3 1 113.24 317.5656
"""


def alkane(carbons: int):
    """Names, positions (n, 3) in angstrom and bonds of an all-trans chain, carbons before their hydrogens."""
    step, rise = 1.53 * np.sin(np.radians(56.0)), 1.53 * np.cos(np.radians(56.0))
    names, positions, bonds = [], [], []
    places: list[int] = []
    for c in range(carbons):
        here, up = np.array([c * step, (c % 2) * rise, 0.0]), 1.0 if c % 2 else -1.0
        places.append(len(names))
        if c:
            bonds.append((places[c - 1], places[c]))
        names.append(f"C{c + 1}")
        positions.append(here)
        directions = [np.array([0.0, 0.57 * up, 0.82]), np.array([0.0, 0.57 * up, -0.82])]
        if c == 0:
            directions.append(np.array([-0.82, 0.4, 0.0]))
        if c == carbons - 1:
            directions.append(np.array([0.82, -0.4 * up, 0.0]))
        for h, direction in enumerate(directions):
            bonds.append((places[c], len(names)))
            names.append(f"H{c + 1}{h + 1}")
            positions.append(here + 1.09 * direction / np.linalg.norm(direction))
    return names, np.array(positions), bonds


def alkane_charges(names):
    """Charges in e that add up to zero, in no half of the molecule."""
    charges = np.array([0.05 if name[0] == "H" else -0.11 - 0.02 * int(name[1]) for name in names])
    return charges - charges.mean()


def molecule_text(name, names, bonds, charges):
    """A moleculetype with every angle, dihedral and 1-4 pair of its bonds."""
    near = {i: set() for i in range(len(names))}
    for i, j in bonds:
        near[i].add(j)
        near[j].add(i)
    angles = [(i, j, k) for j in near for i, k in combinations(sorted(near[j]), 2)]
    dihedrals = [(i, j, k, m) for j, k in bonds for i in near[j] - {k} for m in near[k] - {j}]
    rows = [f"[ moleculetype ]\n{name} 3\n[ atoms ]"]
    for number, (atom, charge) in enumerate(zip(names, charges, strict=True), 1):
        kind, mass = ("hc", 1.008) if atom[0] == "H" else ("c3", 12.01)
        rows.append(f"{number} {kind} 1 {name} {atom} {number} {charge:.6f} {mass}")
    for section, kind, terms in (
        ("bonds", 1, bonds),
        ("angles", 1, angles),
        ("dihedrals", 9, dihedrals),
        ("pairs", 1, sorted({(min(d[0], d[3]), max(d[0], d[3])) for d in dihedrals})),
    ):
        rows.append(f"[ {section} ]")
        rows += [" ".join(str(atom + 1) for atom in term) + f" {kind}" for term in terms]
    return "\n".join(rows) + "\n"


def write_alkane(folder: Path, carbons: int, *, waters: int = 0, cell=None, seed: int = 3):
    """Write chain.top and chain.gro; return the number of atoms of the chain."""
    names, positions, bonds = alkane(carbons)
    text = HEAD + molecule_text("ALK", names, bonds, alkane_charges(names)) + WATER
    text += f"[ system ]\nchain\n[ molecules ]\nALK 1\n{f'SOL {waters}' if waters else ''}\n"
    (folder / "chain.top").write_text(text, encoding="utf-8")
    positions = positions @ np.array([[0.9, 0.3, -0.2], [-0.32, 0.94, 0.05], [0.2, 0.02, 0.97]]).T
    atoms = [(1, "ALK", name) for name in names] + water_atoms(2, waters)
    if waters:
        positions = np.concatenate([positions, _water_around(positions, waters, cell, seed)])
    write_gro(folder / "chain.gro", atoms, positions * ANGSTROM, cell)
    return len(names)


def _water_around(chain, waters, cell, seed):
    """Molecules of a random box that are not on the chain, in angstrom."""
    box = water_positions(2 * waters, cell, seed) * BOHR_IN_ANGSTROM
    molecules = box.reshape(-1, 3, 3)
    lattice = np.asarray(cell) * BOHR_IN_ANGSTROM
    d = molecules[:, :1, None] - chain[None, None]
    d -= np.rint(d @ np.linalg.inv(lattice)) @ lattice
    far = np.linalg.norm(d, axis=-1).min(axis=(1, 2)) > 2.4
    assert far.sum() >= waters
    return molecules[far][:waters].reshape(-1, 3)


def setup_of(folder: Path, *, qm: str, mm: str = "", embedding: str = "", more: str = "") -> Setup:
    """The set-up of chain.gro and chain.top with these sections."""
    path = folder / "pidelta.yaml"
    mm = f"{{topology: chain.top{', ' if mm else ''}{mm}}}"
    path.write_text(
        f"structure: chain.gro\nqm: {qm}\nmm: {mm}\n"
        + (f"embedding: {embedding}\n" if embedding else "")
        + more,
        encoding="utf-8",
    )
    return Setup(load_config(path))


def unpack(folder: Path, name: str) -> None:
    """Write NAME.prmtop and NAME.rst7 of the tests' data."""
    for suffix in (".prmtop", ".rst7"):
        (folder / f"{name}{suffix}").write_bytes(lzma.decompress((DATA / f"{name}{suffix}.xz").read_bytes()))


SMALL = np.array([[13.5, 0.0, 0.0], [2.0, 13.0, 0.0], [-1.5, 1.0, 13.2]]) * ANGSTROM
