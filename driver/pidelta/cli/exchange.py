"""``pidelta data export`` and ``import``: frames and labels in the formats of other programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pidelta.output_files import check_distinct

if TYPE_CHECKING:
    from pidelta.data.exchange import Labels
    from pidelta.data.frames import Frame
    from pidelta.data.store import FrameStore


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
    total: Annotated[
        bool,
        typer.Option("--total", help="The reference itself, not less the low level; for xyz and deepmd."),
    ] = False,
    keywords: Annotated[
        str | None, typer.Option(help="Of ORCA's inputs, such as 'PBE0 D4 def2-TZVP'.")
    ] = None,
) -> None:
    """Write frames that have both labels as other programs read them, or inputs of ORCA for all frames.

    Files without low-level labels give the reference alone, by --total or as xyz.
    """
    from pidelta.data import exchange
    from pidelta.data.labelled import common_origin
    from pidelta.errors import DataError

    check_distinct(output, files)
    is_folder = format_ in (Format.deepmd, Format.mlp_qmmm)
    if is_folder and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output}: expected an empty folder or none, found one that holds files, or a file")
    if total and (format_ not in (Format.xyz, Format.deepmd) or low is not None):
        raise DataError("--total: expected --format xyz or deepmd and no --low")
    if format_ is Format.orca:
        _write_orca(files, output, keywords)
        return
    embedding, provenance, silent = common_origin(files)
    items, notes = _chosen(files, format_, total, reference, low)
    for note in (*silent, *notes):
        print(f"note: {note}")
    if format_ is Format.xyz:
        count = exchange.write_xyz(output, items, (embedding, provenance))
    elif format_ is Format.deepmd:
        count = exchange.write_deepmd(output, items)
    else:
        count = exchange.write_mlp_qmmm(output, items)
    print(f"{output}: {count} frames")


def _chosen(
    files: list[Path], format_: Format, total: bool, reference: str | None, low: str | None
) -> tuple[list[tuple[Frame, Labels]], Sequence[str]]:
    """The frames to write with their labels, and notes on what was passed over."""
    from pidelta.data.labelled import has_labels, read_labelled, read_reference
    from pidelta.errors import DataError

    lacks_low = low is None and not has_labels(files, "low")
    if total or (format_ is Format.xyz and lacks_low):
        bare, notes = read_reference(files, reference)
        return [(frame, {"reference": label}) for frame, label in bare], notes
    if format_ is Format.deepmd and lacks_low:
        raise DataError(
            f"{', '.join(map(str, files))}: expected frames with low labels, found none; --total writes the "
            "reference itself"
        )
    found = read_labelled(files, reference=reference, low=low)
    items: list[tuple[Frame, Labels]] = [(item.frame, item.labels) for item in found.frames]
    return items, found.notes


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
    replace: Annotated[
        bool, typer.Option("--replace", help="Take labels for those by the same method that are there.")
    ] = False,
) -> None:
    """Add frames and labels of other programs to a file of frames.

    Labels go to the frame of the same atoms and charges, if there is one. After an error nothing is added.
    """
    from pidelta.data.store import FrameStore

    check_distinct(output, files)
    with FrameStore(output, "a", whole=True) as store:
        before, done = len(store), Counter[str]()
        for file in files:
            done += _import_file(store, file, method, replace)
        print(
            f"{output}: {len(store) - before} frames and {done['added']} labels added, "
            f"{len(store)} frames in all"
        )
    if replace:
        print(f"{done['differ']} labels replaced")
    elif done["differ"]:
        print(
            f"note: {done['differ']} labels differ from those by the same method that are there, which stay; "
            "--replace takes the new ones"
        )


def _import_file(store: FrameStore, file: Path, method: str | None, replace: bool) -> Counter[str]:
    """Add what is in one file; count the labels that were added, and those that differ from earlier ones."""
    from pidelta.data.exchange import read_origin, read_xyz, unread_keys
    from pidelta.data.frames import check_whole, named, same_label
    from pidelta.errors import DataError
    from pidelta.qm.orca import read_output

    if not file.is_file():
        raise DataError(f"{file}: no such file")
    is_xyz = file.suffix in (".xyz", ".extxyz")
    origin = read_origin(file) if is_xyz else ({}, {})
    if is_xyz and (unread := unread_keys(file)):
        print(f"note: {file}: keys that are not read: {', '.join(unread)}")
    before, done = len(store), Counter[str]()
    for frame, labels in read_xyz(file, method) if is_xyz else [read_output(file, method)]:
        place = store.find(frame)
        if place is None:
            with named(str(file)):
                check_whole(frame)
                if len(store) == before:
                    store.set_embedding(origin[0] or None)
                    store.set_provenance(origin[1])
            place = store.append(frame)
        for kind, label in labels.items():
            earlier = store.label(place, kind, label.method)
            if earlier is None:
                done["added"] += 1
            elif same_label(label, earlier):
                continue
            else:
                done["differ"] += 1
                if not replace:
                    continue
            store.set_label(place, kind, label, replace=replace)
    return done
