"""The built-in set as `pidelta slater-koster export` writes it, in DFTB+ itself (conda-forge: dftbplus)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write

from dftb_sets import RECORDS, make_engine, record_name
from made_up_set import ONSITE, SPIN_CONSTANTS, write_made_up_set
from make_dftbplus_records import run_dftbplus as run_record
from pidelta.qm.dftb import sets
from pidelta.units import ANGSTROM

DFTBPLUS = shutil.which("dftb+")
pytestmark = [
    pytest.mark.dftbplus,
    pytest.mark.skipif(DFTBPLUS is None, reason="needs the program dftb+"),
]


def run_dftbplus(folder: Path, hamiltonian: str) -> tuple[float, np.ndarray]:
    """Energy in hartree and gradient (n, 3) in hartree/bohr of in.gen."""
    (folder / "dftb_in.hsd").write_text(
        f'Geometry = GenFormat {{\n <<< "in.gen"\n}}\n{hamiltonian}\n'
        "Analysis {\n PrintForces = Yes\n}\nOptions {\n WriteResultsTag = Yes\n}\n"
    )
    assert DFTBPLUS is not None
    ended = subprocess.run([DFTBPLUS], cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-1000:]
    text = (folder / "results.tag").read_text()

    def values(name: str) -> np.ndarray:
        match = re.search(rf"^{name} *:real:[^\n]*\n((?: [^\n]*\n)+)", text, re.MULTILINE)
        assert match is not None, name
        return np.array(match[1].split(), dtype=np.float64)

    return float(values("mermin_energy")[0]), -values("forces").reshape(-1, 3)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("name", ["CH3CONH2", "CH3NO2", "CH3SCH3", "CH3COCl", "CH3O", "CH3S"])
def test_dftbplus_reads_the_exported_set(name: str, order: int, tmp_path: Path) -> None:
    files = sets.builtin_set()[order]
    sets.export(files, tmp_path)
    atoms = molecule(name)
    atoms.positions += np.random.default_rng(1).normal(scale=0.05, size=atoms.positions.shape)
    write(tmp_path / "in.gen", Atoms(atoms.symbols, atoms.positions), format="gen")
    atoms = read(tmp_path / "in.gen", format="gen")

    # As the README of the set says, which has all elements.
    hamiltonian = (tmp_path / "README").read_text().partition("For DFTB+:")[2]
    hamiltonian = hamiltonian.replace("SCC = Yes", "SCC = Yes\n  SCCTolerance = 1e-10")
    radical = atoms.numbers.sum() % 2 == 1
    if radical:
        before, _, after = hamiltonian.partition("  # With one unpaired electron:\n")
        spin, _, after = after.partition("  # The set has no dispersion")
        hamiltonian = before + spin.replace("  # ", "  ") + "  #" + after
    energy, gradient = run_dftbplus(tmp_path, hamiltonian)

    description = files.description
    engine = make_engine(
        atoms.numbers.astype(np.int64),
        files.parameters(description.elements),
        order=order,
        hubbard_derivatives=description.hubbard_derivatives if order == 3 else None,
        damping_exponent=description.damping_exponent,
        multiplicity=2 if radical else 1,
        spin_constants=description.spin_constants,
    )
    result = engine.evaluate((atoms.positions * ANGSTROM)[None], np.zeros((1, len(atoms))))
    # DFTB+ turns angstrom into an older bohr.
    assert result.energy[0] == pytest.approx(energy, abs=1e-7)
    np.testing.assert_allclose(result.gradient[0], gradient, atol=1e-6)


def test_dftbplus_reads_the_spin_constants(tmp_path: Path) -> None:
    """Of a carbon atom s^1 p^3, whose energy is known."""
    sets.export(sets.read_folder(write_made_up_set(tmp_path / "set", 2)), tmp_path / "exported")
    write(tmp_path / "exported" / "in.gen", Atoms("C"), format="gen")
    hamiltonian = (tmp_path / "exported" / "README").read_text().partition("For DFTB+:")[2]
    hamiltonian = hamiltonian.replace("  # With one unpaired electron:\n", "").replace("  # ", "  ")
    hamiltonian = hamiltonian.replace("UnpairedElectrons = 1", "UnpairedElectrons = 4")
    energy, _ = run_dftbplus(tmp_path / "exported", hamiltonian)
    (ss, sp), (_, pp) = SPIN_CONSTANTS["C"]
    s, p, _ = ONSITE["C"]
    assert energy == pytest.approx(s + 3 * p + (ss + 6 * sp + 9 * pp) / 2, abs=1e-9)


@pytest.mark.parametrize("record", RECORDS[::7], ids=record_name)
def test_dftbplus_gives_the_records(record: dict[str, Any], tmp_path: Path) -> None:
    """The committed records are those that the committed script makes."""
    sets.export(sets.builtin_set()[record["order"]], tmp_path / "set")
    for key, value in run_record(record, tmp_path / "set").items():
        np.testing.assert_allclose(record[key], value, rtol=0, atol=1e-8, err_msg=key)
