"""Labels by ORCA, whose point charges are a file of their own: inputs for frames, and what came out.

ORCA writes energy and gradient of ``job.out`` into ``job.engrad``, and the gradient on the point charges of
``job.pc`` into ``job.pcgrad``. The energy holds the interaction with the charges, not theirs among
themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from ase.units import Bohr

from pidelta.data.frames import Frame, Label, LabelKind, named
from pidelta.errors import DataError
from pidelta.output_files import replacing
from pidelta.state import FloatArray, IntArray

KEYWORDS = "B3LYP D3BJ def2-SVP RIJCOSX TightSCF"
_COMMENT = re.compile(r"#[^#]*(#|$)")
_GEOMETRY = ("*", "coords")
_OWN_BASIS = re.compile(r"\b(new|add|del)(\w*gto|ecp)\b.*", re.IGNORECASE)
# Blocks that say how a job runs, and not what is computed.
_NO_LEVEL = ("base", "freq", "geom", "maxcore", "moinp", "output", "pal", "pointcharges")


def write_input(folder: Path, name: str, frame: Frame, keywords: str = KEYWORDS) -> Path:
    """Write ``name.inp`` and ``name.pc``, and return the input.

    Args:
        folder: where they go.
        name: of the job.
        frame: the frame.
        keywords: of ORCA's line ``!``, to which ``EnGrad`` is added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"! {keywords} EnGrad", f"# {frame.source}"]
    if len(frame.site_charges):
        lines.append(f'%pointcharges "{name}.pc"')
    lines.append(f"* xyz {frame.charge} {frame.multiplicity}")
    for number, point in zip(frame.numbers, frame.positions * Bohr, strict=True):
        lines.append(f"{chemical_symbols[number]:2s} {point[0]:18.12f} {point[1]:18.12f} {point[2]:18.12f}")
    with replacing(folder / f"{name}.inp") as stream:
        stream.write("\n".join([*lines, "*"]) + "\n")
    with replacing(folder / f"{name}.pc") as stream:
        stream.write(f"{len(frame.site_charges)}\n")
        for charge, point in zip(frame.site_charges, frame.site_positions * Bohr, strict=True):
            stream.write(f"{charge:16.10f} {point[0]:18.12f} {point[1]:18.12f} {point[2]:18.12f}\n")
    return folder / f"{name}.inp"


def read_output(path: Path, method: str | None = None) -> tuple[Frame, dict[LabelKind, Label]]:
    """Read a frame and its label from a job's output and the files beside it.

    Args:
        path: ``job.out``.
        method: of the label; where it is None the keywords of the job, and its blocks that may change what is
            computed.

    Raises:
        DataError: a file is missing or cut off, or the job did not converge.
    """
    text = _text(path)
    if "ORCA TERMINATED NORMALLY" not in text:
        raise DataError(f"{path}: expected a job that terminated normally, found one that did not")
    if "not fully converged" in text or "SCF NOT CONVERGED" in text.upper():
        raise DataError(f"{path}: expected a converged SCF, found one that is not")
    numbers, positions, energy, gradient = _engrad(path.with_suffix(".engrad"))
    if path.with_suffix(".pc").exists():
        charges, sites = _charges(path.with_suffix(".pc"))
        site_gradient = _rows(path.with_suffix(".pcgrad"), 3)
    else:
        charges, sites, site_gradient = np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3))
    if len(site_gradient) != len(sites):
        raise DataError(
            f"{path.with_suffix('.pcgrad')}: expected {len(sites)} point charges, found {len(site_gradient)}"
        )
    with named(str(path)):
        frame = Frame(
            numbers=numbers,
            positions=positions,
            site_positions=sites,
            site_charges=charges,
            site_numbers=np.zeros(len(charges), dtype=np.int64),
            charge=int(_found(path, text, r"Total Charge\s+Charge\s+\.+\s+(-?\d+)")),
            multiplicity=int(_found(path, text, r"Multiplicity\s+Mult\s+\.+\s+(\d+)")),
            source=str(path),
        )
        label = Label(
            method=method or _level(path, text),
            energy=energy,
            gradient=gradient,
            site_gradient=site_gradient,
            charges=_mulliken(path, text, len(numbers)),
            program="ORCA " + _found(path, text, r"Program Version\s+(\S+)"),
        )
    return frame, {"reference": label}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def _found(path: Path, text: str, pattern: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise DataError(f"{path}: expected an output of ORCA, found no line like {pattern!r}")
    return match.group(1)


def _level(path: Path, text: str) -> str:
    """The lines ``!`` of the input, which the output repeats, and what else in it may change the level.

    Blocks count with their whole text, so that two levels never have the same name.
    """
    keywords: list[str] = []
    others: list[str] = []
    part_of, atom = "", 0
    for line in re.findall(r"^\|\s*\d+>(.*)$", text, re.MULTILINE):
        for piece in re.split(r"(?=%)", _COMMENT.sub("", line)):
            words = piece.split()
            if not words:
                continue
            if words[0][0] in "!%*$":
                part_of, atom = (words[0][1:].lower() if words[0][0] == "%" else words[0][0]), 0
            if part_of == "!":
                keywords += piece.replace("!", " ", 1).split()
            elif part_of in _GEOMETRY:
                if own := _OWN_BASIS.search(piece):
                    others += [f"atom {atom - 1}", *own.group().split()]
                atom += 1
            elif part_of not in _NO_LEVEL:
                others += words
    if not keywords:
        raise DataError(f"{path}: expected an output of ORCA, found no line '|  1> ! ...' with its keywords")
    return " ".join(keywords) + (f"; {' '.join(others)}" if others else "")


def _mulliken(path: Path, text: str, count: int) -> FloatArray:
    """The last table of charges."""
    head = text.rfind("MULLIKEN ATOMIC CHARGES")
    rows = (
        re.findall(r"^\s*\d+\s+\w+\s*:\s+(-?\d+\.\d+)", text[head:], re.MULTILINE)[:count]
        if head >= 0
        else []
    )
    if len(rows) != count:
        raise DataError(f"{path}: expected Mulliken charges of {count} atoms, found {len(rows)}")
    return np.array(rows, dtype=np.float64)


def _numbers(path: Path) -> Iterator[list[float]]:
    """The lines of numbers of a file, comments left out."""
    for line in _text(path).splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            yield [float(word) for word in words]
        except ValueError:
            raise DataError(f"{path}: expected numbers, found {line.strip()!r}") from None


def _engrad(path: Path) -> tuple[IntArray, FloatArray, float, FloatArray]:
    """Numbers (n,), positions (n, 3), energy and gradient (n, 3), all in atomic units."""
    lines = list(_numbers(path))
    count = int(lines[0][0]) if lines else 0
    if len(lines) != 2 + 4 * count:
        raise DataError(
            f"{path}: expected {2 + 4 * count} lines of numbers, found {len(lines)}: it is cut off"
        )
    gradient = np.array(lines[2 : 2 + 3 * count]).reshape(count, 3)
    atoms = np.array(lines[2 + 3 * count :])
    return atoms[:, 0].astype(np.int64), atoms[:, 1:4], lines[1][0], gradient


def _charges(path: Path) -> tuple[FloatArray, FloatArray]:
    """Charges (m,) in e and their positions (m, 3) in bohr."""
    rows = _rows(path, 4)
    return rows[:, 0], rows[:, 1:] / Bohr


def _rows(path: Path, width: int) -> FloatArray:
    """(m, width) of a file that begins with the number of its rows."""
    lines = list(_numbers(path))
    count = int(lines[0][0]) if lines else 0
    if len(lines) != count + 1 or any(len(line) != width for line in lines[1:]):
        raise DataError(f"{path}: expected {count} rows of {width} numbers, found {max(len(lines) - 1, 0)}")
    return np.array(lines[1:], dtype=np.float64).reshape(count, width)
