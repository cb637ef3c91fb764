"""The built-in SCC-DFTB engine: energies, gradients and charges of batches of structures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
import torch

from pidelta.errors import SCCConvergenceError, SettingError
from pidelta.qm.base import EmbeddingKind, QMResult, orbital_properties
from pidelta.qm.dftb.basis import Basis, build_basis
from pidelta.qm.dftb.centres import atom_centres, shell_centres
from pidelta.qm.dftb.charges import ChargeEnergy, PopulationEnergy
from pidelta.qm.dftb.convergence import Convergence, converge
from pidelta.qm.dftb.gamma import ChargeInteraction, GammaFunction
from pidelta.qm.dftb.integrals import PairGeometry, SlaterKosterIntegrals, TwoCentreMatrices
from pidelta.qm.dftb.occupations import Filling
from pidelta.qm.dftb.orthogonal import Geometries
from pidelta.qm.dftb.parameters import ParameterSet
from pidelta.qm.dftb.repulsive import RepulsiveTables
from pidelta.qm.dftb.scc import SCCProblem, SCCSolver, SCCState
from pidelta.qm.dftb.settings import DFTBSettings
from pidelta.qm.dftb.spin import filled_orbitals, spin_blocks, spin_matrix
from pidelta.qm.dftb.start import StartingPopulations, neutral_populations
from pidelta.state import FloatArray, IntArray

_PROPERTIES = (
    "orbital_energies",
    "occupations",
    "homo",
    "lumo",
    "gap",
    "spin_populations",
    "entropy_term",
    "scc_iterations",
    "scc_fallbacks",
)


class DFTBEngine:
    """Self-consistent-charge DFTB of second order or full third order (a `pidelta.qm.base.QMEngine`).

    Charges are resolved by atom, with U of the s shell, as DFTB+ does by default, or by shell. With a
    multiplicity above 1 both spins have their own orbitals, and the magnetisations of the shells interact
    (see `charges.PopulationEnergy`), unless spin polarisation is turned off: then both spins share orbitals
    with thermal occupations, whatever the multiplicity. The self-consistency runs on the device of the
    settings; pairs of atoms are worked on by the CPU.

    Args:
        numbers: (n,) atomic numbers.
        parameters: a Slater-Koster set with all elements in `numbers`.
        settings: the method, and the charge and spin of the molecule.

    Raises:
        SettingError: a setting does not fit the molecule or is not supported.
        ParameterError: an element is not in the set, or a shell has no U of its own.
    """

    def __init__(self, numbers: IntArray, parameters: ParameterSet, settings: DFTBSettings) -> None:
        self._numbers = np.asarray(numbers, dtype=np.int64)
        self._basis = build_basis(self._numbers, parameters)
        filled = filled_orbitals(self._basis, settings)
        self._filling = Filling(filled, settings.electronic_temperature)
        polarised = len(filled) == 2
        spins = spin_blocks(self._basis, settings.spin_constants) if polarised else {}
        derivatives = _derivatives(self._basis, settings)
        self._identity = _identity(self._basis, parameters, settings, derivatives, spins)

        self._device = _find_device(settings.device)
        by_shell = settings.shell_resolved or polarised
        centres = (
            shell_centres(self._basis, settings.shell_resolved) if by_shell else atom_centres(self._basis)
        )
        self._centre_atom, self._orbital_centre = centres.atom, self._index(centres.orbital_centre)
        self._neutral = self._tensor(centres.occupations)
        self._cold_start = neutral_populations(self._neutral, self._filling)
        self._spin = self._tensor(spin_matrix(self._basis, spins)) if polarised else None
        self._geometries = Geometries(self._basis, self._device)
        self._integrals = SlaterKosterIntegrals(self._basis, parameters, self._device)
        centre_derivatives = None if derivatives is None else derivatives[centres.atom]
        self._gamma = GammaFunction(centres, centre_derivatives, settings.damping_exponent, self._device)
        repulsives = [parameters.pairs[pair].repulsive for pair in self._basis.type_symbols]
        self._repulsive = RepulsiveTables(repulsives, self._basis.pair_types)
        self._solver = SCCSolver(self._orbital_centre, settings.scc)
        self._start = StartingPopulations(settings.scc.start)

    @property
    def numbers(self) -> IntArray:
        """(n,) atomic numbers."""
        return self._numbers

    @property
    def identity(self) -> str:
        """The method with all settings that change its energies, and a hash of its parameters."""
        return self._identity

    @property
    def program(self) -> str:
        """The program that evaluates the method, with its version, for reports."""
        return f"built-in DFTB of pidelta {version('pidelta')}"

    @property
    def embedding(self) -> EmbeddingKind:
        """The potential polarises the charges."""
        return "electrostatic"

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of all properties of its results."""
        return _PROPERTIES

    def evaluate(
        self, positions: FloatArray, potential: FloatArray, coulomb_correction: FloatArray | None = None
    ) -> QMResult:
        """Evaluate a batch; see `pidelta.qm.base.QMEngine.evaluate` for shapes, units and errors."""
        with torch.inference_mode():
            return self._evaluate(positions, potential, coulomb_correction)

    def check_geometry(self, positions: FloatArray) -> None:
        """Raise the GeometryError of `evaluate` if positions (B, n, 3) have no usable overlap."""
        with torch.inference_mode():
            self._geometries.check_finite("positions", positions)
            geometry = self._geometries.pairs(positions)
            self._geometries.orthogonalise(self._integrals.evaluate(geometry), geometry)

    def _evaluate(
        self, positions: FloatArray, potential: FloatArray, coulomb_correction: FloatArray | None
    ) -> QMResult:
        self._geometries.check_finite("positions", positions)
        self._geometries.check_finite("potential", potential)
        geometry = self._geometries.pairs(positions)
        matrices = self._integrals.evaluate(geometry)
        interaction = self._gamma.evaluate(geometry.distances)
        population_energy = self._population_energy(interaction, potential, coulomb_correction)
        hamiltonian, factor, inverse = self._geometries.orthogonalise(matrices, geometry)
        problem = SCCProblem(
            hamiltonian.unsqueeze(1), factor.unsqueeze(1), inverse.unsqueeze(1), population_energy
        )
        convergence = self._converge(problem, positions)
        state = convergence.state

        repulsive, repulsive_slope = self._repulsive.evaluate(geometry.distances)
        energy = _electronic_energy(state) + population_energy.energy(state.populations)
        centre_charges = population_energy.net_charges(state.populations)
        radial = self._gamma.gradient(interaction, centre_charges, repulsive.shape[1]) + repulsive_slope
        pair_gradient = (
            self._band_gradient(geometry, matrices, state) + radial[..., None] * geometry.directions
        )
        return QMResult(
            energy=energy.cpu().numpy() + repulsive.sum(-1),
            gradient=self._geometries.by_atom(pair_gradient),
            charges=self._by_atom(centre_charges),
            properties={
                **orbital_properties(state.energies.cpu().numpy(), state.occupations.cpu().numpy()),
                "spin_populations": self._by_atom(state.populations[:, 0] - state.populations[:, -1]),
                "entropy_term": state.entropy_term.cpu().numpy(),
                "scc_iterations": state.iterations.cpu().numpy().astype(np.float64),
                "scc_fallbacks": convergence.fallbacks.cpu().numpy().astype(np.float64),
            },
        )

    def _tensor(self, values: FloatArray) -> torch.Tensor:
        # A copy, because torch takes no views that are reversed or read-only.
        return torch.from_numpy(np.array(values, dtype=np.float64, order="C")).to(self._device)

    def _index(self, values: IntArray) -> torch.Tensor:
        return torch.as_tensor(values, device=self._device)

    def _by_atom(self, values: torch.Tensor) -> FloatArray:
        """Sum values (B, S) over the centres of each atom."""
        by_centre: FloatArray = values.cpu().numpy()
        if by_centre.shape[1] == len(self._numbers):
            return by_centre
        # The centres of an atom are neighbours.
        starts = np.searchsorted(self._centre_atom, np.arange(len(self._numbers)))
        return np.add.reduceat(by_centre, starts, axis=1)

    def _population_energy(
        self, interaction: ChargeInteraction, potential: FloatArray, coulomb_correction: FloatArray | None
    ) -> PopulationEnergy:
        kernel = interaction.gamma
        if coulomb_correction is not None:
            kernel = kernel + self._tensor(
                coulomb_correction[:, self._centre_atom[:, None], self._centre_atom]
            )
        by_centre = self._tensor(potential.take(self._centre_atom, axis=1))
        charges = ChargeEnergy(by_centre, kernel, interaction.gamma3, self._gamma.same_atom)
        return PopulationEnergy(charges, self._neutral, self._spin)

    def _converge(self, problem: SCCProblem, positions: FloatArray) -> Convergence:
        """Solve the SCC equations, from what `start` says and from neutral atoms."""
        starts = [self._cold_start.expand(len(positions), -1, -1)]
        guess = self._start.guess(len(positions))
        if guess is not None:
            starts.insert(0, torch.from_numpy(guess).to(self._device))
        result = converge(self._solver, problem, self._filling, starts)
        if bool(result.converged.all()):
            self._start.remember(result.state.populations.cpu().numpy())
            return result
        self._start.forget()
        failed = torch.where(result.converged, 0.0, result.state.residual)
        worst = int(failed.argmax())
        raise SCCConvergenceError(
            worst,
            int(result.state.iterations[worst]),
            float(failed[worst]),
            self._numbers,
            positions[worst].copy(),
        )

    def _band_gradient(
        self, geometry: PairGeometry, matrices: TwoCentreMatrices, state: SCCState
    ) -> FloatArray:
        """Derivative (B, P, 3) of the electronic energy through H0 and S, at fixed populations."""
        weighted = state.orbitals * state.occupations.unsqueeze(-2)
        density = weighted @ state.orbitals.mT
        energy_weighted = (weighted * state.energies.unsqueeze(-2)) @ state.orbitals.mT
        shifts = state.shifts.index_select(-1, self._orbital_centre)
        d_overlap = 0.5 * (shifts.unsqueeze(-1) + shifts.unsqueeze(-2)) * density - energy_weighted
        return self._integrals.gradient(geometry, matrices, density.sum(1), d_overlap.sum(1))


def _find_device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingError("device", f"expected a GPU that torch {torch.__version__} can use, found none")
    return device


def _electronic_energy(state: SCCState) -> torch.Tensor:
    """Tr(P H0) - T S (B,) in hartree: the band energy less what the shifts contribute to it."""
    band = (state.occupations * state.energies).sum((-2, -1))
    return band - (state.shifts * state.populations).sum((-2, -1)) + state.entropy_term


def _derivatives(basis: Basis, settings: DFTBSettings) -> FloatArray | None:
    """Hubbard derivatives (n,) of the atoms in hartree/e^3, or None at second order."""
    if settings.order == 2:
        return None
    known = settings.hubbard_derivatives or {}
    for symbol in basis.symbols:
        if symbol not in known:
            raise SettingError(
                "hubbard_derivatives", f"expected that of every element with order 3, found none for {symbol}"
            )
    return np.array([known[symbol] for symbol in basis.symbols])


def _identity(
    basis: Basis,
    parameters: ParameterSet,
    settings: DFTBSettings,
    derivatives: FloatArray | None,
    spins: Mapping[str, FloatArray],
) -> str:
    parts = [f"DFTB{settings.order}/{parameters.identity}"]
    if derivatives is not None:
        used = sorted(set(zip(basis.symbols, derivatives.tolist(), strict=True)))
        parts.append(f"derivatives={_hash(used)}")
    if settings.damping_exponent is not None:
        parts.append(f"zeta={settings.damping_exponent:g}")
    if settings.electronic_temperature > 0.0:
        parts.append(f"kT={settings.electronic_temperature:g}")
    if settings.shell_resolved:
        parts.append("shell-resolved")
    if spins:
        parts.append(f"spin={_hash(sorted((symbol, block.tolist()) for symbol, block in spins.items()))}")
    return " ".join(parts)


def _hash(values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:12]
