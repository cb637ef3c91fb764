"""CHARMM files against OpenMM (Reference platform) on the same files."""

from __future__ import annotations

import warnings

import numpy as np
import parmed
import pytest
from parmed.charmm import CharmmParameterSet, CharmmPsfFile

from mm_files import write_charmm
from mm_systems import DATA
from openmm_support import app, assert_same_as_openmm
from pidelta.core.structure import read_coordinates
from pidelta.errors import TopologyError
from pidelta.mm.evaluator import MMEvaluator
from pidelta.mm.readers import read_topology
from pidelta.units import ANGSTROM


@pytest.fixture(scope="module")
def charmm(tmp_path_factory):
    """Folder of protein.psf, protein.rtf, protein.prm, and positions."""
    folder = tmp_path_factory.mktemp("charmm")
    return folder, write_charmm(folder)


def charmm_system(folder, parameters):
    psf = app.CharmmPsfFile(str(folder / "protein.psf"))
    known = app.CharmmParameterSet(*(str(file) for file in parameters))
    return psf.createSystem(known, constraints=None, rigidWater=False, removeCMMotion=False)


def test_protein_from_charmm(charmm):
    """CHARMM36: Urey-Bradley, impropers, CMAP and Lennard-Jones of 1-4 pairs."""
    folder, positions = charmm
    parameters = [folder / "protein.rtf", folder / "protein.prm"]
    topology = read_topology(folder / "protein.psf", parameters)
    term = assert_same_as_openmm(topology, charmm_system(folder, parameters), positions)
    used = ("bond", "angle", "urey_bradley", "torsion", "improper", "cmap", "lj14", "coulomb14")
    assert min(abs(term.components[name][0]) for name in used) > 1e-3


def test_nbfix_from_charmm(charmm, tmp_path):
    folder, positions = charmm
    nbfix = tmp_path / "nbfix.prm"
    text = (folder / "protein.prm").read_text()
    entries = "NBFIX\nO NH1 -0.30 3.10\nHA3 CT1 -0.02 2.90 -0.015 2.80\n"
    nbfix.write_text(text.rsplit("END", 1)[0] + entries + "\nEND\n")
    plain, fixed = (
        read_topology(folder / "protein.psf", [folder / "protein.rtf", file])
        for file in (folder / "protein.prm", nbfix)
    )
    system = charmm_system(folder, [folder / "protein.rtf", nbfix])
    term = assert_same_as_openmm(fixed, system, positions)
    without = MMEvaluator(plain, cutoff=None).evaluate(positions[None], None)
    assert abs(term.components["lj"][0] - without.components["lj"][0]) > 1e-3


def test_charmm_in_amber_form_is_the_same_as_the_psf(charmm, tmp_path):
    """Not against OpenMM: it takes AMBER's Coulomb constant for these files, 5.8e-5 from CHARMM's."""
    folder, positions = charmm
    parameters = [folder / "protein.rtf", folder / "protein.prm"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        psf = CharmmPsfFile(str(folder / "protein.psf"))
        psf.load_parameters(CharmmParameterSet(*map(str, parameters)))
        parmed.amber.ChamberParm.from_structure(psf).write_parm(str(tmp_path / "chamber.prmtop"))
    expected, found = (
        MMEvaluator(topology, cutoff=None).evaluate(positions[None], None)
        for topology in (
            read_topology(folder / "protein.psf", parameters),
            read_topology(tmp_path / "chamber.prmtop"),
        )
    )
    for name, energy in expected.components.items():
        # prmtop files have CMAP in F9.5
        np.testing.assert_allclose(found.components[name], energy, rtol=1e-5 if name == "cmap" else 1e-7)
    np.testing.assert_allclose(found.gradient, expected.gradient, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("protein.psf", "PSF CHEQ", "FSP CHEQ", "expected a CHARMM .psf file"),
        ("protein.psf", "PSF CHEQ", "PSF DRUDE", "Drude particles are not evaluated"),
        ("protein.psf", "0 !NNB", "1 !NNB", "explicit exclusions (!NNB) are not evaluated"),
        ("protein.psf", " CT1 ", " CTX ", "atom 5 (CA) has the type CTX, not defined in protein.rtf"),
        ("protein.prm", "NH3    CT1    HB1", "NH3    CT1    XXX", "no parameters for the angle"),
        ("protein.prm", "nbxmod  5", "nbxmod  4", "expected nbxmod 5, found 4"),
        ("protein.prm", "e14fac 1.0", "e14fac 0.4", "expected e14fac 1, found 0.4"),
    ],
)
def test_charmm_files_that_are_refused(charmm, tmp_path, name, old, new, expected):
    for file in ("protein.psf", "protein.prm", "protein.rtf"):
        text = (charmm[0] / file).read_text()
        assert old in text or file != name
        (tmp_path / file).write_text(text.replace(old, new) if file == name else text)
    with pytest.raises(TopologyError) as caught:
        read_topology(tmp_path / "protein.psf", [tmp_path / "protein.rtf", tmp_path / "protein.prm"])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_coordinates_of_charmm(charmm, tmp_path):
    folder, positions = charmm
    psf = CharmmPsfFile(str(folder / "protein.psf"))
    psf.coordinates = positions / ANGSTROM
    psf.save(str(tmp_path / "protein.crd"), format="charmmcrd")
    found, cell = read_coordinates(
        tmp_path / "protein.crd", np.ones(len(positions), dtype=int), np.zeros(0, dtype=int)
    )
    np.testing.assert_allclose(found, positions, atol=1e-4)
    assert cell is None


def test_charmm_needs_parameters(charmm):
    with pytest.raises(TopologyError, match=r"expected CHARMM \.prm, \.rtf or \.str files, found none"):
        read_topology(charmm[0] / "protein.psf")


def test_parameters_go_with_a_psf_only(charmm):
    with pytest.raises(TopologyError, match=r"mm\.parameters: expected with a CHARMM \.psf only"):
        read_topology(DATA / "water.top", [charmm[0] / "protein.prm"])
    with pytest.raises(TopologyError, match=r"missing\.prm: no such file"):
        read_topology(charmm[0] / "protein.psf", [charmm[0] / "missing.prm"])
