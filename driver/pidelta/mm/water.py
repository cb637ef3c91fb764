"""Flexible models of water by name, put into a topology or built for a box of water.

All are flexible, as ring polymers need. Parameters are those of the papers named with each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pidelta.core.virtual_sites import LINEAR, VirtualSites
from pidelta.errors import SettingError
from pidelta.mm.lennard_jones import combine, sigma_epsilon
from pidelta.mm.topology import Harmonic, Pairs14, QuarticBonds, Topology, Torsions, unique_pairs
from pidelta.state import FloatArray, IntArray, System
from pidelta.units import ANGSTROM, DALTON_IN_ELECTRON_MASS, KCAL_PER_MOL

_MASSES = {1: 1.00794, 8: 15.9994}  # standard atomic weights


@dataclass(frozen=True)
class WaterModel:
    """A flexible three-point model, or one with its negative charge at a site M.

    Attributes:
        charge: of a hydrogen in e; the oxygen, or M, has -2 of it.
        sigma, epsilon: Lennard-Jones of the oxygen in bohr and hartree.
        bond: (k2, k3, k4) of k2 u^2 + k3 u^3 + k4 u^4, u = r - length, in atomic units.
        length: in bohr.
        angle_k, angle: k/2 (theta - angle)^2, in hartree/rad^2 and rad.
        site: gamma of M at gamma R_O + (1 - gamma) (R_H1 + R_H2) / 2; None without M.
    """

    charge: float
    sigma: float
    epsilon: float
    bond: tuple[float, float, float]
    length: float
    angle_k: float
    angle: float
    site: float | None = None


def _harmonic_model(
    charge: float, sigma: float, epsilon: float, k_bond: float, length: float, k_angle: float, angle: float
) -> WaterModel:
    """A harmonic model from angstrom, kcal/mol and degrees; the k are those of k/2 (x - x0)^2."""
    return WaterModel(
        charge=charge,
        sigma=sigma * ANGSTROM,
        epsilon=epsilon * KCAL_PER_MOL,
        bond=(0.5 * k_bond * KCAL_PER_MOL / ANGSTROM**2, 0.0, 0.0),
        length=length * ANGSTROM,
        angle_k=k_angle * KCAL_PER_MOL,
        angle=float(np.deg2rad(angle)),
    )


def _q_tip4p_f() -> WaterModel:
    """A Morse bond to fourth order: D (a u)^2 (1 - a u + 7/12 (a u)^2).

    In the atomic units of its authors' program, part of i-PI's driver; the paper has them converted, rounded.
    """
    depth, a = 0.185, 1.21
    return WaterModel(
        charge=0.5564,
        sigma=5.96946,
        epsilon=2.95147e-4,
        bond=(depth * a**2, -depth * a**3, 7.0 / 12.0 * depth * a**4),
        length=1.78,
        angle_k=0.14,
        angle=float(np.deg2rad(107.4)),
        site=0.73612,
    )


WATER_MODELS = {
    # Wu, Tepper, Voth, J. Chem. Phys. 124, 024503 (2006)
    "spc-fw": _harmonic_model(0.41, 3.165492, 0.1554253, 1059.162, 1.012, 75.90, 113.24),
    # Paesani, Zhang, Case, Cheatham, Voth, J. Chem. Phys. 125, 184507 (2006)
    "q-spc-fw": _harmonic_model(0.42, 3.165492, 0.1554252, 1059.162, 1.000, 75.90, 112.0),
    # Habershon, Markland, Manolopoulos, J. Chem. Phys. 131, 024501 (2009)
    "q-tip4p-f": _q_tip4p_f(),
    # Jorgensen et al., J. Chem. Phys. 79, 926 (1983), with the force constants of CHARMM, MacKerell et al.,
    # J. Phys. Chem. B 102, 3586 (1998)
    "tip3p-flexible": _harmonic_model(0.417, 3.15061, 0.1521, 900.0, 0.9572, 110.0, 104.52),
}


def build_water(system: System, model: str) -> Topology:
    """The topology of a box of water, molecule after molecule as O H H.

    Args:
        system: atoms of water alone.
        model: a key of WATER_MODELS.

    Raises:
        SettingError: the atoms are not O H H and so on.
    """
    wrong = np.flatnonzero(system.numbers != np.resize([8, 1, 1], len(system)))
    if len(system) % 3 or len(wrong):
        where = f"atom {wrong[0]}" if len(wrong) else f"{len(system)} atoms in all"
        raise SettingError(
            "water", f"without a topology expected molecules O H H, found a break of the order at {where}"
        )
    n_atoms = len(system)
    molecules = np.arange(n_atoms) // 3
    named = np.array_equal(molecules, system.residue_indices)
    blank = Topology(
        source="the model of water",
        numbers=system.numbers,
        masses=np.array([_MASSES[int(number)] for number in system.numbers]) * DALTON_IN_ELECTRON_MASS,
        charges=np.zeros(n_atoms),
        names=system.names,
        residue_names=system.residue_names,
        residue_indices=molecules,
        residue_numbers=system.residue_numbers if named else molecules + 1,
        segments=system.segments,
        bonds=Harmonic.none(2),
        angles=Harmonic.none(3),
        urey_bradley=Harmonic.none(2),
        torsions=Torsions(),
        impropers=Harmonic.none(4),
        lj_types=np.zeros(n_atoms, dtype=np.int64),
        lj_c6=np.zeros((0, 0)),
        lj_c12=np.zeros((0, 0)),
        exclusions=np.zeros((0, 2), dtype=np.int64),
        pairs14=Pairs14(),
    )
    return with_water(blank, model)


def with_water(topology: Topology, model: str) -> Topology:
    """The topology with every water molecule described by a model.

    Water is any residue of one oxygen and two hydrogens. All of its terms, charges and virtual sites are
    replaced; its Lennard-Jones with other atoms follows from the combination rule of the topology.

    Args:
        topology: as read.
        model: a key of WATER_MODELS.

    Raises:
        SettingError: there is no water, it is bonded to other atoms, or it has Lennard-Jones exceptions
            with other types, which would be lost.
    """
    waters = find_water(topology)
    if not len(waters):
        raise SettingError("water", f"expected water molecules in {topology.source}, found none")
    _refuse_exceptions(topology, waters)
    description = WATER_MODELS[model]
    rest = topology.without_terms(waters)
    tables = _bonded_tables(description, waters)
    tables = {name: table.joined(getattr(rest, name)) for name, table in tables.items()}
    c6, c12 = _extended_tables(rest, description)
    oxygen, none = len(c6) - 2, len(c6) - 1
    charges, types = rest.charges.copy(), rest.lj_types.copy()
    charges[waters] = [-2.0 * description.charge, description.charge, description.charge]
    types[waters] = [oxygen, none, none]
    molecules, sites = waters, rest.sites
    if description.site is not None:
        charges[waters[:, 0]] = 0.0
        charges = np.append(charges, np.full(len(waters), -2.0 * description.charge))
        types = np.append(types, np.full(len(waters), none))
        molecules = np.column_stack([waters, rest.n_particles + np.arange(len(waters))])
        sites = _add_sites(rest.sites, waters, description.site)
    first, second = np.triu_indices(molecules.shape[1], k=1)
    within = np.stack([molecules[:, first], molecules[:, second]], axis=-1).reshape(-1, 2)
    return replace(
        rest,
        charges=charges,
        lj_types=types,
        lj_c6=c6,
        lj_c12=c12,
        sites=sites,
        exclusions=unique_pairs(np.concatenate([rest.exclusions, within])),
        **tables,
    )


def find_water(topology: Topology) -> IntArray:
    """(W, 3) atoms O, H, H of each residue that consists of these alone, whatever their order."""
    _, starts, sizes = np.unique(topology.residue_indices, return_index=True, return_counts=True)
    rows = starts[sizes == 3][:, None] + np.arange(3)
    order = np.argsort(-topology.numbers[rows], axis=1, kind="stable")
    rows = np.take_along_axis(rows, order, axis=1)
    is_water = (topology.numbers[rows] == [8, 1, 1]).all(axis=1)
    return np.asarray(rows[is_water])


def _bonded_tables(model: WaterModel, waters: IntArray) -> dict[str, Any]:
    bonds = waters[:, [0, 1, 0, 2]].reshape(-1, 2)
    k2, k3, k4, length = (np.full(len(bonds), value) for value in (*model.bond, model.length))
    angles = Harmonic(
        waters[:, [1, 0, 2]], np.full(len(waters), model.angle_k), np.full(len(waters), model.angle)
    )
    if model.bond[1] == model.bond[2] == 0.0:
        return {"bonds": Harmonic(bonds, 2.0 * k2, length), "angles": angles}
    return {"quartic_bonds": QuarticBonds(bonds, k2, k3, k4, length), "angles": angles}


def _extended_tables(topology: Topology, model: WaterModel) -> tuple[FloatArray, FloatArray]:
    """The Lennard-Jones tables with two more types: the oxygen of the model, and one without any."""
    sigma, epsilon = sigma_epsilon(np.diag(topology.lj_c6), np.diag(topology.lj_c12))
    tables = combine(
        np.append(sigma, [model.sigma, 0.0]), np.append(epsilon, [model.epsilon, 0.0]), topology.lj_rule
    )
    for table, old in zip(tables, (topology.lj_c6, topology.lj_c12), strict=True):
        table[: len(old), : len(old)] = old
    return tables


def _refuse_exceptions(topology: Topology, waters: IntArray) -> None:
    """Pair-specific Lennard-Jones of water's old types (NBFIX) cannot be carried over to a new model."""
    old = np.unique(topology.lj_types[waters])
    others = np.setdiff1d(np.unique(np.delete(topology.lj_types, waters)), old)
    if not (len(others) and len(topology.lj_c6)):
        return
    sigma, epsilon = sigma_epsilon(np.diag(topology.lj_c6), np.diag(topology.lj_c12))
    repelling = others[(epsilon[others] == 0.0) & (np.diag(topology.lj_c12)[others] > 0.0)]
    if len(repelling):
        atom = int(np.argmax(topology.lj_types == repelling[0]))
        raise SettingError(
            "water",
            f"{topology.source} has Lennard-Jones without attraction at {topology.label(atom)}, which cannot "
            "be combined with that of another model of water",
        )
    expected = combine(sigma, epsilon, topology.lj_rule)[0][np.ix_(old, others)]
    found = topology.lj_c6[np.ix_(old, others)]
    if not np.allclose(found, expected, rtol=1e-3, atol=1e-6):
        type_ = others[np.argmax(np.abs(found - expected).max(axis=0))]
        atom = int(np.argmax(topology.lj_types == type_))
        raise SettingError(
            "water",
            f"{topology.source} has pair-specific Lennard-Jones (NBFIX) between water and "
            f"{topology.label(atom)}, which no other model of water fits",
        )


def _add_sites(sites: VirtualSites, waters: IntArray, gamma: float) -> VirtualSites:
    weight = 0.5 * (1.0 - gamma)
    return VirtualSites(
        np.concatenate([sites.parents, waters]),
        np.append(sites.kinds, np.full(len(waters), LINEAR)),
        np.concatenate([sites.parameters, np.tile([weight, weight, 0.0], (len(waters), 1))]),
    )
