"""The built-in SCC-DFTB engine: energies, gradients and charges of batches of structures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
import torch

from pidelta.errors import GeometryError, SCCConvergenceError, SetupError
from pidelta.qm.base import QMResult
from pidelta.qm.dftb.basis import Basis, build_basis
from pidelta.qm.dftb.charges import ChargeEnergy
from pidelta.qm.dftb.gamma import GammaFunction
from pidelta.qm.dftb.integrals import PairGeometry, SlaterKosterIntegrals, TwoCentreMatrices
from pidelta.qm.dftb.occupations import Filling
from pidelta.qm.dftb.parameters import ParameterSet
from pidelta.qm.dftb.repulsive import RepulsiveTables
from pidelta.qm.dftb.scc import SCCProblem, SCCSolver, SCCState
from pidelta.state import FloatArray, IntArray

_COINCIDING = 0.1  # bohr


class DFTBEngine:
    """Self-consistent-charge DFTB of second order or full third order (a `pidelta.qm.base.QMEngine`).

    DFTB2: Elstner et al., Phys. Rev. B 58, 7260 (1998); DFTB3: Gaus, Cui, Elstner, JCTC 7, 931 (2011).
    Charges are resolved by atom, with U of the s shell, as DFTB+ does by default. Closed shells only.

    Args:
        numbers: (n,) atomic numbers.
        parameters: a Slater-Koster set with all elements in `numbers`.
        order: 2 or 3.
        hubbard_derivatives: dU/dq by element in hartree/e^3, for order 3.
        damping_exponent: zeta of the damping of gamma for pairs with hydrogen (4.00 for 3ob); None: none.
        charge: total charge in e.
        multiplicity: 2 S + 1; only 1.
        electronic_temperature: k_B T in hartree. Above 0 the energy is the Mermin free energy.
        tolerance: largest change of a charge in the last SCC iteration, in e.
        max_iterations: most SCC iterations.
        warm_start: start from the charges of the previous call if it had as many structures.
        device: a torch device.

    Raises:
        SetupError: a setting does not fit the molecule or is not supported.
    """

    def __init__(
        self,
        numbers: IntArray,
        parameters: ParameterSet,
        *,
        order: int = 2,
        hubbard_derivatives: Mapping[str, float] | None = None,
        damping_exponent: float | None = None,
        charge: int = 0,
        multiplicity: int = 1,
        electronic_temperature: float = 0.0,
        tolerance: float = 1e-8,
        max_iterations: int = 100,
        warm_start: bool = True,
        device: str = "cpu",
    ) -> None:
        self._numbers = np.asarray(numbers, dtype=np.int64)
        self._basis = build_basis(self._numbers, parameters)
        electrons = _count_electrons(self._basis, charge, multiplicity)
        derivatives = _derivatives(self._basis, order, hubbard_derivatives)
        self._identity = _identity(
            self._basis, parameters, order, derivatives, damping_exponent, electronic_temperature
        )
        self._charge = charge
        self._warm_start = warm_start
        self._last_charges: torch.Tensor | None = None

        self._device = _find_device(device)
        self._first = torch.as_tensor(self._basis.first, device=self._device)
        self._second = torch.as_tensor(self._basis.second, device=self._device)
        self._orbital_atom = torch.as_tensor(self._basis.orbital_atom, device=self._device)
        self._integrals = SlaterKosterIntegrals(self._basis, parameters, self._device)
        self._gamma = GammaFunction(self._basis, derivatives, damping_exponent, self._device)
        repulsives = [parameters.pairs[pair].repulsive for pair in self._basis.type_symbols]
        self._repulsive = RepulsiveTables(repulsives, self._basis.pair_types, self._device)
        valence = torch.as_tensor(self._basis.valence, device=self._device)
        filling = Filling(electrons, electronic_temperature)
        self._solver = SCCSolver(self._orbital_atom, valence, filling, tolerance, max_iterations)

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

    def evaluate(
        self, positions: FloatArray, potential: FloatArray, coulomb_correction: FloatArray | None = None
    ) -> QMResult:
        """Evaluate a batch; see `pidelta.qm.base.QMEngine.evaluate` for shapes, units and errors."""
        with torch.inference_mode():
            return self._evaluate(positions, potential, coulomb_correction)

    def check_geometry(self, positions: FloatArray) -> None:
        """Raise the GeometryError of `evaluate` if positions (B, n, 3) have no usable overlap."""
        with torch.inference_mode():
            self._check_finite("positions", positions)
            geometry = self._pair_geometry(self._tensor(positions))
            self._factorise(self._integrals.evaluate(geometry).overlap, geometry)

    def _evaluate(
        self, positions: FloatArray, potential: FloatArray, coulomb_correction: FloatArray | None
    ) -> QMResult:
        self._check_finite("positions", positions)
        self._check_finite("potential", potential)
        geometry = self._pair_geometry(self._tensor(positions))
        matrices = self._integrals.evaluate(geometry)
        interaction = self._gamma.evaluate(geometry.distances)
        kernel = interaction.gamma
        if coulomb_correction is not None:
            kernel = kernel + self._tensor(coulomb_correction)
        charge_energy = ChargeEnergy(self._tensor(potential), kernel, interaction.gamma3)

        problem = self._orthogonalise(matrices, geometry, charge_energy)
        state = self._converge(problem, positions)

        repulsive, repulsive_slope = self._repulsive.evaluate(geometry.distances)
        energy = _electronic_energy(state, self._solver.populations(state)) + repulsive.sum(-1)
        energy = energy + charge_energy.energy(state.charges)
        radial = self._gamma.gradient(interaction, state.charges) + repulsive_slope
        pair_gradient = self._band_gradient(geometry, matrices, state)
        pair_gradient = pair_gradient + radial.unsqueeze(-1) * geometry.directions
        gradient = torch.zeros(positions.shape, dtype=torch.float64, device=self._device)
        gradient.index_add_(1, self._second, pair_gradient)
        gradient.index_add_(1, self._first, pair_gradient, alpha=-1.0)
        return QMResult(
            energy=energy.cpu().numpy(),
            gradient=gradient.cpu().numpy(),
            charges=state.charges.cpu().numpy(),
            iterations=state.iterations.cpu().numpy(),
        )

    def _tensor(self, values: FloatArray) -> torch.Tensor:
        # A copy, because torch takes no views that are reversed or read-only.
        return torch.from_numpy(np.array(values, dtype=np.float64, order="C")).to(self._device)

    def _atom(self, index: int) -> str:
        return f"atom {index} ({self._basis.symbols[index]})"

    def _check_finite(self, what: str, values: FloatArray) -> None:
        if not np.isfinite(values).all():
            index = np.argwhere(~np.isfinite(values))[0]
            raise GeometryError(
                f"structure {index[0]}, {self._atom(int(index[1]))}: expected finite {what}, "
                f"found {values[tuple(index)]}"
            )

    def _pair_geometry(self, positions: torch.Tensor) -> PairGeometry:
        vectors = positions[:, self._second] - positions[:, self._first]
        distances = vectors.norm(dim=-1)
        if bool((distances < _COINCIDING).any()):
            structure = int(distances.amin(-1).argmin())
            self._raise_too_close(distances, structure, f"at least {_COINCIDING} bohr between atoms")
        return PairGeometry(distances, vectors / distances.unsqueeze(-1))

    def _raise_too_close(self, distances: torch.Tensor, structure: int, expected: str) -> None:
        pair = int(distances[structure].argmin())
        first, second = int(self._first[pair]), int(self._second[pair])
        raise GeometryError(
            f"structure {structure}, {self._atom(first)} and {self._atom(second)}: expected {expected}, "
            f"found a distance of {float(distances[structure, pair]):.4f} bohr"
        )

    def _orthogonalise(
        self, matrices: TwoCentreMatrices, geometry: PairGeometry, charge_energy: ChargeEnergy
    ) -> SCCProblem:
        factor = self._factorise(matrices.overlap, geometry)
        unit = torch.eye(factor.shape[-1], dtype=torch.float64, device=self._device)
        inverse = torch.linalg.solve_triangular(factor, unit.expand_as(factor), upper=False)
        return SCCProblem(inverse @ matrices.hamiltonian @ inverse.mT, factor, inverse, charge_energy)

    def _factorise(self, overlap: torch.Tensor, geometry: PairGeometry) -> torch.Tensor:
        """Return the Cholesky factor of (B, N, N)."""
        factor: torch.Tensor
        factor, info = torch.linalg.cholesky_ex(overlap)
        if bool(info.any()):
            structure = int((info != 0).to(torch.int64).argmax())
            self._raise_too_close(geometry.distances, structure, "a positive definite overlap")
        return factor

    def _converge(self, problem: SCCProblem, positions: FloatArray) -> SCCState:
        """Solve the SCC equations from the last charges if they fit; should that fail, from equal charges."""
        equal = torch.full(positions.shape[:2], self._charge / len(self._numbers), dtype=torch.float64)
        guesses = [equal.to(self._device)]
        if self._warm_start and self._last_charges is not None and len(self._last_charges) == len(equal):
            guesses.insert(0, self._last_charges)
        for guess in guesses:
            state, converged = self._solver.solve(problem, guess)
            if bool(converged.all()):
                self._last_charges = state.charges
                return state
        self._last_charges = None
        worst = int(state.residual.argmax())
        raise SCCConvergenceError(
            int(state.iterations[worst]), float(state.residual[worst]), self._numbers, positions[worst].copy()
        )

    def _band_gradient(
        self, geometry: PairGeometry, matrices: TwoCentreMatrices, state: SCCState
    ) -> torch.Tensor:
        """Derivative (B, P, 3) of the electronic energy through H0 and S, at fixed charges."""
        weighted = state.orbitals * state.occupations.unsqueeze(-2)
        density = weighted @ state.orbitals.mT
        energy_weighted = (weighted * state.energies.unsqueeze(-2)) @ state.orbitals.mT
        shifts = state.shifts[:, self._orbital_atom]
        d_overlap = 0.5 * (shifts.unsqueeze(-1) + shifts.unsqueeze(-2)) * density - energy_weighted
        return self._integrals.gradient(geometry, matrices, density, d_overlap)


def _find_device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SetupError(f"qm.dftb.device: expected a GPU that torch {torch.__version__} can use, found none")
    return device


def _electronic_energy(state: SCCState, populations: torch.Tensor) -> torch.Tensor:
    """Tr(P H0) - T S (B,) in hartree: the band energy less what the shifts contribute to it."""
    band = (state.occupations * state.energies).sum(-1)
    return band - (state.shifts * populations).sum(-1) + state.entropy_term


def _count_electrons(basis: Basis, charge: int, multiplicity: int) -> int:
    if multiplicity != 1:
        raise SetupError(
            f"qm.multiplicity: expected 1, found {multiplicity}: spin polarisation is not available yet"
        )
    electrons = round(float(basis.valence.sum())) - charge
    if electrons % 2:
        raise SetupError(
            f"qm.charge: charge {charge} leaves an odd number of electrons ({electrons}); spin polarisation "
            "is not available yet; give a charge that leaves an even number"
        )
    if not 0 < electrons <= 2 * len(basis.onsite):
        raise SetupError(
            f"qm.charge: expected a charge that leaves 2 to {2 * len(basis.onsite)} valence electrons, "
            f"found {charge}, which leaves {electrons}"
        )
    return electrons


def _derivatives(basis: Basis, order: int, by_element: Mapping[str, float] | None) -> FloatArray | None:
    if order not in (2, 3):
        raise SetupError(f"qm.dftb.order: expected 2 or 3, found {order}")
    if order == 2:
        return None
    for symbol in basis.symbols:
        if by_element is None or symbol not in by_element:
            raise SetupError(
                f"qm.dftb.order: 3 needs the Hubbard derivative of every element, found none for {symbol}"
            )
    assert by_element is not None
    return np.array([by_element[symbol] for symbol in basis.symbols])


def _identity(
    basis: Basis,
    parameters: ParameterSet,
    order: int,
    derivatives: FloatArray | None,
    damping_exponent: float | None,
    temperature: float,
) -> str:
    parts = [f"DFTB{order}/{parameters.identity}"]
    if derivatives is not None:
        used = sorted(set(zip(basis.symbols, derivatives.tolist(), strict=True)))
        parts.append(f"derivatives={hashlib.sha256(repr(used).encode()).hexdigest()[:12]}")
    if damping_exponent is not None:
        parts.append(f"zeta={damping_exponent:g}")
    if temperature > 0.0:
        parts.append(f"kT={temperature:g}")
    return " ".join(parts)
