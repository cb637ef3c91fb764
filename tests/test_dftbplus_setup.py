"""What DFTB+ as the engine asks for, and one line for whatever is wrong; without DFTB+."""

from __future__ import annotations

import _ctypes
import ctypes
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from dftb_sets import make_engine, make_settings
from made_up_set import DERIVATIVES, write_made_up_set
from pidelta.config import load_config
from pidelta.errors import ConfigError, SCCConvergenceError, SetupError
from pidelta.qm.dftb.parameters import load_parameters
from pidelta.qm.dftb.settings import DFTBSettings
from pidelta.qm.dftbplus import engine, inputs, library
from pidelta.qm.dftbplus.engine import DFTBPlusEngine
from pidelta.qm.dftbplus.hsd import parse_hsd, read_hsd
from pidelta.testing.engines import check_shapes

METHANE = np.array([6, 1, 1, 1, 1])
GEOMETRY = 'Geometry = GenFormat {\n <<< "in.gen"\n}\n'
GEN = "5 C\nC H\n1 1 0 0 0\n" + "".join(f"{atom} 2 {atom} 0 0\n" for atom in range(2, 6))
HAMILTONIAN = """
Hamiltonian = DFTB {
  SCC = Yes   # as it should be
  Filling = Fermi { Temperature [K] = 300 }
  MaxAngularMomentum { H = "s"; C = "p" }
  SlaterKosterFiles = Type2FileNames {
    Prefix = "set/"
    Separator = "-"
    Suffix = ".skf"
  }
  ThirdOrderFull = Yes
  HubbardDerivs { H = -0.19
    C = -1.5e-1 }
  HCorrection = Damping { Exponent = 4.2 }
  Mixer = Anderson {}
}
"""


class FakeModule(types.ModuleType):
    """As the Python module of DFTB+, with a library beside it."""

    def __init__(self, folder: Path) -> None:
        super().__init__("dftbplus")
        self.__file__ = str(folder / "lib" / "python3" / "site-packages" / "dftbplus" / "__init__.py")
        self.DftbPlus = object


@pytest.fixture
def folder(tmp_path):
    write_made_up_set(tmp_path / "set", 3)
    (tmp_path / "in.gen").write_text(GEN)
    return tmp_path


def user_keywords(folder, text):
    parameters = load_parameters(folder / "set", ["C", "H"])
    settings = DFTBSettings(
        order=3,
        hubbard_derivatives=DERIVATIVES,
        damping_exponent=4.2,
        electronic_temperature=300 * 3.166811563e-6,
    )
    expected = inputs.hamiltonian(settings, METHANE, parameters, folder / "set")
    path = folder / "dftb_in.hsd"
    path.write_text(text)
    return inputs.user_keywords(path, METHANE, expected, parameters)


class FakeSession:
    """Solves with the built-in engine, and keeps the input."""

    def __init__(self, _, hsd):
        self.input = parse_hsd(hsd.read_text(), "the input")
        self.iterations = 4

    def solve(self, positions, potential, correction):
        parameters, settings = self.made_from
        builtin = make_engine(METHANE, parameters, **settings)
        kernel = None if correction is None else correction[None]
        result = builtin.evaluate(positions[None], potential[None], kernel)
        found = (result.energy[0], result.gradient[0], result.charges[0])
        return library.Solution(*found, iterations=self.iterations, residual=1e-3)

    def close(self):
        self.closed = True


@pytest.fixture
def fake_engine(folder, monkeypatch):
    """The engine without a library; what else it does is its own."""
    for name, fake in {
        "load_library": lambda _: Path("libdftbplus.so"),
        "version": lambda _: "0.4.0",
        "rehearse": lambda *_: None,
        "watch": lambda _: subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=-1),
        "Session": FakeSession,
    }.items():
        monkeypatch.setattr(engine, name, fake)

    def make(**settings):
        parameters = load_parameters(folder / "set", ["C", "H"])
        made = DFTBPlusEngine(METHANE, parameters, folder / "set", make_settings(**settings))
        made._session.made_from = (parameters, settings)
        return made

    return make


def test_settings_reach_dftbplus_whole(fake_engine):
    """What the input says, key by key, and what the engine says of its results."""
    made = fake_engine(
        order=3,
        hubbard_derivatives=DERIVATIVES,
        damping_exponent=4.2,
        electronic_temperature=0.001,
        charge=2,
        tolerance=1e-5,
        max_iterations=50,
    )
    given = made._session.input
    for key, value in {
        "Charge": "2",
        "SCCTolerance": "1e-05",
        "MaxSCCIterations": "50",
        "Filling.Temperature": "0.001",
        "ThirdOrderFull": "Yes",
        "HubbardDerivs.C": "-0.15",
        "HCorrection.Exponent": "4.2",
    }.items():
        assert given.find(f"Hamiltonian.{key}").value == value, key
    assert made.properties == ("scc_iterations",)
    assert made.embedding == "electrostatic"
    positions = 2.1 * np.array([[0, 0, 0], [1, 0, 0], [0, 1.1, 0], [0, 0, 1], [-1, 0.1, -1.0]])
    check_shapes(made, positions, np.zeros(5), charge=2)
    made._session.iterations = 50  # and the residual is above the tolerance
    with pytest.raises(SCCConvergenceError, match="in 50 iterations"):
        made.evaluate(positions[None], np.zeros((1, 5)))


def test_hsd():
    text = 'A = B { C [eV] = 1; D = "x = { y" } # hi {\nE { \n F = 2\n 1 2\n 3 4\n}\nG {}\n'
    root = parse_hsd(text, "here")
    assert root.find("a.c").value == "1"
    assert root.find("A.C").unit == "eV"
    assert root.children["a"].value == "B"
    assert root.find("a.d").value == '"x = { y"'
    assert root.children["e"].text == "1 2\n3 4"
    assert root.find("e.x.y") is None
    again = parse_hsd("\n".join(child.format() for child in root.children.values()), "there")
    assert again == root


def test_hsd_includes(tmp_path):
    (tmp_path / "a.hsd").write_text('A = 1\n<<+ "b.hsd"\n')
    (tmp_path / "b.hsd").write_text("B = 2\n")
    root = read_hsd(tmp_path / "a.hsd")
    assert [node.value for node in root.children.values()] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A {\n", "expected a brace that closes A, found none"),
        ("A = 1\n}\n", "line 2: expected no closing brace"),
        ("A = 1\n = 3", "line 2: expected a key, found ''"),
        ('<<+ "missing.hsd"', "missing.hsd: cannot be read"),
    ],
)
def test_hsd_that_is_none(tmp_path, text, message):
    (tmp_path / "in.hsd").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_hsd(tmp_path / "in.hsd")


@pytest.mark.parametrize(
    "geometry",
    [
        GEOMETRY,
        GEOMETRY.replace('<<< "in.gen"', GEN),
        "Geometry = xyzFormat {\n5\nmethane\nC 0 0 0\n" + "H 1 0 0\n" * 4 + "}\n",
        'Geometry {\nTypeNames = { "C" "H" }\nTypesAndCoordinates [Bohr] {\n'
        + "1 0 0 0\n"
        + "2 1 0 0\n" * 4
        + "}\n}\n",
    ],
)
def test_users_input(folder, geometry):
    keywords = user_keywords(folder, geometry + HAMILTONIAN)
    assert list(keywords) == ["mixer"]
    assert inputs.method_of(keywords) == ""


def test_keywords_that_change_the_method(folder):
    text = GEOMETRY + HAMILTONIAN
    first, second = (
        inputs.method_of(user_keywords(folder, text.replace("SCC = Yes", f"SCC = Yes\n Solvation = {name}")))
        for name in ("A", "B")
    )
    assert first.startswith(" DFTB+input=")
    assert first != second


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "GenFormat",
            "vaspFormat",
            "Geometry: expected GenFormat, xyzFormat or TypesAndCoordinates, found va",
        ),
        ('<<< "in.gen"', "4 C\nC H\n1 1 0 0 0\n2 2 0 0 0\n3 2 0 0 0\n4 2 0 0 0", "the 5 QM atoms, found 4"),
        ('<<< "in.gen"', GEN.replace("2 2 2", "2 1 2"), "Geometry: atom 1: expected H, found C"),
        ('<<< "in.gen"', "5 C", r"Geometry: expected a geometry that DFTB\+ reads, found another"),
        ("= DFTB", "= xTB", "Hamiltonian: expected DFTB, found xTB"),
        ("SCC = Yes", "SCC = No", "Hamiltonian.scc: expected yes as the configuration says, found no"),
        ("SCC = Yes", "SCC = Yes\nCharge = 1", "Hamiltonian.charge: expected 0 .*, found 1"),
        (
            "SCC = Yes",
            "SCC = Yes\nSCCTolerance = 1e-5",
            "Hamiltonian.scctolerance: expected 1e-08 .*, found 1e-5",
        ),
        ("SCC = Yes", "SCC = Yes\nDispersion = DftD3 {}", "Hamiltonian.dispersion: expected none"),
        ("[K] = 300", "[K] = 0", "Hamiltonian.filling.temperature: expected"),
        ('C = "p"', 'C = "d"', "Hamiltonian.maxangularmomentum.c: expected p .*, found d"),
        ("ThirdOrderFull = Yes", "", "Hamiltonian.thirdorderfull: expected yes .*, found no"),
        ("H = -0.19", "H = -0.2", "Hamiltonian.hubbardderivs.h: expected -0.19 .*, found -0.2"),
        ("Exponent = 4.2", "Exponent = 4", "Hamiltonian.hcorrection.exponent: expected 4.2 .*, found 4"),
        (
            "HCorrection = Damping { Exponent = 4.2 }",
            "",
            "Hamiltonian.hcorrection: expected damping .*, found no",
        ),
        ("set/", "other/", "Hamiltonian.SlaterKosterFiles.Prefix: expected the files of the configuration"),
        ('    Prefix = "set/"\n', "", "SlaterKosterFiles.Prefix: expected a folder, found ''"),
        ('"set/"', '"set\n/"', "SlaterKosterFiles.Prefix: expected a folder, found"),
        ('"-"', '"-', r"slaterkosterfiles.separator: expected - .*, found - suffix = "),
        ("SCC = Yes", "SCC = Yes\0", "expected text, found a binary file"),
        ("[K] = 300", "[K] = warm", "filling.temperature: expected 0.00095.* hartree .*, found warm K"),
        ("[K] = 300", "[K] = 1e999", "filling.temperature: expected .*, found 1e999 K"),
        ("[K] = 300", "[eV] = 0.02585", "filling.temperature: expected .* hartree .*, found 0.02585 eV"),
        ('<<< "in.gen"', GEN.replace("1 1 0", "1 -1 0"), r"a geometry that DFTB\+ reads, found another"),
        ("set/", "nowhere/", "nowhere: expected a folder of .skf files, found none"),
        ("Hamiltonian = ", "Reks {}\nHamiltonian = ", "Reks: expected none with pidelta, found one"),
        (
            "Hamiltonian = ",
            "ParserOptions { ParserVersion = 9 }\nHamiltonian = ",
            "ParserVersion: expected 14",
        ),
    ],
)
def test_users_input_that_does_not_agree(folder, old, new, message):
    write_made_up_set(folder / "other", 2)
    text = GEOMETRY + HAMILTONIAN
    assert old in text
    with pytest.raises(SetupError, match=message) as error:
        user_keywords(folder, text.replace(old, new))
    assert "\n" not in str(error.value)


def test_module_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "dftbplus", None)
    with pytest.raises(SetupError, match=r"DFTB\+ needs .*: conda install -c conda-forge dftbplus "):
        library.load_library(None)


def test_another_module_of_that_name(monkeypatch, tmp_path):
    module = FakeModule(tmp_path)
    del module.DftbPlus
    monkeypatch.setitem(sys.modules, "dftbplus", module)
    with pytest.raises(SetupError, match=r"expected the module of DFTB\+ with a class DftbPlus"):
        library.load_library(None)


def test_library_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "dftbplus", FakeModule(tmp_path))
    with pytest.raises(
        SetupError,
        match=r"expected the library of DFTB\+ \(libdftbplus.so or .*DYNAMIC_LOADING.* found none: conda",
    ):
        library.load_library(None)
    with pytest.raises(SetupError, match=r"wrong.so: expected the library of DFTB\+, found no such file"):
        library.load_library(tmp_path / "wrong.so")


def test_library_that_cannot_be_loaded(monkeypatch, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libdftbplus.so").write_text("no library")
    monkeypatch.setitem(sys.modules, "dftbplus", FakeModule(tmp_path))
    with pytest.raises(
        SetupError,
        match=r"expected a library .*DYNAMIC_LOADING, found one that cannot",
    ):
        library.load_library(None)


def test_another_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "dftbplus", FakeModule(tmp_path))
    with pytest.raises(SetupError, match=r"expected DFTB\+ built with WITH_API, .*, found another library"):
        library.load_library(Path(_ctypes.__file__))


def test_library_that_is_too_old(monkeypatch, tmp_path):
    class OldLibrary:
        def __init__(self, path):
            self.dftbp_register_ext_pot_generator = None

        def dftbp_api(self, *numbers):
            for number, value in zip(numbers, (0, 2, 1), strict=True):
                number._obj.value = value

    path = tmp_path / "libdftbplus.so"
    path.touch()
    monkeypatch.setitem(sys.modules, "dftbplus", FakeModule(tmp_path))
    monkeypatch.setattr(ctypes, "CDLL", OldLibrary)
    with pytest.raises(
        SetupError, match=r"expected version 0.4 of the interface or later .*, found 0.2.1: conda"
    ):
        library.load_library(path)


def test_the_message_of_a_set_up_that_failed(monkeypatch, tmp_path):
    """DFTB+ ends its process; what it printed is in the log."""
    monkeypatch.setattr(
        library,
        "_SET_UP",
        "import sys\nopen(sys.argv[3], 'w').write('''WARNING!\n-> Some.\n\nERROR!\n-> No H-H.skf.\n"
        "Path: Hamiltonian\nLine: 3\n''')\nsys.exit(1)",
    )
    with pytest.raises(SetupError) as error:
        library.rehearse(tmp_path / "libdftbplus.so", tmp_path / "dftb_in.hsd")
    assert str(error.value) == "DFTB+ stopped at its set-up: No H-H.skf; Path: Hamiltonian"


def test_a_set_up_that_stops_as_if_all_were_well(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "_SET_UP", "import sys\nsys.exit(0)")
    with pytest.raises(SetupError, match=r"DFTB\+ stopped at its set-up"):
        library.rehearse(tmp_path / "libdftbplus.so", tmp_path / "dftb_in.hsd")


@pytest.mark.parametrize("well", [True, False])
def test_the_end_of_the_process_is_explained(tmp_path, well, capfd):
    """DFTB+ ends the process; what waits for that prints its message and removes the private folder."""
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "dftb+.log").write_text("step 7\nERROR!\n-> Eigenvalue solver failed.\n")
    watcher = library.watch(folder)
    watcher.communicate(b"ended well" if well else b"")
    assert capfd.readouterr().err == ("" if well else "pidelta: DFTB+ stopped: Eigenvalue solver failed\n")
    assert folder.exists() == well


def test_an_input_that_includes_itself(tmp_path):
    path = tmp_path / "r.hsd"
    path.write_text('Options {}\n<<+ "r.hsd"\n')
    with pytest.raises(ConfigError, match=r"r.hsd: expected a file that does not include itself"):
        read_hsd(path)


def test_periodic_inputs_are_refused(folder):
    cell = "0 0 0\n9 0 0\n0 9 0\n0 0 9\n"
    gen = f"Geometry = GenFormat {{\n{GEN.replace('5 C', '5 S')}{cell}}}\n"
    atoms = "\n".join(line.split(maxsplit=1)[1] for line in GEN.splitlines()[2:])
    explicit = (
        'Geometry {\n TypeNames = { "C" "H" }\n TypesAndCoordinates {\n' + atoms + "\n }\n LatticeVectors {\n"
        "9 0 0\n0 9 0\n0 0 9\n }\n}\n"
    )
    for geometry in (gen, explicit):
        with pytest.raises(ConfigError, match=r"Geometry: expected a cluster, .* found a periodic one"):
            user_keywords(folder, geometry + HAMILTONIAN)


@pytest.mark.parametrize(
    ("qm", "message"),
    [
        ("{dftbplus: {library: a.so}}", "unknown key qm.dftbplus with engine: dftb"),
        (
            "{engine: dftb+, dftb: {device: cuda}}",
            "qm.dftb.device: input should be 'cpu' with engine: dftb\\+, found 'cuda'",
        ),
        ("{engine: dftb+, dftb: {scc: {start: none}}}", "qm.dftb.scc.start: input should be 'previous'"),
        (
            "{engine: dftb+, dftb: {scc: {start: extrapolated}}}",
            "qm.dftb.scc.start: input should be 'previous' with engine: dftb\\+, found 'extrapolated'",
        ),
        ("{engine: dftbplus}", "qm.engine: expected one of dftb, dftb\\+, ase, none, found dftbplus"),
        ("{engine: [dftb]}", r"qm.engine: expected one of dftb, dftb\+, ase, none, found \['dftb'\]"),
        ("{engine: dftb+, dftbplus: 5}", "qm.dftbplus: expected keys and values, found 5"),
        ("{engine: dftb+, ase: {calculator: a.B}}", "unknown key qm.ase with engine: dftb\\+"),
    ],
)
def test_configurations(tmp_path, qm, message):
    (tmp_path / "pidelta.yaml").write_text(f"structure: a.xyz\nqm: {qm}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "pidelta.yaml")


def test_paths_are_relative_to_the_configuration(tmp_path):
    (tmp_path / "pidelta.yaml").write_text(
        "structure: a.xyz\nqm: {engine: dftb+, dftbplus: {input: dftb_in.hsd, library: lib/libdftbplus.so}}\n"
    )
    config = load_config(tmp_path / "pidelta.yaml")
    assert config.qm.dftbplus.input == tmp_path / "dftb_in.hsd"
    assert config.qm.dftbplus.library == tmp_path / "lib" / "libdftbplus.so"
