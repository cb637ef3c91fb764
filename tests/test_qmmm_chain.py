"""The whole chain from a configuration: which coupling it means, and QM/MM that has to equal pure MM."""

import re
import shutil

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from conftest import ROOT
from pidelta.calculator import Calculator
from pidelta.config import load_config
from pidelta.qmmm.coupling import CutoffCoupling
from pidelta.qmmm.pme_coupling import PMECoupling
from pidelta.setup import Setup
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM

FOLDER = ROOT / "inputs" / "uracil-water"
SKEWED = np.array([[30.0, 0.0, 0.0], [-6.0, 30.0, 0.0], [5.0, -7.0, 30.0]]) * ANGSTROM


class ForceField(Calculator):
    """Of a molecule; charges are those of the force field, not equal shares of their sum."""

    def calculate(self, atoms=None, properties=None, system_changes=()):
        super().calculate(Atoms(atoms.numbers, atoms.positions), properties, system_changes)


@pytest.fixture
def uracil(tmp_path):
    """Reads configurations of uracil in water, which are given without their structure."""
    for name in ("uracil-water.gro", "uracil-water.top"):
        shutil.copy(FOLDER / name, tmp_path)

    def read(text, structure="uracil-water.gro"):
        path = tmp_path / "pidelta.yaml"
        path.write_text(f"structure: {structure}\n{text}", encoding="utf-8")
        return Setup(load_config(path))

    return read


@pytest.mark.parametrize(
    ("electrostatics", "scheme", "expected"),
    [
        ("", "", PMECoupling),
        (", electrostatics: ewald", "", PMECoupling),
        (", electrostatics: pme", "scheme: pme", PMECoupling),
        (", electrostatics: reaction-field", "", CutoffCoupling),
        (", electrostatics: cutoff", "", CutoffCoupling),
        ("", "scheme: cutoff", CutoffCoupling),
    ],
)
def test_the_coupling_goes_with_the_force_field(uracil, electrostatics, scheme, expected):
    setup = uracil(
        f"qm: {{atoms: resname URA}}\nmm: {{topology: uracil-water.top{electrostatics}}}\n"
        f"embedding: {{{scheme}}}\n"
    )
    assert type(setup.coupling) is expected
    assert setup.embedding_scheme == ("pme" if expected is PMECoupling else "cutoff")


@pytest.fixture
def molecule(uracil, tmp_path):
    """Reads configurations of uracil without a cell."""
    system = uracil("mm: {topology: uracil-water.top}\n").system
    write(tmp_path / "molecule.xyz", Atoms(system.numbers[:12], system.positions[:12] * BOHR_IN_ANGSTROM))
    top = (tmp_path / "uracil-water.top").read_text(encoding="utf-8").replace("SOL  900\n", "")
    (tmp_path / "molecule.top").write_text(top, encoding="utf-8")

    def read(text):
        return uracil(text, "molecule.xyz")

    return read


@pytest.mark.parametrize("mm", ["", "mm: {topology: molecule.top}\n"])
def test_without_a_cell_there_is_no_ewald_sum(molecule, mm):
    assert isinstance(molecule(f"qm: {{atoms: all}}\n{mm}").coupling, CutoffCoupling)


def test_an_ewald_sum_without_a_cell_is_refused(molecule, tmp_path, fail):
    molecule("qm: {atoms: all}\nmm: {topology: molecule.top}\nembedding: {scheme: pme}\n")
    line = fail("check", tmp_path / "pidelta.yaml")
    assert line.endswith(
        f"pidelta.yaml: embedding.scheme: expected a cell with pme, found none in {tmp_path}/molecule.xyz"
    )


def wrapped_and_skewed(system, seed):
    """Two structures in a triclinic cell, the molecules moved with it, wrapped or shifted at random."""
    rng = np.random.default_rng(seed)
    residues = system.residue_indices
    counts = np.bincount(residues)[:, None]
    centres = np.stack([np.bincount(residues, x) for x in system.positions.T], axis=1) / counts
    moved = centres @ np.linalg.inv(system.cell) @ SKEWED - centres
    shifts = rng.integers(-1, 2, (2, len(counts), 3)) @ SKEWED
    positions = system.positions + moved[residues] + shifts[:, residues]
    return positions + rng.normal(scale=0.02, size=positions.shape), np.stack([SKEWED, 1.01 * SKEWED])


@pytest.mark.parametrize("charge", [0, 2])
@pytest.mark.parametrize(
    "mm",
    ["electrostatics: pme", "electrostatics: ewald", "engine: openmm, platform: Reference, virial: false"],
    ids=["builtin-pme", "builtin-ewald", "openmm-pme"],
)
def test_fixed_charges_turn_the_whole_chain_into_pure_mm(uracil, molecule, tmp_path, mm, charge):
    """With the force field of the molecule in vacuum as its low-level method, in a cell of any shape.

    Reading, partition, coupling, engine and sum: what is left is the Ewald energy of the whole cell. The
    molecule's charge makes the cell a charged one.
    """
    for name in ("uracil-water.top", "molecule.top"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        first = "N1     1  -0.5628"
        assert first in text
        changed = text.replace(first, f"N1     1  {charge - 0.5628:.4f}")
        (tmp_path / name).write_text(changed, encoding="utf-8")
    (tmp_path / "vacuum.yaml").write_text(
        "structure: molecule.xyz\nmm: {topology: molecule.top}\n", encoding="utf-8"
    )
    section = f"mm: {{topology: uracil-water.top, cutoff: 0.9 nm, {mm}}}\n"
    pure = uracil(section)
    positions, cells = wrapped_and_skewed(pure.system, seed=charge)
    expected = pure.evaluator().evaluate(positions, cells)
    calculator = f"{{calculator: {__name__}.ForceField, options: {{config: {tmp_path / 'vacuum.yaml'}}}}}"
    setup = uracil(
        f"qm: {{atoms: resname URA, charge: {charge}, engine: ase, ase: {calculator}}}\n{section}"
        "embedding: {cutoff: 1.2 nm}\n"
    )
    assert isinstance(setup.coupling, PMECoupling)
    found = setup.evaluator().evaluate(positions, cells)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=0, atol=1e-8)
    if "openmm" not in mm:
        np.testing.assert_allclose(found.virial, expected.virial, rtol=0, atol=1e-7)
    assert np.abs(found.terms["low"].energy).min() > 1e-3


def checked(run, capsys, path):
    """What `pidelta check` prints, without the lines of its tables."""
    assert run("check", path, "--atoms", 1) == 0
    return " ".join(capsys.readouterr().out.translate(str.maketrans("│┃", "  ")).split())


def test_check_states_the_scheme_and_the_backgrounds(uracil, tmp_path, run, capsys):
    """-pi Q^2/(2 V alpha^2) of the MM part, +2 e, and of the cell, +1 e; the rest is in low."""
    path = tmp_path / "pidelta.yaml"
    top = tmp_path / "uracil-water.top"
    text = top.read_text(encoding="utf-8").replace("N1     1  -0.5628", "N1     1  -1.5628")
    ions = text.replace("SOL  900", "ION 1\nSOL  900").replace(
        "[ system ]", "[ moleculetype ]\nION 1\n[ atoms ]\n1 OW 1 ION MG 1 2.0 24.0\n[ system ]"
    )
    top.write_text(ions, encoding="utf-8")
    rows = (tmp_path / "uracil-water.gro").read_text(encoding="utf-8").splitlines()
    rows.insert(14, "    2ION     MG   13   0.100   0.100   0.100")
    rows[1] = str(int(rows[1]) + 1)
    (tmp_path / "uracil-water.gro").write_text("\n".join([*rows, ""]), encoding="utf-8")
    calculator = "{calculator: ase.calculators.emt.EMT}"
    uracil(
        f"qm: {{atoms: resname URA, charge: -1, multiplicity: 2, engine: ase, ase: {calculator}}}\n"
        "mm: {topology: uracil-water.top, cutoff: 1.0 nm}\n"
    )
    shown = checked(run, capsys, path)
    assert "pme, as the force field has an Ewald sum: all MM charges" in shown
    alpha, volume = np.sqrt(-np.log(2e-4)) / (10.0 * ANGSTROM), (30.0 * ANGSTROM) ** 3
    unit = -np.pi / (2.0 * volume * alpha**2)
    assert (
        "MM +2.0000 e, QM region -1.0000 e, cell +1.0000 e; its energy: "
        f"{4.0 * unit:.6f} hartree in mm, {-3.0 * unit:.6f} hartree in low, {unit:.6f} hartree in all"
    ) in shown
    assert "none for the low level; for delta models and labels" in shown
    assert "largest jump of the potential 51.09 kcal/mol/e: ION2:MG" in shown


def test_check_states_the_cutoff(uracil, tmp_path, run, capsys):
    calculator = "{calculator: ase.calculators.emt.EMT}"
    uracil(
        f"qm: {{atoms: resname URA, engine: ase, ase: {calculator}}}\n"
        "mm: {topology: uracil-water.top, electrostatics: reaction-field}\n"
    )
    shown = checked(run, capsys, tmp_path / "pidelta.yaml")
    assert "cutoff, as the force field has no Ewald sum: charges within a cutoff 14.00 angstrom" in shown
    assert "background" not in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mm: {topology: uracil-water.top, cutoff: 1.6 nm}", "mm.cutoff: .* half of the smallest height"),
        (
            "mm: {topology: uracil-water.top}\nembedding: {cutoff: 1.6 nm}",
            "embedding.cutoff: expected at most half the cell, 15.00 angstrom, found 16.00 angstrom",
        ),
        (
            "mm: {topology: uracil-water.top, engine: openmm, electrostatics: ewald}",
            "mm.electrostatics: expected pme, reaction-field or cutoff of OpenMM, found 'ewald'",
        ),
        (
            "mm: {topology: uracil-water.top, ewald_tolerance: 1e-12}",
            "mm.ewald_tolerance: .* expected at most 134217728",
        ),
        (
            "mm: {topology: uracil-water.top, electrostatics: cutoff}\nembedding: {scheme: pme}",
            "embedding.scheme: expected mm.electrostatics pme or ewald with pme, found cutoff",
        ),
    ],
)
def test_what_does_not_fit_the_cell_is_one_line(uracil, tmp_path, fail, text, message):
    path = tmp_path / "pidelta.yaml"
    path.write_text(f"structure: uracil-water.gro\nqm: {{atoms: resname URA}}\n{text}\n", encoding="utf-8")
    line = fail("check", path)
    assert re.search(message, line), line
