"""Configurations: units, defaults, and one line for whatever is wrong."""

import pytest

from pidelta.config import load_config
from pidelta.core.structure import read_structure
from pidelta.errors import ConfigError, StructureError
from pidelta.units import ANGSTROM, parse_quantity

GOOD = """
structure: a.gro
qm:
  atoms: resname URA
  dftb: {parameters: slako, order: 3, hubbard_derivatives: 3ob, electronic_temperature: 300 K}
mm: {topology: a.top, cutoff: 0.9 nm}
"""


def write(tmp_path, text):
    path = tmp_path / "pidelta.yaml"
    path.write_text(text)
    return path


def test_units_and_paths(tmp_path):
    config = load_config(write(tmp_path, GOOD))
    assert config.mm.cutoff == pytest.approx(9.0 * ANGSTROM, rel=1e-14)
    assert config.embedding.cutoff == pytest.approx(14.0 * ANGSTROM, rel=1e-14)
    assert config.qm.dftb.electronic_temperature == pytest.approx(300 * 3.166811563e-6, rel=1e-9)
    assert config.structure == tmp_path / "a.gro"
    assert config.qm.dftb.parameters == tmp_path / "slako"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("0.9 nm", "0.9"), "mm.cutoff: expected a length with its unit"),
        (GOOD.replace("0.9 nm", "'0.9 miles'"), "mm.cutoff: expected a length in one of nm"),
        (GOOD + "colour: blue\n", "unknown key colour"),
        (
            GOOD.replace("order: 3", "order: 2"),
            "qm.dftb: expected hubbard_derivatives with order 3, and only",
        ),
        (
            GOOD.replace("hubbard_derivatives: 3ob, ", ""),
            "qm.dftb: expected hubbard_derivatives with order 3 and a folder of .skf files, found none",
        ),
        (GOOD.replace("order: 3", "order: 4"), "qm.dftb.order: input should be 2 or 3, found 4"),
        (GOOD.replace("structure: a.gro", ""), "missing key structure"),
        (GOOD.replace("cutoff: 0.9 nm", "cutof: 0.9 nm"), "unknown key mm.cutof"),
        (GOOD.replace("cutoff: 0.9 nm", "cutoff: -1 nm"), "mm.cutoff: input should be greater than 0"),
        (GOOD.replace("300 K", "1e-300 K"), "expected 0 K or at least 1 K"),
        (GOOD.replace("300 K", "1e300 K"), "electronic_temperature: expected at most 20000 K"),
        (GOOD.replace("300 K", "20100 K"), "electronic_temperature: expected at most 20000 K"),
        (GOOD.replace("300 K", "300 K, scc: {tolerance: 0.1}"), "scc.tolerance: input should be less than"),
        (
            GOOD.replace("hubbard_derivatives: 3ob", "hubbard_derivatives: {H: -0.2, O: 0.3}"),
            "expected none above 0 (those of 3OB are -0.02 to -0.19), found 0.3 for O",
        ),
        (
            GOOD.replace("cutoff: 0.9 nm", "cutoff: 0.9 angstrom"),
            "mm.cutoff: expected a cutoff of at least 3",
        ),
        (GOOD.replace("cutoff: 0.9 nm", "cutoff: 1e300 nm"), "mm.cutoff: input should be less than 1"),
        (GOOD.replace("cutoff: 0.9 nm", "cutoff: 1e-300 nm"), "mm.cutoff: input should be greater than 0"),
        (
            GOOD.replace("order: 3", "spin_constants: {O: -0.03, H: x}, order: 3"),
            "qm.dftb.spin_constants.H: input should be a valid number",
        ),
        (
            GOOD.replace("order: 3", "scc: {start: middle}, order: 3"),
            "qm.dftb.scc.start: input should be 'none', 'previous' or 'extrapolated', found 'middle'",
        ),
        ("structure: a.gro\n", "expected a section qm, mm or both"),
        ("structure: a.gro\nmm: {topology: a.top}\ndelta: {models: [a.pt]}\n", "expected a section qm"),
        ("structure: [a\n", "not a YAML file"),
        ("- 1\n", "expected keys and values, found a list"),
        ("", "expected keys and values, found an empty file"),
        ("URA 1\n", "expected keys and values, found text alone"),
        (GOOD + "mm: {}\n", "expected each key once, found mm twice"),
        (
            GOOD.replace("  atoms", "  charge: 010\n  atoms"),
            "line 4: not a YAML file (expected a number in decimal",
        ),
        (
            GOOD.replace("  atoms", "  charge: 0x10\n  atoms"),
            "expected a number in decimal digits, such as 10, f",
        ),
        (
            GOOD.replace("  atoms", "  charge: 1_0\n  atoms"),
            "expected a number in decimal digits, such as 10, f",
        ),
        (GOOD.replace("order: 3", "damping_exponent: 1:30.5, order: 3"), "in decimal digits, such as 10"),
        (
            GOOD.replace("cutoff: 0.9 nm", "cutoff: 0.9 nm, reaction_field_dielectric: 78.5"),
            "mm: reaction_field_dielectric: expected electrostatics reaction-field with it, found pme",
        ),
        (
            GOOD.replace("cutoff: 0.9 nm", "ewald_tolerance: 1e-6, electrostatics: cutoff"),
            "mm: ewald_tolerance: expected electrostatics pme or ewald with it, found cutoff",
        ),
        (
            GOOD.replace("order: 3", "dispersion: {method: none, damping: b3lyp}, order: 3"),
            "qm.dftb.dispersion: damping: expected a method with it, d3bj or d4, found none",
        ),
        (
            GOOD.replace("order: 3", "dispersion: {method: d4, damping: {s8: 1, a1: 0.4, a2: -5}}, order: 3"),
            "dispersion.damping.a2: input should be greater than or equal to 0, found -5",
        ),
    ],
)
def test_wrong_configurations_are_explained_in_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, text))
    assert message in str(error.value)
    assert str(tmp_path / "pidelta.yaml") in str(error.value)
    assert "\n" not in str(error.value)


def test_the_order_is_that_of_the_parameters(tmp_path):
    orders = {}
    for key in (
        "parameters: builtin",
        "parameters: slako",
        "parameters: slako, order: 2",
        "parameters: builtin, order: 2",
    ):
        path = tmp_path / "pidelta.yaml"
        path.write_text(f"structure: a.xyz\nqm: {{dftb: {{{key}}}}}\n")
        orders[key] = load_config(path).qm.dftb.order
    assert list(orders.values()) == [3, 2, 2, 2]


def test_builtin_parameters_bring_their_hubbard_derivatives(tmp_path):
    text = GOOD.replace("parameters: slako", "parameters: builtin").replace("hubbard_derivatives: 3ob, ", "")
    dftb = load_config(write(tmp_path, text)).qm.dftb
    assert (dftb.parameters, dftb.order, dftb.hubbard_derivatives) == ("builtin", 3, None)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["14 angstrom", "14 A", "14 Å", "14 \N{ANGSTROM SIGN}", "14Å", "1.4 nm"])
def test_lengths_with_their_unit(text):
    assert parse_quantity(text, "length") == pytest.approx(14.0 * ANGSTROM, rel=1e-15)


@pytest.mark.parametrize("text", [1.4, "1.4", "nm", "1.4 1.5 nm", None, True])
def test_a_number_without_a_unit_is_no_length(text):
    with pytest.raises(ValueError, match="expected a length with its unit"):
        parse_quantity(text, "length")


@pytest.fixture
def water(tmp_path):
    path = tmp_path / "w.pdb"
    lines = ["CRYST1   20.000   21.000   22.000  90.00  90.00  90.00 P 1           1"]
    for index, (name, residue, number, x) in enumerate(
        [("O", "HOH", 1, 0.0), ("H1", "HOH", 1, 0.96), ("H2", "HOH", 1, -0.3), ("NA", "NA", 2, 5.0)]
    ):
        element = "Na" if name == "NA" else name[0]
        lines.append(
            f"HETATM{index + 1:5d} {name:<4s} {residue:>3s} A{number:4d}    {x:8.3f}{0.0:8.3f}{0.0:8.3f}"
            f"  1.00  0.00          {element:>2s}"
        )
    path.write_text("\n".join([*lines, "END", ""]))
    return read_structure(path)


def test_structure_in_bohr(water):
    assert water.numbers.tolist() == [8, 1, 1, 11]
    assert water.cell[1, 1] == pytest.approx(21.0 / 0.529177210903)
    assert water.positions[1, 0] == pytest.approx(0.96 / 0.529177210903)


def test_broken_structures(tmp_path):
    with pytest.raises(StructureError, match="no such structure file"):
        read_structure(tmp_path / "none.xyz")
    broken = tmp_path / "broken.xyz"
    broken.write_text("3\n\nO 0 0 0\nH 0 0 1\n")
    with pytest.raises(StructureError, match=r"cannot be read as \.xyz"):
        read_structure(broken)
    from_ipi = tmp_path / "ipi.xyz"
    from_ipi.write_text(
        "1\n# CELL(abcABC): 9 9 9 90 90 90 positions{atomic_unit} cell{atomic_unit}\nO 0 0 0\n"
    )
    with pytest.raises(StructureError, match="found one of i-PI"):
        read_structure(from_ipi)
    unknown = tmp_path / "a.doc"
    unknown.write_text("")
    with pytest.raises(StructureError, match=r"expected a structure ending in .*found '.doc'"):
        read_structure(unknown)
    nan = tmp_path / "nan.xyz"
    nan.write_text("1\n\nO nan 0 0\n")
    with pytest.raises(StructureError, match="expected finite coordinates"):
        read_structure(nan)


def test_a_value_out_of_range_is_shown_as_it_was_written(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("structure: a.gro\nmm: {water: spc-fw, cutoff: -1.4 nm}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mm\.cutoff: .* found '-1\.4 nm'"):
        load_config(path)


@pytest.mark.parametrize("key", ["charge_remainder: [3]", "links: {position: fixed}"])
def test_keys_of_a_border_need_a_force_field(tmp_path, key):
    path = tmp_path / "pidelta.yaml"
    path.write_text(f"structure: x.xyz\nqm: {{atoms: all, {key}}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"qm\.{key.split(':')[0]}: expected a section mm"):
        load_config(path)


def test_an_embedding_without_a_force_field_has_no_effect(tmp_path):
    path = tmp_path / "pidelta.yaml"
    path.write_text("structure: x.xyz\nqm: {atoms: all}\nembedding: {cutoff: 0.3 nm}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"embedding: expected a section mm .*, found none"):
        load_config(path)
