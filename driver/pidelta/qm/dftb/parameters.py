"""Slater-Koster sets: the files for the elements in use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pidelta.errors import ParameterError
from pidelta.qm.dftb.skf import SlaterKosterFile, parse_skf, read_content
from pidelta.state import FloatArray

PUBLISHED_DAMPING_EXPONENTS = {"3ob": 4.0}
"""The exponent of the H-X damping that each published set was made for."""

# dU/dq in hartree/e for DFTB3, from the papers that parametrised them:
# C H N O: Gaus, Goez, Elstner, JCTC 9, 338 (2013); P S: Gaus, Lu, Elstner, Cui, JCTC 10, 1518 (2014);
# Mg Zn: Lu, Gaus, Elstner, Cui, J. Phys. Chem. B 119, 1062 (2015);
# Na F K Ca Cl Br I: Kubillus, Kubar, Gaus, Rezac, Elstner, JCTC 11, 332 (2015).
PUBLISHED_HUBBARD_DERIVATIVES: dict[str, dict[str, float]] = {
    "3ob": {
        "H": -0.1857,
        "C": -0.1492,
        "N": -0.1535,
        "O": -0.1575,
        "F": -0.1623,
        "Na": -0.0454,
        "Mg": -0.02,
        "P": -0.14,
        "S": -0.11,
        "Cl": -0.0697,
        "K": -0.0339,
        "Ca": -0.0340,
        "Zn": -0.03,
        "Br": -0.0573,
        "I": -0.0433,
    }
}

# The highest shell of the valence basis. An .skf file does not say it, so it is the choice of the published
# sets (mio, 3ob), by element.
_HIGHEST_SHELL = {
    **dict.fromkeys(("H", "He"), 0),
    **dict.fromkeys(("Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "K", "Ca"), 1),
    **dict.fromkeys(("Al", "Si", "P", "S", "Cl", "Ar", "Zn", "Br", "I"), 2),
}


@dataclass(frozen=True)
class ElementParameters:
    """Atomic parameters of one element, in atomic units.

    Attributes:
        onsite: (l_max + 1,) orbital energies of the shells s, p, d.
        hubbard_u: (l_max + 1,) U of the shells; that of s stands for the atom in atom-resolved SCC-DFTB.
        occupations: (l_max + 1,) valence electrons of the neutral atom.
    """

    onsite: FloatArray
    hubbard_u: FloatArray
    occupations: FloatArray

    @property
    def l_max(self) -> int:
        """The highest angular momentum of the valence basis."""
        return len(self.onsite) - 1


@dataclass(frozen=True)
class ParameterSet:
    """A Slater-Koster set for some elements.

    Attributes:
        name: the name of the folder, or of the built-in set.
        identity: a short SHA-256 over the files used, whatever their folder is called.
        elements: atomic parameters by symbol.
        pairs: the content of A-B.skf by (A, B), both orders.
    """

    name: str
    identity: str
    elements: Mapping[str, ElementParameters]
    pairs: Mapping[tuple[str, str], SlaterKosterFile]


def load_parameters(folder: Path, elements: Iterable[str]) -> ParameterSet:
    """Read the .skf files of all ordered pairs of `elements` from a folder.

    Raises:
        ParameterError: the folder or a file is missing or malformed, or an element is not supported.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ParameterError(f"{folder}: expected a folder of .skf files, found none")
    symbols = sorted(set(elements))
    paths = [folder / name for name in file_names(symbols)]
    files = {path.name: read_content(path) for path in paths if path.is_file()}
    _refuse_other_case(folder, [path.name for path in paths if path.name not in files])
    return parse_parameters(files, symbols, folder.name, str(folder))


def file_names(elements: Iterable[str]) -> list[str]:
    """Name the files of all ordered pairs of elements."""
    symbols = sorted(set(elements))
    return [f"{first}-{second}.skf" for first in symbols for second in symbols]


def parse_parameters(
    files: Mapping[str, bytes], elements: Iterable[str], name: str, where: str
) -> ParameterSet:
    """Read the content of the .skf files of all ordered pairs of `elements`.

    Args:
        files: content by name, such as ``C-H.skf``.
        elements: symbols.
        name: of the set.
        where: the folder, for messages.

    Raises:
        ParameterError: a file is missing or malformed, or an element is not supported.
    """
    symbols = sorted(set(elements))
    digest = hashlib.sha256()
    pairs: dict[tuple[str, str], SlaterKosterFile] = {}
    for first in symbols:
        if first not in _HIGHEST_SHELL:
            raise ParameterError(f"{where}: element {first}: no valence basis is known for it")
        for second in symbols:
            file = f"{first}-{second}.skf"
            if file not in files:
                raise ParameterError(
                    f"no parameters for the pair {first}-{second}: expected the file {where}/{file}"
                )
            pairs[first, second] = parse_skf(files[file], f"{where}/{file}", homonuclear=first == second)
            digest.update(file.encode() + b"\0" + files[file])
    _check_grids(where, pairs)
    return ParameterSet(
        name=name,
        identity=f"skf:{digest.hexdigest()[:12]}",
        elements={symbol: _element(where, symbol, pairs[symbol, symbol]) for symbol in symbols},
        pairs=pairs,
    )


def _refuse_other_case(folder: Path, missing: Iterable[str]) -> None:
    """Some sets come with names like ``c-h.skf``."""
    try:
        present = {path.name.lower(): path.name for path in folder.iterdir()}
    except OSError as error:
        raise ParameterError(f"{folder}: cannot be read: {error.strerror}") from None
    for name in missing:
        if name.lower() in present:
            raise ParameterError(f"{folder}: expected the file {name}, found {present[name.lower()]}")


def _element(where: str, symbol: str, file: SlaterKosterFile) -> ElementParameters:
    assert file.onsite is not None
    assert file.hubbard_u is not None
    assert file.occupations is not None
    shells = _HIGHEST_SHELL[symbol] + 1
    if file.hubbard_u[0] <= 0.0:
        raise ParameterError(
            f"{where}: {symbol}-{symbol}.skf: expected a positive U of the s shell, "
            f"found {file.hubbard_u[0]:g}"
        )
    return ElementParameters(file.onsite[:shells], file.hubbard_u[:shells], file.occupations[:shells])


def _check_grids(where: str, pairs: Mapping[tuple[str, str], SlaterKosterFile]) -> None:
    """A-B.skf and B-A.skf together give the block of a pair, so their grids must be the same."""
    for (first, second), file in pairs.items():
        other = pairs[second, first]
        expected = (len(other.hamiltonian), other.spacing)
        found = (len(file.hamiltonian), file.spacing)
        if found != expected:
            raise ParameterError(
                f"{where}: {first}-{second}.skf: expected {expected[0]} rows of {expected[1]} bohr as in "
                f"{second}-{first}.skf, found {found[0]} rows of {found[1]} bohr"
            )
