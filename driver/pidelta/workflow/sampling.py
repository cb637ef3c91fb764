"""Harvest frames for labelling from the trajectories that i-PI wrote."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from pidelta.data.frames import Frame, same_surroundings
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
    origin: Mapping[str, str] | None = None,
) -> int:
    """Append frames of one trajectory to a store; those that it has already are not added again.

    The source of a frame names the trajectory and the step, so that a split can keep the beads of one step
    and neighbours in time together.

    Args:
        trajectory: see `read_trajectory`.
        region: the QM region and what surrounds it.
        store: where frames go.
        numbers: (N,) atomic numbers of the whole system, which the trajectory has to match.
        yardstick: the bonds of the system, to notice atoms in another order, or another unit.
        periodic: whether the cell of the trajectory counts.
        every: take each such snapshot, in snapshots of the trajectory.
        skip: leave out that many snapshots at the beginning.
        limit: take at most that many frames.
        origin: where frames come from, for the store once it gets one; see `FrameStore.provenance`.

    Returns:
        The number of frames added.

    Raises:
        DataError: the trajectory cannot be read, does not fit the system, or the store has other frames of
            it: of other positions, another QM region or other point charges.
        StructureError: its bonds or cell show that a unit was taken for another, or those of its first
            snapshot that atoms are in another order.
        GeometryError: the embedding does not fit the cell.
    """
    present = {frame.source: index for index, frame in enumerate(store)}
    added, judge = 0, yardstick.check
    stop = None if limit is None else skip + every * limit
    for snapshot in islice(read_trajectory(trajectory), skip, stop, every):
        if not np.array_equal(snapshot.numbers, numbers):
            raise DataError(
                f"{trajectory}: expected the {len(numbers)} atoms of the system in their order, "
                f"found {len(snapshot.numbers)} atoms or others in step {snapshot.step}"
            )
        source = f"{trajectory} step {snapshot.step}"
        judge(snapshot.positions, snapshot.cell, source)
        judge = yardstick.check_unit
        frame = cut_frame(snapshot, region, periodic, source)
        if source in present:
            _check_same(frame, store.frame(present[source]), store.path)
            continue
        if origin is not None and not added:
            store.set_provenance(origin)
        store.append(frame)
        added += 1
    return added


def _check_same(frame: Frame, before: Frame, path: Path) -> None:
    """See that a snapshot that is sampled again gives the frame that it gave."""
    if not np.array_equal(frame.numbers, before.numbers):
        what, reason = "QM atoms", "the QM region has changed"
    elif not np.array_equal(frame.positions, before.positions):
        what, reason = "positions", "the trajectory was written anew"
    elif (frame.charge, frame.multiplicity) != (before.charge, before.multiplicity):
        what, reason = "charge and multiplicity", "the QM region has changed"
    elif not same_surroundings(frame, before):
        what, reason = "point charges", "the force field or the QM region has changed"
    else:
        return
    raise DataError(
        f"{path}: expected the {what} of {frame.source} as before, found others: {reason}, "
        "sample it into another file"
    )


def other_files(store: FrameStore, origin: Mapping[str, str]) -> list[str]:
    """Notes on files that the frames of a store come from and new ones do not.

    Args:
        store: the store.
        origin: where new frames come from, see `FrameStore.provenance`.
    """
    known = store.provenance
    return [
        f"{store.path}: its frames come from the {name} {known[name]}, new ones from {origin[name]}"
        for name in ("structure", "topology")
        if name in known and name in origin and origin[name] not in known[name].split("; ")
    ]


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
