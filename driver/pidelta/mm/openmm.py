"""OpenMM as the engine of the classical term, on whichever of its platforms there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from pidelta.errors import RunError, SettingError
from pidelta.mm.checks import check_geometry, check_result
from pidelta.mm.evaluator import components_of
from pidelta.mm.openmm_system import (
    BOHR_IN_NM,
    CHARGE_SWITCH,
    STEPS_GROUP,
    build_system,
    coulomb_shift,
    import_openmm,
)
from pidelta.mm.settings import ForceFieldSettings, Part
from pidelta.mm.topology import Topology
from pidelta.state import FloatArray, Term
from pidelta.units import HARTREE_IN_KJ_PER_MOL

_ALL_GROUPS = -1
_STRAINS = {"double": 1e-5, "mixed": 1e-3, "single": 1e-3}  # of the differences, by precision
_CENTRAL = ((-1.0, -0.5), (1.0, 0.5))
_FORWARD = ((0.0, -1.5), (1.0, 2.0), (2.0, -0.5))
_BACKWARD = tuple((-point, -weight) for point, weight in _FORWARD)


class OpenMMEvaluator:
    """Energy and gradient of a topology by OpenMM, with the conventions of `MMEvaluator`.

    OpenMM gives no virial: it is found by differences of the energy at strained cells, 12 evaluations of
    the energy for each structure. In double precision it is good to 1e-7 hartree; in single precision, for
    2,700 atoms of uracil in water, to 2e-3 hartree (2 bar).

    OpenMM 8.6's Reference platform misses pairs in some skewed cells less than three cutoffs wide, where its
    CPU platform and the built-in evaluator find them.

    Args:
        topology: what to evaluate.
        settings: how, but not by ``ewald``, which OpenMM lacks for some cells; the threads are those of the
            CPU platform.
        cell: (3, 3) lattice vectors as rows in bohr, to check the cutoff before anything runs, and for the
            mesh of ``pme``.
        platform: ``auto``, the fastest that works, or the name of one, such as ``CUDA``.
        precision: ``double``, ``mixed`` or ``single``, where the platform offers a choice (CUDA, OpenCL,
            HIP); Reference is always double and CPU single, with sums in double.
        virial: whether to find the virial; it is NaN otherwise.
        part: of the terms, all if None.

    Raises:
        MissingExtraError: OpenMM is not installed.
        SettingError: the settings ask for ``ewald``, there is no such platform, or the cutoff exceeds half of
            the smallest height of the cell.
        TopologyError: the topology has a term that OpenMM is not given.
    """

    def __init__(
        self,
        topology: Topology,
        settings: ForceFieldSettings,
        cell: FloatArray | None = None,
        *,
        platform: str = "auto",
        precision: str = "double",
        virial: bool = True,
        part: Part | None = None,
    ) -> None:
        if settings.electrostatics == "ewald":
            raise SettingError(
                "electrostatics", "expected pme, reaction-field or cutoff of OpenMM, found 'ewald'"
            )
        if cell is not None:
            settings.check_cell(cell)
        self.topology = topology
        self._settings = settings
        self._part = part
        self._tail = 0.0 if part == "bonded" else settings.tail(topology)
        self._options = (platform, {"Precision": precision, "Threads": str(settings.threads)})
        self._with_virial = virial
        self._engines: dict[tuple[bool, int], _Engine] = {}
        self._engine(cell, 0)

    @property
    def precision(self) -> str:
        """``double``, ``mixed`` or ``single``: what the platform does."""
        return next(iter(self._engines.values())).precision

    @property
    def description(self) -> str:
        """OpenMM's version, platform and precision."""
        engine = next(iter(self._engines.values()))
        return f"OpenMM {engine.version}, {engine.platform}, {engine.precision} precision"

    def evaluate(self, particles: FloatArray, cells: FloatArray | None) -> Term:
        """Evaluate a batch, structure by structure.

        Args:
            particles: (B, P, 3) in bohr, unwrapped or not; any of them may be shifted by lattice vectors.
            cells: (B, 3, 3) lattice vectors as rows in bohr, or None without periodicity.

        Returns:
            The term with the gradient of the particles (B, P, 3) and the components of `MMEvaluator`; these
            are evaluated when they are looked at.

        Raises:
            GeometryError: positions are not finite or not of these particles, two coincide, or a cell is too
                small for the cutoff.
            RunError: OpenMM failed.
        """
        particles = np.array(particles, dtype=np.float64)
        check_geometry(self.topology, particles, cells, self._settings.cutoff)
        batch = len(particles)
        energy, gradient = np.empty(batch), np.empty((batch, self.topology.n_particles, 3))
        strain = np.full((batch, 3, 3), np.nan)
        tails, evaluated = np.zeros(batch), []
        for b in range(batch):
            cell = None if cells is None else np.ascontiguousarray(cells[b], dtype=np.float64)
            engine, frame = self._engine(cell, b), _Frame(particles[b], cell)
            with engine.errors():
                energy[b], gradient[b] = engine.energy_and_gradient(frame)
                check_result(self.topology, b, float(energy[b]), gradient[b])
                if self._with_virial:
                    strain[b] = engine.strain_derivative(frame)
            tails[b] = 0.0 if cell is None else self._tail / abs(float(np.linalg.det(cell)))
            strain[b] -= tails[b] * np.eye(3)
            evaluated.append((engine, frame))
        components = _Components(evaluated, tails)
        return Term(energy + tails, gradient, -strain, components)

    def _engine(self, cell: FloatArray | None, slot: int) -> _Engine:
        """For a structure of a batch, with or without a cell; the mesh of PME is that of the first cell seen.

        The CPU platform keeps pair lists for the positions it saw last, so there each slot has its own.
        """
        periodic = cell is not None
        first = self._engines.get((periodic, 0))
        if first is not None and first.platform != "CPU":
            slot = 0
        if (periodic, slot) not in self._engines:
            own = None if cell is None else reduced_box(cell)[0]
            box = own if first is None else first.box
            settings = self._settings if periodic else None
            self._engines[periodic, slot] = _Engine(self.topology, settings, box, self._part, *self._options)
        return self._engines[periodic, slot]


class _Frame:
    """A structure as OpenMM wants it: in a lower triangular, reduced cell, particles inside.

    Attributes:
        box: (3, 3) rows in bohr, or None.
        rotation: (3, 3), OpenMM's vectors are v @ rotation.
    """

    def __init__(self, positions: FloatArray, cell: FloatArray | None) -> None:
        self.box: FloatArray | None = None
        self.rotation = np.eye(3)
        if cell is None:
            # of single precision, most is left near the origin
            self._fractional = positions - positions.mean(axis=0)
        else:
            self.box, self.rotation = reduced_box(cell)
            fractional = positions @ self.rotation @ np.linalg.inv(self.box)
            self._fractional = fractional - np.floor(fractional)

    def positions(self, box: FloatArray | None = None) -> FloatArray:
        """(P, 3) in bohr, moved along with the cell where another `box` is given."""
        if box is None:
            box = self.box
        return self._fractional if box is None else np.asarray(self._fractional @ box)


def reduced_box(cell: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Another basis of the same lattice, turned so that OpenMM takes it.

    Args:
        cell: (3, 3) lattice vectors as rows in bohr, independent.

    Returns:
        Rows (3, 3), lower triangular, with |b_x|, |c_x| <= a_x / 2 and |c_y| <= b_y / 2, and the rotation
        (3, 3) that v @ rotation takes into their frame.
    """
    right_handed = cell * np.array([[1.0], [1.0], [np.sign(np.linalg.det(cell))]])
    q, r = np.linalg.qr(right_handed.T)
    signs = np.sign(np.diagonal(r))
    rotation, box = q * signs, np.tril((r * signs[:, None]).T)
    for row, column in ((2, 1), (2, 0), (1, 0)):
        box[row] -= np.rint(box[row, column] / box[column, column]) * box[column]
        half = 0.5 * box[column, column]  # rounding may leave it a last digit more
        box[row, column] = np.clip(box[row, column], -half, half)
    return box, rotation


def _is_reduced(box: FloatArray) -> bool:
    a, b, c = box
    return bool(a[0] >= 2.0 * max(abs(b[0]), abs(c[0])) and b[1] >= 2.0 * abs(c[1]))


class _Engine:
    """One System in one Context, made for a cell (3, 3) or for none; others may come."""

    def __init__(
        self,
        topology: Topology,
        settings: ForceFieldSettings | None,
        box: FloatArray | None,
        part: Part | None,
        platform: str,
        properties: Mapping[str, str],
    ) -> None:
        self._openmm = import_openmm()
        self.version: str = self._openmm.__version__
        self.box = box
        # of the shift of PME, what the pairs leave out: the charges themselves and excluded pairs
        self._constant = 0.0
        if part != "bonded" and settings is not None and settings.electrostatics == "pme":
            charges, (i, j) = topology.charges, topology.exclusions.T
            own = float(0.5 * charges @ charges + charges[i] @ charges[j])
            self._constant = -coulomb_shift(settings) * own
        system, self._groups = build_system(topology, settings, box, part)
        self._names = components_of(part)
        self._context = _make_context(self._openmm, system, platform, properties)
        chosen = self._context.getPlatform()
        self.platform: str = chosen.getName()
        if "Precision" in chosen.getPropertyNames():
            self.precision: str = chosen.getPropertyValue(self._context, "Precision")
        else:
            self.precision = "double" if self.platform == "Reference" else "single"

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What OpenMM raises, as an error of pidelta."""
        try:
            yield
        except self._openmm.OpenMMException as error:
            raise RunError(f"OpenMM on platform {self.platform}: {' '.join(str(error).split())}") from error

    def _place(self, frame: _Frame, box: FloatArray | None = None) -> None:
        """Set the positions and the cell of a frame, or another `box` with the positions moved along."""
        if frame.box is not None:
            self._context.setPeriodicBoxVectors(*((frame.box if box is None else box) * BOHR_IN_NM))
        self._context.setPositions(frame.positions(box) * BOHR_IN_NM)

    def _energy(self, groups: int) -> float:
        """In hartree, of the force groups whose bits are set."""
        state = self._context.getState(getEnergy=True, groups=groups)
        return float(state.getPotentialEnergy()._value) / HARTREE_IN_KJ_PER_MOL

    def energy_and_gradient(self, frame: _Frame) -> tuple[float, FloatArray]:
        """In hartree and (P, 3) in hartree/bohr."""
        self._place(frame)
        state = self._context.getState(getEnergy=True, getForces=True, groups=(1 << STEPS_GROUP) - 1)
        forces = np.asarray(state.getForces(asNumpy=True)._value)
        energy = float(state.getPotentialEnergy()._value) / HARTREE_IN_KJ_PER_MOL + self._constant
        return energy, forces @ frame.rotation.T * (-BOHR_IN_NM / HARTREE_IN_KJ_PER_MOL)

    def strain_derivative(self, frame: _Frame) -> FloatArray:
        """(3, 3) dE/d(strain) in hartree, by differences over the six entries of the triangular cell.

        Positions move along. An entry at the border of the reduced form is varied to one side only, since
        another basis of the lattice would be another mesh for PME. The energy does not change by turning
        everything, so the result is symmetric and its lower triangle is enough.
        """
        box = np.eye(3) if frame.box is None else frame.box
        slope = np.zeros((3, 3))
        for i, j in zip(*np.tril_indices(3), strict=True):
            step = np.zeros((3, 3))
            step[i, j] = _STRAINS[self.precision] * box[j, j]
            for stencil in (_CENTRAL, _FORWARD, _BACKWARD):
                boxes = [box + point * step for point, _ in stencil]
                if all(_is_reduced(other) for other in boxes):
                    break
            for (_, weight), other in zip(stencil, boxes, strict=True):
                self._place(frame, other)
                slope[i, j] += weight * self._energy(_ALL_GROUPS) / step[i, j]
        strain = np.tril(box.T @ slope)
        strain += np.tril(strain, -1).T
        return np.asarray(frame.rotation @ strain @ frame.rotation.T)

    def components(self, frame: _Frame) -> dict[str, float]:
        """Energies in hartree by name."""
        self._place(frame)
        energies = dict.fromkeys(self._names, 0.0)
        energies |= {name: self._energy(1 << group) for name, group in self._groups.items()}
        if "coulomb" not in self._groups:
            return energies
        if self._groups["lj"] == self._groups["coulomb"]:
            self._context.setParameter(CHARGE_SWITCH, 0.0)
            energies["lj"] = self._energy(1 << self._groups["lj"])
            self._context.setParameter(CHARGE_SWITCH, 1.0)
            energies["coulomb"] -= energies["lj"]
        energies["coulomb"] += self._constant
        return energies


class _Components(Mapping[str, FloatArray]):
    """Energies (B,) of the parts: for reports, and not worth their time in a run."""

    def __init__(self, evaluated: list[tuple[_Engine, _Frame]], lj_tail: FloatArray) -> None:
        self._frames, self._lj_tail = evaluated, lj_tail
        self._values: dict[str, FloatArray] = {}

    def _evaluated(self) -> dict[str, FloatArray]:
        if not self._values:
            rows = []
            for engine, frame in self._frames:
                with engine.errors():
                    rows.append(engine.components(frame))
            self._values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
            if "lj_tail" in self._values:
                self._values["lj_tail"] = self._lj_tail
        return self._values

    def __getitem__(self, name: str) -> FloatArray:
        return self._evaluated()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._evaluated())

    def __len__(self) -> int:
        return len(self._evaluated())


def _make_context(openmm: Any, system: Any, platform: str, properties: Mapping[str, str]) -> Any:
    """A Context on the platform of that name, or on the fastest that works, with those properties it has."""
    found = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    names = [one.getName() for one in found]
    if platform != "auto" and platform not in names:
        raise SettingError(
            "platform",
            f"expected auto or what this OpenMM {openmm.__version__} finds, {', '.join(names)}; "
            f"found {platform!r}",
        )
    candidates = [one for one in found if platform in ("auto", one.getName())]
    reason = ""
    for candidate in sorted(candidates, key=lambda one: -float(one.getSpeed())):
        own = {name: properties[name] for name in candidate.getPropertyNames() if name in properties}
        try:
            return openmm.Context(system, openmm.VerletIntegrator(1.0), candidate, own)
        except openmm.OpenMMException as error:
            reason = reason or f"{candidate.getName()}: {' '.join(str(error).split())}"
    raise SettingError("platform", f"expected a platform on which OpenMM works, found {reason}")
