"""Self-consistent charges by Newton's method with the exact charge response.

The residual is f(q) = q_out(q) - q. First-order perturbation theory gives dq_out/dq from the orbitals of the
same diagonalisation, so each step solves (1 - dq_out/dq) dq = f exactly. The matrix is a dielectric matrix,
at second order with eigenvalues of at least 1, so steps do not run away, and convergence is quadratic: four
or five diagonalisations from neutral atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pidelta.qm.dftb.charges import ChargeEnergy
from pidelta.qm.dftb.occupations import Filling

# Structures are treated in groups whose transition charges number no more than this, to stay in cache.
_TRANSITIONS = 2**20


@dataclass(frozen=True)
class SCCProblem:
    """What the self-consistency of a batch depends on.

    Attributes:
        hamiltonian: (B, N, N) H0 in the basis orthogonalised by the Cholesky factor, L^-1 H0 L^-T.
        factor, inverse: (B, N, N) L and L^-1 of S = L L^T.
        charges: the energy of the charges.
    """

    hamiltonian: torch.Tensor
    factor: torch.Tensor
    inverse: torch.Tensor
    charges: ChargeEnergy

    def select(self, rows: torch.Tensor) -> SCCProblem:
        """Take some structures of the batch."""
        return SCCProblem(
            self.hamiltonian[rows], self.factor[rows], self.inverse[rows], self.charges.select(rows)
        )


@dataclass(frozen=True)
class SCCState:
    """The result of one diagonalisation for each structure of a batch.

    Attributes:
        charges: (B, n) net charges of the density in e.
        residual: (B,) largest difference to the charges that made the Hamiltonian, in e.
        shifts: (B, n) potential v of the electrons; H = H0 + S_ab (v_A + v_B) / 2.
        orbitals: (B, N, N) coefficients in columns.
        energies, occupations: (B, N) of the orbitals.
        entropy_term: (B,) -T S in hartree.
        iterations: (B,) diagonalisations done.
    """

    charges: torch.Tensor
    residual: torch.Tensor
    shifts: torch.Tensor
    orbitals: torch.Tensor
    energies: torch.Tensor
    occupations: torch.Tensor
    entropy_term: torch.Tensor
    iterations: torch.Tensor


class SCCSolver:
    """Finds self-consistent charges for the structures of a batch.

    Args:
        orbital_atom: (N,) the atom of each orbital, ascending.
        valence: (n,) valence electrons of the neutral atoms.
        filling: how orbitals are occupied.
        tolerance: largest |q_out - q| accepted, in e.
        max_iterations: most diagonalisations for one structure.
    """

    def __init__(
        self,
        orbital_atom: torch.Tensor,
        valence: torch.Tensor,
        filling: Filling,
        tolerance: float,
        max_iterations: int,
    ) -> None:
        self._orbital_atom = orbital_atom
        self._valence = valence
        self._filling = filling
        self._tolerance = tolerance
        self._max_iterations = max_iterations
        # The orbitals of each atom, filled up with an index to a row of zeros.
        counts = torch.bincount(orbital_atom, minlength=len(valence))
        place = torch.arange(int(counts.max()), device=orbital_atom.device)
        orbitals = (counts.cumsum(0) - counts).unsqueeze(-1) + place
        self._atom_orbitals = torch.where(place < counts.unsqueeze(-1), orbitals, len(orbital_atom))

    def solve(self, problem: SCCProblem, guess: torch.Tensor) -> tuple[SCCState, torch.Tensor]:
        """Iterate until all structures converged or `max_iterations` is reached.

        Args:
            problem: the batch.
            guess: (B, n) charges to start from.

        Returns:
            The last state of each structure and a mask (B,) of those that converged.
        """
        active = torch.arange(len(guess), device=guess.device)
        charges, results = guess, []
        for iteration in range(1, self._max_iterations + 1):
            state, duals = self._diagonalise(problem, charges, iteration)
            finished = state.residual < self._tolerance
            if iteration == self._max_iterations:
                finished = torch.ones_like(finished)
            if bool(finished.any()):
                results.append((active[finished], _select(state, finished)))
                if bool(finished.all()):
                    break
                going = ~finished
                active, problem, state = active[going], problem.select(going), _select(state, going)
                charges, duals = charges[going], duals[going]
            charges = charges + self._step(problem, state, duals, charges)
        final = _assemble(results)
        return final, final.residual < self._tolerance

    def populations(self, state: SCCState) -> torch.Tensor:
        """Return the electrons (B, n) on each atom."""
        return self._valence - state.charges

    def _diagonalise(
        self, problem: SCCProblem, charges: torch.Tensor, iteration: int
    ) -> tuple[SCCState, torch.Tensor]:
        """Return the state that follows from charges (B, n), and S times its orbitals (B, N, N)."""
        shifts = -problem.charges.slope(charges)
        # L^-1 (V S + S V) L^-T = X + X^T with X = L^-1 V L for the diagonal matrix V of the shifts.
        half = problem.inverse @ (shifts[:, self._orbital_atom].unsqueeze(-1) * problem.factor)
        energies, vectors = torch.linalg.eigh(problem.hamiltonian + 0.5 * (half + half.mT))
        orbitals, duals = problem.inverse.mT @ vectors, problem.factor @ vectors
        occupied = self._filling.occupy(energies)
        populations = ((orbitals * duals) @ occupied.numbers.unsqueeze(-1)).squeeze(-1)
        new_charges = self._valence.repeat(len(charges), 1)
        new_charges.index_add_(1, self._orbital_atom, populations, alpha=-1.0)
        residual = (new_charges - charges).abs().amax(-1)
        iterations = torch.full_like(residual, iteration, dtype=torch.int64)
        filling = (occupied.numbers, occupied.entropy_term)
        return SCCState(new_charges, residual, shifts, orbitals, energies, *filling, iterations), duals

    def _step(
        self, problem: SCCProblem, state: SCCState, duals: torch.Tensor, charges: torch.Tensor
    ) -> torch.Tensor:
        """Return the Newton step (B, n) for charges.

        No charge changes by more than 1 / iteration e: normal molecules never notice, oscillations between
        occupations die out, and yet any charge can be reached.
        """
        matrix = -self._response(state, duals) @ problem.charges.hessian(charges)
        matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
        step: torch.Tensor = torch.linalg.solve(matrix, state.charges - charges)
        largest = step.abs().amax(-1, keepdim=True) * state.iterations.unsqueeze(-1)
        return step / largest.clamp(min=1.0)

    def _response(self, state: SCCState, duals: torch.Tensor) -> torch.Tensor:
        """Return the derivative (B, n, n) of the populations of atoms by their shifts."""
        orbitals, duals = self._by_atom(state.orbitals), self._by_atom(duals)
        rows, columns = self._filling.orbital_ranges(state.energies.shape[-1])
        left = torch.cat((orbitals[..., rows], duals[..., rows]), dim=2).mT
        right = torch.cat((duals[..., columns], orbitals[..., columns]), dim=2)
        group = max(1, _TRANSITIONS // (left.shape[1] * left.shape[2] * right.shape[3]))
        parts = zip(left.split(group), right.split(group), state.energies.split(group), strict=True)
        return torch.cat([self._filling.response(energies, 0.5 * (a @ b)) for a, b, energies in parts])

    def _by_atom(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Rearrange (B, N, N) to (B, n, orbitals of an atom, N)."""
        return torch.nn.functional.pad(coefficients, (0, 0, 0, 1))[:, self._atom_orbitals]


def _select(state: SCCState, rows: torch.Tensor) -> SCCState:
    return SCCState(**{name: value[rows] for name, value in vars(state).items()})


def _assemble(results: list[tuple[torch.Tensor, SCCState]]) -> SCCState:
    """Put the states of groups of structures together in the order of the batch."""
    if len(results) == 1:
        return results[0][1]
    order = torch.argsort(torch.cat([rows for rows, _ in results]))
    states = [vars(state) for _, state in results]
    return SCCState(**{name: torch.cat([state[name] for state in states])[order] for name in states[0]})
