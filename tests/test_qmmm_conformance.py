"""One suite for the whole of QM/MM: what it passes in every pair of parts, and what it must find wrong."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from itertools import combinations, product

import numpy as np
import pytest

from delta_frames import random_model
from mm_systems import water_atoms, water_positions, write_gro
from pidelta.config import load_config
from pidelta.core.cell import minimum_image
from pidelta.delta.committee import Committee
from pidelta.qmmm.coupling import CutoffCoupling
from pidelta.setup import Setup
from pidelta.state import Term
from pidelta.testing.qmmm import check_qmmm
from pidelta.testing.samples import Tolerances
from pidelta.units import ANGSTROM
from qmmm_systems import LossyParticles, sample_of

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
EVALUATORS = {"builtin": "", "openmm": ", engine: openmm, platform: Reference, virial: {virial}"}
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
    write_gro(path, water_atoms(1, MOLECULES), positions, cell)


def set_up(folder, coupling, engine, evaluator, cell, *, reach=4.5, virial=False):
    """Two molecules of water in water, four-point water but for mechanical embedding; cutoffs in angstrom."""
    structure = "water.xyz" if cell == "isolated" else "water.gro"
    write_waters(folder / structure, CELLS[cell])
    water = "q-spc-fw" if engine == "ase" else "q-tip4p-f"
    ends = (
        ""
        if cell == "isolated"
        else f", electrostatics: pme, cutoff: {reach} angstrom, ewald_tolerance: {EWALD_TOLERANCE}"
    )
    path = folder / "pidelta.yaml"
    path.write_text(
        f"structure: {structure}\n"
        f"qm: {{atoms: 'resid 1 or resid 2', {ENGINES[engine]}}}\n"
        f"mm: {{water: {water}{EVALUATORS[evaluator].format(virial=virial)}{ends}}}\n"
        f"embedding: {{scheme: {coupling}, cutoff: {reach + 0.1} angstrom, switch: 2.0 angstrom}}\n"
    )
    return Setup(load_config(path))


def committee():
    """Small models that have learnt nothing, of two molecules of water in water."""
    return Committee([random_model(seed, (1, 1, 1, 1, 8, 8)) for seed in (0, 1)])


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
@pytest.mark.skipif(importlib.util.find_spec("dftbplus") is None, reason="needs the module dftbplus")
@pytest.mark.parametrize("case", DFTBPLUS_CASES, ids=lambda case: "-".join(map(str, case)))
def test_every_pair_with_dftbplus(case, tmp_path):
    check_case(tmp_path, *case)


def test_the_cases_hold_every_pair():
    """But an Ewald sum without a cell, which there is not."""
    values = [("cutoff", "pme"), ("dftb", "ase"), tuple(EVALUATORS), (False, True), tuple(CELLS)]
    for (i, first), (j, second) in combinations(enumerate(values), 2):
        wanted = set(product(first, second)) - {("pme", "isolated")}
        assert wanted == {(case[i], case[j]) for case in CASES}


class Altered:
    """A part of an evaluator with one of its functions replaced; the rest is as it was."""

    def __init__(self, part, **functions):
        self._part, self._functions = part, functions

    def __getattr__(self, name):
        if name in self._functions:
            return partial(self._functions[name], self._part)
        return getattr(self._part, name)


def without_sites(evaluator):
    return replace(evaluator, particles=LossyParticles(len(evaluator.numbers), evaluator.particles.sites))


def constant_weights(evaluator):
    def pull_back(part, region, gradient):
        return part.pull_back(region, replace(gradient, site_charges=0.0 * gradient.site_charges))

    surroundings = Altered(evaluator.surroundings, pull_back=pull_back)
    return replace(evaluator, surroundings=surroundings, coupling=CutoffCoupling(surroundings))


def constant_images(evaluator):
    """Of the QM region in the Ewald potential: the gradient of the kernel is left out."""

    def pull_back(part, field, charges):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pidelta.core.direct_sum.add_gradient_of_images", lambda *arguments: None)
            return part.pull_back(field, charges)

    return replace(evaluator, coupling=Altered(evaluator.coupling, pull_back=pull_back))


def without_virial_of_the_coupling(evaluator):
    def pull_back(part, field, charges):
        gradient, virial = part.pull_back(field, charges)
        return gradient, 0.0 * virial

    return replace(evaluator, coupling=Altered(evaluator.coupling, pull_back=pull_back))


def in_single_precision(evaluator):
    def evaluate(part, region):
        rounded = region.positions.astype(np.float32).astype(np.float64)
        return part.evaluate(replace(region, positions=rounded))

    return replace(evaluator, delta=Altered(evaluator.delta, evaluate=evaluate))


def with_memory(evaluator):
    """Charges of the call before stand for those of this one: what a warm start must not do."""
    last = []

    def evaluate(part, positions, potential, kernel):
        result = part.evaluate(positions, potential, kernel)
        charges = last.pop() if last and last[0].shape == result.charges.shape else result.charges
        last[:] = [result.charges]
        return replace(result, charges=charges)

    return replace(evaluator, engine=Altered(evaluator.engine, evaluate=evaluate))


def mixed_up_batch(evaluator):
    """All structures of a batch have the potential of the first."""

    def evaluate(part, positions, potential, kernel):
        return part.evaluate(positions, np.repeat(potential[:1], len(potential), axis=0), kernel)

    return replace(evaluator, engine=Altered(evaluator.engine, evaluate=evaluate))


def spring(first, second, axes=(1.0, 1.0, 1.0), nearest=True):
    """A further term of the force field between two atoms, or an atom and the origin if `first` is None.

    It is harmonic in some components of their distance, or of that of nearest images.
    """

    def mutate(evaluator):
        def evaluate(part, particles, cells):
            term = part.evaluate(particles, cells)
            d = particles[:, second] - (0.0 if first is None else particles[:, first])
            if nearest and cells is not None:
                d = np.array([minimum_image(v, cell) for v, cell in zip(d, cells, strict=True)])
            slope = 1e-4 * np.array(axes) * d
            gradient = term.gradient.copy()
            gradient[:, second] += slope
            if first is not None:
                gradient[:, first] -= slope
            virial = term.virial - np.einsum("ba,bc->bac", slope, d)
            return Term(term.energy + 0.5 * (slope * d).sum(axis=1), gradient, virial)

        return replace(evaluator, classical={"mm": Altered(evaluator.classical["mm"], evaluate=evaluate)})

    return mutate


NEAR, HYDROGEN, FAR = 6, 7, 60  # atoms of molecules that are not QM
MUTANTS = {
    "pull-back of sites": (without_sites, "isolated", r"gradient of atom \d+"),
    "gradient of weights": (constant_weights, "isolated", r"gradient of atom \d+"),
    "gradient of images": (constant_images, "cubic", r"gradient of atom \d+"),
    "part of the virial": (without_virial_of_the_coupling, "isolated", "virial: expected"),
    "double precision": (in_single_precision, "isolated", r"gradient of atom \d+"),
    "no memory": (with_memory, "isolated", "after another call"),
    "slots of a batch": (mixed_up_batch, "isolated", "in a batch"),
    "net force": (spring(None, NEAR, nearest=False), "isolated", "net force"),
    "net torque": (spring(NEAR, FAR, (1.0, 0.0, 0.0)), "isolated", "net torque"),
    "rotation": (spring(NEAR, FAR, (1.0, 0.0, 0.0)), "cubic", "by a rotation"),
    "lattice vectors": (spring(NEAR, FAR, nearest=False), "cubic", "when molecules move by lattice vectors"),
    "lattice vectors of atoms": (
        spring(NEAR, HYDROGEN, nearest=False),
        "cubic",
        "when atoms move by lattice",
    ),
    "like molecules": (spring(0, 54), "cubic", "when like molecules change places"),
}


@pytest.fixture(scope="module")
def faultless(tmp_path_factory):
    """Evaluators and samples of DFTB in four-point water, by cell: PME where there is one."""
    found = {}
    for coupling, cell in (("cutoff", "isolated"), ("pme", "cubic")):
        setup = set_up(tmp_path_factory.mktemp(cell), coupling, "dftb", "builtin", cell)
        found[cell] = replace(setup.evaluator(), delta=committee()), sample_of(setup)
    return found


@pytest.mark.parametrize("fault", MUTANTS)
def test_faults_are_found(fault, faultless):
    mutate, cell, message = MUTANTS[fault]
    evaluator, sample = faultless[cell]
    tolerances = Tolerances(mesh=0.0 if cell == "isolated" else EWALD_TOLERANCE)
    with pytest.raises(AssertionError, match=message):
        check_qmmm(mutate(evaluator), sample, tolerances, count=1)


def test_single_precision(tmp_path):
    """OpenMM's CPU platform: larger steps for differences, and what they can tell then."""
    text = EVALUATORS["openmm"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EVALUATORS, "openmm", text.replace("Reference", "CPU"))
        setup = set_up(tmp_path, "pme", "dftb", "openmm", "cubic")
    tolerances = Tolerances(mesh=EWALD_TOLERANCE, rounding=1e-5, step=0.02, virial=False)
    check_qmmm(setup.evaluator(), sample_of(setup), tolerances, count=1)
