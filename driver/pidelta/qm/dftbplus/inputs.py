"""Inputs of DFTB+: written from the settings, and a user's own compared with them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from pidelta.errors import ConfigError
from pidelta.qm.dftb.parameters import ParameterSet, load_parameters
from pidelta.qm.dftb.settings import DFTBSettings
from pidelta.qm.dftbplus.hsd import Node, parse_hsd, read_hsd
from pidelta.state import IntArray
from pidelta.units import parse_quantity

PARSER_VERSION = "14"  # of DFTB+ 24.1 and 25.1

_SECTIONS = ("geometry", "hamiltonian", "driver", "options", "analysis", "parseroptions", "parallel")
# What the configuration sets, with the defaults of DFTB+.
_GOVERNED = {
    "scc": "no",
    "scctolerance": None,
    "maxscciterations": None,
    "charge": "0",
    "maxangularmomentum": None,
    "slaterkosterfiles": None,
    "slaterkosterfiles.lowercasetypename": "no",
    "filling": "fermi",
    "filling.temperature": "0",
    "thirdorder": "no",
    "thirdorderfull": "no",
    "hubbardderivs": None,
    "hcorrection": "none",
    "dispersion": "none",
    "spinpolarisation": "",
    "spinconstants": None,
    "shellresolvedscc": "no",
    "orbitalresolvedscc": "no",
}
_OPTIONAL = ("scctolerance", "maxscciterations")
_BY_ELEMENT = ("maxangularmomentum", "hubbardderivs")
_LONGEST = 60  # characters of a value in a message
_TECHNICAL = ("mixer", "solver", "convergentscconly")  # no part of the method


def hamiltonian(settings: DFTBSettings, numbers: IntArray, parameters: ParameterSet, folder: Path) -> Node:
    """Return the section Hamiltonian for atoms (n,), with the files of `parameters` in `folder`."""
    symbols = sorted({chemical_symbols[number] for number in numbers})
    shells = {symbol: f'"{"spd"[parameters.elements[symbol].l_max]}"' for symbol in symbols}
    lines = [
        "Hamiltonian = DFTB {",
        "SCC = Yes",
        f"SCCTolerance = {settings.scc.tolerance!r}",
        f"MaxSCCIterations = {settings.scc.max_iterations}",
        "ConvergentSCCOnly = No",
        f"Charge = {settings.charge}",
        *_block("MaxAngularMomentum", shells),
        f'SlaterKosterFiles = Type2FileNames {{\nPrefix = "{folder}/"',
        'Separator = "-"\nSuffix = ".skf"\n}',
        f"Filling = Fermi {{\nTemperature [Hartree] = {settings.electronic_temperature!r}\n}}",
    ]
    if settings.order == 3 and settings.hubbard_derivatives is not None:
        values = {}
        for symbol in symbols:
            count = parameters.elements[symbol].l_max + 1 if settings.shell_resolved else 1
            values[symbol] = " ".join([repr(float(settings.hubbard_derivatives[symbol]))] * count)
        lines += ["ThirdOrderFull = Yes", *_block("HubbardDerivs", values)]
    if settings.damping_exponent is not None:
        lines.append(f"HCorrection = Damping {{\nExponent = {settings.damping_exponent!r}\n}}")
    if settings.shell_resolved:
        lines.append("ShellResolvedSCC = Yes")
    if settings.has_two_spins:
        lines += _spin(settings, {symbol: parameters.elements[symbol].l_max + 1 for symbol in symbols})
    return parse_hsd("\n".join([*lines, "}"]), "the input of DFTB+").children["hamiltonian"]


def whole_input(numbers: IntArray, hamiltonian: Node) -> str:
    """Return an input for atoms (n,) that writes no files; the library is given the positions later."""
    symbols = [chemical_symbols[number] for number in numbers]
    names = sorted(set(symbols))
    atoms = [f"{names.index(symbol) + 1} {10 * row} 0 0" for row, symbol in enumerate(symbols)]
    lines = [
        "Geometry {",
        "TypeNames = { " + " ".join(f'"{name}"' for name in names) + " }",
        "TypesAndCoordinates [Bohr] {",
        *atoms,
        "}\n}",
        hamiltonian.format(),
        "Driver {}",
        "Options {\nWriteDetailedOut = No\nRestartFrequency = 0\n}",
        "Analysis {\nPrintForces = Yes\nWriteBandOut = No\n}",
        f"ParserOptions {{\nParserVersion = {PARSER_VERSION}\nWriteHSDInput = No\n}}",
    ]
    return "\n".join([*lines, ""])


def user_keywords(path: Path, numbers: IntArray, expected: Node, parameters: ParameterSet) -> dict[str, Node]:
    """Return what the Hamiltonian of a user's input has beyond `expected`, by key in lower case.

    Args:
        path: the input. Its Driver, Options and Analysis are not used.
        numbers: (n,) atoms that its geometry must have.
        expected: the Hamiltonian that the configuration asks for; the input must agree with it.
        parameters: the Slater-Koster set of the configuration.

    Raises:
        ConfigError: the input is malformed or does not agree; the message names the key.
        ParameterError: its Slater-Koster files cannot be read.
    """
    root = read_hsd(path)
    for key, node in root.children.items():
        if key not in _SECTIONS:
            raise ConfigError(f"{path}: {node.name}: expected none with pidelta, found one")
    version = root.find("ParserOptions.ParserVersion")
    if version is not None and version.value != PARSER_VERSION:
        raise ConfigError(
            f"{path}: ParserOptions.ParserVersion: expected {PARSER_VERSION}, found {version.value}"
        )
    _check_geometry(path, root.children.get("geometry"), numbers)
    given = root.children.get("hamiltonian")
    if given is None or given.value.lower() != "dftb":
        raise ConfigError(f"{path}: Hamiltonian: expected DFTB, found {given.value if given else 'none'}")
    _check_hamiltonian(path, given, expected)
    prefix = given.find("SlaterKosterFiles.Prefix")
    folder = prefix.value.strip("\"'") if prefix is not None else ""
    if not folder or not folder.isprintable():
        raise ConfigError(
            f"{path}: Hamiltonian.SlaterKosterFiles.Prefix: expected a folder, found {folder!r}"
        )
    found = load_parameters(path.parent / folder, parameters.elements).identity
    if found != parameters.identity:
        raise ConfigError(
            f"{path}: Hamiltonian.SlaterKosterFiles.Prefix: expected the files of the configuration "
            f"({parameters.identity}), found others ({found})"
        )
    return {key: node for key, node in given.children.items() if key not in _GOVERNED}


def method_of(keywords: Mapping[str, Node]) -> str:
    """Return what `user_keywords` add to the identity of the method; empty if they are technical."""
    text = "\n".join(node.format() for key, node in sorted(keywords.items()) if key not in _TECHNICAL)
    return f" DFTB+input={hashlib.sha256(text.encode()).hexdigest()[:12]}" if text else ""


def _block(name: str, values: Mapping[str, str]) -> list[str]:
    return [f"{name} {{", *(f"{key} = {value}" for key, value in values.items()), "}"]


def _spin(settings: DFTBSettings, shells: Mapping[str, int]) -> list[str]:
    lines = [f"SpinPolarisation = Colinear {{\nUnpairedElectrons = {settings.multiplicity - 1}\n}}"]
    lines.append("SpinConstants {")
    if not settings.shell_resolved:  # else DFTB+ takes it for granted
        lines.append("ShellResolvedSpin = Yes")
    assert settings.spin_constants is not None
    for symbol, count in shells.items():
        matrix = np.broadcast_to(np.array(settings.spin_constants[symbol]), (count, count))
        lines.append(f"{symbol} = {' '.join(repr(float(value)) for value in matrix.ravel())}")
    return [*lines, "}"]


def _check_geometry(path: Path, geometry: Node | None, numbers: IntArray) -> None:
    """Check the elements; positions are those that the library is given later."""
    found = _symbols(path, geometry)
    if geometry is not None and _is_periodic(geometry):
        raise ConfigError(f"{path}: Geometry: expected a cluster, as the QM region is, found a periodic one")
    expected = [chemical_symbols[number] for number in numbers]
    if len(found) != len(expected):
        raise ConfigError(f"{path}: Geometry: expected the {len(expected)} QM atoms, found {len(found)}")
    for atom, (symbol, wanted) in enumerate(zip(found, expected, strict=True)):
        if symbol != wanted:
            raise ConfigError(f"{path}: Geometry: atom {atom}: expected {wanted}, found {symbol}")


def _symbols(path: Path, geometry: Node | None) -> list[str]:
    """Elements of a geometry in the order of its atoms."""
    form = "none" if geometry is None else geometry.value.lower()
    try:
        if geometry is not None and "typesandcoordinates" in geometry.children:
            names = dict(enumerate(re.findall(r"\w+", geometry.children["typenames"].text), start=1))
            rows = geometry.children["typesandcoordinates"].text.splitlines()
            return [names[int(row.split()[0])] for row in rows]
        lines = [] if geometry is None else geometry.text.splitlines()
        if form == "genformat":
            names, count = dict(enumerate(lines[1].split(), start=1)), int(lines[0].split()[0])
            return [names[int(row.split()[1])] for row in lines[2 : 2 + count]]
        if form == "xyzformat":
            return [row.split()[0] for row in lines[-int(lines[0]) :]]
    except (KeyError, ValueError, IndexError):
        raise ConfigError(f"{path}: Geometry: expected a geometry that DFTB+ reads, found another") from None
    raise ConfigError(f"{path}: Geometry: expected GenFormat, xyzFormat or TypesAndCoordinates, found {form}")


def _is_periodic(geometry: Node) -> bool:
    periodic = geometry.children.get("periodic")
    if "latticevectors" in geometry.children or (periodic is not None and periodic.value.lower() == "yes"):
        return True
    header = geometry.text.split()
    return geometry.value.lower() == "genformat" and len(header) > 1 and header[1].upper() != "C"


def _check_hamiltonian(path: Path, given: Node, expected: Node) -> None:
    found, wanted = _flatten(given), _flatten(expected)
    for key in sorted(found.keys() | wanted.keys()):
        top, _, rest = key.partition(".")
        if top not in _GOVERNED or key == "slaterkosterfiles.prefix":
            continue
        if (top in _OPTIONAL and key not in found) or (top in _BY_ELEMENT and rest and key not in wanted):
            continue
        default = _GOVERNED.get(key)
        ours, theirs = wanted.get(key, default), found.get(key, default)
        if not _equal(ours, theirs):
            unit = " hartree" if rest == "temperature" else ""
            raise ConfigError(
                f"{path}: Hamiltonian.{key}: expected {ours or 'none'}{unit} as the configuration says, "
                f"found {_shorten(theirs or 'none')}"
            )


def _flatten(node: Node, prefix: str = "") -> dict[str, str]:
    """Values in lower case by dotted key, temperatures in hartree."""
    values: dict[str, str] = {}
    for key, child in node.children.items():
        value = (child.value or " ".join(child.text.split())).strip("\"'").lower()
        if key == "temperature":
            value = _hartree(value, child.unit)
        if value or not child.children:
            values[prefix + key] = value
        values.update(_flatten(child, f"{prefix}{key}."))
    return values


def _hartree(value: str, unit: str) -> str:
    """A temperature in hartree; as it is, and so unlike any number, where it is none."""
    if unit.lower() not in ("kelvin", "k"):
        return f"{value} {unit}".strip() if unit.lower() not in ("hartree", "ha", "au") else value
    try:
        return repr(parse_quantity(f"{value} K", "temperature"))
    except ValueError:
        return f"{value} {unit}"


def _shorten(value: str) -> str:
    """One short line of it: a quote that is never closed makes a value of all that follows."""
    line = " ".join(value.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def _equal(first: str | None, second: str | None) -> bool:
    """Whether two values are the same text or the same numbers."""
    try:
        one, other = (np.array((value or "").split(), dtype=np.float64) for value in (first, second))
    except ValueError:
        return first == second
    return len(one) == len(other) and np.allclose(one, other, rtol=1e-6, atol=0.0)
