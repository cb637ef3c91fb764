"""What a DFTB method gives for the molecules of the report, against the DFT reference.

Energies in kcal/mol, gradients in eV/angstrom, lengths in angstrom, angles in degrees, dipoles in debye,
charges in e, wavenumbers in 1/cm.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from methods import Method, own_methods
from minima import frequencies
from molecules import Molecules, read_molecules
from pidelta.data.frames import Frame
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM, HARTREE_IN_EV, HARTREE_IN_KCAL_PER_MOL
from reference import Reference
from special import SYMMETRIC

DEBYE = 2.541746473  # of e bohr
_BONDED = 1.25  # times the sum of the covalent radii
_SOFT = 100.0  # 1/cm; modes below are left out


@dataclass
class Coordinates:
    """Bond lengths or angles of one minimum: what they are, by DFT, and by the method."""

    names: list[str]
    reference: np.ndarray
    found: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        return self.found - self.reference


@dataclass
class Vibrations:
    """Wavenumbers in the order of their size."""

    reference: np.ndarray
    found: np.ndarray

    @property
    def relative_errors(self) -> np.ndarray:
        """(k,) of the modes above the soft ones."""
        kept = self.reference > _SOFT
        return self.found[kept] / self.reference[kept] - 1.0

    @property
    def rms(self) -> float:
        return float(np.sqrt((self.relative_errors**2).mean()))


@dataclass
class Profile:
    """Energies along a coordinate."""

    coordinate: np.ndarray
    reference: np.ndarray
    found: np.ndarray


@dataclass
class Measurement:
    """All figures of one method, by molecule where they belong to one."""

    method: str
    gradient_errors: dict[str, float] = field(default_factory=dict)  # MAE of all components
    energy_errors: dict[str, float] = field(default_factory=dict)  # MAE without the mean of the molecule
    bonds: dict[str, Coordinates] = field(default_factory=dict)
    angles: dict[str, Coordinates] = field(default_factory=dict)
    dipoles: dict[str, tuple[float, float, float]] = field(default_factory=dict)  # DFT, found, |difference|
    charge_errors: dict[str, float] = field(default_factory=dict)
    differences: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)  # DFT, found
    planarity: dict[str, tuple[float, float]] = field(default_factory=dict)
    vibrations: dict[str, Vibrations] = field(default_factory=dict)
    dimer: Profile | None = None
    dimer_minimum: dict[str, tuple[float, float]] = field(default_factory=dict)
    zundel: dict[float, Profile] = field(default_factory=dict)
    barrier: tuple[float, float] | None = None

    @property
    def bond_kinds(self) -> list[str]:
        """The elements of the bonds, such as C-H."""
        return sorted({kind for bonds in self.bonds.values() for kind in bonds.names})

    def bond_errors(self, kind: str) -> np.ndarray:
        """(k,) errors of all bonds of one kind; none where the method lacks an element."""
        parts = [bonds.errors[np.array(bonds.names) == kind] for bonds in self.bonds.values()]
        return np.concatenate(parts) if parts else np.zeros(0)


def measure(method: Method, reference: Reference, molecules: Molecules) -> Measurement:
    """Measure all that the reference data have."""
    measurement = Measurement(method.name)
    minima = {
        key.partition("/")[2]: method.minimum(reference.frame(key))
        for key in reference.keys("minimum")
        if key.partition("/")[2] in molecules.minima and method.knows(reference.frame(key))
    }
    for name in molecules.sampled:
        _measure_frames(measurement, method, reference, name)
    for name in set(molecules.sampled) & set(minima):
        _measure_minimum(measurement, method, reference, name, minima[name].positions)
    for pair in molecules.settings["energies"]:
        if set(pair) <= set(minima):
            first, second = (reference.results[f"minimum/{name}"]["energy"] for name in pair)
            own = minima[pair[1]].energy - minima[pair[0]].energy
            values = (second - first, own)
            measurement.differences[tuple(pair)] = tuple(HARTREE_IN_KCAL_PER_MOL * v for v in values)
    for name in set(molecules.settings["planar_nitrogen"]) & set(minima):
        frame = reference.frame(f"minimum/{name}")
        measurement.planarity[name] = tuple(
            nitrogen_angles(replace(frame, positions=x)) for x in (frame.positions, minima[name].positions)
        )
    for key in reference.keys("hessian"):
        name = key.partition("/")[2]
        frame = reference.frame(f"minimum/{name}")
        hessian = _square(np.array(reference.results[key]["lower"]), frame.positions.size)
        own = minima[name].positions
        measurement.vibrations[name] = Vibrations(
            frequencies(hessian, frame.numbers, frame.positions),
            frequencies(method.hessian(frame, own), frame.numbers, own),
        )
    _measure_dimer(measurement, method, reference)
    _measure_proton_transfer(measurement, method, reference)
    return measurement


def headline(folder: Path) -> dict[str, float]:
    """The figures of the summary for the set in a folder."""
    (method,) = own_methods([folder])
    molecules = read_molecules()
    return summary(measure(method, Reference(), molecules), molecules)


def summary(m: Measurement, molecules: Molecules) -> dict[str, float]:
    """The figures that sum a measurement up; those without data are missing."""
    rows = {
        "gradient, neutral molecules": _mean(
            [m.gradient_errors[n] for n in molecules.neutral if n in m.gradient_errors]
        ),
        "gradient, ions": _mean([m.gradient_errors[n] for n in molecules.ions if n in m.gradient_errors]),
        "gradient, S and Cl": _mean(
            [m.gradient_errors[n] for n in molecules.sulfur_chlorine if n in m.gradient_errors]
        ),
        "energy, neutral molecules": _mean(
            [m.energy_errors[n] for n in molecules.neutral if n in m.energy_errors]
        ),
        "energy, ions": _mean([m.energy_errors[n] for n in molecules.ions if n in m.energy_errors]),
        "bonds, neutral molecules": _mae([m.bonds[n].errors for n in molecules.neutral if n in m.bonds]),
        "bonds, ions": _mae([m.bonds[n].errors for n in molecules.ions if n in m.bonds]),
        "bonds, S and Cl": _mae([m.bonds[n].errors for n in molecules.sulfur_chlorine if n in m.bonds]),
        "angles": _mae([c.errors for c in m.angles.values()]),
        "dipole, magnitude": _mean([abs(found - dft) for dft, found, _ in m.dipoles.values()]),
        "dipole, vector": _mean([vector for *_, vector in m.dipoles.values()]),
        "charges": _mean(list(m.charge_errors.values())),
        "isomers and conformers": _mean([abs(own - dft) for dft, own in m.differences.values()]),
        "water dimer, binding": _error(m.dimer_minimum.get("energy")),
        "water dimer, O-O": _error(m.dimer_minimum.get("separation")),
        **{f"angles at N, {name}": own for name, (_, own) in sorted(m.planarity.items())},
        "malonaldehyde barrier": _error(m.barrier),
        **{
            f"proton transfer at {separation} Å": float(abs(_height(p.found) - _height(p.reference)))
            for separation, p in m.zundel.items()
        },
        **{f"frequencies, {name}": 100.0 * v.rms for name, v in sorted(m.vibrations.items())},
    }
    return {name: value for name, value in rows.items() if value is not None}


def _height(profile: np.ndarray) -> float:
    """The barrier: what the middle, which is the first point, lies above the lowest one."""
    return float(profile[0] - profile.min())


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _mae(errors: list[np.ndarray]) -> float | None:
    return float(np.abs(np.concatenate(errors)).mean()) if errors else None


def _error(pair: tuple[float, float] | None) -> float | None:
    return None if pair is None else pair[1] - pair[0]


def _square(lower: np.ndarray, size: int) -> np.ndarray:
    matrix = np.zeros((size, size))
    matrix[np.tril_indices(size)] = lower
    return matrix + np.tril(matrix, -1).T


def _measure_frames(measurement: Measurement, method: Method, reference: Reference, name: str) -> None:
    keys = reference.keys(f"frame/{name}")
    if not keys:
        return
    frame = reference.frame(keys[0])
    if not method.knows(frame):
        return
    results = [reference.results[key] for key in keys]
    own = method.evaluate(frame, np.array([result["positions"] for result in results]))
    gradients = np.array([result["gradient"] for result in results])
    errors = np.abs(own.gradient - gradients) * HARTREE_IN_EV * ANGSTROM
    measurement.gradient_errors[name] = float(errors.mean())
    if len(keys) > 1:
        difference = own.energy - np.array([result["energy"] for result in results])
        spread = np.abs(difference - difference.mean()).mean()
        measurement.energy_errors[name] = float(spread) * HARTREE_IN_KCAL_PER_MOL


def _measure_minimum(
    measurement: Measurement, method: Method, reference: Reference, name: str, positions: np.ndarray
) -> None:
    frame = reference.frame(f"minimum/{name}")
    pairs = bonds_of(frame)
    symbols = [chemical_symbols[number] for number in frame.numbers]
    names = ["-".join(sorted(symbols[atom] for atom in pair)) for pair in pairs]
    measurement.bonds[name] = Coordinates(names, *(_lengths(x, pairs) for x in (frame.positions, positions)))
    corners = _corners(pairs)
    names = ["-".join(symbols[atom] for atom in corner) for corner in corners]
    measurement.angles[name] = Coordinates(
        names, *(_angles(x, corners) for x in (frame.positions, positions))
    )
    properties = reference.results[f"minimum/{name}"]
    charges = method.evaluate(frame, frame.positions[None]).charges[0]
    measurement.charge_errors[name] = float(np.abs(charges - properties["charges"]).mean())
    if frame.charge == 0:
        dipole, own = (DEBYE * np.asarray(v) for v in (properties["dipole"], charges @ frame.positions))
        norms = (np.linalg.norm(v) for v in (dipole, own, own - dipole))
        measurement.dipoles[name] = tuple(float(norm) for norm in norms)


def bonds_of(frame: Frame) -> list[tuple[int, int]]:
    """Pairs of atoms that share a covalent bond."""
    radii = covalent_radii[frame.numbers] * ANGSTROM
    return [
        (i, j)
        for i, j in combinations(range(len(radii)), 2)
        if np.linalg.norm(frame.positions[i] - frame.positions[j]) < _BONDED * (radii[i] + radii[j])
    ]


def _corners(pairs: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    neighbours: dict[int, list[int]] = {}
    for i, j in pairs:
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    return [(i, centre, j) for centre, ends in neighbours.items() for i, j in combinations(ends, 2)]


def _lengths(positions: np.ndarray, pairs: list[tuple[int, int]]) -> np.ndarray:
    i, j = np.array(pairs).T
    return np.linalg.norm(positions[i] - positions[j], axis=1) * BOHR_IN_ANGSTROM


def _angles(positions: np.ndarray, corners: list[tuple[int, int, int]]) -> np.ndarray:
    i, centre, j = np.array(corners).T
    first, second = positions[i] - positions[centre], positions[j] - positions[centre]
    cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    return np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))


def nitrogen_angles(frame: Frame) -> float:
    """Sum of the angles at the (only) nitrogen with three bonds; 360 if it is planar."""
    corners = [c for c in _corners(bonds_of(frame)) if frame.numbers[c[1]] == 7]
    return float(_angles(frame.positions, corners).sum())


def _separation(positions: np.ndarray) -> float:
    return float(np.linalg.norm(positions[3] - positions[0])) * BOHR_IN_ANGSTROM


def _measure_dimer(measurement: Measurement, method: Method, reference: Reference) -> None:
    """Curve of rigid monomers, shaped as in the DFT minimum; depth from relaxed dimer and monomer."""
    keys, fragments = reference.keys("dimer"), reference.keys("fragment")
    if len(fragments) < 2:
        return
    water, dimer = (reference.frame(f"minimum/{name}") for name in ("water", "water dimer"))
    dft_water, dft_dimer = (
        reference.results[f"minimum/{name}"]["energy"] for name in ("water", "water dimer")
    )
    own_water, own_dimer = method.minimum(water), method.minimum(dimer)
    binding = (dft_dimer - 2.0 * dft_water, own_dimer.energy - 2.0 * own_water.energy)
    measurement.dimer_minimum = {
        "energy": tuple(HARTREE_IN_KCAL_PER_MOL * value for value in binding),
        "separation": (_separation(dimer.positions), _separation(own_dimer.positions)),
    }
    positions = np.array([reference.results[key]["positions"] for key in keys])
    energies = np.array([reference.results[key]["energy"] for key in keys])
    energies -= sum(reference.results[key]["energy"] for key in fragments)
    parts = np.array([reference.results[key]["positions"] for key in fragments])
    own = method.evaluate(dimer, positions).energy - method.evaluate(water, parts).energy.sum()
    separations = np.array([_separation(x) for x in positions])
    measurement.dimer = Profile(separations, *(HARTREE_IN_KCAL_PER_MOL * e for e in (energies, own)))


def _measure_proton_transfer(measurement: Measurement, method: Method, reference: Reference) -> None:
    profiles: dict[float, list[str]] = {}
    for key in reference.keys("zundel"):
        profiles.setdefault(float(key.split("/")[1]), []).append(key)
    for separation, keys in profiles.items():
        frame = reference.frame(keys[0])
        own = method.evaluate(frame, np.array([reference.results[key]["positions"] for key in keys])).energy
        dft = np.array([reference.results[key]["energy"] for key in keys])
        shifts = np.array([float(key.split("/")[2]) for key in keys])
        energies = (HARTREE_IN_KCAL_PER_MOL * (e - e[0]) for e in (dft, own))
        measurement.zundel[separation] = Profile(shifts, *energies)
    states = ("malonaldehyde", "malonaldehyde transition state")
    if all(f"minimum/{name}" in reference.results for name in states):
        dft = [reference.results[f"minimum/{name}"]["energy"] for name in states]
        own = [
            method.minimum(reference.frame(f"minimum/{name}"), project).energy
            for name, project in zip(states, (lambda x: x, SYMMETRIC), strict=True)
        ]
        measurement.barrier = tuple(HARTREE_IN_KCAL_PER_MOL * (e[1] - e[0]) for e in (dft, own))
