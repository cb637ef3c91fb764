"""The folder that a set becomes: its .skf files, each with its provenance, and its description."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from pidelta.parametrisation.electronic import ElectronicTables, Pair
from pidelta.parametrisation.recipe import Recipe, mass
from pidelta.parametrisation.repulsive_fit import RepulsiveFit
from pidelta.parametrisation.writer import write_skf
from pidelta.qm.dftb.sets import DESCRIPTION, SetDescription


def write_set(
    folder: Path,
    recipe: Recipe,
    order: Literal[2, 3],
    tables: ElectronicTables,
    fit: RepulsiveFit,
    reference: str,
) -> None:
    """Write A-B.skf of all ordered pairs of elements, and what `pidelta.qm.dftb.sets` needs to know.

    Args:
        folder: where; made if there is none.
        recipe: what the set was made from.
        order: of DFTB that the repulsives are for.
        tables: its electronic part.
        fit: its repulsives.
        reference: the method of the labels that the repulsives were fitted to.

    Raises:
        ParameterError: a repulsive has no exponential head with V' < 0 and V'' > 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for pair, file in tables.with_repulsives(fit.repulsives).items():
        lines = provenance(pair, recipe, order, tables, fit, reference)
        write_skf(folder / f"{pair[0]}-{pair[1]}.skf", file, mass(pair[0]), lines)
    description = describe_set(recipe, order, tables, reference)
    (folder / DESCRIPTION).write_text(description.model_dump_json(indent=2) + "\n", encoding="utf-8")


def describe_set(
    recipe: Recipe, order: Literal[2, 3], tables: ElectronicTables, reference: str
) -> SetDescription:
    """Sum up what a set is and what it was made from."""
    return SetDescription(
        name=recipe.name,
        version=recipe.version,
        license=recipe.license,
        functional=recipe.functional,
        reference=reference,
        elements=list(recipe.elements),
        order=order,
        hubbard_derivatives=dict(tables.hubbard_derivatives),
        spin_constants={symbol: np.round(w, 6).tolist() for symbol, w in tables.spin_constants.items()},
        damping_exponent=recipe.repulsive.damping_exponent,
        dispersion=recipe.dispersion,
        recipe=hashlib.sha256(recipe.model_dump_json().encode()).hexdigest(),
    )


def provenance(
    pair: Pair, recipe: Recipe, order: int, tables: ElectronicTables, fit: RepulsiveFit, reference: str
) -> list[str]:
    """Say in some lines what a file was made from; energies in hartree, lengths in bohr."""
    damping = recipe.repulsive.damping_exponent
    lines = [
        f"{recipe.name} {recipe.version}, {pair[0]}-{pair[1]}; license: {recipe.license}",
        "Made by pidelta slater-koster",
        f"Integrals: {recipe.functional}, density superposition, confinement (r/r0)^2",
    ]
    for symbol in dict.fromkeys(pair):
        element = recipe.elements[symbol]
        radii = f"{element.wave_function_radius:g} (wave function), {element.density_radius:g} (density)"
        derivative = tables.hubbard_derivatives[symbol]
        lines.append(f"{symbol}: r0 {radii}; Hubbard derivative {derivative:.4f}")
        lines += [f"{symbol}: on-site energy of {name} set to {e:g}" for name, e in element.onsite.items()]
    count = fit.distances.get(pair, fit.distances.get((pair[1], pair[0]), 0))
    return [
        *lines,
        f"Repulsive: for DFTB{order}, " + (f"damping exponent {damping:g}" if damping else "undamped"),
        f"Repulsive: {count} distances in a fit of the whole set to {reference}",
        f"Mean absolute errors of that fit: gradient {fit.gradient_mae:.5f}, energy {fit.energy_mae:.5f}",
    ]
