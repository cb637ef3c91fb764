"""The lines of a GROMACS topology, and what stands before its molecule types.

Lennard-Jones parameters, pair types and CMAP grids are read here, as GROMACS does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pidelta.errors import TopologyError
from pidelta.mm.lennard_jones import CombinationRule, combine
from pidelta.mm.readers.conversion import in_table_order
from pidelta.state import FloatArray
from pidelta.units import KJ_PER_MOL, NANOMETER

Line = tuple[str, list[str]]


@dataclass
class Molecule:
    """The lines of a molecule type, as (section, words)."""

    name: str
    nrexcl: int
    lines: list[Line] = field(default_factory=list)

    def rows(self, *sections: str) -> list[list[str]]:
        """The lines of some sections."""
        return [words for where, words in self.lines if where in sections]

    def drop(self, section: str) -> None:
        """Forget the lines of a section."""
        self.lines = [line for line in self.lines if line[0] != section]


class ForceField:
    """What stands before the molecule types.

    Args:
        source: the file, for messages.
        lines: its lines.
        types: names of the atom types to make tables for, in their order.
    """

    def __init__(self, source: str, lines: list[Line], types: list[str]) -> None:
        self.source = source
        self.lines = lines
        self.types = types
        defaults = next(words for section, words in lines if section == "defaults")
        self._in_c6_c12 = defaults[1] == "1"
        self.rule: CombinationRule = "lorentz-berthelot" if defaults[1] == "2" else "geometric"
        self.generates_pairs = len(defaults) > 2 and defaults[2].lower() == "yes"
        self.fudge_lj, self.fudge_coulomb = (
            self.number("defaults", defaults, column) if len(defaults) > column else 1.0 for column in (3, 4)
        )
        self.atom_types = {words[0]: words for section, words in lines if section == "atomtypes"}
        self.pair_types = self._pairs("pairtypes")
        self.c6, self.c12 = self._lennard_jones()
        self.maps, self.grids = self._cmaps()

    def number(self, section: str, words: list[str], column: int) -> float:
        """A word as a number."""
        try:
            return float(words[column])
        except (ValueError, IndexError):
            raise TopologyError(
                f"{self.source}: [ {section} ]: expected a number in column {column + 1}, "
                f"found {' '.join(words)[:80]!r}"
            ) from None

    def numbers(self, section: str, words: list[str], first: int) -> list[float]:
        """The words from a column on as numbers."""
        return [self.number(section, words, column) for column in range(first, len(words))]

    def lj_pair(self, first: float, second: float) -> tuple[float, float]:
        """c6 and c12 in atomic units from the two parameters of a file, by its combination rule.

        As in GROMACS, a sigma below zero means no c6, and c12 with -sigma.
        """
        if self._in_c6_c12:
            return first * KJ_PER_MOL * NANOMETER**6, second * KJ_PER_MOL * NANOMETER**12
        c6 = 4.0 * second * KJ_PER_MOL * (first * NANOMETER) ** 6
        return c6 * (first >= 0.0), c6 * (first * NANOMETER) ** 6

    def bonded_type(self, atom_type: str) -> str:
        """The name that an atom type has in bonded parameters.

        Columns are name, bonded name, atomic number, mass, charge, kind and two parameters; the second, the
        third or both may be missing.
        """
        words = self.atom_types[atom_type]
        return words[1] if _has_bonded_name(words) else words[0]

    def atomic_number(self, atom_type: str) -> int:
        """The number that the file gives an atom type, 0 without."""
        words = self.atom_types[atom_type]
        if len(words) < 7 or (len(words) == 7 and _has_bonded_name(words)):
            return 0
        return round(self.number("atomtypes", words, len(words) - 6))

    def atom_value(self, words: list[str], column: int) -> float:
        """The charge (column 6) or mass (7) of a row of [ atoms ], that of its type without one."""
        if len(words) > column:
            return self.number("atoms", words, column)
        of_type = self.atom_types[words[1]]
        return self.number("atomtypes", of_type, len(of_type) - (4 if column == 6 else 5))

    def _pairs(self, section: str) -> dict[frozenset[str], tuple[float, float]]:
        found = {}
        for where, words in self.lines:
            if where == section:
                first, second = self.numbers(section, words[:5], 3)
                found[frozenset(words[:2])] = self.lj_pair(first, second)
        return found

    def _lennard_jones(self) -> tuple[FloatArray, FloatArray]:
        """Tables (T, T) by combination rule and [ nonbond_params ]."""
        own = [
            (self.number("atomtypes", words, len(words) - 2), self.number("atomtypes", words, len(words) - 1))
            for words in (self.atom_types[name] for name in self.types)
        ]
        if self._in_c6_c12:
            c6_own, c12_own = in_table_order(self.lj_pair(*pair) for pair in own)
            c6, c12 = np.sqrt(np.outer(c6_own, c6_own)), np.sqrt(np.outer(c12_own, c12_own))
        else:
            sigma, epsilon = in_table_order(own)
            c6, c12 = combine(np.abs(sigma) * NANOMETER, epsilon * KJ_PER_MOL, self.rule)
            c6[(sigma[:, None] < 0.0) | (sigma < 0.0)] = 0.0
        index = {name: i for i, name in enumerate(self.types)}
        for pair, values in self._pairs("nonbond_params").items():
            if pair <= index.keys():
                i, j = index[min(pair)], index[max(pair)]
                (c6[i, j], c12[i, j]) = (c6[j, i], c12[j, i]) = values
        return c6, c12

    def _cmaps(self) -> tuple[dict[tuple[str, ...], int], FloatArray]:
        """[ cmaptypes ]: index of the grid by five bonded types, and the grids (M, K, K)."""
        maps: dict[tuple[str, ...], int] = {}
        grids: list[FloatArray] = []
        for section, words in self.lines:
            if section != "cmaptypes":
                continue
            size = int(self.number(section, words, 6))
            values = self.numbers(section, words, 8)
            if words[7] != words[6] or len(values) != size**2 or (grids and size != len(grids[0])):
                raise TopologyError(
                    f"{self.source}: [ cmaptypes ]: expected square grids of one size, found {words[6]} x "
                    f"{words[7]} with {len(values)} values for {' '.join(words[:5])}"
                )
            maps[tuple(words[:5])] = len(grids)
            grids.append(np.array(values).reshape(size, size) * KJ_PER_MOL)
        return maps, np.array(grids) if grids else np.zeros((0, 0, 0))


def _has_bonded_name(words: list[str]) -> bool:
    return len(words) > 7 or (len(words) == 7 and words[1][0].isalpha())
