"""Harvest frames for labelling from the trajectories that i-PI wrote."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from pidelta.data.frames import Frame
from pidelta.data.store import FrameStore
from pidelta.errors import DataError
from pidelta.ipi.trajectories import Snapshot, read_trajectory
from pidelta.qmmm.region import QMRegion
from pidelta.state import IntArray
from pidelta.workflow.yardstick import Yardstick


def sample(
    trajectory: Path,
    region: QMRegion,
    store: FrameStore,
    *,
    numbers: IntArray,
    yardstick: Yardstick,
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
        region: the QM region and what surrounds it.
        store: where frames go.
        numbers: (N,) atomic numbers of the whole system, which the trajectory has to match.
        yardstick: the bonds of the system, to notice positions whose unit was taken for another.
        periodic: whether the cell of the trajectory counts.
        every: take each such snapshot, in snapshots of the trajectory.
        skip: leave out that many snapshots at the beginning.
        limit: take at most that many frames.

    Returns:
        The number of frames added.

    Raises:
        DataError: the trajectory cannot be read, does not fit the system, or is another one than the store
            has frames of under this name.
        StructureError: its bonds or cell show that a unit was taken for another.
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
        yardstick.check_unit(snapshot.positions, snapshot.cell, source)
        frame = cut_frame(snapshot, region, periodic, source)
        if source not in present:
            store.append(frame)
            added += 1
        elif not np.array_equal(frame.positions, present[source]):
            raise DataError(
                f"{store.path}: expected the positions of {source} as before, found others: the trajectory "
                "was written anew, sample it into another file"
            )
    return added


def cut_frame(snapshot: Snapshot, region: QMRegion, periodic: bool, source: str) -> Frame:
    """The QM region of a snapshot in the charges around it."""
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
