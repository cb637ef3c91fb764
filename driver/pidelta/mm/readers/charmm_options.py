"""What a CHARMM parameter file says that ParmEd passes over or cuts off.

(https://academiccharmm.org/documentation, "parmfile", "nbonds" and "hbonds".)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pidelta.core.text_fields import is_number
from pidelta.errors import TopologyError
from pidelta.mm.readers.conversion import multiplicities

_EVERYWHERE = {"nbxmod": 5.0, "e14fac": 1.0}
_NONBONDED = {"eps": 1.0}
# CHARMM compares four letters
_SECTIONS = {
    "atom", "bond", "angl", "thet", "dihe", "phi", "impr", "imph", "cmap", "nonb", "nbon", "nbfi", "hbon",
    "thol", "end", "read", "retu",
}  # fmt: skip
_WILDCARDS = set("*%#+")


def refuse_options(path: Path) -> None:
    """Refuse what would change the energy: non-bonded options, hydrogen bonds, wildcards of NBFIX.

    And multiplicities of dihedrals that are no integers, which ParmEd cuts off.

    Raises:
        TopologyError: with the line.
    """
    section = ""
    for line, words in _statements(path):
        where = f"{path}: line {line}"
        begins = words[0][:4] in _SECTIONS
        section = words[0][:4] if begins else section
        is_nonbonded = section in ("nonb", "nbon")
        _refuse_values(where, words, _EVERYWHERE | (_NONBONDED if is_nonbonded else {}))
        if is_nonbonded and any(word.startswith("rdie") for word in words):
            raise TopologyError(f"{where}: expected a constant dielectric (cdie), found rdie")
        if section == "hbon" and not begins and not _is_zero(words):
            raise TopologyError(
                f"{where}: expected no hydrogen-bond terms (HBOND), found {' '.join(words)!r}"
            )
        if section in ("dihe", "phi") and len(words) > 6 and is_number(words[5]):
            multiplicities(f"{where}: dihedrals", np.array([float(words[5])]))
        if section == "nbfi" and not begins and _WILDCARDS & set("".join(words[:2])):
            raise TopologyError(
                f"{where}: NBFIX: expected two atom types without wildcards, found {' '.join(words)!r}"
            )


def _refuse_values(where: str, words: list[str], expected: dict[str, float]) -> None:
    for word, value in zip(words, [*words[1:], "nothing"], strict=True):
        if word in expected and not (is_number(value) and float(value) == expected[word]):
            raise TopologyError(f"{where}: expected {word} {expected[word]:g}, found {value}")


def _is_zero(words: list[str]) -> bool:
    """Whether a row of HBOND has no depth, as those of CHARMM22."""
    return len(words) > 2 and is_number(words[2]) and float(words[2]) == 0.0


def _statements(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines with those that go on after a hyphen: number of the first and lower-case words, no titles."""
    first, words = 0, list[str]()
    text = path.read_text(encoding="utf-8", errors="replace").lower()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("*"):
            continue
        found = re.sub("!.*", "", line).split()
        first = first if words else number
        words += found
        if words and words[-1] == "-":
            words.pop()
        elif words:
            yield first, words
            words = []
    if words:
        yield first, words
