"""One suite for the whole of QM/MM: what it passes in every pair of parts, and what it must find wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import pytest

from delta_frames import random_model
from mm_systems import water_positions
from pidelta.config import load_config
from pidelta.delta.committee import Committee
from pidelta.qmmm.coupling import CutoffCoupling
from pidelta.qmmm.pme_coupling import PMECoupling
from pidelta.setup import Setup
from pidelta.testing.qmmm import check_qmmm
from pidelta.testing.samples import Sample, Tolerances, kinds_of_atoms
from pidelta.units import ANGSTROM, NANOMETER

MOLECULES = 27
CELLS = {
    "isolated": None,
    "cubic": 9.4 * np.eye(3) * ANGSTROM,
    "triclinic": np.array([[10.0, 0.0, 0.0], [-2.0, 9.8, 0.0], [2.5, -2.6, 9.9]]) * ANGSTROM,
}
ENGINES = {
    "dftb": "engine: dftb",
    "ase": "engine: ase, ase: {calculator: ase.calculators.emt.EMT}",
    "dftb+": "engine: dftb+",
}
EVALUATORS = {"builtin": "", "openmm": ", engine: openmm, platform: Reference, virial: false"}
EWALD_TOLERANCE = 1e-4

# coupling, QM engine, evaluator of the force field, committee of delta models, cell
CASES = [
    ("cutoff", "dftb", "builtin", False, "isolated"),
    ("cutoff", "ase", "openmm", True, "isolated"),
    ("pme", "dftb", "openmm", False, "cubic"),
    ("pme", "ase", "builtin", True, "cubic"),
    ("cutoff", "dftb", "builtin", True, "cubic"),
    ("pme", "dftb", "builtin", True, "triclinic"),
    ("cutoff", "ase", "openmm", False, "triclinic"),
]
DFTBPLUS_CASES = [
    ("cutoff", "dftb+", "builtin", True, "isolated"),
    ("pme", "dftb+", "builtin", False, "triclinic"),
]


def write_waters(path, cell):
    """Water, the first molecule across a corner of the cell: a .gro file, or .xyz without a cell."""
    positions = water_positions(MOLECULES, CELLS["cubic"] if cell is None else cell, seed=4)
    positions = positions - positions[0]
    if cell is None:
        rows = [f"{'OHH'[i % 3]} {x} {y} {z}" for i, (x, y, z) in enumerate(positions / ANGSTROM)]
        path.write_text("\n".join([str(len(rows)), "water", *rows]) + "\n")
        return
    names = ("OW", "HW1", "HW2")
    rows = [
        f"{i // 3 + 1:5d}SOL  {names[i % 3]:>5s}{i + 1:5d}{x:8.3f}{y:8.3f}{z:8.3f}"
        for i, (x, y, z) in enumerate(positions / NANOMETER)
    ]
    order = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    box = " ".join(f"{cell[entry] / NANOMETER:.6f}" for entry in order)
    path.write_text("\n".join(["water", str(len(rows)), *rows, box]) + "\n")


def set_up(folder, coupling, engine, evaluator, cell):
    """Two molecules of water in water, four-point water but for mechanical embedding."""
    structure = "water.xyz" if cell == "isolated" else "water.gro"
    write_waters(folder / structure, CELLS[cell])
    water = "q-spc-fw" if engine == "ase" else "q-tip4p-f"
    ends = f", electrostatics: pme, cutoff: 4.5 angstrom, ewald_tolerance: {EWALD_TOLERANCE}"
    path = folder / "pidelta.yaml"
    path.write_text(
        f"structure: {structure}\n"
        f"qm: {{atoms: 'resid 1 or resid 2', {ENGINES[engine]}}}\n"
        f"mm: {{water: {water}{EVALUATORS[evaluator]}{'' if cell == 'isolated' else ends}}}\n"
        f"embedding: {{scheme: {coupling}, cutoff: 4.6 angstrom, switch: 2.0 angstrom}}\n"
    )
    return Setup(load_config(path))


def committee():
    """Small models that have learnt nothing, of two molecules of water in water."""
    return Committee([random_model(seed, (1, 1, 1, 1, 8, 8)) for seed in (0, 1)])


def sample_of(setup):
    return Sample.of(setup.system, setup.topology.bonded_pairs, setup.qm_indices)


def check_case(folder, coupling, engine, evaluator, delta, cell):
    setup = set_up(folder, coupling, engine, evaluator, cell)
    whole = replace(setup.evaluator(), delta=committee() if delta else None)
    tolerances = Tolerances(
        scc=0.0 if engine == "ase" else 1e-8,
        mesh=0.0 if cell == "isolated" else EWALD_TOLERANCE,
        virial=evaluator == "builtin",
    )
    check_qmmm(whole, sample_of(setup), tolerances, count=1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_every_pair_of_parts(case, tmp_path):
    check_case(tmp_path, *case)


@pytest.mark.dftbplus
@pytest.mark.parametrize("case", DFTBPLUS_CASES, ids=lambda case: "-".join(map(str, case)))
def test_every_pair_with_dftbplus(case, tmp_path):
    check_case(tmp_path, *case)


def test_the_cases_hold_every_pair():
    """But an Ewald sum without a cell, which there is not."""
    values = [("cutoff", "pme"), ("dftb", "ase"), tuple(EVALUATORS), (False, True), tuple(CELLS)]
    for (i, first), (j, second) in combinations(enumerate(values), 2):
        wanted = set(product(first, second)) - {("pme", "isolated")}
        assert wanted == {(case[i], case[j]) for case in CASES}
