"""From a recipe to the electronic part of a Slater-Koster set, each stage cached on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pidelta.parametrisation import atom, functionals, mixing, spin_response, two_centre
from pidelta.parametrisation.atom import AtomSolver
from pidelta.parametrisation.functionals import Functional, FunctionalName
from pidelta.parametrisation.recipe import ElementRecipe, Recipe, nuclear_charge
from pidelta.parametrisation.two_centre import ConfinedElement, PairIntegrator, resample
from pidelta.qm.dftb.parameters import ElementParameters, ParameterSet
from pidelta.qm.dftb.repulsive import Repulsive
from pidelta.qm.dftb.skf import INTEGRALS, SlaterKosterFile
from pidelta.state import FloatArray

Pair = tuple[str, str]

_NUMERICAL_MODULES = (atom, functionals, mixing, two_centre)
_SHELLS = 3
NO_REPULSIVE = Repulsive(np.array([0.0]), np.array([0.0]), np.zeros((1, 10)), np.zeros(3))


@dataclass(frozen=True)
class ElectronicTables:
    """The set without repulsives, in atomic units.

    Attributes:
        files: the content of A-B.skf by (A, B), both orders, with `NO_REPULSIVE`.
        hubbard_derivatives: dU/dn of the free atoms by element.
        spin_constants: W of the free atoms by element, (shells, shells).
    """

    files: Mapping[Pair, SlaterKosterFile]
    hubbard_derivatives: Mapping[str, float]
    spin_constants: Mapping[str, FloatArray]

    def with_repulsives(self, repulsives: Mapping[Pair, Repulsive]) -> dict[Pair, SlaterKosterFile]:
        """Return the files with repulsives given for either order of each pair; zero where none is given."""
        return {
            (a, b): replace(file, repulsive=repulsives.get((a, b), repulsives.get((b, a), NO_REPULSIVE)))
            for (a, b), file in self.files.items()
        }

    def parameter_set(self, name: str, repulsives: Mapping[Pair, Repulsive] | None = None) -> ParameterSet:
        """Return what the engine takes, without going through files."""
        pairs = self.with_repulsives(repulsives or {})
        digest = hashlib.sha256()
        elements = {}
        for (first, second), file in sorted(pairs.items(), key=lambda item: item[0]):
            for array in (file.hamiltonian, file.overlap, file.repulsive.coefficients, file.repulsive.head):
                digest.update(array.tobytes())
            if first == second:
                elements[first] = _element_parameters(file)
        return ParameterSet(name, f"{name}:{digest.hexdigest()[:12]}", elements, pairs)


def make_tables(recipe: Recipe, cache: Path, report: Callable[[str], None] | None = None) -> ElectronicTables:
    """Compute the electronic part of a set; what the cache has from an earlier run is not computed again.

    A stage (an element, a pair) is stored when it is complete, under a hash of all that it depends on: its
    part of the recipe and the code that computes it.

    Args:
        recipe: the set.
        cache: a folder, made where there is none.
        report: called with a line of text before each stage that has to be computed.

    Raises:
        MissingExtraError: something has to be computed and PySCF is not installed.
        RunError: an atom did not converge.
    """
    store = _Cache(cache, report or (lambda _line: None))
    elements = {symbol: _Element(symbol, part, recipe, store) for symbol, part in recipe.elements.items()}
    files: dict[Pair, SlaterKosterFile] = {}
    for first, second in recipe.pairs:
        forward, backward = _pair_tables(elements[first], elements[second], recipe, store)
        files[first, second] = _file(forward, recipe, elements[first] if first == second else None)
        if first != second:
            files[second, first] = _file(backward, recipe, None)
    return ElectronicTables(
        files,
        hubbard_derivatives={symbol: element.free[-1] for symbol, element in elements.items()},
        spin_constants={symbol: element.spin_constants for symbol, element in elements.items()},
    )


class _Cache:
    """Arrays in one .npz file for each stage."""

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._report = report
        self._code = b"".join(Path(str(module.__file__)).read_bytes() for module in _NUMERICAL_MODULES)
        folder.mkdir(parents=True, exist_ok=True)

    def get(
        self, label: str, depends_on: object, compute: Callable[[], dict[str, FloatArray]]
    ) -> dict[str, FloatArray]:
        """Read a stage or compute it; the repr of `depends_on` tells all it depends on besides the code."""
        key = hashlib.sha256(self._code + repr(depends_on).encode()).hexdigest()[:16]
        path = self._folder / f"{label}-{key}.npz"
        if not path.is_file():
            self._report(label)
            partial = path.with_suffix(f".{os.getpid()}")
            with partial.open("wb") as stream:
                np.savez(stream, **compute())  # type: ignore[arg-type]
            partial.replace(path)
        with np.load(path) as stored:
            return {name: stored[name] for name in stored.files}


class _Element:
    """The atom of an element, solved only if something needs it."""

    def __init__(self, symbol: str, recipe: ElementRecipe, whole: Recipe, store: _Cache) -> None:
        self.symbol = symbol
        self.recipe = recipe
        self._functional: FunctionalName = whole.functional
        self._store = store

    @cached_property
    def _solver(self) -> AtomSolver:
        return AtomSolver(nuclear_charge(self.symbol), self.recipe.shells, Functional(self._functional))

    @property
    def free(self) -> list[float]:
        """On-site energies of the valence shells of the free atom, then U and dU/dn."""

        def compute() -> dict[str, FloatArray]:
            free = self._solver.solve()
            onsite = [free.energy(n, ell) for ell, n in enumerate(self.recipe.valence_shells)]
            return {"values": np.array([*onsite, *self._solver.hubbard()])}

        depends_on = (self.symbol, self._functional, self.recipe.shells, self.recipe.valence)
        stage = self._store.get(f"atom-{self.symbol}", depends_on, compute)
        return [float(value) for value in stage["values"]]

    @property
    def spin_constants(self) -> FloatArray:
        """W of the valence shells of the free atom."""

        def compute() -> dict[str, FloatArray]:
            functional = spin_response.SpinFunctional(self._functional)
            charge, valence = nuclear_charge(self.symbol), self.recipe.valence_shells
            return {"values": spin_response.spin_constants(charge, self.recipe.shells, valence, functional)}

        code = Path(spin_response.__file__).read_bytes()
        depends_on = (self.symbol, self._functional, self.recipe.shells, self.recipe.valence, code)
        return self._store.get(f"spin-{self.symbol}", depends_on, compute)["values"]

    @cached_property
    def confined(self) -> ConfinedElement:
        return ConfinedElement(
            orbitals=self._solver.solve(self.recipe.wave_function_radius),
            density=self._solver.solve(self.recipe.density_radius),
            valence=self.recipe.valence_shells,
        )

    @property
    def identity(self) -> tuple[object, ...]:
        """All that the confined atom depends on."""
        radii = (self.recipe.wave_function_radius, self.recipe.density_radius)
        return (self.symbol, self.recipe.shells, self.recipe.valence, radii)


def _pair_tables(
    first: _Element, second: _Element, recipe: Recipe, store: _Cache
) -> tuple[FloatArray, FloatArray]:
    """Tables (rows, 20) of A-B and B-A on the grid of the files."""
    grid = recipe.grid
    distances = np.linspace(grid.first, grid.last, round((grid.last - grid.first) / grid.step) + 1)

    def compute() -> dict[str, FloatArray]:
        integrator = PairIntegrator(first.confined, second.confined, Functional(recipe.functional))
        rows = [integrator.integrals(float(distance)) for distance in distances]
        return {"forward": np.stack([row[0] for row in rows]), "backward": np.stack([row[1] for row in rows])}

    depends_on = (recipe.functional, first.identity, second.identity, distances.tolist())
    stage = store.get(f"pair-{first.symbol}-{second.symbol}", depends_on, compute)
    forward, backward = (resample(distances, stage[name], grid.file_step) for name in ("forward", "backward"))
    return forward, backward


def _file(table: FloatArray, recipe: Recipe, element: _Element | None) -> SlaterKosterFile:
    width = len(INTEGRALS)
    file = SlaterKosterFile(recipe.grid.file_step, table[:, :width], table[:, width:], NO_REPULSIVE)
    if element is None:
        return file
    shells = len(element.recipe.valence)
    onsite, occupations = np.zeros(_SHELLS), np.zeros(_SHELLS)
    onsite[:shells] = element.free[:shells]
    for k, name in enumerate(element.recipe.valence):
        onsite[k] = element.recipe.onsite.get(name, onsite[k])
        occupations[k] = element.recipe.electrons[name]
    return replace(
        file, onsite=onsite, hubbard_u=np.full(_SHELLS, element.free[shells]), occupations=occupations
    )


def _element_parameters(file: SlaterKosterFile) -> ElementParameters:
    assert file.onsite is not None
    assert file.hubbard_u is not None
    assert file.occupations is not None
    shells = int(np.flatnonzero(file.onsite)[-1]) + 1
    return ElementParameters(file.onsite[:shells], file.hubbard_u[:shells], file.occupations[:shells])
