"""Self-consistent populations by Newton's method with the exact response.

The residual is f(n) = n_out(n) - n, with the populations n of all sites in all spin channels. First-order
perturbation theory gives dn_out/dn from the orbitals of the same diagonalisation, so each step solves
(1 - dn_out/dn) dn = f exactly. For closed shells the matrix is a dielectric matrix, at second order with
eigenvalues of at least 1, so steps do not run away, and convergence is quadratic: four or five
diagonalisations from neutral atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pidelta.qm.dftb.charges import PopulationEnergy
from pidelta.qm.dftb.occupations import Filling

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
        populations: (B, C, S) electrons on the sites.
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
        orbital_site: (N,) the site of each orbital, ascending.
        tolerance: largest |n_out - n| accepted, in e.
        max_iterations: most diagonalisations for one structure.
    """

    def __init__(self, orbital_site: torch.Tensor, tolerance: float, max_iterations: int) -> None:
        self._orbital_site = orbital_site
        self._tolerance = tolerance
        self._max_iterations = max_iterations
        # The orbitals of each site, filled up with an index to a row of zeros.
        counts = torch.bincount(orbital_site)
        place = torch.arange(int(counts.max()), device=orbital_site.device)
        orbitals = (counts.cumsum(0) - counts).unsqueeze(-1) + place
        self._site_orbitals = torch.where(place < counts.unsqueeze(-1), orbitals, len(orbital_site))

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
            if iteration == self._max_iterations or bool(finished.all()):
                results.append((active, state))
                break
            if bool(finished.any()):
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
        half = problem.inverse @ (shifts[..., self._orbital_site].unsqueeze(-1) * problem.factor)
        energies, vectors = torch.linalg.eigh(problem.hamiltonian + 0.5 * (half + half.mT))
        orbitals, duals = problem.inverse.mT @ vectors, problem.factor @ vectors
        occupied = filling.occupy(energies)
        by_orbital = ((orbitals * duals) @ occupied.numbers.unsqueeze(-1)).squeeze(-1)
        new = torch.zeros_like(populations).index_add_(-1, self._orbital_site, by_orbital)
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
        matrix = -self._response(state, duals, filling) @ problem.energy.hessian(populations)
        matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
        residual = state.populations - populations
        step, info = torch.linalg.solve_ex(matrix, residual.flatten(1))
        return torch.where((info == 0)[:, None, None], step.view_as(residual), residual)

    def _response(self, state: SCCState, duals: torch.Tensor, filling: Filling) -> torch.Tensor:
        """Return the derivative (B, C S, C S) of the populations by the shifts."""
        orbitals, duals = self._by_site(state.orbitals), self._by_site(duals)
        blocks = []
        for channel in range(len(filling.filled)):
            rows, columns = filling.orbital_ranges(channel, state.energies.shape[-1])
            half, other = orbitals[:, channel], duals[:, channel]
            left = torch.cat((half[..., rows], other[..., rows]), dim=2).mT
            right = torch.cat((other[..., columns], half[..., columns]), dim=2)
            size = left.shape[1] * left.shape[2] * right.shape[3]
            group = max(1, _TRANSITIONS // max(1, size))
            levels = (state.energies[:, channel], state.occupations[:, channel])
            parts = zip(*(part.split(group) for part in (left, right, *levels)), strict=True)
            blocks.append(
                torch.cat(
                    [filling.response(channel, energies, n, 0.5 * (a @ b)) for a, b, energies, n in parts]
                )
            )
        return blocks[0] if len(blocks) == 1 else _block_diagonal(blocks[0], blocks[1])

    def _by_site(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Rearrange (B, C, N, N) to (B, C, S, orbitals of a site, N)."""
        return torch.nn.functional.pad(coefficients, (0, 0, 0, 1))[:, :, self._site_orbitals]


def _block_diagonal(up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    result = torch.zeros(len(up), *(2 * length for length in up.shape[1:]), dtype=up.dtype, device=up.device)
    sites = up.shape[-1]
    result[:, :sites, :sites] = up
    result[:, sites:, sites:] = down
    return result


def _assemble(results: list[tuple[torch.Tensor, SCCState]]) -> SCCState:
    """Put the states of groups of structures together in the order of the batch."""
    if len(results) == 1:
        return results[0][1]
    order = torch.argsort(torch.cat([rows for rows, _ in results]))
    states = [vars(state) for _, state in results]
    return SCCState(**{name: torch.cat([state[name] for state in states])[order] for name in states[0]})
