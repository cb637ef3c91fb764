"""Whether the force-field charges of a QM region fit the charge it has, and where the remainder goes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pidelta.errors import SettingError
from pidelta.mm.topology import Topology
from pidelta.qmmm.links import Links
from pidelta.state import BoolArray, FloatArray, IntArray

REMAINDER = 0.05
"""e: what the charges of a QM region may be off an integer by rounding, as those of AM1-BCC are."""

REMAINDER_OF_CUT = 0.5
"""e: what they may be off where bonds join the region with MM atoms."""

_EXACT = 1.0e-4


@dataclass(frozen=True)
class MovedCharge:
    """A charge that was taken from the QM atoms and given to MM atoms.

    Attributes:
        amount: in e.
        atoms: (k,) the MM atoms; those of one residue may get what those of another give.
        largest: in e, by how much the charge of one of them changes at most.
    """

    amount: float
    atoms: IntArray
    largest: float


NOTHING_MOVED = MovedCharge(0.0, np.zeros(0, dtype=np.int64), 0.0)


def spread_remainder(
    charges: FloatArray, qm_particles: IntArray, remainder: float, atoms: IntArray
) -> FloatArray:
    """Charges (P,) with a remainder of the QM particles moved, in equal shares, to MM atoms.

    Raises:
        SettingError: some of the atoms are QM.
    """
    inside = np.intersect1d(atoms, qm_particles)
    if len(inside):
        raise SettingError(
            "charge_remainder", f"expected atoms outside the QM region, found atom {inside[0]}"
        )
    moved = np.array(charges)
    moved[qm_particles] -= remainder / len(qm_particles)
    moved[atoms] += remainder / len(atoms)
    return moved


def charge_remainder(replaced: FloatArray, charge: int, *, largest: float = REMAINDER) -> float:
    """What the force-field charges that the QM method replaces have more than it puts in their place.

    Args:
        replaced: force-field charges in e of the QM atoms and their virtual sites.
        charge: total charge of the QM region in e.
        largest: in e, what the remainder may be.

    Returns:
        the remainder in e.

    Raises:
        SettingError: the charges do not fit.
    """
    total = float(replaced.sum())
    if abs(total - charge) <= largest:
        return 0.0 if abs(total - charge) < _EXACT else total - charge
    if abs(total - round(total)) <= largest:
        raise SettingError(
            "charge",
            f"expected {round(total):+d}, as the force-field charges of the QM atoms sum to {total:+.4f}, "
            f"found {charge:+d}",
        )
    raise SettingError(
        "charge",
        f"expected force-field charges of the QM atoms that sum to an integer within {REMAINDER:g} e, found "
        f"{total:+.4f}: choose other QM atoms, or MM atoms that take up the remainder as charge_remainder",
    )


def spread_over_residues(
    topology: Topology, qm_particles: IntArray, links: Links, remainder: float
) -> tuple[FloatArray, IntArray]:
    """Charges (P,) with the remainder of a region moved to the residues that it cuts.

    What is left of each residue gets back its integer charge where that adds up to the remainder; where it
    does not, all of them share the remainder equally.

    Args:
        topology: residues and charges.
        qm_particles: the QM atoms and their virtual sites.
        links: the cut bonds.
        remainder: what the charges of the QM particles have more than the region.

    Returns:
        the charges in e, and the MM atoms that took up a part.
    """
    inside = np.isin(np.arange(topology.n_particles), qm_particles)
    residues = topology.residue_indices
    of_qm = np.unique(residues[inside[: len(topology)]])
    rests = {r: np.flatnonzero((residues == r) & ~inside[: len(topology)]) for r in of_qm}
    rests = {r: rest for r, rest in rests.items() if len(rest)}
    if not rests:  # a border between residues
        rests = {r: np.flatnonzero(residues == r) for r in np.unique(residues[links.hosts])}
    net = {r: float(topology.charges[_outside(topology, rest, inside)].sum()) for r, rest in rests.items()}
    shares = {r: round(charge) - charge for r, charge in net.items()}
    atoms = np.concatenate(list(rests.values()))
    moved = np.array(topology.charges)
    moved[qm_particles] -= remainder / len(qm_particles)
    if abs(sum(shares.values()) - remainder) < _EXACT * len(shares):
        for r, rest in rests.items():
            moved[rest] += shares[r] / len(rest)
    else:
        moved[atoms] += remainder / len(atoms)
    return moved, atoms


def _outside(topology: Topology, atoms: IntArray, inside: BoolArray) -> IntArray:
    """Atoms with those of their virtual sites that are not in the region."""
    particles = topology.with_sites(atoms)
    return particles[~inside[particles]]
