"""The reader of .skf files and the loading of sets."""

from __future__ import annotations

import numpy as np
import pytest

from pidelta.errors import ParameterError
from pidelta.qm.dftb.parameters import load_parameters
from pidelta.qm.dftb.repulsive import RepulsiveTables
from pidelta.qm.dftb.skf import INTEGRALS, parse_numbers, parse_skf

ROWS = 12
SPLINE = """Spline
3 2.0
1.5 0.4 -0.01
1.0 1.5  0.9 -0.8 0.7 -0.6
1.5,1.8  0.5 -0.4 0.3 -0.2
1.8 2.0  0.2 -0.1 0.05 -0.02 0.01 -0.005
<Documentation>
"""


def skf_text(homonuclear=True, extended=False, repulsive=SPLINE, rows=ROWS):
    """Row k (from 1) of integral column c is k + c / 100 for H and half of it for S, c in file order."""
    lines = ["@ a comment"] if extended else []
    lines.append(f"0.1, {rows + 1}, 2")
    if homonuclear:
        zero = "0.0 " if extended else ""
        lines.append(f"{zero}-0.1,-0.2 -0.3, 0.0  {zero}0.1 0.2 0.3  {zero}2*0.0 1.0")
    lines.append("1.008, 1.0 -2.0 5*0.0 0.5 1.6 10*0.0")
    lines.append("# a comment")
    width = 20 if extended else 10
    for k in range(1, rows + 1):
        row = [k + c / 100 for c in range(width)] + [(k + c / 100) / 2 for c in range(width)]
        lines.append("  ".join(map(str, row)))
    # One row more than is used, as in the published files.
    lines.append(f"{2 * width}*0.0")
    return "\n".join(lines) + "\n" + repulsive


def write(tmp_path, text, name="H-H.skf"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_numbers_follow_fortran():
    assert parse_numbers(" 2*0.5, 1.0D-1 ,3 ") == [0.5, 0.5, 0.1, 3.0]
    with pytest.raises(ValueError, match="nan"):
        parse_numbers("1.0 nan")


@pytest.mark.parametrize("extended", [False, True])
def test_tables(extended):
    file = parse_skf(skf_text(extended=extended).encode(), "H-H.skf", homonuclear=True)
    columns = np.array([7, 8, 9, 12, 13, 14, 15, 17, 18, 19]) if extended else np.arange(10)
    expected = np.arange(1, ROWS + 1)[:, None] + columns / 100
    assert file.spacing == 0.1
    np.testing.assert_allclose(file.hamiltonian, expected, rtol=1e-15)
    np.testing.assert_allclose(file.overlap, expected / 2, rtol=1e-15)
    assert INTEGRALS[5] == (1, 1, 0)
    np.testing.assert_array_equal(file.onsite, [-0.3, -0.2, -0.1])
    np.testing.assert_array_equal(file.hubbard_u, [0.3, 0.2, 0.1])
    np.testing.assert_array_equal(file.occupations, [1.0, 0.0, 0.0])


def test_heteronuclear_has_no_atom():
    file = parse_skf(skf_text(homonuclear=False).encode(), "H-H.skf", homonuclear=False)
    assert file.onsite is None
    assert len(file.hamiltonian) == ROWS


def repulsive_energy(file, distances):
    tables = RepulsiveTables([file.repulsive], np.zeros(len(distances), dtype=np.int64))
    return tables.evaluate(np.array(distances)[None])


def test_spline_repulsive():
    file = parse_skf(skf_text().encode(), "H-H.skf", homonuclear=True)
    r = np.array([0.5, 1.2, 1.6, 1.9, 2.0, 2.5])
    expected = [
        np.exp(-1.5 * 0.5 + 0.4) - 0.01,
        np.polyval([-0.6, 0.7, -0.8, 0.9], 0.2),
        np.polyval([-0.2, 0.3, -0.4, 0.5], 0.1),
        np.polyval([-0.005, 0.01, -0.02, 0.05, -0.1, 0.2], 0.1),
        0.0,
        0.0,
    ]
    energy, slope = repulsive_energy(file, r)
    np.testing.assert_allclose(energy[0], expected, rtol=1e-13)
    step = 1e-5
    numerical = (repulsive_energy(file, r + step)[0] - repulsive_energy(file, r - step)[0]) / (2 * step)
    inside = np.array([0, 1, 2, 3, 5])
    np.testing.assert_allclose(slope[0, inside], numerical[0, inside], atol=1e-8)


def test_polynomial_repulsive():
    file = parse_skf(skf_text(repulsive="").encode(), "H-H.skf", homonuclear=True)
    r = np.array([0.3, 1.0, 1.6, 3.0])
    x = np.clip(1.6 - r, 0.0, None)
    energy, slope = repulsive_energy(file, r)
    np.testing.assert_allclose(energy[0], x**2 - 2 * x**3 + 0.5 * x**9, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(slope[0], -(2 * x - 6 * x**2 + 4.5 * x**8), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "expected the grid spacing .* found the end of the file"),
        (lambda text: text.replace("0.1, 13, 2", "0.1"), r"line 1: expected .*2 numbers.* found 1 numbers"),
        (lambda text: text.replace("0.1, 13, 2", "-0.1, 13, 2"), "positive grid spacing .* found -0.1, 13"),
        (lambda text: text.replace("0.1, 13, 2", "0.1, 5, 2"), "more than 9 grid points, found 0.1, 5"),
        (lambda text: text.replace("0.1, 13, 2", "0.1, 99, 2"), r"row 14 of 98.*found 'Spline'"),
        (lambda text: text.replace("-0.3,", "x"), "line 2: expected onsite energies"),
        (lambda text: text.replace("3.0  3.01", "3.01"), "line 7: expected row 3 of 12 .*found 19 numbers"),
        (lambda text: text.replace("1.5,1.8", "1.6,1.8"), "starts at 1.5 bohr, found one at 1.6"),
        (lambda text: text.replace("3 2.0\n", "0 2.0\n"), "at least one spline interval, found 0"),
        (
            lambda text: text[: text.index("Spline")].replace("1.6 10*0.0", "11*0.0"),
            "Spline .* neither",
        ),
        (lambda text: text[: text.index("1.8 2.0")], "the last spline, found the end of the file"),
    ],
)
def test_malformed_files(change, message):
    with pytest.raises(ParameterError, match=message) as caught:
        parse_skf(change(skf_text()).encode(), "H-H.skf", homonuclear=True)
    assert "H-H.skf" in str(caught.value)
    assert "\n" not in str(caught.value)


def write_set(tmp_path):
    for pair in ("H-H", "C-C", "C-H", "H-C"):
        first, second = pair.split("-")
        write(tmp_path, skf_text(homonuclear=first == second), f"{pair}.skf")


def test_load_set(tmp_path):
    write_set(tmp_path)
    loaded = load_parameters(tmp_path, ["H", "C", "H"])
    assert set(loaded.pairs) == {("H", "H"), ("C", "C"), ("C", "H"), ("H", "C")}
    assert loaded.name == tmp_path.name
    np.testing.assert_array_equal(loaded.elements["C"].onsite, [-0.3, -0.2])
    np.testing.assert_array_equal(loaded.elements["H"].onsite, [-0.3])
    assert loaded.elements["C"].hubbard_u[0] == 0.3
    assert loaded.elements["H"].occupations.sum() == 1.0


def test_identity_follows_the_files(tmp_path):
    write_set(tmp_path)
    before = load_parameters(tmp_path, ["H", "C"]).identity
    copy = tmp_path / "another-name"
    copy.mkdir()
    write_set(copy)
    assert load_parameters(copy, ["H", "C"]).identity == before
    assert load_parameters(tmp_path, ["C", "H"]).identity == before
    write(tmp_path, skf_text().replace("0.9", "0.8"), "C-C.skf")
    assert load_parameters(tmp_path, ["H", "C"]).identity != before
    assert load_parameters(tmp_path, ["H"]).identity != before


def test_missing_and_unfit_files(tmp_path):
    write_set(tmp_path)
    with pytest.raises(ParameterError, match=r"the pair C-P: expected the file .*C-P\.skf"):
        load_parameters(tmp_path, ["C", "P"])
    with pytest.raises(ParameterError, match="element Xx: no valence basis"):
        load_parameters(tmp_path, ["Xx"])
    with pytest.raises(ParameterError, match=r"nowhere: expected a folder of \.skf files"):
        load_parameters(tmp_path / "nowhere", ["H"])
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", skf_text(), "h-H.skf")
    with pytest.raises(ParameterError, match=r"other: expected the file H-H.skf, found h-H.skf"):
        load_parameters(tmp_path / "other", ["H"])
    write(tmp_path, skf_text(homonuclear=False, rows=20), "C-H.skf")
    with pytest.raises(ParameterError, match=r"12 rows of 0\.1 bohr as in H-C\.skf, found 20 rows"):
        load_parameters(tmp_path, ["C", "H"])
    write(tmp_path, skf_text().replace("0.3, 0.0  0.1 0.2 0.3", "0.3, 0.0  0.1 0.2 0.0"), "H-H.skf")
    with pytest.raises(ParameterError, match="expected a positive U of the s shell, found 0"):
        load_parameters(tmp_path, ["H"])
