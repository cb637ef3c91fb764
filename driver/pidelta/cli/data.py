"""``pidelta data info``: what is in a file of frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pidelta.cli.exchange import export, import_
from pidelta.errors import DataError
from pidelta.output_files import check_distinct

if TYPE_CHECKING:
    from pidelta.analysis.frames import LabelValues, StoreSummary
    from pidelta.data.frames import LabelKind

data = typer.Typer(name="data", help="Files of frames.", no_args_is_help=True)
data.command("export")(export)
data.command("import")(import_)


@data.command()
def info(
    file: Annotated[Path, typer.Argument(help="The HDF5 file of frames.")],
    output: Annotated[
        Path | None, typer.Option(help="The picture; FILE-info.png beside the file by default.")
    ] = None,
) -> None:
    """Read all of a file of frames: its regions, trajectories, charges and labels, and whether it is whole.

    A picture shows how far reference and low level differ, or the labels where there are those of one kind.
    """
    from pidelta.analysis.frames import draw_values, summarise
    from pidelta.analysis.plots import FORMATS
    from pidelta.data.store import FrameStore

    picture = output or file.with_name(f"{file.stem}-info.png")
    check_distinct(picture, [file])
    if picture.suffix not in FORMATS:
        raise DataError(
            f"{picture}: expected a name that ends in {', '.join(FORMATS)}, found {picture.suffix!r}"
        )
    console = Console(width=110)
    with FrameStore(file) as store:
        summary = summarise(store, lambda frames: track(frames, "reading", transient=True))
        embedding, provenance = store.embedding, store.provenance
    console.print(f"{file}: {len(summary)} frames, all whole", soft_wrap=True)
    console.print(_table(summary, embedding, provenance))
    for group in summary.labels:
        programs = ", ".join(f"{name or 'a program not named'} ({n})" for name, n in group.programs.items())
        text = f"{group.kind} labels: {len(group.frames)} frames, {group.method}"
        text += f"; {programs}" if programs else ""
        console.print(text, soft_wrap=True)
        for index, reason in group.failures.items():
            console.print(f"no such label of frame {index}: {reason}", soft_wrap=True)
    if summary.values is None:
        console.print("no picture: no frame has a label, or the regions differ")
        return
    console.print(_value_table(summary.values))
    for doubt in summary.values.doubts:
        console.print(f"warning: {doubt}", soft_wrap=True)
    draw_values(summary.values, picture)
    console.print(f"picture: {picture}", soft_wrap=True)


@data.command()
def pack(
    files: Annotated[list[Path], typer.Argument(help="HDF5 files of frames.")],
    output: Annotated[Path, typer.Option(help="The compact file, which grows by what is new.")],
    low: Annotated[
        bool, typer.Option("--low", help="Copy low-level labels, too, which cost little.")
    ] = False,
    labelled: Annotated[bool, typer.Option("--labelled", help="Leave out frames without a label.")] = False,
    skip: Annotated[int, typer.Option(min=0, help="Frames of each file to pass over.")] = 0,
    every: Annotated[int, typer.Option(min=1, help="Take each such frame.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Frames from each file at most.")] = None,
) -> None:
    """Put frames and DFT labels of several files into a compact one, half the size.

    It rounds the point charges: positions to 1e-5 bohr, charges to 1e-7 e, gradients to 1e-8 hartree/bohr.
    The same frame in several files is kept once, with all its labels. A frame whose source another one has
    gets the name of its file before it. A kill leaves the compact file as it was.
    """
    from pidelta.data.packing import pack

    kinds: list[LabelKind] = ["reference", "low"] if low else ["reference"]
    count = pack(files, output, kinds, labelled=labelled, skip=skip, every=every, limit=limit)
    print(f"{output}: {count} frames, {output.stat().st_size / 2**20:.1f} MiB")


def _table(
    summary: StoreSummary, embedding: dict[str, str | float] | None, provenance: dict[str, str]
) -> Table:
    table = Table(show_header=False)
    for name, text in provenance.items():
        table.add_row(name, text)
    for region, count in summary.regions.items():
        table.add_row("QM region", f"{region}: {count} frames")
    for name, (count, first, last) in summary.trajectories.items():
        table.add_row("trajectory", f"{name.strip() or 'not named'}: {count} frames, steps {first} to {last}")
    if embedding is None:
        table.add_row("embedding", "not recorded")
    else:
        table.add_row("embedding", ", ".join(_setting(*item) for item in embedding.items()))
    if len(summary):
        sites, closest, net = summary.sites, summary.closest, summary.net
        table.add_row("point charges", f"{sites.min()} to {sites.max()}")
        table.add_row("their sum", f"{net.min():+.3f} to {net.max():+.3f} e")
        table.add_row("nearest to a QM atom", f"{closest.min():.2f} to {closest.max():.2f} Å")
    return table


def _setting(name: str, value: str | float) -> str:
    from pidelta.units import BOHR_IN_ANGSTROM

    return f"{name} {value}" if isinstance(value, str) else f"{name} {value * BOHR_IN_ANGSTROM / 10.0:.3g} nm"


def _value_table(values: LabelValues) -> Table:
    import numpy as np

    table = Table(
        title=f"{values.name}, {len(values.frames)} frames",
        caption="energies less their mean in kcal/mol, gradients in kcal/mol/Å",
    )
    for heading in ("", "mean absolute", "RMS", "largest"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, array in (
        ("energy", values.energies),
        ("gradient on QM atoms", values.gradients),
        ("gradient on charges", values.site_gradients),
    ):
        if array.size:
            size = np.abs(array)
            table.add_row(name, f"{size.mean():.4f}", f"{np.sqrt((size**2).mean()):.4f}", f"{size.max():.3f}")
    return table
