"""Harvest frames for labelling from the trajectories that i-PI wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from ase.data import atomic_numbers
from ipi.utils.io import read_file

from pidelta.data.frames import Frame
from pidelta.data.store import FrameStore
from pidelta.errors import DataError
from pidelta.qmmm.surroundings import CutRegion
from pidelta.state import FloatArray, IntArray

_STEP = re.compile(r"Step:\s*(\d+)")
_ISOTOPES = {"D": 1, "T": 1}


class QMRegion(Protocol):
    """The QM region of a set-up and the rule for its environment."""

    @property
    def numbers(self) -> IntArray:
        """(n,) atomic numbers of the QM atoms."""

    @property
    def charge(self) -> int:
        """Total charge of the QM region in e."""

    @property
    def multiplicity(self) -> int:
        """2S + 1."""

    def cut(self, positions: FloatArray, cells: FloatArray | None) -> CutRegion:
        """QM atoms and scaled point charges for positions (B, N, 3) with lattice rows (B, 3, 3)."""


@dataclass(frozen=True)
class Snapshot:
    """One configuration of a trajectory.

    Attributes:
        step: the step of the simulation.
        numbers: (N,) atomic numbers.
        positions: (N, 3) in bohr.
        cell: (3, 3) lattice vectors as rows in bohr.
    """

    step: int
    numbers: IntArray
    positions: FloatArray
    cell: FloatArray


def is_trajectory_of_ipi(path: Path) -> bool:
    """Whether a file has the comment with units and cell that i-PI writes into .xyz and .pdb."""
    if path.suffix not in (".xyz", ".pdb"):
        return False
    with path.open(errors="replace") as lines:
        return any("positions{" in line or "CELL(" in line for line in islice(lines, 3))


def read_trajectory(path: Path) -> Iterator[Snapshot]:
    """Read the positions of one bead, one snapshot after the other.

    An incomplete last snapshot, which a running or killed simulation leaves, is passed over.

    Args:
        path: an ``.xyz`` or ``.pdb`` file as i-PI writes it, units and cell in its comment lines.

    Raises:
        DataError: the file is missing, is not such a trajectory, or holds something else than positions.
    """
    mode = path.suffix.removeprefix(".")
    if mode not in ("xyz", "pdb"):
        raise DataError(f"{path}: expected a trajectory of i-PI ending in .xyz or .pdb")
    if not path.is_file():
        raise DataError(f"{path}: no such trajectory")
    count = 0
    with path.open() as file:
        for index in range(path.stat().st_size):
            try:
                content = read_file(mode, file, dimension="length")
            except (EOFError, StopIteration):
                return
            except (ValueError, IndexError, KeyError) as error:
                if index > 0 and not file.read(1):
                    return
                reason = " ".join(str(error).split())
                raise DataError(
                    f"{path}: expected positions as i-PI writes them in snapshot {index} ({reason})"
                ) from None
            names = content["atoms"].names.tolist()
            count = count or len(names)
            if "" in names or len(names) != count:
                return
            step = _STEP.search(content["comment"])
            yield Snapshot(
                step=int(step.group(1)) if step else index,
                numbers=_numbers(names, path),
                positions=np.array(content["atoms"].q, dtype=np.float64).reshape(-1, 3),
                cell=np.array(content["cell"].h.T, dtype=np.float64),
            )


def _numbers(names: list[str], path: Path) -> IntArray:
    known = {**atomic_numbers, **_ISOTOPES}
    for name in names:
        if not known.get(name):  # ASE knows X, a dummy, as 0
            raise DataError(f"{path}: expected the symbol of an element, found {name!r}")
    return np.array([known[name] for name in names], dtype=np.int64)


def sample(
    trajectory: Path,
    region: QMRegion,
    store: FrameStore,
    *,
    numbers: IntArray,
    periodic: bool,
    every: int = 1,
    skip: int = 0,
    limit: int | None = None,
) -> int:
    """Append frames of one trajectory to a store; those that it has already are not added again.

    The source of a frame names the trajectory and the step, so that a split can keep the beads of one step
    and neighbours in time together.

    Args:
        trajectory: see `read_trajectory`.
        region: the QM region and its environment.
        store: where frames go.
        numbers: (N,) atomic numbers of the whole system, which the trajectory has to match.
        periodic: whether the cell of the trajectory counts.
        every: take each such snapshot, in snapshots of the trajectory.
        skip: leave out that many snapshots at the beginning.
        limit: take at most that many frames.

    Returns:
        The number of frames added.

    Raises:
        DataError: the trajectory cannot be read, does not fit the system, or is another one than the store
            has frames of under this name.
        GeometryError: the embedding does not fit the cell.
    """
    present = {frame.source: frame.positions for frame in store}
    added = 0
    stop = None if limit is None else skip + every * limit
    for snapshot in islice(read_trajectory(trajectory), skip, stop, every):
        if not np.array_equal(snapshot.numbers, numbers):
            raise DataError(
                f"{trajectory}: expected the {len(numbers)} atoms of the system in their order, "
                f"found {len(snapshot.numbers)} atoms or others in step {snapshot.step}"
            )
        source = f"{trajectory} step {snapshot.step}"
        frame = _frame(snapshot, region, periodic, source)
        if source not in present:
            store.append(frame)
            added += 1
        elif not np.array_equal(frame.positions, present[source]):
            raise DataError(
                f"{store.path}: expected the positions of {source} as before, found others: the trajectory "
                "was written anew, sample it into another file"
            )
    return added


def _frame(snapshot: Snapshot, region: QMRegion, periodic: bool, source: str) -> Frame:
    cut = region.cut(snapshot.positions[None], snapshot.cell[None] if periodic else None)
    # Neutral MM atoms count in the short-range features of a model.
    kept = cut.site_particles[0] >= 0
    return Frame(
        numbers=region.numbers,
        positions=cut.positions[0],
        site_positions=cut.site_positions[0][kept],
        site_charges=cut.site_charges[0][kept],
        site_numbers=cut.site_numbers[0][kept],
        charge=region.charge,
        multiplicity=region.multiplicity,
        source=source,
    )
