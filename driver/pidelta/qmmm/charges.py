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

_REMAINDER_OF_CUT = 0.5
"""e: what they may be off where bonds cut residues without integer charges."""

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
    topology: Topology, qm_particles: IntArray, links: Links, charge: int
) -> tuple[FloatArray, float, IntArray]:
    """Charges (P,) with the remainder of a region moved to the residues that it cuts.

    What is left of each residue gets back its integer charge, and all of them share what rounding leaves
    beside that. Where residues have no integer charges, as at the ends of nucleic acids in AMBER's force
    fields, they share the remainder equally.

    Args:
        topology: residues and charges.
        qm_particles: the QM atoms and their virtual sites.
        links: the cut bonds.
        charge: total charge of the QM region in e.

    Returns:
        the charges in e, the remainder, and the MM atoms that took up a part.

    Raises:
        SettingError: the charges do not fit.
    """
    inside = np.isin(np.arange(topology.n_particles), qm_particles)
    residues = topology.residue_indices
    of_qm = np.unique(residues[inside[: len(topology)]])
    rests = {r: np.flatnonzero((residues == r) & ~inside[: len(topology)]) for r in of_qm}
    rests = {r: rest for r, rest in rests.items() if len(rest)}
    if not rests:  # a border between residues
        rests = {r: np.flatnonzero(residues == r) for r in np.unique(residues[links.hosts])}
    net = {r: float(topology.charges[_outside(topology, rest, inside)].sum()) for r, rest in rests.items()}
    shares = {r: round(left) - left for r, left in net.items()}
    replaced = topology.charges[qm_particles]
    if _have_integer_charges(topology, np.union1d(of_qm, list(rests))):
        fitting = round(float(replaced.sum()) - sum(shares.values()))
        if charge != fitting:
            raise SettingError(
                "charge",
                f"expected {fitting:+d}, as the force-field charges of the QM atoms sum to "
                f"{replaced.sum():+.4f} and what is left of the residues that are cut to "
                f"{sum(net.values()):+.4f}, found {charge:+d}",
            )
        remainder = charge_remainder(replaced, charge, largest=np.inf)
    else:
        remainder = charge_remainder(replaced, charge, largest=_REMAINDER_OF_CUT)
        shares = dict.fromkeys(shares, 0.0)
    atoms = np.concatenate(list(rests.values()))
    moved = np.array(topology.charges)
    moved[qm_particles] -= remainder / len(qm_particles)
    for r, rest in rests.items():
        moved[rest] += shares[r] / len(rest)
    moved[atoms] += (remainder - sum(shares.values())) / len(atoms)
    return moved, remainder, atoms


def _have_integer_charges(topology: Topology, residues: IntArray) -> bool:
    """Whether each of some residues has one, but for rounding."""
    of_particle = np.append(topology.residue_indices, topology.residue_indices[topology.sites.parents[:, 0]])
    charges = np.bincount(of_particle, topology.charges)[residues]
    return bool((np.abs(charges - np.rint(charges)) <= REMAINDER).all())


def _outside(topology: Topology, atoms: IntArray, inside: BoolArray) -> IntArray:
    """Atoms with those of their virtual sites that are not in the region."""
    particles = topology.with_sites(atoms)
    return particles[~inside[particles]]
