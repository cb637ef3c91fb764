"""Trajectories and starting structures, as i-PI itself writes and reads them."""

import numpy as np
import pytest
from ipi.engine.atoms import Atoms
from ipi.engine.cell import Cell
from ipi.utils.io import print_file

from pidelta.errors import DataError
from pidelta.ipi.trajectories import number_of, read_names, read_trajectory
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM

NAMES = ("O", "H", "D", "T", "C")
COLUMNS = np.array([[30.0, 4.0, -3.0], [0.0, 28.0, 5.0], [0.0, 0.0, 25.0]])


def write_trajectory(path, positions, unit="angstrom"):
    """Hydrogens at positions (n, N, 3) in angstrom, or written as they are in another unit."""
    with path.open("w") as stream:
        for index, frame in enumerate(positions):
            stream.write(f"{len(frame)}\n# CELL(abcABC): 9 9 9 90 90 90  Step: {10 * index}  Bead: 0 ")
            stream.write(f"positions{{{unit}}}  cell{{atomic_unit}}\n")
            stream.writelines(f"  H {x:.10e} {y:.10e} {z:.10e}\n" for x, y, z in frame)


def by_ipi(path, steps, unit="atomic_unit"):
    """Write positions that depend on the step, (5, 3) in bohr, by i-PI."""
    atoms = Atoms(len(NAMES))
    atoms.names[:] = NAMES
    with path.open("w") as file:
        for step in steps:
            atoms.q[:] = positions(step).ravel()
            print_file(
                path.suffix[1:],
                atoms,
                Cell(COLUMNS),
                file,
                title=f"Step:  {step}  Bead:  0 ",
                key="positions",
                units=unit,
                cell_units=unit,
            )
    return path


def positions(step):
    return np.arange(15.0).reshape(5, 3) + 0.1 * step


@pytest.mark.parametrize("suffix", ["xyz", "pdb"])
@pytest.mark.parametrize("unit", ["atomic_unit", "angstrom"])
def test_reads_what_ipi_writes(tmp_path, suffix, unit):
    """Isotopes are their elements; the cell, columns in i-PI, comes as rows."""
    path = by_ipi(tmp_path / f"a.{suffix}", [0, 7], unit)
    snapshots = list(read_trajectory(path))
    assert [snapshot.step for snapshot in snapshots] == [0, 7]
    for snapshot in snapshots:
        np.testing.assert_array_equal(snapshot.numbers, [8, 1, 1, 1, 6])
        np.testing.assert_allclose(snapshot.positions, positions(snapshot.step), atol=2e-3)
        np.testing.assert_allclose(snapshot.cell, COLUMNS.T, atol=1e-2)


def test_some_snapshots_and_atoms(tmp_path):
    frames = np.random.default_rng(3).normal(size=(7, 5, 3))
    write_trajectory(tmp_path / "a.xyz", frames)
    atoms = np.array([4, 0, 2])
    snapshots = list(read_trajectory(tmp_path / "a.xyz", every=3, atoms=atoms))
    assert [snapshot.step for snapshot in snapshots] == [0, 30, 60]
    for snapshot, frame in zip(snapshots, frames[::3], strict=True):
        np.testing.assert_allclose(snapshot.positions * BOHR_IN_ANGSTROM, frame[atoms], rtol=1e-7)
    write_trajectory(tmp_path / "b.xyz", frames * ANGSTROM, "atomic_unit")
    for snapshot, frame in zip(read_trajectory(tmp_path / "b.xyz"), frames, strict=True):
        np.testing.assert_allclose(snapshot.positions * BOHR_IN_ANGSTROM, frame, rtol=1e-7)


@pytest.mark.parametrize("suffix", ["xyz", "pdb"])
def test_incomplete_last_snapshot_is_passed_over(tmp_path, suffix):
    """Wherever a killed simulation stopped writing."""
    path = by_ipi(tmp_path / f"a.{suffix}", [0, 1])
    text = path.read_text()
    for lost in (3, 5, 12, 60, 150, 250):
        path.write_text(text[:-lost])
        snapshots = list(read_trajectory(path))
        assert snapshots[0].step == 0
        assert len(snapshots) == 1 or (suffix == "pdb" and lost < 2)


def test_a_file_without_a_last_newline_is_whole(tmp_path):
    path = by_ipi(tmp_path / "a.xyz", [0, 1])
    path.write_text(path.read_text().rstrip("\n"))
    assert len(list(read_trajectory(path))) == 2


CELL = "# CELL(abcABC): 9 9 9 90 90 90 Step: 0 Bead: 0 positions{angstrom} cell{angstrom}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one whole snapshot"),
        (f"2\n{CELL}H 0 0 0\n", "at least one whole snapshot"),
        ("five\n", "number of atoms, found 'five'"),
        (f"2\n{CELL}H 0 0 x\nH 0 0 0\n", "in snapshot 0"),
        (f"1\n{CELL}X 0 0 0\n", "symbol of an element, found 'X'"),
        ("1\n# Step: 0 positions{angstrom}\nH 0 0 0\n", "in the comment of snapshot 0"),
        (f"1\n{CELL.replace('positions', 'forces')}H 0 0 0\n", "in snapshot 0"),
        (f"1\n{CELL.replace('positions{angstrom}', 'positions{furlong}')}H 0 0 0\n", "in snapshot 0"),
        (f"1\n{CELL}H 0 0 0\n-3\n", "in snapshot|whole|number"),
    ],
)
def test_malformed_trajectory(tmp_path, text, message):
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(DataError, match=rf"a\.xyz: expected .*{message}") as caught:
        list(read_trajectory(tmp_path / "a.xyz"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["xyz", "pdb"])
def test_names_of_the_start(tmp_path, suffix, capsys):
    path = by_ipi(tmp_path / f"start.{suffix}", [0])
    assert read_names(path, suffix) == NAMES
    path.write_text(path.read_text().replace(" C ", "CA "))
    assert read_names(path, suffix)[-1] == "CA"
    assert capsys.readouterr().out == ""  # i-PI says that it knows no mass of a CA
    path.write_text("nothing\n")
    with pytest.raises(DataError, match=f"expected atoms as i-PI reads them from {suffix}"):
        read_names(path, suffix)


def test_names_and_elements():
    assert [number_of(name) for name in ("H", "D", "T", "Cl", "X", "CA", "HW1", "")] == [
        1,
        1,
        1,
        17,
        None,
        None,
        None,
        None,
    ]
