"""Self-consistency that ends: Newton's method, and what follows where it fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch

from pidelta.qm.dftb.occupations import Filling
from pidelta.qm.dftb.scc import SCCProblem, SCCSolver, SCCState

_LOGGER = logging.getLogger(__name__)
# Of the fallbacks: the largest first step in e, the highest temperature, the factor between two, and the
# lowest above zero (k_B T in hartree).
_SMALL_STEP = 0.2
_HOT = 0.04
_COOLING = 0.5
_COLD = 2e-7


@dataclass(frozen=True)
class Convergence:
    """How the self-consistency of a batch ended.

    Attributes:
        state: the last state of each structure, its iterations those of all attempts.
        converged: (B,) whether it is self-consistent at the settings asked for.
        fallbacks: (B,) whether Newton's method alone was not enough.
    """

    state: SCCState
    converged: torch.Tensor
    fallbacks: torch.Tensor


def converge(
    solver: SCCSolver, problem: SCCProblem, filling: Filling, starts: Sequence[torch.Tensor]
) -> Convergence:
    """Solve the SCC equations of a batch; what one attempt leaves unconverged goes to the next.

    Newton's method runs from each of `starts`, populations (B, C, S). Then follow the fallbacks, from the
    last of them: Newton's method with small steps, and annealing, which converges at a high electronic
    temperature and lowers it to the one asked for.
    """
    state, converged = solver.solve(problem, starts[0], filling)
    for start in starts[1:]:
        state, converged = _solve_rest(solver, problem, start, [filling], 1.0, state, converged)
    failed = ~converged
    if bool(failed.any()):
        _warn()
        for fillings in ([filling], list(_annealed(filling))):
            state, converged = _solve_rest(
                solver, problem, starts[-1], fillings, _SMALL_STEP, state, converged
            )
    return Convergence(state, converged, failed)


def _solve_rest(
    solver: SCCSolver,
    problem: SCCProblem,
    start: torch.Tensor,
    fillings: Sequence[Filling],
    largest_step: float,
    state: SCCState,
    converged: torch.Tensor,
) -> tuple[SCCState, torch.Tensor]:
    """Solve what has not converged yet, with one filling after the other."""
    rows = (~converged).nonzero().squeeze(-1)
    if not len(rows):
        return state, converged
    problem, populations = problem.select(rows), start[rows]
    for filling in fillings:
        found, success = solver.solve(problem, populations, filling, largest_step)
        populations = found.populations
        state = state.replace(rows, found)
    return state, converged.index_copy(0, rows, success)


def _annealed(filling: Filling) -> Iterator[Filling]:
    temperature = max(_HOT, filling.temperature / _COOLING**2)
    while temperature > max(_COLD, filling.temperature):
        yield replace(filling, temperature=temperature)
        temperature *= _COOLING
    yield filling


@cache
def _warn() -> None:
    """Log once for each process."""
    _LOGGER.warning(
        "SCC did not converge by Newton's method: tried again with small steps, then from higher electronic "
        "temperatures (scc_fallbacks says for which structures; reported once); if that is slow, an "
        "electronic temperature such as 300 K avoids it"
    )
