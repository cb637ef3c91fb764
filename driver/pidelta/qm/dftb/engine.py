"""The built-in SCC-DFTB engine: energies, gradients and charges of batches of structures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
import torch

from pidelta.errors import SCCConvergenceError, SetupError
from pidelta.qm.base import EmbeddingKind, QMResult, orbital_properties
from pidelta.qm.dftb.basis import Basis, build_basis
from pidelta.qm.dftb.charges import ChargeEnergy, PopulationEnergy
from pidelta.qm.dftb.convergence import Convergence, converge
from pidelta.qm.dftb.gamma import ChargeInteraction, GammaFunction
from pidelta.qm.dftb.integrals import PairGeometry, SlaterKosterIntegrals, TwoCentreMatrices
from pidelta.qm.dftb.occupations import Filling
from pidelta.qm.dftb.orthogonal import Geometries
from pidelta.qm.dftb.parameters import ParameterSet
from pidelta.qm.dftb.repulsive import RepulsiveTables
from pidelta.qm.dftb.scc import SCCProblem, SCCSolver, SCCState
from pidelta.qm.dftb.sites import atom_sites, shell_sites
from pidelta.qm.dftb.spin import SpinConstants, filled_orbitals, spin_blocks, spin_matrix
from pidelta.qm.dftb.start import Start, StartingPopulations, neutral_populations
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

    DFTB2: Elstner et al., Phys. Rev. B 58, 7260 (1998); DFTB3: Gaus, Cui, Elstner, JCTC 7, 931 (2011).
    Charges are resolved by atom, with U of the s shell, as DFTB+ does by default, or by shell. With a
    multiplicity above 1 both spins have their own orbitals, and the magnetisations of the shells interact
    (see `charges.PopulationEnergy`), unless spin polarisation is turned off: then both spins share orbitals
    with thermal occupations, whatever the multiplicity.

    Args:
        numbers: (n,) atomic numbers.
        parameters: a Slater-Koster set with all elements in `numbers`.
        order: 2 or 3.
        hubbard_derivatives: dU/dq by element in hartree/e^3, for order 3.
        damping_exponent: zeta of the damping of gamma for pairs with hydrogen (4.00 for 3ob); None: none.
        shell_resolved: each shell has its own charge and U.
        charge: total charge in e.
        multiplicity: 2 S + 1.
        spin_polarised: whether spins have their own orbitals at a multiplicity above 1; if not, the
            electronic temperature must be above 0.
        spin_constants: by element, for spin polarisation.
        electronic_temperature: k_B T in hartree. Above 0 the energy is the Mermin free energy.
        tolerance: largest change of a population in the last SCC iteration, in e.
        max_iterations: most SCC iterations of one attempt.
        start: what the SCC starts from, see `start.StartingPopulations`.
        device: the torch device of the self-consistency; pairs of atoms are worked on by the CPU.

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
        shell_resolved: bool = False,
        charge: int = 0,
        multiplicity: int = 1,
        spin_polarised: bool = True,
        spin_constants: SpinConstants | None = None,
        electronic_temperature: float = 0.0,
        tolerance: float = 1e-8,
        max_iterations: int = 100,
        start: Start = "extrapolated",
        device: str = "cpu",
    ) -> None:
        self._numbers = np.asarray(numbers, dtype=np.int64)
        self._basis = build_basis(self._numbers, parameters)
        electrons = _count_electrons(self._basis, charge)
        filled = filled_orbitals(electrons, len(self._basis.onsite), multiplicity, spin_polarised)
        if multiplicity > 1 and not spin_polarised and electronic_temperature == 0.0:
            raise SetupError(
                f"qm.dftb.spin_polarised: false with a multiplicity of {multiplicity} needs an "
                "electronic_temperature above 0 K, found 0 K"
            )
        self._filling = Filling(filled, electronic_temperature)
        polarised = len(filled) == 2
        spin_by_element = spin_blocks(self._basis, spin_constants) if polarised else {}
        derivatives = _derivatives(self._basis, order, hubbard_derivatives)
        self._identity = _identity(
            self._basis, parameters, order, derivatives, damping_exponent, electronic_temperature
        )
        if shell_resolved:
            self._identity += " shell-resolved"
        if polarised:
            used = sorted((symbol, block.tolist()) for symbol, block in spin_by_element.items())
            self._identity += f" spin={_hash(used)}"

        self._device = _find_device(device)
        shells = shell_resolved or polarised
        sites = shell_sites(self._basis, shell_resolved) if shells else atom_sites(self._basis)
        self._site_atom, self._orbital_site = sites.atom, self._index(sites.orbital_site)
        self._neutral = self._tensor(sites.occupations)
        self._cold_start = neutral_populations(self._neutral, self._filling)
        self._spin = self._tensor(spin_matrix(self._basis, spin_by_element)) if polarised else None
        self._geometries = Geometries(self._basis, self._device)
        self._integrals = SlaterKosterIntegrals(self._basis, parameters, self._device)
        site_derivatives = None if derivatives is None else derivatives[sites.atom]
        self._gamma = GammaFunction(sites, site_derivatives, damping_exponent, self._device)
        repulsives = [parameters.pairs[pair].repulsive for pair in self._basis.type_symbols]
        self._repulsive = RepulsiveTables(repulsives, self._basis.pair_types)
        self._solver = SCCSolver(self._orbital_site, tolerance, max_iterations)
        self._start = StartingPopulations(start)

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
        site_charges = population_energy.net_charges(state.populations)
        radial = self._gamma.gradient(interaction, site_charges, repulsive.shape[1]) + repulsive_slope
        pair_gradient = (
            self._band_gradient(geometry, matrices, state) + radial[..., None] * geometry.directions
        )
        return QMResult(
            energy=energy.cpu().numpy() + repulsive.sum(-1),
            gradient=self._geometries.by_atom(pair_gradient),
            charges=self._by_atom(site_charges),
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
        """Sum values (B, S) over the sites of each atom."""
        by_site: FloatArray = values.cpu().numpy()
        if by_site.shape[1] == len(self._numbers):
            return by_site
        # The sites of an atom are neighbours.
        starts = np.searchsorted(self._site_atom, np.arange(len(self._numbers)))
        return np.add.reduceat(by_site, starts, axis=1)

    def _population_energy(
        self, interaction: ChargeInteraction, potential: FloatArray, coulomb_correction: FloatArray | None
    ) -> PopulationEnergy:
        kernel = interaction.gamma
        if coulomb_correction is not None:
            kernel = kernel + self._tensor(coulomb_correction[:, self._site_atom[:, None], self._site_atom])
        by_site = self._tensor(potential.take(self._site_atom, axis=1))
        charges = ChargeEnergy(by_site, kernel, interaction.gamma3, self._gamma.same_atom)
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
            int(result.state.iterations[worst]), float(failed[worst]), self._numbers, positions[worst].copy()
        )

    def _band_gradient(
        self, geometry: PairGeometry, matrices: TwoCentreMatrices, state: SCCState
    ) -> FloatArray:
        """Derivative (B, P, 3) of the electronic energy through H0 and S, at fixed populations."""
        weighted = state.orbitals * state.occupations.unsqueeze(-2)
        density = weighted @ state.orbitals.mT
        energy_weighted = (weighted * state.energies.unsqueeze(-2)) @ state.orbitals.mT
        shifts = state.shifts.index_select(-1, self._orbital_site)
        d_overlap = 0.5 * (shifts.unsqueeze(-1) + shifts.unsqueeze(-2)) * density - energy_weighted
        return self._integrals.gradient(geometry, matrices, density.sum(1), d_overlap.sum(1))


def _find_device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SetupError(f"qm.dftb.device: expected a GPU that torch {torch.__version__} can use, found none")
    return device


def _electronic_energy(state: SCCState) -> torch.Tensor:
    """Tr(P H0) - T S (B,) in hartree: the band energy less what the shifts contribute to it."""
    band = (state.occupations * state.energies).sum((-2, -1))
    return band - (state.shifts * state.populations).sum((-2, -1)) + state.entropy_term


def _count_electrons(basis: Basis, charge: int) -> int:
    electrons = round(float(basis.valence.sum())) - charge
    if not 0 < electrons <= 2 * len(basis.onsite):
        raise SetupError(
            f"qm.charge: expected a charge that leaves 1 to {2 * len(basis.onsite)} valence electrons, "
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
        parts.append(f"derivatives={_hash(used)}")
    if damping_exponent is not None:
        parts.append(f"zeta={damping_exponent:g}")
    if temperature > 0.0:
        parts.append(f"kT={temperature:g}")
    return " ".join(parts)


def _hash(settings: object) -> str:
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
