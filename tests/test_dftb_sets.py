"""Sets with a description: packed, built in, exported, and used by a configuration."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from made_up_set import DERIVATIVES, SPIN_CONSTANTS, write_made_up_set
from pidelta.cli.main import main
from pidelta.config import load_config
from pidelta.errors import ConfigError, ParameterError
from pidelta.parametrisation.recipe import BUILTIN_RECIPE, read_recipe
from pidelta.qm.base import QMEngine
from pidelta.qm.dftb import sets
from pidelta.qm.dftb.parameters import load_parameters
from pidelta.setup import Setup

METHANE = np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.1]]) * 1.2  # bohr


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("made-up")
    return {order: write_made_up_set(root / f"dftb{order}", order) for order in (2, 3)}


@pytest.fixture
def builtin(folders: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The made-up set in the place of the built-in one."""
    path = tmp_path / "builtin" / "made-up-1.2.tar.xz"
    path.parent.mkdir()
    path.write_bytes(sets.pack([sets.read_folder(folder) for folder in folders.values()]))
    monkeypatch.setattr(sets, "BUILTIN_FOLDER", path.parent)
    return path


@pytest.fixture
def no_builtin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "BUILTIN_FOLDER", tmp_path / "none")


def engine(folder: Path, dftb: str, symbols: str = "CHHHH") -> QMEngine:
    lines = [f"{s} {x} {y} {z}" for s, (x, y, z) in zip(symbols, METHANE, strict=True)]
    (folder / "m.xyz").write_text("\n".join(["5", "", *lines, ""]))
    (folder / "m.yaml").write_text(f"structure: m.xyz\nqm: {{dftb: {{{dftb}}}}}\n")
    return Setup(load_config(folder / "m.yaml")).engine


def energy(of: QMEngine) -> float:
    return float(of.evaluate(METHANE[None], np.linspace(-0.01, 0.02, 5)[None]).energy[0])


def test_a_packed_set_holds_the_files_as_they_are(builtin: Path, folders: dict[int, Path]) -> None:
    with tarfile.open(builtin, "r:xz") as archive:
        names = archive.getnames()
        for order, folder in folders.items():
            for path in folder.glob("*.skf"):
                member = archive.extractfile(f"order-{order}/{path.name}")
                assert member is not None
                assert member.read() == path.read_bytes()
    assert len(names) == 2 * (4 + 1)


def test_the_same_set_gives_the_same_bytes(builtin: Path, folders: dict[int, Path], tmp_path: Path) -> None:
    again = []
    for order, folder in reversed(folders.items()):
        copy = shutil.copytree(folder, tmp_path / f"copy-{order}")
        for path in copy.iterdir():
            os.utime(path, (0, 1e9))
            path.chmod(0o600)
        again.append(sets.read_folder(copy))
    assert sets.pack(again) == builtin.read_bytes()


@pytest.mark.parametrize(
    ("order", "explicit"),
    [(2, ""), (3, ", hubbard_derivatives: {H: -0.19, C: -0.15}, damping_exponent: 4.2")],
)
def test_builtin_needs_no_other_key(
    builtin: Path, folders: dict[int, Path], tmp_path: Path, order: int, explicit: str
) -> None:
    found = engine(tmp_path, f"parameters: builtin, order: {order}")
    expected = engine(tmp_path, f"parameters: {folders[order]}, order: {order}{explicit}")
    assert found.identity == expected.identity
    assert energy(found) == energy(expected)
    other = engine(tmp_path, f"parameters: builtin, order: {5 - order}")
    assert abs(energy(other) - energy(found)) > 1e-4


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("damping_exponent: 3", "hubbard_derivatives: {H: -0.19, C: -0.15}, damping_exponent: 3"),
        (
            "hubbard_derivatives: {H: -0.1, C: -0.1}",
            "hubbard_derivatives: {H: -0.1, C: -0.1}, damping_exponent: 4.2",
        ),
        ("hubbard_derivatives: 3ob", "hubbard_derivatives: 3ob, damping_exponent: 4.0"),
    ],
)
def test_a_given_value_overrides_that_of_the_set(
    builtin: Path, folders: dict[int, Path], tmp_path: Path, given: str, meant: str
) -> None:
    found = engine(tmp_path, f"parameters: builtin, order: 3, {given}")
    expected = engine(tmp_path, f"parameters: {folders[3]}, order: 3, {meant}")
    assert found.identity == expected.identity
    assert found.identity != engine(tmp_path, "parameters: builtin, order: 3").identity


def test_what_the_builtin_set_lacks_is_named(builtin: Path, folders: dict[int, Path], tmp_path: Path) -> None:
    expected = r"qm\.dftb\.parameters: expected elements among H, C, which .* 1\.2 has, found N; other"
    with pytest.raises(ConfigError, match=expected):
        engine(tmp_path, "parameters: builtin, order: 3", symbols="NHHHH")
    builtin.write_bytes(sets.pack([sets.read_folder(folders[3])]))
    with pytest.raises(ConfigError, match=r"qm\.dftb\.order: expected 3 with the built-in .*, found 2$"):
        engine(tmp_path, "parameters: builtin, order: 2")


@pytest.mark.parametrize("order", [2, 3])
def test_a_version_without_a_set_says_so(no_builtin: None, tmp_path: Path, order: int) -> None:
    with pytest.raises(ConfigError, match=r"qm\.dftb\.parameters: expected a folder .* not in this version$"):
        engine(tmp_path, f"parameters: builtin, order: {order}")


def test_the_shipped_set_is_one_and_sound() -> None:
    (path,) = sets.BUILTIN_FOLDER.glob("*")
    assert path.stat().st_size < 1e6
    recipe = hashlib.sha256(read_recipe(BUILTIN_RECIPE).model_dump_json().encode()).hexdigest()
    assert sorted(sets.builtin_set()) == [2, 3]
    for order, files in sets.builtin_set().items():
        description = files.description
        assert path.name == f"{description.name}-{description.version}.tar.xz"
        assert description.recipe == recipe
        assert description.order == order
        assert description.spin_constants is not None
        assert set(files.parameters(description.elements).elements) == set(description.elements)


def test_the_wheel_has_the_set(tmp_path: Path) -> None:
    """A package of nothing but the set, built with the project's own settings."""
    pytest.importorskip("setuptools", minversion="77")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    package = tmp_path / "driver" / "pidelta"
    builtin = package / "qm" / "dftb" / sets.BUILTIN_FOLDER.name
    builtin.mkdir(parents=True)
    (package / "__init__.py").touch()
    (builtin / "made-up-1.2.tar.xz").write_bytes(b"a set")
    (package / "parametrisation").mkdir()
    shutil.copy(BUILTIN_RECIPE, package / "parametrisation")
    command = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("pidelta/qm/dftb/builtin/made-up-1.2.tar.xz") == b"a set"
        assert "pidelta/parametrisation/recipe.yaml" in archive.namelist()


def change_description(folder: Path, old: str, new: str) -> None:
    path = folder / sets.DESCRIPTION
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "set.json").unlink(), "set.json: cannot be read: No such file or directory"),
        (lambda f: (f / "set.json").write_text("{"), "set.json: invalid JSON"),
        (lambda f: change_description(f, '"order":3', '"order":4'), "set.json: order: input should be 2 or"),
        (lambda f: change_description(f, '"version"', '"versoin"'), "set.json: missing key version"),
        (
            lambda f: change_description(f, '"C":-0.15', '"N":-0.15'),
            "set.json: hubbard_derivatives: expected H, C, found H, N",
        ),
        (
            lambda f: change_description(f, '"H":[[-0.07]],', ""),
            "set.json: spin_constants: expected H, C, found C",
        ),
        (
            lambda f: change_description(f, "[-0.03,-0.025]", "[-0.03,-0.02]"),
            "set.json: spin_constants: C: expected a symmetric matrix, found [[-0.03, -0.02], [-0.025, ",
        ),
        (
            lambda f: change_description(f, "[-0.03,-0.025],", ""),
            "set.json: spin_constants: C: expected a symmetric matrix, found [[-0.025, -0.0225]]",
        ),
        (
            lambda f: change_description(f, "[[-0.07]]", "[[-0.07,0],[0,0]]"),
            "set.json: spin_constants: H: expected 1 shells, found 2",
        ),
        (
            lambda f: change_description(f, "[[-0.07]]", "[]"),
            "set.json: spin_constants: H: expected 1 shells, found 0",
        ),
        (lambda f: (f / "C-H.skf").unlink(), "C-H.skf: cannot be read: No such file or directory"),
        (lambda f: (f / "C-H.skf").write_text(""), "C-H.skf: expected the grid spacing"),
    ],
)
def test_folders_that_are_no_set(folders, tmp_path, change, message) -> None:
    copy = shutil.copytree(folders[3], tmp_path / "copy")
    change(copy)
    with pytest.raises(ParameterError, match=re.escape(message)) as error:
        sets.read_folder(copy)
    assert str(error.value).startswith(str(copy))
    assert "\n" not in str(error.value)


def test_files_that_are_no_packed_set(builtin: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.tar.xz"
    empty = io.BytesIO()
    with tarfile.open(fileobj=empty, mode="w:xz"):
        pass
    for content in (b"", b"text", builtin.read_bytes()[:-100], empty.getvalue()):
        path.write_bytes(content)
        with pytest.raises(ParameterError, match=r"broken\.tar\.xz: expected a packed Slater-Koster set"):
            sets.open_set(path)
    with pytest.raises(ParameterError, match=r"none\.tar\.xz: cannot be read: No such file"):
        sets.open_set(tmp_path / "none.tar.xz")


def test_spin_constants_are_not_part_of_the_identity(folders: dict[int, Path], tmp_path: Path) -> None:
    plain = sets.read_folder(write_made_up_set(tmp_path / "plain", 3, spin_constants=None))
    found = sets.read_folder(folders[3])
    assert plain.description.spin_constants is None
    assert found.description.spin_constants == SPIN_CONSTANTS
    assert plain.parameters(["C"]).identity == found.parameters(["C"]).identity
    sets.export(plain, tmp_path / "exported")
    assert "Spin" not in (tmp_path / "exported" / "README").read_text()


def pidelta(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pidelta", "slater-koster", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_pack_and_export(folders, tmp_path, monkeypatch, capsys) -> None:
    """From folders through the file and back, by the command line."""
    packed = tmp_path / "builtin" / "made-up-1.2.tar.xz"
    packed.parent.mkdir()
    monkeypatch.setattr(sets, "BUILTIN_FOLDER", packed.parent)
    assert pidelta(monkeypatch, "pack", *folders.values(), "--output", packed) == 0
    assert "made-up 1.2, order 2 and 3, H, C, " in capsys.readouterr().out
    assert pidelta(monkeypatch, "export", tmp_path / "both") == 0
    assert pidelta(monkeypatch, "export", tmp_path / "third", "--order", 3) == 0
    for order, folder in (
        (2, tmp_path / "both/order-2"),
        (3, tmp_path / "both/order-3"),
        (3, tmp_path / "third"),
    ):
        exported = load_parameters(folder, DERIVATIVES)
        assert exported.identity == load_parameters(folders[order], DERIVATIVES).identity
        assert sets.read_folder(folder).description.order == order
    assert sorted(path.name for path in (tmp_path / "third").iterdir()) == [
        *("C-C.skf", "C-H.skf", "H-C.skf", "H-H.skf", "README", "set.json")
    ]
    readme = (tmp_path / "third" / "README").read_text()
    for text in (
        "License: MIT",
        "HubbardDerivs {\n    H = -0.19\n    C = -0.15\n",
        "Damping {\n    Exponent = 4.2\n",
        'C = "p"\n    H = "s"\n',
        "ShellResolvedSpin = Yes\n  #   H = { -0.07 }\n  #   C = { -0.03 -0.025 -0.025 -0.0225 }\n  # }\n",
    ):
        assert text in readme
    assert "Exponent" not in (tmp_path / "both" / "order-2" / "README").read_text()


def test_commands_explain_in_one_line(builtin, folders, tmp_path, monkeypatch, capsys) -> None:
    other = write_made_up_set(tmp_path / "other", 2, version="1.3")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "O-O.skf").touch()
    output = ("--output", tmp_path / "out.tar.xz")
    for arguments, message in (
        (("pack", folders[3], folders[3], *output), "expected another order than in .*, found 3 in both"),
        (("pack", folders[3], other, *output), "set.json: version: expected 1.3 as in .*/other, found 1.2"),
        (("pack", tmp_path, *output), "set.json: cannot be read: No such file or directory"),
        (("pack", folders[3], "--output", tmp_path / "no/out"), "no/out: No such file or directory"),
        (("export", tmp_path / "taken", "--order", 3), "without .skf files, found O-O.skf"),
        (("export", tmp_path / "new", "--order", 4), "--order: expected 2 or 3, found 4"),
    ):
        assert pidelta(monkeypatch, *arguments) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert re.search(message, line)
    assert not (tmp_path / "out.tar.xz").exists()


def test_export_without_a_set(no_builtin, tmp_path, monkeypatch, capsys) -> None:
    assert pidelta(monkeypatch, "export", tmp_path / "new") == 2
    assert "built-in Slater-Koster set is not in this version" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
