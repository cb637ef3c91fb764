"""Writing a configuration, the counterpart of reading one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pidelta.output_files import replacing
from pidelta.units import BOHR_IN_ANGSTROM


@dataclass(frozen=True)
class NewConfig:
    """What a configuration of a QM region in water is to say; lengths in bohr.

    Attributes:
        comment: its first lines.
        structure, topology: paths relative to the file.
        residues: names of the residues of the QM region; none for a classical system.
        charge, multiplicity: of the QM region.
        water: a model that takes the place of the water in the topology, or None.
        force_field_cutoff, embedding_cutoff, switch: cutoffs.
    """

    comment: Sequence[str]
    structure: str
    topology: str
    residues: Sequence[str]
    charge: int
    multiplicity: int
    water: str | None
    force_field_cutoff: float
    embedding_cutoff: float
    switch: float


def write_config(path: Path, new: NewConfig) -> None:
    """Write the YAML file."""
    lines = [*(f"# {line}" for line in new.comment), f"structure: {new.structure}"]
    if new.residues:
        lines += ["qm:", f'  atoms: "resname {" ".join(new.residues)}"', f"  charge: {new.charge}"]
        if new.multiplicity > 1:
            lines.append(f"  multiplicity: {new.multiplicity}")
        lines += ["  engine: dftb", "  dftb: {parameters: builtin, order: 3}"]
    water = "" if new.water is None else f", water: {new.water}"
    lines.append(f"mm: {{topology: {new.topology}{water}, cutoff: {_shown(new.force_field_cutoff)}}}")
    if new.residues:
        lines.append(
            f"embedding: {{scheme: pme, cutoff: {_shown(new.embedding_cutoff)}, "
            f"switch: {_shown(new.switch)}}}"
            "   # cutoff: of what delta models and DFT labels see"
        )
    with replacing(path) as stream:
        stream.write("\n".join(lines) + "\n")


def _shown(length: float) -> str:
    return f"{0.1 * length * BOHR_IN_ANGSTROM:.6g} nm"
