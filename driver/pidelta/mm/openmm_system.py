"""A topology as an OpenMM System: one force for each table, one force group for each component.

OpenMM's units are nm, kJ/mol and e. What a topology holds and no function here builds is refused by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from pidelta.core.ewald import shift_at_cutoff, splitting
from pidelta.core.pme import grid_for
from pidelta.errors import MissingExtraError, TopologyError
from pidelta.mm.lennard_jones import combine, sigma_epsilon
from pidelta.mm.nonbonded import Truncation
from pidelta.mm.settings import ForceFieldSettings, Part
from pidelta.mm.topology import Harmonic, Topology
from pidelta.state import FloatArray, IntArray
from pidelta.units import BOHR_IN_ANGSTROM, DALTON_IN_ELECTRON_MASS, HARTREE_IN_KJ_PER_MOL

BOHR_IN_NM = 0.1 * BOHR_IN_ANGSTROM
CHARGE_SWITCH = "charges"
"""The global parameter that turns the charges of the NonbondedForce off (0) and on (1)."""
STEPS_GROUP = 31
"""The force group of what takes the steps of a cut Lennard-Jones out of the energy; it has no forces."""

_TABLES = "c6 = c6_of(type1, type2); c12 = c12_of(type1, type2)"
_COULOMB = HARTREE_IN_KJ_PER_MOL * BOHR_IN_NM  # kJ/mol nm/e^2
_RULE_TOLERANCE = 1e-7  # relative, of c6 and c12: files hold about eight digits
_NO_TERMS = {
    "source", "numbers", "masses", "charges", "names", "residue_names", "residue_indices",
    "residue_numbers", "segments", "lj_types", "lj_c6", "lj_c12", "lj_rule", "exclusions", "sites",
    "massless_rows", "periodic", "cell_angle",
}  # fmt: skip


def import_openmm() -> Any:
    """Return the package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("openmm")
    except ModuleNotFoundError:
        raise MissingExtraError("openmm", "openmm", "the engine openmm") from None


def build_system(
    topology: Topology,
    settings: ForceFieldSettings | None,
    box: FloatArray | None,
    part: Part | None = None,
) -> tuple[Any, dict[str, int]]:
    """Build the System and say which component is in which force group.

    Lennard-Jones that is neither switched nor shifted has steps where pairs cross the cutoff; differences of
    energies want the group `STEPS_GROUP` included, which takes them out.

    Virtual sites are particles like the atoms, after them; whoever evaluates places them and gives their
    forces to their parents. Components of Lennard-Jones and Coulomb may share a group: `CHARGE_SWITCH` tells
    them apart.

    Args:
        topology: what to evaluate.
        settings: how pair interactions end in a periodic system; None without periodicity.
        box: (3, 3) rows in bohr, triangular and reduced; None without periodicity. The mesh is made for it.
        part: the terms that the System has, all if None.

    Raises:
        TopologyError: the topology has a term that OpenMM is not given.
        SetupError: the tolerance of PME is too small for the memory of its mesh.
        MissingExtraError: OpenMM is not installed.
    """
    openmm = import_openmm()
    _refuse_unknown(topology)
    system = openmm.System()
    for mass in topology.masses / DALTON_IN_ELECTRON_MASS:
        system.addParticle(float(mass))
    for _ in range(len(topology.sites)):
        system.addParticle(1.0)
    groups: dict[str, int] = {}

    def add(component: str, force: Any) -> None:
        groups.setdefault(component, len(groups))
        force.setForceGroup(groups[component])
        force.setName(component)
        system.addForce(force)

    if settings is not None and box is not None:
        system.setDefaultPeriodicBoxVectors(*(box * BOHR_IN_NM))
    for name, (component, build) in _BONDED.items() if part != "nonbonded" else ():
        for force in build(openmm, topology) if len(getattr(topology, name).atoms) else ():
            if settings is not None:
                force.setUsesPeriodicBoundaryConditions(True)
            add(component or force.getName(), force)
    if part == "bonded":
        return system, groups
    end = Truncation() if settings is None else settings.truncation
    plain = follows_lorentz_berthelot(topology) and not end.shift6
    coulomb = _nonbonded_force(openmm, topology, settings, with_lj=plain)
    add("coulomb", coulomb)
    if plain:
        groups["lj"] = groups["coulomb"]
    else:
        add("lj", _tabulated_lennard_jones(openmm, topology, end))
    if settings is not None and box is not None:
        if settings.electrostatics == "pme":
            alpha = splitting(end.cutoff, settings.ewald_tolerance)
            grid = grid_for(box, alpha, settings.ewald_tolerance)
            coulomb.setNonbondedMethod(openmm.NonbondedForce.PME)
            coulomb.setPMEParameters(alpha / BOHR_IN_NM, *grid)
            add("coulomb", _coulomb_shift(openmm, topology, settings))
        if np.isinf(end.switch) and not end.shift6:
            system.addForce(_lennard_jones_steps(openmm, topology, end))
    return system, groups


def _refuse_unknown(topology: Topology) -> None:
    for item in fields(topology):
        if item.name in _NO_TERMS or item.name in _BONDED:
            continue
        table = getattr(topology, item.name)
        if len(getattr(table, "atoms", table)):
            kind = item.name.replace("_", " ")
            raise TopologyError(
                f"{topology.source}: expected terms that OpenMM is given, found {kind}; the "
                "built-in evaluator may have them"
            )


def _bonds(openmm: Any, topology: Topology) -> list[Any]:
    return _harmonic_distances(openmm, topology.bonds)


def _urey_bradley(openmm: Any, topology: Topology) -> list[Any]:
    return _harmonic_distances(openmm, topology.urey_bradley)


def _harmonic_distances(openmm: Any, terms: Harmonic) -> list[Any]:
    force = openmm.HarmonicBondForce()
    for (i, j), x0, k in zip(
        terms.atoms.tolist(),
        (terms.x0 * BOHR_IN_NM).tolist(),
        (terms.k * HARTREE_IN_KJ_PER_MOL / BOHR_IN_NM**2).tolist(),
        strict=True,
    ):
        force.addBond(i, j, x0, k)
    return [force]


def _quartic_bonds(openmm: Any, topology: Topology) -> list[Any]:
    terms = topology.quartic_bonds
    force = openmm.CustomBondForce("u^2*(k2 + u*(k3 + u*k4)); u = r - x0")
    columns = (
        terms.k2 * HARTREE_IN_KJ_PER_MOL / BOHR_IN_NM**2,
        terms.k3 * HARTREE_IN_KJ_PER_MOL / BOHR_IN_NM**3,
        terms.k4 * HARTREE_IN_KJ_PER_MOL / BOHR_IN_NM**4,
        terms.x0 * BOHR_IN_NM,
    )
    return [_custom_bonds(force, terms.atoms, ("k2", "k3", "k4", "x0"), columns)]


def _morse_bonds(openmm: Any, topology: Topology) -> list[Any]:
    terms = topology.morse_bonds
    force = openmm.CustomBondForce("depth*(1 - exp(-beta*(r - x0)))^2")
    columns = (
        terms.depth * HARTREE_IN_KJ_PER_MOL,
        terms.beta / BOHR_IN_NM,
        terms.x0 * BOHR_IN_NM,
    )
    return [_custom_bonds(force, terms.atoms, ("depth", "beta", "x0"), columns)]


def _custom_bonds(force: Any, atoms: IntArray, names: Sequence[str], columns: Sequence[FloatArray]) -> Any:
    for name in names:
        force.addPerBondParameter(name)
    for (i, j), row in zip(atoms.tolist(), np.stack(columns, axis=1).tolist(), strict=True):
        force.addBond(i, j, row)
    return force


def _angles(openmm: Any, topology: Topology) -> list[Any]:
    terms = topology.angles
    force = openmm.HarmonicAngleForce()
    for atoms, x0, k in zip(
        terms.atoms.tolist(), terms.x0.tolist(), (terms.k * HARTREE_IN_KJ_PER_MOL).tolist(), strict=True
    ):
        force.addAngle(*atoms, x0, k)
    return [force]


def _torsions(openmm: Any, topology: Topology) -> list[Any]:
    """Periodic torsions; the constants among them (periodicity 0) need a force of their own."""
    terms = topology.torsions
    force = openmm.PeriodicTorsionForce()
    constant = openmm.CustomTorsionForce("constant + 0*theta")
    constant.addPerTorsionParameter("constant")
    for atoms, n, phase, k in zip(
        terms.atoms.tolist(),
        terms.periodicity.tolist(),
        terms.phase.tolist(),
        (terms.k * HARTREE_IN_KJ_PER_MOL).tolist(),
        strict=True,
    ):
        if n:
            force.addTorsion(*atoms, n, phase, k)
        else:
            constant.addTorsion(*atoms, [k * (1.0 + np.cos(phase))])
    return [force, constant] if constant.getNumTorsions() else [force]


def _impropers(openmm: Any, topology: Topology) -> list[Any]:
    terms = topology.impropers
    force = openmm.CustomTorsionForce(
        f"0.5*k*deviation^2; deviation = theta - theta0 - {2.0 * np.pi!r}*floor(turns + 0.5); "
        f"turns = (theta - theta0)/{2.0 * np.pi!r}"
    )
    force.addPerTorsionParameter("k")
    force.addPerTorsionParameter("theta0")
    for atoms, x0, k in zip(
        terms.atoms.tolist(), terms.x0.tolist(), (terms.k * HARTREE_IN_KJ_PER_MOL).tolist(), strict=True
    ):
        force.addTorsion(*atoms, [k, x0])
    return [force]


def _cmaps(openmm: Any, topology: Topology) -> list[Any]:
    """OpenMM's maps start at zero angles and have the first angle running fastest."""
    terms = topology.cmaps
    size = len(terms.grids[0])
    if size % 2:
        raise TopologyError(f"{topology.source}: CMAP: expected a grid of even size for OpenMM, found {size}")
    force = openmm.CMAPTorsionForce()
    for grid in np.roll(terms.grids * HARTREE_IN_KJ_PER_MOL, -(size // 2), axis=(1, 2)):
        force.addMap(size, grid.T.ravel().tolist())
    for kind, (i, j, k, l, m) in zip(terms.maps.tolist(), terms.atoms.tolist(), strict=True):  # noqa: E741
        force.addTorsion(kind, i, j, k, l, j, k, l, m)
    return [force]


def _pairs14(openmm: Any, topology: Topology) -> list[Any]:
    """Lennard-Jones and bare Coulomb of the listed pairs, which come on top of the NonbondedForce."""
    pairs = topology.pairs14
    lj = openmm.CustomBondForce("c12/r^12 - c6/r^6")
    lj.setName("lj14")
    coulomb = openmm.CustomBondForce("qq/r")
    coulomb.setName("coulomb14")
    i, j = pairs.atoms.T
    qq = _COULOMB * pairs.coulomb_scale * topology.charges[i] * topology.charges[j]
    _custom_bonds(lj, pairs.atoms, ("c6", "c12"), _in_kj_and_nm(pairs.c6, pairs.c12))
    _custom_bonds(coulomb, pairs.atoms, ("qq",), (qq,))
    return [lj, coulomb]


# table: the component it belongs to (None: the forces have its name), and what builds its forces
_BONDED: dict[str, tuple[str | None, Callable[[Any, Topology], list[Any]]]] = {
    "bonds": ("bond", _bonds),
    "quartic_bonds": ("quartic_bond", _quartic_bonds),
    "morse_bonds": ("morse_bond", _morse_bonds),
    "angles": ("angle", _angles),
    "urey_bradley": ("urey_bradley", _urey_bradley),
    "torsions": ("torsion", _torsions),
    "impropers": ("improper", _impropers),
    "cmaps": ("cmap", _cmaps),
    "pairs14": (None, _pairs14),
}


def follows_lorentz_berthelot(topology: Topology) -> bool:
    """Whether the Lennard-Jones table is what the rule makes of its diagonal."""
    tables = combine(*_sigma_epsilon(topology), "lorentz-berthelot")
    return all(
        np.allclose(found, expected, rtol=_RULE_TOLERANCE, atol=0.0)
        for found, expected in zip((topology.lj_c6, topology.lj_c12), tables, strict=True)
    )


def _sigma_epsilon(topology: Topology) -> tuple[FloatArray, FloatArray]:
    """Of each type, in bohr and hartree."""
    return sigma_epsilon(np.diagonal(topology.lj_c6), np.diagonal(topology.lj_c12))


def _in_kj_and_nm(c6: FloatArray, c12: FloatArray) -> tuple[FloatArray, FloatArray]:
    return c6 * (HARTREE_IN_KJ_PER_MOL * BOHR_IN_NM**6), c12 * (HARTREE_IN_KJ_PER_MOL * BOHR_IN_NM**12)


def _nonbonded_force(
    openmm: Any, topology: Topology, settings: ForceFieldSettings | None, *, with_lj: bool
) -> Any:
    """Coulomb and, where the rule holds, Lennard-Jones; charges are offsets so that they have a switch."""
    force = openmm.NonbondedForce()
    force.setUseDispersionCorrection(False)
    if settings is not None:
        force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
        force.setExceptionsUsePeriodicBoundaryConditions(True)
        # OpenMM has no infinite dielectric constant
        force.setReactionFieldDielectric(min(settings.dielectric, 1e30))
        _truncate(force, settings.truncation)
    sigma, epsilon = _sigma_epsilon(topology)
    sigma, epsilon = sigma * BOHR_IN_NM, epsilon * HARTREE_IN_KJ_PER_MOL * with_lj
    force.addGlobalParameter(CHARGE_SWITCH, 1.0)
    for atom, (kind, charge) in enumerate(
        zip(topology.lj_types.tolist(), topology.charges.tolist(), strict=True)
    ):
        force.addParticle(0.0, sigma[kind], epsilon[kind])
        if charge:
            force.addParticleParameterOffset(CHARGE_SWITCH, atom, charge, 0.0, 0.0)
    for i, j in topology.exclusions.tolist():
        force.addException(i, j, 0.0, 1.0, 0.0)
    return force


def _truncate(force: Any, end: Truncation) -> None:
    force.setCutoffDistance(end.cutoff * BOHR_IN_NM)
    if np.isfinite(end.switch):
        force.setUseSwitchingFunction(True)
        force.setSwitchingDistance(end.switch * BOHR_IN_NM)


def _tabulated_lennard_jones(openmm: Any, topology: Topology, end: Truncation) -> Any:
    """Lennard-Jones from a table over pairs of types: other rules, exceptions of a rule, shifts."""
    shift6 = float(end.shift6 / BOHR_IN_NM**6)
    expression = f"c12*(1/r^12 - {shift6**2!r}) - c6*(1/r^6 - {shift6!r}); {_TABLES}"
    force = _pair_force(openmm, topology, expression)
    if np.isfinite(end.cutoff):
        force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
        _truncate(force, end)
    return force


def coulomb_shift(settings: ForceFieldSettings) -> float:
    """What the direct part of PME is shifted by, in 1/bohr; see `LongRange`."""
    cutoff = settings.truncation.cutoff
    return shift_at_cutoff(splitting(cutoff, settings.ewald_tolerance), cutoff)


def _coulomb_shift(openmm: Any, topology: Topology, settings: ForceFieldSettings) -> Any:
    """Shifts the direct part of PME to zero at the cutoff, so that the energy has no steps there."""
    shift = float(_COULOMB * coulomb_shift(settings) / BOHR_IN_NM)
    force = _pair_force(openmm, topology, f"-{CHARGE_SWITCH}*{shift!r}*q1*q2")
    force.addGlobalParameter(CHARGE_SWITCH, 1.0)
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(settings.truncation.cutoff * BOHR_IN_NM)
    return force


def _lennard_jones_steps(openmm: Any, topology: Topology, end: Truncation) -> Any:
    """Minus what each pair loses at the cutoff, constant while no pair crosses it."""
    cutoff = float(end.cutoff * BOHR_IN_NM)
    force = _pair_force(openmm, topology, f"c6*{cutoff**-6!r} - c12*{cutoff**-12!r}; {_TABLES}")
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(cutoff)
    force.setForceGroup(STEPS_GROUP)
    return force


def _pair_force(openmm: Any, topology: Topology, expression: str) -> Any:
    """A force between all pairs but the excluded, of their charges and of c6 and c12 of their types."""
    force = openmm.CustomNonbondedForce(expression)
    n_types = len(topology.lj_c6)
    for name, table in zip(("c6_of", "c12_of"), _in_kj_and_nm(topology.lj_c6, topology.lj_c12), strict=True):
        force.addTabulatedFunction(name, openmm.Discrete2DFunction(n_types, n_types, table.ravel().tolist()))
    force.addPerParticleParameter("type")
    force.addPerParticleParameter("q")
    for kind, charge in zip(topology.lj_types.tolist(), topology.charges.tolist(), strict=True):
        force.addParticle([kind, charge])
    for i, j in topology.exclusions.tolist():
        force.addExclusion(i, j)
    return force
