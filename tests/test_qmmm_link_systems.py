"""Link atoms on molecules and peptides: forces and terms of AMBER's sander, and whole set-ups.

The records in data/links are made by records/sander_links.py: topologies with the charges that sander takes,
one frame each, and sander's forces with link hydrogens at 1.09 angstrom and the tables of pid 1.1.
"""

import json
import lzma
import shutil

import numpy as np
import pytest

from conftest import ROOT
from ipi_support import unique_address
from link_systems import DATA, unpack
from mm_files import write_solvated
from pidelta.analysis.ipi_output import read_properties
from pidelta.config import load_config
from pidelta.setup import Setup
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL

SYSTEMS = (
    "ethane",
    "butane",
    "alanine",
    "peptide",
    "butane-water",
    "alanine-water",
    "peptide-water",
    "lysine-water",
)
CONFIG = """structure: {name}.rst7
qm:
  atoms: "{region}"
  charge: {charge}
  dftb: {{order: 3, hubbard_derivatives: 3ob, damping_exponent: 4.0}}
  links: {{position: fixed, length: 1.09 angstrom, host_charge: zero, allow: [polar]}}
"""
PERIODIC = """mm: {{topology: {name}.prmtop, cutoff: 8.0 angstrom, ewald_tolerance: 1e-7, lj_modifier: none}}
embedding: {{scheme: pme, cutoff: 9.0 angstrom, switch: 1.0 angstrom}}
"""
VACUUM = "mm: {{topology: {name}.prmtop}}\n"
# sander's names of terms, and pidelta's
TERMS = {
    "BOND": ("bond",),
    "ANGLE": ("angle",),
    "DIHED": ("torsion", "improper"),
    "1-4 NB": ("lj14",),
    "1-4 EEL": ("coulomb14",),
    "VDWAALS": ("lj", "lj_tail"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_forces_and_terms_of_sander(name, tmp_path):
    """sander prints three decimals; QM forces differ by how tables are interpolated."""
    unpack(tmp_path, name)
    record = json.loads(lzma.decompress((DATA / f"{name}.json.xz").read_bytes()))
    text = CONFIG + (PERIODIC if "water" in name else VACUUM)
    text = text.format(name=name, region=record["region"], charge=record["charge"])
    (tmp_path / "pidelta.yaml").write_text(text, encoding="utf-8")
    setup = Setup(load_config(tmp_path / "pidelta.yaml"))
    system = setup.system
    cells = None if system.cell is None else system.cell[None]
    found = setup.evaluator().evaluate(system.positions[None], cells)
    forces = -found.gradient[0] * HARTREE_IN_KCAL_PER_MOL / BOHR_IN_ANGSTROM
    difference = np.abs(forces - record["forces"])
    qm = np.isin(np.arange(len(system)), setup.qm_indices)
    near = qm | np.isin(np.arange(len(system)), setup.qm_region.links.hosts)
    assert difference[near].max() < 0.05
    assert difference[~near].max() < 0.01
    assert np.sqrt(np.mean(difference[~near] ** 2)) < 1.0e-3
    components = found.terms["mm"].components
    for theirs, ours in TERMS.items():
        energy = sum(float(components[part][0]) for part in ours) * HARTREE_IN_KCAL_PER_MOL
        unit = 3.5e-5 if theirs == "1-4 EEL" else 0.0  # AMBER's Coulomb constant is smaller by that
        assert energy == pytest.approx(record["terms"][theirs] * (1.0 + unit), abs=4.0e-4)


@pytest.mark.slow  # test_qmmm_proteins.py has side chains in these forms, too
@pytest.mark.parametrize("form", ["amber", "charmm", "gromacs"])
def test_side_chain_of_a_protein_in_water(form, tmp_path, run, capsys):
    """Lysine 24 of villin: what `check` finds, differences among it, and a border of one carbon bond."""
    mm = write_solvated(tmp_path, form, residue=23)
    atoms = "resid 24 and name CB HB* CG HG* CD HD* CE HE* NZ HZ*"
    qm = f"qm: {{atoms: {atoms!r}, charge: 1}}\nembedding: {{scheme: pme}}\n"
    (tmp_path / "pidelta.yaml").write_text(mm + qm, encoding="utf-8")
    assert run("check", tmp_path / "pidelta.yaml", "--atoms", 1) == 0
    output = capsys.readouterr().out
    assert "all checks passed" in output
    assert "CB (atom" in output


@pytest.mark.parametrize(
    ("name", "kelvin", "electronvolt"),
    [("nvt", 30.0, 2.0e-4), pytest.param("pimd", 60.0, 4.0e-3, marks=pytest.mark.slow)],
)
def test_lysine_in_water_runs(name, kelvin, electronvolt, tmp_path, run):
    """The shipped inputs start well: neither the temperature nor the conserved quantity jumps.

    Beads that start at one place spread in the first steps, which costs them temperature.
    """
    shutil.copytree(ROOT / "inputs" / "lysine-water", tmp_path, dirs_exist_ok=True)
    path = tmp_path / f"{name}.xml"
    text = path.read_text(encoding="utf-8").replace("<total_steps>1000", "<total_steps>4")
    path.write_text(text.replace(f"pidelta-lysine-{name}", unique_address()), encoding="utf-8")
    assert run("run", path) == 0
    found = read_properties(tmp_path / f"{name}.out").columns
    assert len(found["step"]) == 5
    assert np.abs(found["temperature"] - 300.0).max() < kelvin
    assert np.ptp(found["conserved"]) / 2615 < electronvolt
