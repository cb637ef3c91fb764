"""``pidelta slater-koster``: make a Slater-Koster set from its recipe, export the built-in one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pidelta.cli.label import label_with_dft, open_frames
from pidelta.cli.processors import allowed_processors
from pidelta.errors import ParameterError
from pidelta.output_files import replacing
from pidelta.units import ANGSTROM, HARTREE_IN_EV, HARTREE_IN_KCAL_PER_MOL

if TYPE_CHECKING:
    from pidelta.parametrisation.recipe import Recipe
    from pidelta.parametrisation.repulsive_fit import RepulsiveFit

slater_koster = typer.Typer(
    name="slater-koster",
    help="Make a Slater-Koster set from its recipe, or export the built-in one.",
    no_args_is_help=True,
)

_CORES = allowed_processors()
WorkersOption = Annotated[int, typer.Option(min=1, help="Frames computed at once.")]
RecipeOption = Annotated[
    Path | None,
    typer.Option("--recipe", help="The recipe of the set, a YAML file; that of the built-in set by default."),
]


def _read_recipe(path: Path | None) -> Recipe:
    from pidelta.parametrisation.recipe import BUILTIN_RECIPE, read_recipe

    return read_recipe(path or BUILTIN_RECIPE)


@slater_koster.command()
def geometries(
    frames: Annotated[Path, typer.Argument(help="The HDF5 file that frames are added to.")],
    recipe: RecipeOption = None,
) -> None:
    """Make the training geometries of a recipe; start it again to go on where it stopped."""
    from pidelta.data.store import FrameStore
    from pidelta.parametrisation.geometries import add_training_frames

    training = _read_recipe(recipe).training
    count = sum(len(part) for part in (training.smiles, training.dihedrals, training.transfers))
    with FrameStore(frames, "a") as store:
        steps = add_training_frames(store, training)
        added = sum(number for _, number in track(steps, "geometries", count, console=Console(stderr=True)))
        print(f"{frames}: {added} frames added, {len(store)} in all")


@slater_koster.command()
def label(
    frames: Annotated[Path, typer.Argument(help="The HDF5 file of frames.")],
    recipe: RecipeOption = None,
    workers: WorkersOption = _CORES,
) -> None:
    """Label the frames with the recipe's DFT; start it again to go on where it stopped."""
    if _label_frames(frames, recipe, workers):
        raise typer.Exit(2)


def _label_frames(frames: Path, recipe: Path | None, workers: int) -> list[str]:
    """Label what has no label and return what went wrong."""
    from pidelta.parametrisation.geometries import wants_diffuse_functions
    from pidelta.qm.reference_settings import ReferenceSettings

    level = _read_recipe(recipe).training.labels
    failures = []
    for basis, diffuse in ((level.basis, False), (level.diffuse_basis, True)):
        settings = ReferenceSettings(xc=level.xc, basis=basis)
        with open_frames(frames) as store:
            missing = [
                index
                for index in store.unlabelled("reference", settings.method)
                if wants_diffuse_functions(store.frame(index)) == diffuse
            ]
            failures += label_with_dft(store, missing, settings, workers)
    return failures


@slater_koster.command()
def fit(
    frames: Annotated[Path, typer.Argument(help="The HDF5 file of labelled frames.")],
    output: Annotated[Path, typer.Argument(help="Folder for the set.")],
    recipe: RecipeOption = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps tables [default: in OUTPUT].")] = None,
) -> None:
    """Compute the tables of a recipe, fit its repulsives to labelled frames, write the set and pack it.

    The .skf files of each order of DFTB go to OUTPUT/order-N, the packed set to OUTPUT/NAME-VERSION.tar.xz.
    """
    from pidelta.parametrisation.electronic import make_tables
    from pidelta.parametrisation.repulsive_fit import fit_repulsives, missing_energies
    from pidelta.parametrisation.set_files import write_set

    console = Console(stderr=True)
    settings = _read_recipe(recipe)
    tables = make_tables(
        settings, cache or output / "cache", lambda stage: console.print(f"computing {stage}")
    )
    folders = {order: output / f"order-{order}" for order in settings.repulsive.orders}
    for order, folder in folders.items():
        console.print(f"fitting repulsives of order {order}")
        with open_frames(frames) as store:
            data, reference = missing_energies(store, tables, order, settings.repulsive.damping_exponent)
        result = fit_repulsives(data, settings)
        write_set(folder, settings, order, tables, result, reference)
        _print_fit(result, order)
        print(
            f"{folder}: fitted to {reference} with mean absolute errors of "
            f"{result.gradient_mae * HARTREE_IN_EV * ANGSTROM:.3f} eV/angstrom and "
            f"{result.energy_mae * HARTREE_IN_KCAL_PER_MOL:.2f} kcal/mol"
        )
    pack(list(folders.values()), output / f"{settings.name}-{settings.version}.tar.xz")


@slater_koster.command()
def make(
    output: Annotated[Path, typer.Argument(help="Folder for frames, tables and the set.")],
    recipe: RecipeOption = None,
    workers: WorkersOption = _CORES,
) -> None:
    """Make a set from its recipe alone: geometries, label, fit; start it again to go on where it stopped.

    Frames whose DFT fails are named and left out of the fit.
    """
    output.mkdir(parents=True, exist_ok=True)
    frames = output / "frames.h5"
    geometries(frames, recipe)
    _label_frames(frames, recipe, workers)
    fit(frames, output, recipe, None)


@slater_koster.command()
def pack(
    folders: Annotated[list[Path], typer.Argument(help="The folder of each order of the set.")],
    output: Annotated[Path, typer.Option(help="The file, NAME-VERSION.tar.xz.")],
) -> None:
    """Pack the orders of a set into one compressed file, as `fit` does."""
    from pidelta.qm.dftb import sets

    orders = [sets.read_folder(folder) for folder in folders]
    content = sets.pack(orders)
    with replacing(output, "wb") as stream:
        stream.write(content)
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
    from pidelta.qm.dftb import sets

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


def _print_fit(result: RepulsiveFit, order: int) -> None:
    table = Table(
        "pair", "distances", "first knot", "cutoff", title=f"Repulsives of order {order}, in angstrom"
    )
    for pair, repulsive in result.repulsives.items():
        edges = [f"{edge / ANGSTROM:.2f}" for edge in (repulsive.starts[0], repulsive.starts[-1])]
        table.add_row("-".join(pair), str(result.distances[pair]), *edges)
    Console().print(table)
