"""CHARMM files against OpenMM (Reference platform) on the same files."""

from __future__ import annotations

import numpy as np
import parmed
import pytest
from parmed.charmm import CharmmPsfFile

from mm_systems import DATA, mm_evaluator
from openmm_support import app, assert_same_as_openmm
from pidelta.core.structure import read_coordinates
from pidelta.errors import TopologyError
from pidelta.mm.readers import read_topology
from pidelta.units import ANGSTROM, KCAL_PER_MOL


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
    without = mm_evaluator(plain, cutoff=None).evaluate(positions[None], None)
    assert abs(term.components["lj"][0] - without.components["lj"][0]) > 1e-3


def test_charmm_in_amber_form_is_the_same_as_the_psf(charmm, chamber):
    """Not against OpenMM: it takes AMBER's Coulomb constant for these files, 5.8e-5 from CHARMM's."""
    folder, positions = charmm
    parameters = [folder / "protein.rtf", folder / "protein.prm"]
    expected, found = (
        mm_evaluator(topology, cutoff=None).evaluate(positions[None], None)
        for topology in (
            read_topology(folder / "protein.psf", parameters),
            read_topology(chamber),
        )
    )
    for name, energy in expected.components.items():
        # prmtop files have CMAP in F9.5
        np.testing.assert_allclose(found.components[name], energy, rtol=1e-5 if name == "cmap" else 1e-7)
    np.testing.assert_allclose(found.gradient, expected.gradient, atol=1e-6)


IMPROPER = "C      CT1    NH1    O         120.0000  0     0.00"


@pytest.mark.parametrize(
    "lines",
    [
        "C X X NH1 77.0 0 10.0\nC X X O 120.0 0 5.0\nX CT1 NH1 X 33.0 0 20.0",
        "NH1 CT1 C O 300.0 0 0.0\nO X X C 120.0 0 5.0",
        "X CT1 NH1 O 120.0 0 5.0\nC X NH1 CT1 300.0 0 0.0\nO CT1 X C 80.0 0 0.0",
    ],
    ids=["two wildcards", "another order", "one wildcard"],
)
def test_impropers_are_matched_by_position(charmm, tmp_path, lines):
    folder, positions = charmm
    text = (folder / "protein.prm").read_text()
    assert text.count(IMPROPER) == 1
    (tmp_path / "protein.prm").write_text(text.replace(IMPROPER, lines))
    parameters = [folder / "protein.rtf", tmp_path / "protein.prm"]
    topology = read_topology(folder / "protein.psf", parameters)
    term = assert_same_as_openmm(topology, charmm_system(folder, parameters), positions)
    assert abs(term.components["improper"][0]) > 1e-3


def test_improper_with_a_periodicity(charmm, tmp_path):
    """Not against OpenMM, which takes it for a harmonic one."""
    folder, _ = charmm
    text = (folder / "protein.prm").read_text()
    (tmp_path / "protein.prm").write_text(text.replace(IMPROPER, "C X X O 1.5 2 180.0"))
    before, after = (
        read_topology(folder / "protein.psf", [folder / "protein.rtf", base / "protein.prm"])
        for base in (folder, tmp_path)
    )
    n_moved = len(before.impropers.k) - len(after.impropers.k)
    assert n_moved == 30
    assert len(after.torsions.k) == len(before.torsions.k) + n_moved
    np.testing.assert_allclose(after.torsions.k[-n_moved:], 1.5 * KCAL_PER_MOL)
    np.testing.assert_allclose(after.torsions.phase[-n_moved:], np.pi)
    assert set(after.torsions.periodicity[-n_moved:].tolist()) == {2}


def test_repeated_impropers(charmm, tmp_path):
    folder, _ = charmm
    text = (folder / "protein.prm").read_text()
    prm = tmp_path / "protein.prm"
    for again, refused in (
        ("C CT1 NH1 O 120 0 0", False),
        ("O NH1 CT1 C 120.0 0 1.0", True),
        ("C CT1 NH1 O 1.0 2 180.0", True),
    ):
        prm.write_text(text.replace(IMPROPER, f"{IMPROPER}\n{again}"))
        if refused:
            with pytest.raises(TopologyError, match="expected one line of parameters, found 2 different"):
                read_topology(folder / "protein.psf", [folder / "protein.rtf", prm])
        else:
            read_topology(folder / "protein.psf", [folder / "protein.rtf", prm])


@pytest.mark.parametrize(
    ("flag", "entry", "value"),
    [
        ("CHARMM_IMPROPERS", 0, 0),
        ("CHARMM_IMPROPERS", 3, 99999),
        ("CHARMM_UREY_BRADLEY", 1, 99999),
        ("CHARMM_CMAP_INDEX", 4, 99999),
        ("CHARMM_CMAP_INDEX", 0, 0),
    ],
)
def test_amber_form_of_charmm_with_atoms_out_of_range(chamber, tmp_path, flag, entry, value):
    content = parmed.amber.AmberFormat(str(chamber))
    content.parm_data[flag][entry] = value
    content.write_parm(str(tmp_path / "chamber.prmtop"))
    n_atoms = content.parm_data["POINTERS"][0]
    message = rf"chamber\.prmtop: {flag}: expected numbers from 1 to {n_atoms}, found {value}"
    with pytest.raises(TopologyError, match=message):
        read_topology(tmp_path / "chamber.prmtop")


HBOND = "\nHBOND AEXP 4 REXP 6 HAEX 4 NOACCEPTORS ALL -\n CUTHB 0.5 CTOFHB 5.0 ! far\n\nN* O* {} 2.0\nEND"


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("protein.psf", "PSF CHEQ", "FSP CHEQ", "expected a CHARMM .psf file"),
        ("protein.psf", "PSF CHEQ", "PSF DRUDE", "Drude particles are not evaluated"),
        ("protein.psf", "0 !NNB", "1 !NNB", "explicit exclusions (!NNB) are not evaluated"),
        ("protein.psf", " CT1 ", " CTX ", "atom 5 (CA) has the type CTX, not defined in protein.rtf"),
        ("protein.prm", "NH3    CT1    HB1", "NH3    CT1    XXX", "no parameters for the angle"),
        ("protein.prm", "NC2    HC     HC     C ", "NC2 HC HC XXX", "no parameters for the improper"),
        ("protein.prm", "120.0000  0     0.00", "120.0000 x 0.0", "protein.psf: not readable (CharmmError"),
        ("protein.prm", "NH3          0.000000", "NHX 0.0", "NH3, without non-bonded parameters in"),
        ("protein.prm", "e14fac 1.0", "e14fac 1.0.0", "expected e14fac 1, found 1.0.0"),
        ("protein.prm", "nbxmod  5", "nbxmod  4", "expected nbxmod 5, found 4"),
        ("protein.prm", "e14fac 1.0", "e14fac 0.4", "expected e14fac 1, found 0.4"),
        (
            "protein.prm",
            IMPROPER,
            "C X X O 1.5 2.5 180.0",
            "expected an integer multiplicity, found 2.5",
        ),
        ("protein.prm", "0.2000  3     0.00", "0.2 2.5 0.0", "dihedrals: expected an integer multiplicity"),
        ("protein.prm", "eps 1.0", "EPS 4.0", "line 1191: expected eps 1, found 4.0"),
        ("protein.prm", "cdiel", "RDIE", "line 1191: expected a constant dielectric (cdie), found rdie"),
        ("protein.prm", "\nEND", HBOND.format(-4.0), "expected no hydrogen-bond terms (HBOND), found 'n* o*"),
        ("protein.prm", "\nEND", "\nNBFIX\n\nO NH* -3.3 3.1\nEND", "NBFIX: expected two atom types without"),
        ("protein.prm", "\nEND", "\nNBFIX\nN+ O -3.3 3.1\nEND", "without wildcards, found 'n+ o -3.3 3.1'"),
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


def test_options_that_change_nothing(charmm, tmp_path):
    """As CHARMM22 has them: hydrogen bonds without a depth; words in titles and comments."""
    text = (charmm[0] / "protein.prm").read_text().replace("eps 1.0", "eps 1. ! eps 4.0")
    text = "* eps 4.0 rdie\n" + text.replace("\nEND", HBOND.format(-0.0))
    (tmp_path / "protein.prm").write_text(text.replace("cdiel", "CDIE"))
    expected, found = (
        read_topology(charmm[0] / "protein.psf", [charmm[0] / "protein.rtf", folder / "protein.prm"])
        for folder in (charmm[0], tmp_path)
    )
    np.testing.assert_array_equal(found.lj_c6, expected.lj_c6)


def test_coordinates_of_charmm(charmm, tmp_path):
    folder, positions = charmm
    psf = CharmmPsfFile(str(folder / "protein.psf"))
    psf.coordinates = positions / ANGSTROM
    psf.save(str(tmp_path / "protein.crd"), format="charmmcrd")
    topology = read_topology(folder / "protein.psf", [folder / "protein.prm"])
    found = read_coordinates(tmp_path / "protein.crd", topology)
    np.testing.assert_allclose(found.positions, positions, atol=1e-4)
    assert found.cell is None
    assert found.name_differences == ()
    assert found.labels.names == tuple(atom.name for atom in psf.atoms)
    assert found.labels.residue_numbers.tolist() == [atom.residue.number for atom in psf.atoms]


def test_charmm_needs_parameters(charmm):
    with pytest.raises(TopologyError, match=r"expected parameters in CHARMM \.prm, .* found none"):
        read_topology(charmm[0] / "protein.psf")


def test_parameters_go_with_a_psf_only(charmm):
    with pytest.raises(TopologyError, match=r"expected parameters with a CHARMM \.psf only"):
        read_topology(DATA / "water.top", [charmm[0] / "protein.prm"])
    with pytest.raises(TopologyError, match=r"missing\.prm: no such file"):
        read_topology(charmm[0] / "protein.psf", [charmm[0] / "missing.prm"])
