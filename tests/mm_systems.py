"""Small classical systems that the tests of `pidelta.mm` share."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import parmed
import pytest

from pidelta.errors import GeometryError
from pidelta.mm.evaluator import MMEvaluator
from pidelta.mm.openmm import OpenMMEvaluator
from pidelta.mm.settings import ForceFieldSettings
from pidelta.state import FloatArray
from pidelta.testing.evaluators import OfAtoms
from pidelta.testing.samples import Tolerances
from pidelta.units import ANGSTROM, NANOMETER

DATA = Path(__file__).parent / "data" / "mm"
FORCE_FIELD = Tolerances(scc=0.0, rounding=1e-9)

WATER = np.array([[0.0, 0.0, 0.0], [0.82, 0.58, 0.0], [-0.80, 0.60, 0.05]]) * ANGSTROM
ACETAMIDE = (
    np.array(
        [
            [-1.52, 0.02, 0.01],
            [-1.88, 1.02, 0.15],
            [-1.85, -0.55, 0.86],
            [-1.90, -0.48, -0.90],
            [0.00, 0.00, 0.00],
            [0.62, 1.06, -0.05],
            [0.67, -1.17, 0.10],
            [1.68, -1.20, -0.08],
            [0.18, -2.05, 0.05],
        ]
    )
    * ANGSTROM
)
MIXED = (
    np.array(
        [
            [0.00, 0.00, 0.00],
            [1.50, 0.20, -0.10],
            [2.10, 1.60, 0.30],
            [3.50, 1.50, 0.10],
            [3.90, 2.30, 0.50],
            [2.10, -0.80, 0.95],
        ]
    )
    * ANGSTROM
)
CUBIC = np.eye(3) * 12.6 * ANGSTROM
# as OpenMM wants it: lower triangular and reduced
TRICLINIC = np.array([[14.0, 0.0, 0.0], [-4.0, 13.5, 0.0], [3.5, -5.0, 13.0]]) * ANGSTROM


def water_positions(n_molecules: int, cell: FloatArray, seed: int) -> FloatArray:
    """Molecules, whole and randomly turned, on a jittered grid of the cell: (3 n, 3) in bohr."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(n_molecules ** (1 / 3)))
    grid = (np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) + 0.5) / side
    centres = grid[:n_molecules] @ cell + rng.normal(scale=0.1, size=(n_molecules, 3))
    rotations = np.linalg.qr(rng.normal(size=(n_molecules, 3, 3)))[0]
    molecules = WATER + rng.normal(scale=0.03, size=(n_molecules, 3, 3))
    return (centres[:, None] + molecules @ rotations).reshape(-1, 3)


def acetamide_water(seed: int = 1) -> FloatArray:
    """Acetamide and 60 waters in TRICLINIC, (189, 3) in bohr; the grid point nearest the solute is free."""
    water = water_positions(64, TRICLINIC, seed).reshape(64, 3, 3)
    solute = ACETAMIDE + np.array([0.5, 0.5, 0.5]) @ TRICLINIC
    far = np.sort(
        np.argsort([np.linalg.norm(solute[:, None] - molecule, axis=-1).min() for molecule in water])[4:]
    )
    return np.concatenate([solute, water[far].reshape(-1, 3)])


def write_gro(path: Path, atoms, positions: FloatArray, cell: FloatArray | None = None) -> None:
    """Write atoms (residue number, residue name, name) at positions (n, 3) in a cell of rows, in bohr."""
    lines = [path.stem, str(len(atoms))]
    for place, ((number, residue, name), position) in enumerate(zip(atoms, positions, strict=True), start=1):
        columns = "".join(f"{x:12.7f}" for x in position / NANOMETER)
        lines.append(f"{number:5d}{residue:<5s}{name:>5s}{place:5d}{columns}")
    order = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    box = [0.0] * 3 if cell is None else [cell[entry] / NANOMETER for entry in order]
    lines.append(" ".join(f"{x:.7f}" for x in box))
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def water_atoms(first: int, count: int) -> list[tuple[int, str, str]]:
    """The atoms of molecules of water with residue numbers from `first` on, for `write_gro`."""
    return [(first + i, "SOL", name) for i in range(count) for name in ("OW", "HW1", "HW2")]


def scrambled(positions: FloatArray, cell: FloatArray, seed: int) -> FloatArray:
    """Add random lattice vectors to every atom."""
    return positions + np.random.default_rng(seed).integers(-2, 3, positions.shape) @ cell


def check_refused_geometries(evaluator, positions: FloatArray, cells: FloatArray) -> None:
    """Two boxes of 64 waters, CUBIC, cutoff 11.5 bohr: what no evaluator of a force field may accept."""
    with pytest.raises(GeometryError, match=r"structure 1: the cutoff of 6.09 angstrom exceeds half"):
        evaluator.evaluate(positions, np.stack([CUBIC, 0.9 * CUBIC]))
    broken = positions.copy()
    broken[1, 4, 2] = np.nan
    with pytest.raises(GeometryError, match=r"structure 1: .* SOL2:HW1 \(atom 4\)"):
        evaluator.evaluate(broken, cells)
    same = positions.copy()
    same[0, 6] = same[0, 9]
    with pytest.raises(GeometryError, match=r"structure 0: .* SOL3:OW \(atom 6\) coincides"):
        evaluator.evaluate(same, cells)


def on_atoms(evaluator):
    """An evaluator of particles as one of the atoms of its topology."""
    return OfAtoms(evaluator, evaluator.topology.particles)


def mm_evaluator(topology, *, cutoff, cell=None, **settings) -> MMEvaluator:
    return MMEvaluator(topology, ForceFieldSettings(cutoff, **settings), cell)


def openmm_evaluator(
    topology, *, cutoff, cell=None, platform="auto", precision="double", virial=True, **settings
) -> OpenMMEvaluator:
    return OpenMMEvaluator(
        topology,
        ForceFieldSettings(cutoff, **settings),
        cell,
        platform=platform,
        precision=precision,
        virial=virial,
    )


def write_four_point_prmtop(path: Path, gromacs: str) -> Path:
    """Write four-point water of a GROMACS topology as tleap has it, with a bond between the hydrogens."""
    source = path.with_suffix(".top")
    source.write_text(gromacs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = parmed.load_file(str(source), defines={"FLEXIBLE": "1"})
        hydrogens = parmed.BondType(553.0, 1.5139, list=structure.bond_types)
        structure.bond_types.append(hydrogens)
        for water in structure.residues:
            water.name = "WAT"
            for atom, name in zip(water.atoms, ("O", "H1", "H2", "EPW"), strict=True):
                atom.name = name
            structure.bonds.append(parmed.Bond(water.atoms[1], water.atoms[2], hydrogens))
        parmed.amber.AmberParm.from_structure(structure).write_parm(str(path))
    return path
