"""``pidelta slater-koster``: make a Slater-Koster set from its recipe, pack it, export the built-in one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pidelta.data.store import FrameStore
from pidelta.errors import ParameterError
from pidelta.qm.dftb import sets
from pidelta.qm.dftb.slater_koster.recipe import BUILTIN_RECIPE, read_recipe
from pidelta.units import ANGSTROM, HARTREE_IN_EV, HARTREE_IN_KCAL_PER_MOL

slater_koster = typer.Typer(
    name="slater-koster",
    help="Make a Slater-Koster set: geometries, then labels for them (`pidelta label`), then fit, then pack. "
    "Or export the built-in one.",
    no_args_is_help=True,
)

RecipeOption = Annotated[Path, typer.Option("--recipe", help="The recipe of the set, a YAML file.")]


@slater_koster.command()
def geometries(
    frames: Annotated[Path, typer.Argument(help="The HDF5 file that frames are added to.")],
    recipe: RecipeOption = BUILTIN_RECIPE,
) -> None:
    """Make the training geometries of a recipe; start it again to go on where it stopped."""
    from pidelta.qm.dftb.slater_koster.geometries import add_training_frames

    training = read_recipe(recipe).training
    count = len(training.molecules) + len(training.complexes)
    with FrameStore(frames, "a") as store:
        steps = add_training_frames(store, training)
        added = sum(number for _, number in track(steps, "geometries", count, console=Console(stderr=True)))
        print(f"{frames}: {added} frames added, {len(store)} in all")


@slater_koster.command()
def fit(
    frames: Annotated[Path, typer.Argument(help="The HDF5 file of labelled frames.")],
    output: Annotated[Path, typer.Argument(help="Folder for the .skf files.")],
    recipe: RecipeOption = BUILTIN_RECIPE,
    cache: Annotated[Path, typer.Option(help="Folder that keeps computed tables.")] = Path(
        "slater-koster-cache"
    ),
) -> None:
    """Compute the tables of a recipe, fit its repulsives to labelled frames and write the set."""
    from pidelta.qm.dftb.slater_koster.repulsive_fit import fit_repulsives, missing_energies
    from pidelta.qm.dftb.slater_koster.set_files import write_set
    from pidelta.qm.dftb.slater_koster.tables import make_tables

    console = Console(stderr=True)
    settings = read_recipe(recipe)
    tables = make_tables(settings, cache, lambda stage: console.print(f"computing {stage}"))
    with FrameStore(frames) as store:
        data, reference = missing_energies(store, tables, settings.repulsive)
    result = fit_repulsives(data, settings)
    write_set(output, settings, tables, result, reference)

    table = Table("pair", "distances", "first knot", "cutoff", title="Repulsives, in angstrom")
    for pair, repulsive in result.repulsives.items():
        edges = [f"{edge / ANGSTROM:.2f}" for edge in (repulsive.starts[0], repulsive.starts[-1])]
        table.add_row("-".join(pair), str(result.distances[pair]), *edges)
    Console().print(table)
    print(
        f"{output}: fitted to {reference} with mean absolute errors of "
        f"{result.gradient_mae * HARTREE_IN_EV * ANGSTROM:.3f} eV/angstrom and "
        f"{result.energy_mae * HARTREE_IN_KCAL_PER_MOL:.2f} kcal/mol"
    )


@slater_koster.command()
def pack(
    folders: Annotated[list[Path], typer.Argument(help="A folder from `fit` for each order of the set.")],
    output: Annotated[Path, typer.Option(help="The file, NAME-VERSION.tar.xz.")],
) -> None:
    """Pack the orders of a set into one compressed file, as the built-in set is."""
    orders = [sets.read_folder(folder) for folder in folders]
    content = sets.pack(orders)
    output.write_bytes(content)
    description = orders[0].description
    numbers = sorted(files.description.order for files in orders)
    print(
        f"{output}: {description.name} {description.version}, order {' and '.join(map(str, numbers))}, "
        f"{', '.join(description.elements)}, {len(content) / 1000:.0f} kB"
    )


@slater_koster.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder for the .skf files, made where there is none.")],
    order: Annotated[
        int | None, typer.Option(help="Only this order, into FOLDER itself; else all, into FOLDER/order-N.")
    ] = None,
) -> None:
    """Write the .skf files of the built-in set, usable by DFTB+ as they are."""
    orders = sets.builtin_set()
    if not orders:
        raise ParameterError("the built-in Slater-Koster set is not in this version")
    if order is not None and order not in orders:
        raise ParameterError(f"--order: expected {' or '.join(map(str, orders))}, found {order}")
    for known, files in orders.items():
        if order in (None, known):
            target = folder if order == known else folder / f"order-{known}"
            sets.export(files, target)
            print(f"{target}: {len(files.files)} .skf files, set.json and README")
