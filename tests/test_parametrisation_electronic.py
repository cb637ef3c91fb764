"""Recipe, cache and files of Slater-Koster tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dftb_sets import make_engine
from parametrisation_support import RECIPE
from pidelta.errors import ConfigError, ParameterError
from pidelta.parametrisation.electronic import ElectronicTables, make_tables
from pidelta.parametrisation.recipe import BUILTIN_RECIPE, Recipe, read_recipe
from pidelta.parametrisation.writer import exponential_head, write_skf
from pidelta.qm.dftb.parameters import load_parameters
from pidelta.qm.dftb.repulsive import Repulsive, spline_repulsive
from pidelta.qm.dftb.skf import SlaterKosterFile, parse_skf, read_content

pytest.importorskip("pyscf")


def recipe_file(folder: Path, **changes: str) -> Path:
    text = RECIPE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def recipe(cache: Path) -> Recipe:
    return read_recipe(recipe_file(cache))


@pytest.fixture(scope="module")
def tables(recipe: Recipe, cache: Path) -> ElectronicTables:
    return make_tables(recipe, cache)


def repulsive() -> Repulsive:
    """Zero with two derivatives at its cutoff of 3 bohr."""
    value, slope, curvature = 0.125, -0.375, 0.75  # of (3 - r)^3 / 8 at 2 bohr
    head = exponential_head(2.0, value, slope, curvature)
    intervals = [
        [value, slope, curvature / 2.0, -0.125],
        [0.015625, -0.09375, 0.1875, -0.125, 0.0, 0.0],
    ]
    return spline_repulsive([2.0, 2.5], intervals, head, 3.0)


def test_shipped_recipe_is_valid() -> None:
    recipe = read_recipe(BUILTIN_RECIPE)
    assert list(recipe.elements) == ["H", "C", "N", "O", "S", "Cl"]
    assert recipe.elements["N"].onsite == {"2s": -0.62}
    assert recipe.elements["S"].valence_shells == (3, 3, 3)
    assert len(recipe.pairs) == 21


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valence: [1s]": "valence: [2s]"}, "elements.H: valence: expected shells among those of electrons"),
        ({"2p: 4": "2p: 5"}, "elements: O: electrons: expected 8 in all, found 9"),
        ({"2p: 4": "2p: 7"}, "elements.O.electrons: expected 0 to 6 electrons in 2p, found 7"),
        ({"2.43 bohr": "2.43"}, "elements.H.wave_function_radius: expected a length with its unit"),
        (
            {"2p: 4}": "2p: 4, 3d: 0}", "valence: [2s, 2p]": "valence: [2s, 2p, 3d]"},
            "elements.O: onsite: expected an energy other than 0 of the empty shell 3d, found none",
        ),
        ({"functional: PBE": "functional: BLYP"}, "functional: input should be 'LDA' or 'PBE'"),
        ({"last: 6 bohr": "last: 1 bohr"}, "grid: last: expected at least 1.2 bohr, found 1"),
        ({"  O:": "  Oxygen:"}, "elements: expected the symbol of an element, found 'Oxygen'"),
        ({"functional:": "funktional:"}, "missing key functional"),
        ({"H-O: 3 bohr, ": ""}, "repulsive.cutoffs: expected the pairs H-H, H-O, O-O, found H-H, O-O"),
        ({"temperatures: [500 K]": "temperatures: []"}, "training.temperatures: list should have at least 1"),
        ({"seed: 1": "seed: -1"}, "training.seed: input should be greater than or equal to 0"),
        ({'["O"]': '["O.O"]'}, "training: expected the SMILES of one molecule, found 'O.O'"),
        ({'["O"]': '["O", "O"]'}, "training: expected each molecule once, found O again"),
        ({'["O"]': "[NO]"}, "training.molecules.0.smiles.0: input should be a valid string, found False"),
    ],
)
def test_errors_of_a_recipe_name_file_and_key(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    path = recipe_file(tmp_path, **changes)
    with pytest.raises(ConfigError) as error:
        read_recipe(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_stages_are_computed_once(recipe: Recipe, tables: ElectronicTables, cache: Path) -> None:
    computed: list[str] = []
    again = make_tables(recipe, cache, computed.append)
    assert computed == []
    for pair, file in tables.files.items():
        np.testing.assert_array_equal(again.files[pair].hamiltonian, file.hamiltonian)
    assert again.hubbard_derivatives == tables.hubbard_derivatives


def test_a_change_repeats_only_what_depends_on_it(
    recipe: Recipe, tables: ElectronicTables, cache: Path, tmp_path: Path
) -> None:
    other = read_recipe(recipe_file(tmp_path, **{"2.875 bohr": "3 bohr", "-0.9": "-0.88"}))
    computed: list[str] = []
    changed = make_tables(other, cache, computed.append)
    assert sorted(computed) == ["pair-H-H", "pair-H-O"]
    assert np.any(changed.files["H", "O"].hamiltonian != tables.files["H", "O"].hamiltonian)
    np.testing.assert_array_equal(changed.files["H", "O"].overlap, tables.files["H", "O"].overlap)
    onsite = changed.files["O", "O"].onsite
    assert onsite is not None
    assert onsite[0] == -0.88


def write_set(tables: ElectronicTables, folder: Path) -> None:
    pairs = {("H", "H"): repulsive(), ("H", "O"): repulsive(), ("O", "O"): repulsive()}
    for (first, second), file in tables.with_repulsives(pairs).items():
        write_skf(folder / f"{first}-{second}.skf", file, 1.0, ["made by a test", "Spline is a word here"])


def test_what_is_written_reads_back(tables: ElectronicTables, tmp_path: Path) -> None:
    write_set(tables, tmp_path)
    for (first, second), file in tables.files.items():
        found = parse_skf(read_content(tmp_path / f"{first}-{second}.skf"), "written", first == second)
        np.testing.assert_allclose(found.hamiltonian, file.hamiltonian, rtol=1e-10)
        np.testing.assert_allclose(found.overlap, file.overlap, rtol=1e-10)
        assert found.spacing == file.spacing
        for name in ("onsite", "hubbard_u", "occupations"):
            if first == second:
                np.testing.assert_allclose(getattr(found, name), getattr(file, name), rtol=1e-9)
        for name in ("starts", "coefficients", "head"):
            np.testing.assert_allclose(getattr(found.repulsive, name), getattr(repulsive(), name), atol=1e-10)


def test_files_and_tables_give_the_same_energies(tables: ElectronicTables, tmp_path: Path) -> None:
    write_set(tables, tmp_path)
    pairs = {("H", "H"): repulsive(), ("O", "H"): repulsive(), ("O", "O"): repulsive()}
    positions = np.array([[[0.0, 0.0, 0.0], [1.43, 1.1, 0.0], [-1.43, 1.1, 0.0]]])
    results = [
        make_engine(np.array([8, 1, 1]), parameters).evaluate(positions, np.zeros((1, 3)))
        for parameters in (load_parameters(tmp_path, ["H", "O"]), tables.parameter_set("test", pairs))
    ]
    np.testing.assert_allclose(results[0].energy, results[1].energy, atol=1e-9)
    np.testing.assert_allclose(results[0].gradient, results[1].gradient, atol=1e-8)
    assert results[0].charges[0, 0] < -0.3


def test_extended_format_holds_d_shells(tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    file = SlaterKosterFile(
        0.1,
        generator.normal(size=(20, 10)),
        generator.normal(size=(20, 10)),
        repulsive(),
        onsite=np.array([-0.6, -0.2, 0.05]),
        hubbard_u=np.array([0.33, 0.33, 0.33]),
        occupations=np.array([2.0, 4.0, 0.0]),
    )
    path = tmp_path / "S-S.skf"
    write_skf(path, file, 32.06, [])
    assert path.read_text().startswith("@\n")
    found = parse_skf(read_content(path), "written", homonuclear=True)
    for name in ("hamiltonian", "overlap", "onsite", "hubbard_u", "occupations"):
        np.testing.assert_allclose(getattr(found, name), getattr(file, name), rtol=1e-10)


SULFUR = """
  S:
    electrons: {1s: 2, 2s: 2, 2p: 6, 3s: 2, 3p: 4, 3d: 0}
    valence: [3s, 3p, 3d]
    wave_function_radius: 3.8 bohr
    density_radius: 9 bohr
    onsite: {3d: 0.1 hartree}
repulsive: {orders: [2], cutoffs: {H-H: 3 bohr, H-S: 3 bohr, S-S: 3 bohr}}
training:"""


def test_an_empty_d_shell_is_in_tables_files_and_energies(tmp_path: Path, cache: Path) -> None:
    head, tail = RECIPE[: RECIPE.index("  O:")], RECIPE[RECIPE.index("training:") + len("training:") :]
    path = tmp_path / "recipe.yaml"
    path.write_text(head.rstrip() + SULFUR + tail)
    tables = make_tables(read_recipe(path), cache)
    sulfur = tables.files["S", "S"]
    # Those of the free atom that the published sets have too (mio-1-1), and the recipe's.
    np.testing.assert_allclose(sulfur.onsite, [-0.6300, -0.2580, 0.1], atol=1e-4)
    np.testing.assert_allclose(sulfur.hubbard_u, 0.3288, atol=1e-4)
    np.testing.assert_array_equal(sulfur.occupations, [2.0, 4.0, 0.0])

    repulsives = {("H", "H"): repulsive(), ("H", "S"): repulsive(), ("S", "S"): repulsive()}
    for (first, second), file in tables.with_repulsives(repulsives).items():
        write_skf(tmp_path / f"{first}-{second}.skf", file, 1.0, [])
    # Only H-S.skf has integrals with d functions, as files hold l1 <= l2.
    assert (tmp_path / "H-S.skf").read_text().startswith("@")
    assert not (tmp_path / "S-H.skf").read_text().startswith("@")

    positions = np.array([[[0.0, 0.0, 0.0], [1.83, 1.78, 0.0], [-1.83, 1.78, 0.0]]])
    from_files, from_tables = (
        make_engine(np.array([16, 1, 1]), parameters).evaluate(positions, np.zeros((1, 3)))
        for parameters in (load_parameters(tmp_path, ["H", "S"]), tables.parameter_set("test", repulsives))
    )
    np.testing.assert_allclose(from_files.energy, from_tables.energy, atol=1e-9)
    np.testing.assert_allclose(from_files.gradient, from_tables.gradient, atol=1e-8)
    assert -0.5 < from_files.charges[0, 0] < 0.0


def test_exponential_head_continues_value_and_derivatives() -> None:
    a1, a2, a3 = exponential_head(1.7, 0.3, -0.5, 1.1)
    exponential = np.exp(a2 - a1 * 1.7)
    np.testing.assert_allclose(
        [exponential + a3, -a1 * exponential, a1**2 * exponential], [0.3, -0.5, 1.1], rtol=1e-12
    )


@pytest.mark.parametrize(("slope", "curvature"), [(0.1, 1.0), (-0.1, 0.0), (-0.1, -1.0)])
def test_impossible_heads_are_refused(slope: float, curvature: float) -> None:
    with pytest.raises(ParameterError, match="expected V' < 0 and V'' > 0"):
        exponential_head(1.7, 0.3, slope, curvature)


@pytest.mark.parametrize("head", [(0.0, 0.0, 0.0), (-1.0, -3.0, 0.1), (1.0, 0.0, 0.0)])
def test_files_with_a_wrong_head_are_refused(
    tables: ElectronicTables, tmp_path: Path, head: tuple[float, float, float]
) -> None:
    good = repulsive()
    bad = Repulsive(good.starts, good.origins, good.coefficients, np.array(head))
    file = tables.with_repulsives({("H", "H"): bad})["H", "H"]
    with pytest.raises(ParameterError, match="expected a repulsive head") as error:
        write_skf(tmp_path / "H-H.skf", file, 1.0, [])
    assert "H-H.skf" in str(error.value)
