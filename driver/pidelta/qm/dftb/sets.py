"""Slater-Koster sets with a description: as a folder, as one compressed file, and the one that is built in.

A set has one folder for each order of DFTB, because the repulsives depend on it: the .skf files of all
ordered pairs of elements and `DESCRIPTION`. The compressed file is a tar of folders ``order-2``, ``order-3``;
as all of it is compressed at once, a second order with the same integrals costs next to nothing.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import Field, FiniteFloat, ValidationError, field_validator, model_validator

from pidelta.errors import ParameterError, SettingError
from pidelta.qm.dftb.parameters import ParameterSet, file_names, parse_parameters
from pidelta.qm.dftb.skf import read_content
from pidelta.yaml_input import Section, describe

DESCRIPTION = "set.json"
BUILTIN_FOLDER = Path(__file__).with_name("builtin")
_COMMON = ("name", "version", "license", "elements")


class DispersionD3(Section):
    """Parameters of D3 with Becke-Johnson damping, `a2` in bohr.

    Grimme, Ehrlich, Goerigk, J. Comput. Chem. 32, 1456 (2011).
    """

    s6: FiniteFloat = 1.0
    s8: FiniteFloat
    a1: FiniteFloat
    a2: FiniteFloat


class SetDescription(Section):
    """What a set of one order is and what it was made from.

    `reference` is the method of the labels behind the repulsives, `hubbard_derivatives` holds dU/dq by
    element in hartree/e, `spin_constants` W of the shells s, p, d by element in hartree (None: for closed
    shells only), `damping_exponent` is zeta of the H-X damping of gamma the set was made for (None:
    undamped), `dispersion` is that of the functional of the labels, which have none and so leave it to be
    added, `recipe` the SHA-256 of the validated recipe as JSON.
    """

    name: str
    version: str
    license: str
    functional: str
    reference: str
    elements: list[str] = Field(min_length=1)
    order: Literal[2, 3]
    hubbard_derivatives: dict[str, FiniteFloat]
    spin_constants: dict[str, list[list[FiniteFloat]]] | None = None
    damping_exponent: FiniteFloat | None = Field(gt=0.0)
    dispersion: DispersionD3 | None = None
    recipe: str

    @field_validator("spin_constants")
    @classmethod
    def _check_symmetry(
        cls, spin_constants: dict[str, list[list[float]]] | None
    ) -> dict[str, list[list[float]]] | None:
        for symbol, rows in (spin_constants or {}).items():
            if [list(column) for column in zip(*rows, strict=False)] != rows:
                raise ValueError(f"{symbol}: expected a symmetric matrix, found {rows}")
        return spin_constants

    @model_validator(mode="after")
    def _check_elements(self) -> SetDescription:
        by_element = {"hubbard_derivatives": self.hubbard_derivatives, "spin_constants": self.spin_constants}
        for name, values in by_element.items():
            if values is not None and sorted(values) != sorted(self.elements):
                raise ValueError(
                    f"{name}: expected {', '.join(self.elements)}, found {', '.join(values) or 'none'}"
                )
        return self


@dataclass(frozen=True)
class SetFiles:
    """A set of one order.

    Attributes:
        where: its folder, for messages.
        description: what it is.
        files: content of the .skf files by name, such as ``C-H.skf``.
    """

    where: str
    description: SetDescription
    files: Mapping[str, bytes]

    def parameters(self, elements: Iterable[str]) -> ParameterSet:
        """Read the files of `elements`.

        Raises:
            SettingError: an element is not in the set.
            ParameterError: a file is missing or malformed, or an element has spin constants for another
                number of shells.
        """
        symbols = list(elements)
        known = self.description.elements
        for symbol in symbols:
            if symbol not in known:
                raise SettingError(
                    "parameters",
                    f"expected elements among {', '.join(known)}, which {self.description.name} "
                    f"{self.description.version} has, found {symbol}; other .skf files may have it",
                )
        name = f"{self.description.name}-{self.description.version}"
        found = parse_parameters(self.files, symbols, name, self.where)
        constants = self.description.spin_constants or {}
        for symbol, element in found.elements.items():
            shells = len(element.onsite)
            if symbol in constants and len(constants[symbol]) != shells:
                raise ParameterError(
                    f"{self.where}/{DESCRIPTION}: spin_constants: {symbol}: expected {shells} shells, "
                    f"found {len(constants[symbol])}"
                )
        return found


def builtin_set() -> dict[int, SetFiles]:
    """Return the set that comes with pidelta, by order; empty if this version has none.

    Raises:
        ParameterError: its file is damaged.
    """
    paths = sorted(BUILTIN_FOLDER.glob("*.tar.xz"))
    return open_set(paths[-1]) if paths else {}


def read_folder(folder: Path) -> SetFiles:
    """Read a set of one order from a folder.

    Raises:
        ParameterError: the description or a file is missing or malformed.
    """
    description = _parse_description(read_content(folder / DESCRIPTION), f"{folder}/{DESCRIPTION}")
    files = {name: read_content(folder / name) for name in file_names(description.elements)}
    found = SetFiles(str(folder), description, files)
    found.parameters(description.elements)
    return found


def pack(orders: Sequence[SetFiles]) -> bytes:
    """Make one compressed file of the orders of a set; the same sets give the same bytes.

    Raises:
        ParameterError: two are of the same order, or not of the same set.
    """
    by_order = sorted(orders, key=lambda files: files.description.order)
    for before, after in pairwise(by_order):
        if before.description.order == after.description.order:
            raise ParameterError(
                f"{after.where}: expected another order than in {before.where}, "
                f"found {after.description.order} in both"
            )
        for field in _COMMON:
            expected, found = getattr(before.description, field), getattr(after.description, field)
            if found != expected:
                raise ParameterError(
                    f"{after.where}/{DESCRIPTION}: {field}: expected {expected} as in {before.where}, "
                    f"found {found}"
                )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for files in by_order:
            for name, content in _contents(files).items():
                # The defaults of TarInfo: no owner, and a time of 0.
                member = tarfile.TarInfo(f"order-{files.description.order}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return lzma.compress(buffer.getvalue(), preset=6 | lzma.PRESET_EXTREME)


def open_set(path: Path) -> dict[int, SetFiles]:
    """Read a compressed set into memory, by order.

    Raises:
        ParameterError: the file is missing, damaged or not a set.
    """
    members = _unpack(path)
    orders: dict[int, SetFiles] = {}
    for name, content in members.items():
        folder, _, base = name.rpartition("/")
        if base != DESCRIPTION:
            continue
        where = f"{path}/{folder}"
        description = _parse_description(content, f"{path}/{name}")
        names = file_names(description.elements)
        files = {file: members[f"{folder}/{file}"] for file in names if f"{folder}/{file}" in members}
        orders[description.order] = SetFiles(where, description, files)
    if not orders:
        raise ParameterError(f"{path}: expected a packed Slater-Koster set, found no {DESCRIPTION}")
    return dict(sorted(orders.items()))


def export(files: SetFiles, folder: Path) -> None:
    """Write a set of one order into a folder, as DFTB+ reads it, with a README that says how.

    Raises:
        ParameterError: the folder has .skf files already.
    """
    present = sorted(folder.glob("*.skf"))
    if present:
        raise ParameterError(f"{folder}: expected a folder without .skf files, found {present[0].name}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _contents(files).items():
        (folder / name).write_bytes(content)
    (folder / "README").write_text(_readme(files), encoding="utf-8")


def _unpack(path: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(fileobj=io.BytesIO(lzma.decompress(read_content(path))), mode="r:") as archive:
            extracted = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
            return {name: file.read() for name, file in extracted.items() if file is not None}
    except (lzma.LZMAError, tarfile.TarError) as error:
        raise ParameterError(f"{path}: expected a packed Slater-Koster set, found: {error}") from None


def _contents(files: SetFiles) -> dict[str, bytes]:
    description = files.description.model_dump_json(indent=2) + "\n"
    return {DESCRIPTION: description.encode(), **dict(sorted(files.files.items()))}


def _parse_description(content: bytes, where: str) -> SetDescription:
    try:
        return SetDescription.model_validate_json(content)
    except ValidationError as error:
        raise ParameterError(f"{where}: {describe(error)}") from None


def _readme(files: SetFiles) -> str:
    description = files.description
    damping = description.damping_exponent
    derivatives = {symbol: f"{value:.10g}" for symbol, value in description.hubbard_derivatives.items()}
    elements = files.parameters(description.elements).elements
    lines = [
        f"{description.name} {description.version}: Slater-Koster files for DFTB{description.order}, "
        f"{', '.join(description.elements)}",
        "",
        f"License: {description.license}",
        f"Integrals: {description.functional}",
        f"Repulsives: fitted to {description.reference}",
        f"Recipe: SHA-256 {description.recipe}",
        f"Damping exponent of pairs with hydrogen: {'none' if damping is None else f'{damping:g}'}",
        "Hubbard derivatives in hartree/e: "
        + ", ".join(f"{symbol} {value}" for symbol, value in derivatives.items()),
        "",
        "For DFTB+:",
        "",
        "Hamiltonian = DFTB {",
        "  SCC = Yes",
        "  SlaterKosterFiles = Type2FileNames {",
        '    Prefix = "./"',
        '    Separator = "-"',
        '    Suffix = ".skf"',
        "  }",
        *_hsd_block(
            "MaxAngularMomentum", {symbol: f'"{"spd"[elements[symbol].l_max]}"' for symbol in elements}
        ),
    ]
    if description.order == 3:
        lines += ["  ThirdOrderFull = Yes", *_hsd_block("HubbardDerivs", derivatives)]
    if damping is not None:
        lines += ["  HCorrection = Damping {", f"    Exponent = {damping}", "  }"]
    if description.spin_constants is not None:
        lines += _spin_block(description.spin_constants)
    if description.dispersion is not None:
        d3 = description.dispersion
        lines += [
            "  # The set has no dispersion, as the DFT it was fitted to. To add it (DFTB+ with s-dftd3):",
            "  # Dispersion = DftD3 {",
            "  #   Damping = BeckeJohnson {",
            f"  #     a1 = {d3.a1}",
            f"  #     a2 = {d3.a2}",
            "  #   }",
            f"  #   s6 = {d3.s6}",
            f"  #   s8 = {d3.s8}",
            "  # }",
        ]
    lines += ["}", "# For the elements above that a structure does not have:"]
    return "\n".join([*lines, "ParserOptions {", "  IgnoreUnprocessedNodes = Yes", "}", ""])


def _hsd_block(name: str, values: Mapping[str, str]) -> list[str]:
    return [f"  {name} {{", *(f"    {symbol} = {value}" for symbol, value in values.items()), "  }"]


def _spin_block(spin_constants: Mapping[str, Sequence[Sequence[float]]]) -> list[str]:
    lines = [
        f"  #   {symbol} = {{ {' '.join(f'{w:.10g}' for row in matrix for w in row)} }}"
        for symbol, matrix in spin_constants.items()
    ]
    return [
        "  # With one unpaired electron:",
        "  # SpinPolarisation = Colinear {",
        "  #   UnpairedElectrons = 1",
        "  # }",
        "  # SpinConstants = {",
        "  #   ShellResolvedSpin = Yes",
        *lines,
        "  # }",
    ]
