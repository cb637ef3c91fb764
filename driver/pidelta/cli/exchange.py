"""``pidelta data export`` and ``import``: frames and labels in the formats of other programs."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Format(str, Enum):
    """What frames can be written as."""

    xyz = "xyz"
    deepmd = "deepmd"
    mlp_qmmm = "mlp_qmmm"
    orca = "orca"


MethodOption = Annotated[
    str | None, typer.Option(help="Labels of which method, or a part of its text, where there are several.")
]


def export(
    files: Annotated[list[Path], typer.Argument(help="HDF5 files of frames.")],
    output: Annotated[Path, typer.Option(help="A file for xyz, a folder for the others.")],
    format_: Annotated[
        Format, typer.Option("--format", help="xyz is extended XYZ, as ASE reads it.")
    ] = Format.xyz,
    reference: MethodOption = None,
    low: MethodOption = None,
    keywords: Annotated[
        str | None, typer.Option(help="Of ORCA's inputs, such as 'PBE0 D4 def2-TZVP'.")
    ] = None,
) -> None:
    """Write frames that have both labels as other programs read them, or inputs of ORCA for all frames."""
    from pidelta.data import exchange
    from pidelta.data.labelled import read_labelled

    if format_ is Format.orca:
        _write_orca(files, output, keywords)
        return
    found = read_labelled(files, reference=reference, low=low)
    for note in found.notes:
        print(f"note: {note}")
    if format_ is Format.xyz:
        count = exchange.write_xyz(output, found.frames)
    elif format_ is Format.deepmd:
        count = exchange.write_deepmd(output, found.frames)
    else:
        count = exchange.write_mlp_qmmm(output, found.frames)
    print(f"{output}: {count} frames")


def _write_orca(files: list[Path], output: Path, keywords: str | None) -> None:
    from pidelta.data.store import FrameStore
    from pidelta.qm import orca

    count = 0
    for file in files:
        with FrameStore(file) as store:
            for index, frame in enumerate(store):
                orca.write_input(output, f"{file.stem}-{index:06d}", frame, keywords or orca.KEYWORDS)
                count += 1
    print(f"{output}: {count} inputs")


def import_(
    files: Annotated[
        list[Path], typer.Argument(help="Extended XYZ, .xyz, or outputs of ORCA, .out or .log.")
    ],
    output: Annotated[Path, typer.Option(help="The HDF5 file that frames and labels are added to.")],
    method: Annotated[
        str | None, typer.Option(help="The method of the labels, where files do not say.")
    ] = None,
) -> None:
    """Add frames and labels of other programs to a file of frames.

    Labels go to the frame of the same atoms and charges, if there is one.
    """
    from pidelta.data.exchange import read_xyz
    from pidelta.data.store import FrameStore
    from pidelta.errors import DataError
    from pidelta.qm.orca import read_output

    with FrameStore(output, "a") as store:
        before, added = len(store), 0
        for file in files:
            if not file.is_file():
                raise DataError(f"{file}: no such file")
            is_xyz = file.suffix in (".xyz", ".extxyz")
            for frame, labels in read_xyz(file, method) if is_xyz else [read_output(file, method)]:
                place = store.find(frame)
                place = store.append(frame) if place is None else place
                for kind, label in labels.items():
                    if label.method not in store.labels_of(place, kind):
                        store.set_label(place, kind, label)
                        added += 1
        print(f"{output}: {len(store) - before} frames and {added} labels added, {len(store)} frames in all")
