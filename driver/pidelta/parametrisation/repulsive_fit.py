"""Fit of the repulsives of a set to what DFT has and the electronic part of DFTB lacks.

The repulsives are linear in V'' at their knots, so the fit is a bounded linear least-squares problem:
gradients, and energies relative to the other frames of a molecule, with Huber's weights (Ann. Math. Stat. 35,
73 (1964)) and a penalty on second differences of V''.

V'' is not only positive but falls with the distance. This costs next to nothing in the errors of the fit, and
keeps knots with little data from humps near the cutoff and from exponential heads that explode.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from scipy.linalg import block_diag
from scipy.optimize import lsq_linear

from pidelta.data.frames import Frame, Label
from pidelta.data.store import FrameStore
from pidelta.errors import DataError, ParameterError, RunError, SCCConvergenceError
from pidelta.parametrisation.electronic import ElectronicTables, Pair
from pidelta.parametrisation.recipe import Recipe
from pidelta.parametrisation.repulsive_basis import RepulsiveBasis
from pidelta.qm.dftb.engine import DFTBEngine
from pidelta.qm.dftb.repulsive import Repulsive
from pidelta.qm.dftb.settings import DFTBSettings
from pidelta.state import FloatArray, IntArray

_HUBER = 1.345  # standard deviations; 95 % efficient for normal errors
_ROUNDS = 12
_SLACK = 1e-9


@dataclass(frozen=True)
class MoleculeData:
    """The frames of one molecule, or of isomers with the same order of elements, in atomic units.

    Attributes:
        numbers: (n,) atomic numbers.
        positions: (F, n, 3).
        energy, gradient: (F,) and (F, n, 3) of DFT less those of DFTB without repulsives.
    """

    numbers: IntArray
    positions: FloatArray
    energy: FloatArray
    gradient: FloatArray


@dataclass(frozen=True)
class RepulsiveFit:
    """The result of a fit, in atomic units.

    Attributes:
        repulsives: by pair, in the order of the recipe's pairs.
        distances: how many distances within the cutoff each pair's repulsive was fitted to.
        gradient_mae: mean absolute error of gradient components.
        energy_mae: mean absolute error of relative energies.
    """

    repulsives: Mapping[Pair, Repulsive]
    distances: Mapping[Pair, int]
    gradient_mae: float
    energy_mae: float


def missing_energies(
    store: FrameStore, tables: ElectronicTables, order: int, damping_exponent: float | None
) -> tuple[list[MoleculeData], str]:
    """Collect what the repulsives have to add: reference labels less the electronic part of DFTB.

    Args:
        store: frames without point charges; those without a reference label are left out.
        tables: the electronic part of the set.
        order, damping_exponent: of DFTB.

    Returns:
        The molecules, and the methods of the labels in one text. Frames with the same elements in the same
        order, charge and method are one molecule: their energies can be compared.

    Raises:
        DataError: a frame has point charges, or there are no labels.
        RunError: DFTB did not converge for a molecule.
    """
    groups: dict[tuple[object, ...], list[tuple[Frame, Label]]] = {}
    methods = set()
    for index in range(len(store)):
        label = store.label(index, "reference")
        if label is None:
            continue
        frame = store.frame(index)
        if len(frame.site_charges):
            raise DataError(
                f"{store.path}: expected no point charges, found {len(frame.site_charges)} in frame {index}"
            )
        methods.add(label.method)
        key = (tuple(frame.numbers.tolist()), frame.charge, frame.multiplicity, label.method)
        groups.setdefault(key, []).append((frame, label))
    if not methods:
        raise DataError(f"{store.path}: expected frames with reference labels, found none")

    def molecule(members: Sequence[tuple[Frame, Label]]) -> MoleculeData:
        frame = members[0][0]
        engine = DFTBEngine(
            frame.numbers,
            tables.parameter_set("electronic"),
            DFTBSettings(
                order=order,
                hubbard_derivatives=tables.hubbard_derivatives,
                damping_exponent=damping_exponent,
                charge=frame.charge,
                multiplicity=frame.multiplicity,
            ),
        )
        return _molecule(members, engine)

    return [molecule(members) for members in groups.values()], " and ".join(sorted(methods))


def _molecule(members: Sequence[tuple[Frame, Label]], engine: DFTBEngine) -> MoleculeData:
    positions = np.stack([member.positions for member, _ in members])
    try:
        electronic = engine.evaluate(positions, np.zeros(positions.shape[:2]))
    except SCCConvergenceError as error:
        raise RunError(f"frames like {members[0][0].source}: {error}") from None
    return MoleculeData(
        numbers=engine.numbers,
        positions=positions,
        energy=np.array([label.energy for _, label in members]) - electronic.energy,
        gradient=np.stack([label.gradient for _, label in members]) - electronic.gradient,
    )


def fit_repulsives(data: Sequence[MoleculeData], recipe: Recipe) -> RepulsiveFit:
    """Fit the repulsives of all pairs of a set at once.

    Raises:
        ParameterError: a pair has no distance within its cutoff in the data, or no repulsion.
    """
    settings = recipe.repulsive
    bases, distances = _bases(data, recipe)
    rows = [_Rows.of(molecule, bases, settings.energy_weight) for molecule in data]
    matrix = np.concatenate([part.matrix for part in rows])
    target = np.concatenate([part.target for part in rows])
    is_energy = np.concatenate([part.is_energy for part in rows])
    penalty = _penalty(list(bases.values()), settings.regularisation * len(target))

    # The unknowns are the steps by which V'' falls from one knot to the next.
    from_steps = block_diag(*[np.triu(np.ones((len(basis), len(basis)))) for basis in bases.values()])
    matrix, penalty = matrix @ from_steps, penalty @ from_steps
    least = np.concatenate(
        [np.append(settings.least_curvature, np.zeros(len(b) - 1)) for b in bases.values()]
    )
    weights = np.ones(len(target))
    for _ in range(_ROUNDS):
        steps = _bounded_solution(matrix, target, weights, penalty, least)
        residual = matrix @ steps - target
        for kind in (is_energy, ~is_energy):
            weights[kind] = _huber_weights(residual[kind])

    curvatures = from_steps @ steps
    repulsives = {}
    start = 0
    for pair, basis in bases.items():
        try:
            repulsives[pair] = basis.repulsive(curvatures[start : start + len(basis)])
        except ParameterError as error:
            raise ParameterError(f"pair {pair[0]}-{pair[1]}: {error}") from None
        start += len(basis)
    return RepulsiveFit(
        repulsives=repulsives,
        distances=distances,
        gradient_mae=float(np.abs(residual[~is_energy]).mean()),
        energy_mae=float(np.abs(residual[is_energy]).mean() / settings.energy_weight),
    )


@dataclass(frozen=True)
class _PairDistances:
    """Pairs of atoms of one type within the cutoff: frame, both atoms, distance, direction."""

    frame: IntArray
    first: IntArray
    second: IntArray
    distance: FloatArray
    direction: FloatArray


def _pair_distances(molecule: MoleculeData, pair: Pair, cutoff: float) -> _PairDistances:
    symbols = np.array([chemical_symbols[number] for number in molecule.numbers])
    first, second = np.triu_indices(len(symbols), k=1)
    same = (symbols[first] == pair[0]) & (symbols[second] == pair[1])
    chosen = same | ((symbols[first] == pair[1]) & (symbols[second] == pair[0]))
    first, second = first[chosen], second[chosen]
    vectors = molecule.positions[:, second] - molecule.positions[:, first]
    distances = np.linalg.norm(vectors, axis=-1)
    frame, k = np.nonzero(distances < cutoff)
    distance = distances[frame, k]
    return _PairDistances(frame, first[k], second[k], distance, vectors[frame, k] / distance[:, None])


def _bases(
    data: Iterable[MoleculeData], recipe: Recipe
) -> tuple[dict[Pair, RepulsiveBasis], dict[Pair, int]]:
    """The knots of each pair, down to its shortest distance in the data."""
    settings = recipe.repulsive
    bases, counts = {}, {}
    for pair in recipe.pairs:
        cutoff = settings.cutoff(pair)
        found = np.concatenate([_pair_distances(molecule, pair, cutoff).distance for molecule in data])
        if len(found) == 0:
            raise ParameterError(
                f"pair {pair[0]}-{pair[1]}: expected distances below its cutoff of {cutoff:.2f} bohr in the "
                "training frames, found none"
            )
        bases[pair] = RepulsiveBasis(float(found.min()) - _SLACK, cutoff, settings.knots)
        counts[pair] = len(found)
    return bases, counts


@dataclass(frozen=True)
class _Rows:
    """Equations of one molecule: matrix (m, unknowns), target (m,), and which are energies (m,)."""

    matrix: FloatArray
    target: FloatArray
    is_energy: FloatArray

    @classmethod
    def of(cls, molecule: MoleculeData, bases: Mapping[Pair, RepulsiveBasis], energy_weight: float) -> _Rows:
        frames, atoms = molecule.positions.shape[:2]
        unknowns = sum(len(basis) for basis in bases.values())
        energy = np.zeros((frames, unknowns))
        gradient = np.zeros((frames, atoms, 3, unknowns))
        start = 0
        for pair, basis in bases.items():
            columns = slice(start, start + len(basis))
            start += len(basis)
            found = _pair_distances(molecule, pair, basis.cutoff)
            value, slope = basis.evaluate(found.distance)
            vector = found.direction[:, :, None] * slope[:, None, :]
            np.add.at(energy[:, columns], found.frame, value)
            np.add.at(gradient[..., columns], (found.frame, found.second), vector)
            np.add.at(gradient[..., columns], (found.frame, found.first), -vector)
        relative = energy - energy.mean(axis=0)
        relative_target = molecule.energy - molecule.energy.mean()
        matrix = np.concatenate([energy_weight * relative, gradient.reshape(-1, unknowns)])
        target = np.concatenate([energy_weight * relative_target, molecule.gradient.ravel()])
        return cls(matrix, target, np.arange(len(target)) < frames)


def _penalty(bases: Sequence[RepulsiveBasis], strength: float) -> FloatArray:
    """Rows whose squares are the penalty on second differences; V'' beyond the knots is zero."""
    unknowns = sum(len(basis) for basis in bases)
    blocks = []
    start = 0
    for basis in bases:
        size = len(basis)
        padded = np.diff(np.eye(size + 2), 2, axis=0)[:, :size]
        block = np.zeros((size, unknowns))
        block[:, start : start + size] = padded
        blocks.append(block)
        start += size
    rows: FloatArray = np.sqrt(strength) * np.concatenate(blocks)
    return rows


def _bounded_solution(
    matrix: FloatArray, target: FloatArray, weights: FloatArray, penalty: FloatArray, least: FloatArray
) -> FloatArray:
    """Weighted least squares with all unknowns at least `least`, on the triangular factor, which is small."""
    root = np.sqrt(weights)
    system = np.column_stack([root[:, None] * matrix, root * target])
    system = np.concatenate([system, np.column_stack([penalty, np.zeros(len(penalty))])])
    factor = np.asarray(np.linalg.qr(system, mode="r"), dtype=np.float64)
    solution = lsq_linear(factor[:, :-1], factor[:, -1], bounds=(least, np.inf), method="bvls")
    return np.asarray(solution.x, dtype=np.float64)


def _huber_weights(residual: FloatArray) -> FloatArray:
    """1 for residuals up to 1.345 robust standard deviations, then falling as their inverse."""
    scale = 1.4826 * float(np.median(np.abs(residual)))
    return np.asarray(np.minimum(1.0, _HUBER * scale / np.maximum(np.abs(residual), 1e-300)))
