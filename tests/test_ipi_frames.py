"""Trajectories in all formats of i-PI, against what i-PI itself was given to write."""

import numpy as np
import pytest
from ipi.engine.atoms import Atoms
from ipi.engine.cell import Cell
from ipi.utils.io import print_file
from ipi.utils.units import unit_to_internal

from pidelta.errors import DataError
from pidelta.ipi.frames import FrameFile, read_extras

NAMES = ("O", "H", "D", "Cl", "C")
COLUMNS = np.array([[30.0, 4.0, -3.0], [0.0, 28.0, 5.0], [0.0, 0.0, 25.0]])
DIMENSIONS = {"positions": "length", "velocities": "velocity", "forces": "force", "kinetic_cv": "energy"}


def values_at(step, quantity):
    scale = 1e-3 if quantity == "velocities" else 1.0
    return np.random.default_rng(step).normal(size=(len(NAMES), 3)) * scale


def by_ipi(path, steps, quantity="positions", unit="automatic", cell_unit="automatic"):
    """Append frames by i-PI's writer, with the title that its outputs have."""
    atoms = Atoms(len(NAMES))
    atoms.names[:] = ["H" if name == "D" and path.suffix == ".extxyz" else name for name in NAMES]
    mode = {"extxyz": "ase"}.get(path.suffix[1:], path.suffix[1:])
    with path.open("a") as file:
        for step in steps:
            atoms.q[:] = values_at(step, quantity).ravel()
            print_file(
                mode,
                atoms,
                Cell(COLUMNS),
                file,
                title=f"Step:  {step:10d}  Bead:   {0:5d} ",
                key=quantity,
                dimension=DIMENSIONS[quantity],
                units=unit,
                cell_units=cell_unit,
            )
    return path


CASES = [
    (suffix, quantity, unit)
    for suffix in ("xyz", "bin")
    for quantity, unit in (
        ("positions", "angstrom"),
        ("velocities", "automatic"),
        ("velocities", "m/s"),
        ("forces", "automatic"),
        ("kinetic_cv", "electronvolt"),
    )
]
CASES += [("extxyz", quantity, "automatic") for quantity in ("positions", "velocities", "forces")]


@pytest.mark.parametrize(("suffix", "quantity", "unit"), CASES)
def test_reads_what_ipi_writes(tmp_path, suffix, quantity, unit):
    path = by_ipi(tmp_path / f"a.{suffix}", [4, 8, 120], quantity, unit)
    frames = FrameFile(path, quantity)
    np.testing.assert_array_equal(frames.steps, [4, 8, 120])
    expected_names = tuple("H" if name == "D" else name for name in NAMES) if suffix == "extxyz" else NAMES
    assert frames.names == expected_names
    assert not frames.is_cut_off
    for index in (2, 0, 1):
        values, cell = frames.read(index)
        np.testing.assert_allclose(values, values_at(frames.steps[index], quantity), rtol=2e-5, atol=1e-8)
        np.testing.assert_allclose(cell, COLUMNS.T, atol=1e-4)
    atoms = np.array([3, 1])
    np.testing.assert_array_equal(frames.read(1, atoms)[0], frames.read(1)[0][atoms])


def test_mixed_units(tmp_path):
    """A run that went on with other units in its input: each snapshot counts in its own."""
    path = by_ipi(tmp_path / "a.xyz", [0], unit="angstrom", cell_unit="angstrom")
    by_ipi(path, [1], unit="atomic_unit", cell_unit="nanometer")
    frames = FrameFile(path)
    for index in (0, 1):
        values, cell = frames.read(index)
        np.testing.assert_allclose(values, values_at(index, "positions"), rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(cell, COLUMNS.T, atol=1e-3)


@pytest.mark.parametrize("suffix", ["xyz", "bin", "pdb"])
def test_steps_computed_again_replace_the_old_ones(tmp_path, suffix):
    path = by_ipi(tmp_path / f"a.{suffix}", [0, 10, 20, 30], unit="angstrom")
    by_ipi(path, [20, 30, 40], unit="angstrom")
    frames = FrameFile(path)
    np.testing.assert_array_equal(frames.steps, [0, 10, 20, 30, 40])
    np.testing.assert_allclose(frames.read(3)[0], values_at(30, "positions"), atol=1e-3)
    assert frames.notes == ("2 of 7 snapshots come again further on, and the later ones count",)
    path.write_bytes(path.read_bytes() * 2)
    assert "number 8 begins anew: are outputs of several runs joined?" in FrameFile(path).notes[0]


@pytest.mark.parametrize("suffix", ["xyz", "extxyz", "bin", "pdb"])
def test_a_cut_off_snapshot_is_left_out_and_said(tmp_path, suffix):
    path = by_ipi(tmp_path / f"a.{suffix}", [0, 1])
    whole = path.read_bytes()
    for lost in (7, 60, 150):
        path.write_bytes(whole[:-lost])
        frames = FrameFile(path)
        np.testing.assert_array_equal(frames.steps, [0])
        assert frames.is_cut_off


@pytest.mark.parametrize("suffix", ["xyz", "extxyz", "pdb"])
def test_a_snapshot_that_a_killed_run_did_not_finish(tmp_path, suffix):
    """Wherever it was cut, i-PI goes on in the same line; what is no such cut is refused."""
    unit = "automatic" if suffix == "extxyz" else "angstrom"
    path = by_ipi(tmp_path / f"a.{suffix}", [0, 10, 20, 30], unit=unit)
    whole = path.read_bytes()
    size = len(whole) // 4
    more = by_ipi(tmp_path / f"b.{suffix}", [20, 30, 40], unit=unit).read_bytes()
    for lost in range(1, size, 25 if suffix == "extxyz" else 1):
        path.write_bytes(whole[:-lost] + more)
        frames = FrameFile(path)
        np.testing.assert_array_equal(frames.steps, [0, 10, 20, 30, 40])
        np.testing.assert_allclose(frames.read(2)[0], values_at(20, "positions"), atol=2e-3)
        assert frames.notes[0] == "snapshots that a killed run did not finish are left out: 1"
    later = by_ipi(tmp_path / f"c.{suffix}", [40, 50], unit=unit).read_bytes()
    path.write_bytes(whole[: -size // 2] + later)
    with pytest.raises(DataError, match="expected a whole snapshot before step 40, found part of one"):
        FrameFile(path)


def test_part_of_a_binary_snapshot(tmp_path):
    path = by_ipi(tmp_path / "a.bin", [0, 10])
    more = by_ipi(tmp_path / "b.bin", [10, 20]).read_bytes()
    path.write_bytes(path.read_bytes()[:-100] + more)
    with pytest.raises(DataError, match=r"bytes each, as the first, .* was a run killed while it wrote one"):
        FrameFile(path)


@pytest.mark.parametrize("place", [72, 80 + 24 * len(NAMES)])
def test_a_damaged_binary_snapshot(tmp_path, place):
    """Numbers of atoms and of letters beyond all bounds."""
    path = by_ipi(tmp_path / "a.bin", [0, 10])
    content = bytearray(path.read_bytes())
    second = len(content) // 2 + place
    content[second : second + 8] = b"\xff" * 7 + b"\x7f"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.bin: expected positions as i-PI writes them in snapshot 1"):
        FrameFile(path).read(1)


def test_lines_of_other_widths_are_read_as_words(tmp_path):
    """Written by another program: i-PI's comment, free columns."""
    path = tmp_path / "a.xyz"
    head = "# CELL(abcABC): 9 9 9 90 90 90 Step: {} positions{{angstrom}} cell{{angstrom}}"
    blocks = [f"2\n{head.format(step)}\nH 0 {step} 1.25\nCl  -3.5 0 {step}e-1\n" for step in (7, 8)]
    path.write_text("".join(blocks))
    frames = FrameFile(path)
    assert frames.names == ("H", "Cl")
    for index, step in enumerate((7, 8)):
        expected = np.array([[0.0, step, 1.25], [-3.5, 0.0, 0.1 * step]])
        values = frames.read(index)[0]
        np.testing.assert_allclose(values / unit_to_internal("length", "angstrom", 1.0), expected)


def test_names_that_end_in_digits(tmp_path):
    """Isotopes of i-PI such as C13 are no numbers."""
    path = by_ipi(tmp_path / "a.xyz", [0])
    path.write_text(path.read_text().replace("       C ", "     C13 "))
    assert FrameFile(path).names[-1] == "C13"
    np.testing.assert_allclose(FrameFile(path).read(0)[0], values_at(0, "positions"), rtol=2e-5)


def test_another_quantity(tmp_path):
    path = by_ipi(tmp_path / "a.xyz", [0], "velocities")
    with pytest.raises(DataError, match=r"a\.xyz: expected positions as i-PI writes them .*found velocities"):
        FrameFile(path).read(0)


def test_numbers_that_are_none(tmp_path):
    path = by_ipi(tmp_path / "a.xyz", [0])
    text = path.read_text()
    path.write_text(
        text.replace(text.splitlines()[3].split()[2], "1.2345xe+0"[: len(text.splitlines()[3].split()[2])])
    )
    with pytest.raises(DataError, match=r"a\.xyz: expected positions as i-PI writes them in snapshot 0"):
        FrameFile(path).read(0)


def test_extras(tmp_path):
    path = tmp_path / "dipole_0"
    rows = {0: [1.0, 2.0, 3.0], 4: [1.5, 2.5, 3.5], 8: [0.0, 1.0, 2.0]}

    def block(step, values):
        return f" #EXTRAS(dipole)# Step:  {step:10d} \n" + " ".join(f"{v:22.14e}" for v in values) + "\n"

    path.write_text(
        "".join(block(*item) for item in rows.items()) + block(8, [5.0, 6.0, 7.0]) + block(12, [1.0])[:40]
    )
    steps, values = read_extras(path)
    np.testing.assert_array_equal(steps, [0, 4, 8])
    np.testing.assert_allclose(values, [rows[0], rows[4], [5.0, 6.0, 7.0]])
    whole = "".join(block(*item) for item in rows.items())
    for lost in range(1, len(block(*next(iter(rows.items()))))):
        path.write_text(whole[:-lost] + block(4, [5.0, 6.0, 7.0]) + block(8, [7.0, 8.0, 9.0]))
        steps, values = read_extras(path)
        np.testing.assert_array_equal(steps, [0, 4, 8])
        np.testing.assert_allclose(values, [rows[0], [5.0, 6.0, 7.0], [7.0, 8.0, 9.0]])
    path.write_text(whole[:-20] + block(12, [5.0, 6.0, 7.0]))
    with pytest.raises(DataError, match="dipole_0: expected whole extras before those of step 12"):
        read_extras(path)
    path.write_text(block(0, [1.0]) + block(4, [1.0, 2.0]))
    with pytest.raises(DataError, match="dipole_0: expected extras of one length"):
        read_extras(path)
    path.write_text(block(0, [1.0]).replace("1.0", "x"))
    with pytest.raises(DataError, match="dipole_0: step 0: expected finite numbers"):
        read_extras(path)
