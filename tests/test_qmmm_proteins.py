"""QM regions cut out of proteins: what is refused, and one side chain in AMBER, CHARMM and GROMACS form."""

import re
import warnings

import numpy as np
import parmed
import pytest

from link_systems import unpack
from pidelta.config import load_config
from pidelta.setup import Setup
from pidelta.testing.derivatives import central_differences
from pidelta.units import ANGSTROM


@pytest.fixture(scope="module")
def bridged(tmp_path_factory):
    """ACE-CYX-PRO-PHE-ASP-CYX-NME, with a bridge of S-S, in water; `tleap -f tests/records/bridged.leap`."""
    folder = tmp_path_factory.mktemp("bridged")
    unpack(folder, "bridged")
    return folder


SIDE_CHAIN = "{}&!@N,H,CA,HA,C,O"
NEIGHBOURS = "its only neighbour, both in the QM region or both outside"


@pytest.mark.parametrize(
    ("atoms", "more", "message"),
    [
        (":3-5", "", r"qm.atoms: .* PRO3:N \(atom \d+\) - CYX2:C \(atom \d+\), a bond N-C;"),
        (":5", "", r"qm.atoms: .* ASP5:N \(atom \d+\) - PHE4:C \(atom \d+\), a bond N-C;"),
        (":4@CB,HB2,HB3,C,O", "", r"qm.atoms: .* PHE4:CB .* - PHE4:CA .*, one of several cut bonds of"),
        (":3@CG,HG2,HG3", "", r"qm.atoms: .* PRO3:CG .* - PRO3:CD .*, in a ring of 5 atoms;"),
        (":4@CZ,HZ", "", r"qm.atoms: .* PHE4:CZ .* - PHE4:CE1 .*, a double or conjugated bond"),
        (":4@CZ,HZ", "links: {allow: [multiple]}", r"qm.atoms: .* PHE4:CE1 .*, in a ring of 6 atoms;"),
        (":2@CB,HB2,HB3,SG", "", r"qm.atoms: .* CYX2:SG .* - CYX6:SG .*, a bond S-S;"),
        ("(:1-7)&!(:4@O)", "", rf"qm.atoms: expected PHE4:O \(atom \d+\) and PHE4:C .*, {NEIGHBOURS}"),
        ("resid 4 and not backbone", "", rf"qm.atoms: expected PHE4:H .* and PHE4:N .*, {NEIGHBOURS}"),
        (":8@O", "", rf"qm.atoms: expected WAT8:H1 .* and WAT8:O .*, {NEIGHBOURS}"),
        (":8@H1", "", rf"qm.atoms: expected WAT8:H1 .* and WAT8:O .*, {NEIGHBOURS}"),
        (SIDE_CHAIN.format(":5"), "", r"qm.charge: expected -1, as the force-field charges .*, found \+0"),
        (SIDE_CHAIN.format(":4"), "charge: 2", r"qm.charge: expected \+0, as the force-field .*, found \+2"),
        (
            SIDE_CHAIN.format(":4"),
            "charge_remainder: ':4@CB'",
            r"qm.charge_remainder: expected atoms outside the QM region, found atom \d+",
        ),
    ],
)
def test_regions_that_cut_what_they_must_not(bridged, fail, atoms, more, message):
    assert_refused(bridged, fail, f"qm: {{atoms: {atoms!r}, {more}}}\n", message)


@pytest.mark.parametrize(
    ("qm", "more", "message"),
    [
        (":4", "embedding: {cutoff: 1.4 nm}", r"embedding.cutoff: expected at most half the cell, 12.40 ang"),
        (":4", "mm: {topology: bridged.prmtop, cutoff: 1.3 nm}", r"mm.cutoff: .* 12.40 angstrom"),
        (":8,108", "", r"qm.atoms: the QM region spans .*; its residues: WAT 8, WAT 108$"),
    ],
)
def test_regions_and_cutoffs_that_do_not_fit_the_cell(bridged, fail, qm, more, message):
    atoms = SIDE_CHAIN.format(qm) if qm == ":4" else qm
    assert_refused(bridged, fail, f"qm: {{atoms: {atoms!r}}}\n{more}\n", message)


def test_check_of_a_disulfide_bridge(bridged, run, capsys):
    """Two side chains joined by S-S, each cut from its backbone."""
    config = bridged / "bridge.yaml"
    config.write_text(
        "structure: bridged.rst7\n"
        "qm: {atoms: '(:2,6)&!@N,H,CA,HA,C,O'}\n"
        "mm: {topology: bridged.prmtop}\n"
        "embedding: {cutoff: 1.0 nm}\n",
        encoding="utf-8",
    )
    assert run("check", config, "--atoms", 1) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for number in (2, 6):
        assert re.search(rf"CYX{number}:CB \(atom \d+\) - CYX{number}:CA \(atom \d+\): hydrogen", shown)
    for kind in ("link partner", "host", "next to the host"):
        assert f"{kind} 1" in shown


def assert_refused(folder, fail, text, message):
    """One line, exit code 2, with the file and the key."""
    if "mm:" not in text:
        text += "mm: {topology: bridged.prmtop}\n"
    if "embedding:" not in text:
        text += "embedding: {cutoff: 1.0 nm}\n"
    config = folder / "bridged.yaml"
    config.write_text(f"structure: bridged.rst7\n{text}", encoding="utf-8")
    line = fail("check", config)
    assert line.startswith(f"pidelta: {config}: ")
    assert re.search(message, line), line


def side_chain(folder, mm, structure="villin.rst7"):
    """Villin with the side chain of Phe 6 as QM; the configuration a user would write."""
    config = folder / "pidelta.yaml"
    config.write_text(
        f"structure: {structure}\n"
        "qm:\n"
        "  atoms: resname PHE and resid 6 and not name N H CA HA C O\n"
        f"mm: {mm}\n"
        "embedding: {cutoff: 1.0 nm}\n",
        encoding="utf-8",
    )
    return Setup(load_config(config))


def evaluation_of(setup):
    return setup.evaluator().evaluate(setup.system.positions[None], setup.system.cell[None])


def assert_is_the_gradient(setup):
    """At the ends of the bond that is cut, next to them, and at the nearest solvent."""
    evaluator, system, links = setup.evaluator(), setup.system, setup.qm_region.links
    (partner,), (host,) = links.partners, links.hosts
    assert [system.names[atom] for atom in (partner, host)] == ["CB", "CA"]
    near = [atom for bond in setup.topology.bonded_pairs if host in bond for atom in bond if atom != host]
    atoms = np.array([host, *near])
    assert partner in atoms
    assert sorted(system.names[atom] for atom in near) == ["C", "CB", "HA", "N"]

    def energy(positions):
        return evaluator.evaluate(positions, np.repeat(system.cell[None], len(positions), axis=0)).energy

    expected = central_differences(energy, system.positions, atoms)
    found = evaluator.evaluate(system.positions[None], system.cell[None]).gradient[0, atoms]
    np.testing.assert_allclose(found, expected, atol=2e-7)


def test_side_chain_in_water_from_amber_and_gromacs(tmp_path):
    """Villin HP35 in 1,158 waters, ff14SB; the GROMACS file is ParmEd's translation."""
    unpack(tmp_path, "villin")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parmed.load_file(str(tmp_path / "villin.prmtop")).save(str(tmp_path / "villin.top"))
    amber = side_chain(tmp_path, "{topology: villin.prmtop}")
    assert_is_the_gradient(amber)
    expected, found = evaluation_of(amber), evaluation_of(side_chain(tmp_path, "{topology: villin.top}"))
    for term in ("low", "mm"):
        assert found.terms[term].energy[0] == pytest.approx(expected.terms[term].energy[0], abs=1e-6)
    np.testing.assert_allclose(found.gradient, expected.gradient, atol=1e-7)


def test_side_chain_from_charmm_and_its_amber_form(charmm, chamber, tmp_path):
    """CHARMM36 with CMAP and Urey-Bradley terms; Coulomb constants of the two forms differ by 5.8e-5."""
    folder, positions = charmm
    box = 60.0 * np.ones(3)
    restart = parmed.amber.Rst7(natom=len(positions))
    restart.coordinates, restart.box = positions / ANGSTROM, np.append(box, 3 * [90.0])
    restart.write(str(tmp_path / "villin.rst7"))
    psf = f"{{topology: {folder}/protein.psf, parameters: [{folder}/protein.rtf, {folder}/protein.prm]}}"
    given = side_chain(tmp_path, psf)
    assert_is_the_gradient(given)
    expected, found = evaluation_of(given), evaluation_of(side_chain(tmp_path, f"{{topology: {chamber}}}"))
    for term in ("low", "mm"):
        assert found.terms[term].energy[0] == pytest.approx(expected.terms[term].energy[0], abs=1e-4)
    np.testing.assert_allclose(found.gradient, expected.gradient, atol=1e-5)
