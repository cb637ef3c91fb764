"""Self-consistent populations by Newton's method with the exact response.

The residual is f(n) = n_out(n) - n, with the populations n of all centres in all spin channels. First-order
perturbation theory gives dn_out/dn from the orbitals of the same diagonalisation, so each step solves
(1 - dn_out/dn) dn = f exactly. For closed shells the matrix is a dielectric matrix, at second order with
eigenvalues of at least 1, so steps do not run away, and convergence is quadratic: four or five
diagonalisations from neutral atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pidelta.errors import RunError
from pidelta.qm.dftb.charges import PopulationEnergy
from pidelta.qm.dftb.occupations import Filling
from pidelta.qm.dftb.settings import SCCSettings

# Structures are treated in groups whose transition charges number no more than this, to stay in cache.
_TRANSITIONS = 2**20


@dataclass(frozen=True)
class SCCProblem:
    """What the self-consistency of a batch depends on.

    Attributes:
        hamiltonian: (B, 1, N, N) H0 in the basis orthogonalised by the Cholesky factor, L^-1 H0 L^-T.
        factor, inverse: (B, 1, N, N) L and L^-1 of S = L L^T.
        energy: the energy of the populations.
    """

    hamiltonian: torch.Tensor
    factor: torch.Tensor
    inverse: torch.Tensor
    energy: PopulationEnergy

    def select(self, rows: torch.Tensor) -> SCCProblem:
        """Take some structures of the batch."""
        return SCCProblem(
            self.hamiltonian[rows], self.factor[rows], self.inverse[rows], self.energy.select(rows)
        )


@dataclass(frozen=True)
class SCCState:
    """The result of one diagonalisation for each structure of a batch, with C spin channels.

    Attributes:
        populations: (B, C, S) electrons on the centres.
        residual: (B,) largest difference to the populations that made the Hamiltonian, in e.
        shifts: (B, C, S) potential v of the electrons; H = H0 + S_ab (v_x + v_y) / 2.
        orbitals: (B, C, N, N) coefficients in columns.
        energies, occupations: (B, C, N) of the orbitals.
        entropy_term: (B,) -T S in hartree.
        iterations: (B,) diagonalisations done.
    """

    populations: torch.Tensor
    residual: torch.Tensor
    shifts: torch.Tensor
    orbitals: torch.Tensor
    energies: torch.Tensor
    occupations: torch.Tensor
    entropy_term: torch.Tensor
    iterations: torch.Tensor

    def select(self, rows: torch.Tensor) -> SCCState:
        """Take some structures of the batch."""
        return SCCState(**{name: value[rows] for name, value in vars(self).items()})

    def replace(self, rows: torch.Tensor, other: SCCState) -> SCCState:
        """Put the structures of `other` in the place of some, whose iterations count as well."""
        parts = {name: value.index_copy(0, rows, vars(other)[name]) for name, value in vars(self).items()}
        parts["iterations"] = self.iterations.index_add(0, rows, other.iterations)
        return SCCState(**parts)


class SCCSolver:
    """Finds self-consistent populations for the structures of a batch.

    Args:
        orbital_centre: (N,) the centre of each orbital, ascending.
        settings: the largest |n_out - n| accepted, and the most diagonalisations for one structure.
    """

    def __init__(self, orbital_centre: torch.Tensor, settings: SCCSettings) -> None:
        self._orbital_centre = orbital_centre
        self._tolerance = settings.tolerance
        self._max_iterations = settings.max_iterations
        self._on_centre = torch.nn.functional.one_hot(orbital_centre).to(torch.float64)
        # The orbitals of each centre, filled up to the most that a centre has with orbitals of weight zero.
        counts = torch.bincount(orbital_centre)
        place = torch.arange(int(counts.max()), device=orbital_centre.device)
        exists = (place < counts.unsqueeze(-1)).repeat(1, 2)
        orbitals = torch.where(exists[:, : len(place)], (counts.cumsum(0) - counts).unsqueeze(-1) + place, 0)
        duals = orbitals + len(orbital_centre)
        self._left = torch.cat((orbitals, duals), dim=1).ravel()
        self._right = torch.cat((duals, orbitals), dim=1).ravel()
        self._half = 0.5 * exists.to(torch.float64).reshape(-1, 1)

    def solve(
        self, problem: SCCProblem, guess: torch.Tensor, filling: Filling, largest_step: float = 1.0
    ) -> tuple[SCCState, torch.Tensor]:
        """Iterate until all structures converged or `max_iterations` is reached.

        Args:
            problem: the batch.
            guess: (B, C, S) populations to start from.
            filling: how orbitals are occupied.
            largest_step: no population changes by more than this (e) over the number of the iteration.

        Returns:
            The last state of each structure and a mask (B,) of those that converged.
        """
        active = torch.arange(len(guess), device=guess.device)
        populations, results = guess, []
        for iteration in range(1, self._max_iterations + 1):
            state, duals = self._diagonalise(problem, populations, filling, iteration)
            finished = state.residual < self._tolerance
            count = int(finished.sum())
            if iteration == self._max_iterations or count == len(finished):
                results.append((active, state))
                break
            if count > 0:
                results.append((active[finished], state.select(finished)))
                going = ~finished
                active, problem, state = active[going], problem.select(going), state.select(going)
                populations, duals = populations[going], duals[going]
            step = self._step(problem, state, duals, populations, filling)
            # Normal molecules never notice this limit, oscillations between occupations die out, and yet any
            # population can be reached.
            longest = step.abs().amax((-2, -1), keepdim=True) * (iteration / largest_step)
            populations = populations + step / longest.clamp(min=1.0)
        final = _assemble(results)
        return final, final.residual < self._tolerance

    def _diagonalise(
        self, problem: SCCProblem, populations: torch.Tensor, filling: Filling, iteration: int
    ) -> tuple[SCCState, torch.Tensor]:
        """Return the state that follows from populations (B, C, S), and S times its orbitals (B, C, N, N)."""
        shifts = problem.energy.slope(populations)
        # L^-1 (V S + S V) L^-T = X + X^T with X = L^-1 V L for the diagonal matrix V of the shifts.
        by_orbital = shifts.index_select(-1, self._orbital_centre).unsqueeze(-1)
        half = problem.inverse @ (by_orbital * problem.factor)
        try:
            energies, vectors = torch.linalg.eigh(problem.hamiltonian + 0.5 * (half + half.mT))
        except RuntimeError:  # of torch.linalg
            raise RunError(
                "SCC: expected orbital energies, found a Hamiltonian that has none (numbers that are not "
                f"finite, or far too large) in iteration {iteration}"
            ) from None
        orbitals, duals = problem.inverse.mT @ vectors, problem.factor @ vectors
        occupied = filling.occupy(energies)
        new = ((orbitals * duals) @ occupied.numbers.unsqueeze(-1)).squeeze(-1) @ self._on_centre
        residual = (new - populations).abs().amax((-2, -1))
        iterations = torch.full_like(residual, iteration, dtype=torch.int64)
        filled = (occupied.numbers, occupied.entropy_term)
        return SCCState(new, residual, shifts, orbitals, energies, *filled, iterations), duals

    def _step(
        self,
        problem: SCCProblem,
        state: SCCState,
        duals: torch.Tensor,
        populations: torch.Tensor,
        filling: Filling,
    ) -> torch.Tensor:
        """Return the Newton step (B, C, S), or the residual where the matrix is singular."""
        matrix = -torch.bmm(self._response(state, duals, filling), problem.energy.hessian(populations))
        matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
        residual = state.populations - populations
        step, info = torch.linalg.solve_ex(matrix, residual.flatten(1))
        newton: torch.Tensor = step.view_as(residual)
        if bool(info.any()):
            return torch.where((info == 0).view(-1, 1, 1), newton, residual)
        return newton

    def _response(self, state: SCCState, duals: torch.Tensor, filling: Filling) -> torch.Tensor:
        """Return the derivative (B, C S, C S) of the populations by the shifts."""
        coefficients = torch.cat((state.orbitals, duals), dim=-2)
        blocks = []
        for channel in range(len(filling.filled)):
            rows, columns = filling.orbital_ranges(channel, state.energies.shape[-1])
            size = (rows.stop - rows.start) * (columns.stop - columns.start) * self._on_centre.shape[1]
            group = max(1, _TRANSITIONS // max(1, size))
            levels = (coefficients[:, channel], state.energies[:, channel], state.occupations[:, channel])
            parts = [
                filling.response(channel, energies, numbers, self._transitions(both, rows, columns))
                for both, energies, numbers in zip(*(level.split(group) for level in levels), strict=True)
            ]
            blocks.append(torch.cat(parts))
        return blocks[0] if len(blocks) == 1 else _block_diagonal(blocks[0], blocks[1])

    def _transitions(self, coefficients: torch.Tensor, rows: slice, columns: slice) -> torch.Tensor:
        """Return 1/2 sum_a (c_ai d_aj + d_ai c_aj) (B, S, I, J) over the orbitals a of each centre.

        Args:
            coefficients: (B, 2 N, N) c of the molecular orbitals, and below them d = S c.
            rows, columns: the ranges of i and j.
        """
        shape = (len(coefficients), self._on_centre.shape[1], len(self._half) // self._on_centre.shape[1], -1)
        left = coefficients[..., rows].index_select(1, self._left) * self._half
        right = coefficients[..., columns].index_select(1, self._right)
        return left.view(shape).mT @ right.view(shape)


def _block_diagonal(up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    result = torch.zeros(len(up), *(2 * length for length in up.shape[1:]), dtype=up.dtype, device=up.device)
    centres = up.shape[-1]
    result[:, :centres, :centres] = up
    result[:, centres:, centres:] = down
    return result


def _assemble(results: list[tuple[torch.Tensor, SCCState]]) -> SCCState:
    """Put the states of groups of structures together in the order of the batch."""
    if len(results) == 1:
        return results[0][1]
    order = torch.argsort(torch.cat([rows for rows, _ in results]))
    states = [vars(state) for _, state in results]
    return SCCState(**{name: torch.cat([state[name] for state in states])[order] for name in states[0]})
