"""Frames and their labels in one HDF5 file that grows frame by frame, so that labelling can resume.

Frame k is the group ``frames/k`` (six digits), with the arrays of a `Frame` under their own names. Its labels
are the groups ``labels/KIND/METHOD`` in it. Every frame and label carries a checksum of all its numbers and
words; that of a label takes in the frame it belongs to. So do the words of the file and the reasons why
frames have no label, but for files of earlier versions. Arrays with an attribute ``unit`` hold integers,
multiples of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

import h5py
import numpy as np

from pidelta.data.embedding import difference
from pidelta.data.frames import Frame, Label, LabelKind, check_fits, close, named, same_surroundings
from pidelta.data.groups import check_seal, read_group, seal, write_group
from pidelta.data.hdf5_files import ChangingFile
from pidelta.errors import DataError
from pidelta.state import FloatArray, IntArray

_SCHEMA = "pidelta frames 3"
_READABLE = ("pidelta frames 2", _SCHEMA)  # 2 has nothing rounded, and no properties or provenance
_FRAME_ARRAYS = {
    "numbers": np.int64,
    "positions": np.float64,
    "site_positions": np.float64,
    "site_charges": np.float64,
    "site_numbers": np.int64,
}
_FRAME_VALUES = {"charge": int, "multiplicity": int, "source": str}
_LABEL_ARRAYS = dict.fromkeys(("gradient", "site_gradient", "charges"), np.float64)
_LABEL_VALUES = {"method": str, "program": str, "energy": float}
_SEAL, _FAILURES = "checksum", "failures"  # attributes that hold checksums of others
_LONGEST = 30.0  # s, for which changes are lost by a kill

ROUNDED: Mapping[str, float] = {"site_positions": 1e-5, "site_charges": 1e-7, "site_gradient": 1e-8}
"""To what multiples (bohr, e, hartree/bohr) a compact store rounds what it holds of the point charges.

The energy of a label changes by 1e-7 hartree at most, a gradient on charges by 6e-6 kcal/mol/angstrom.
"""


class FrameStore:
    """An HDF5 file of frames, and of the labels that each has by kind and method.

    ``reference`` labels come from DFT, ``low`` labels from the low-level method; a delta model learns their
    difference. Use it as a context manager. What is written is safe, and seen by others, after `release`,
    half a minute or the end, whichever comes first; a kill leaves the file as it was then. One process writes
    at a time, and others that write wait.

    Args:
        path: the file.
        mode: ``r`` to read, ``a`` to read and write (the file is made where there is none).
        compact: whether a new file rounds numbers of the point charges, see `ROUNDED`: half the size.
        whole: whether everything is written at the end alone, and nothing after an error.

    Raises:
        DataError: there is no such file, or it is not a store of frames, or damaged, or another process has
            it open for longer than ten minutes.
    """

    def __init__(
        self, path: Path, mode: Literal["r", "a"] = "r", compact: bool = False, *, whole: bool = False
    ) -> None:
        self.path = path
        self._whole = whole
        self._hdf5 = ChangingFile(path, compact)
        self._known: list[tuple[IntArray, FloatArray]] = []
        if mode == "r" and not path.exists():
            raise DataError(f"{path}: no such file of frames")
        with self._reading():
            try:
                if mode == "a":
                    self._hdf5.check_writable()
                if not path.exists() or (mode == "a" and not len(self._file)):
                    self._begin(compact)
                self._check()
            except BaseException:
                self._hdf5.discard()
                raise

    def _begin(self, compact: bool) -> None:
        file = self._hdf5.changed
        if not len(file):  # nobody else did it meanwhile
            file.attrs.update(schema=_SCHEMA, compact=compact)
            file.create_group("frames")
            seal(file, _SEAL, _words(file))
        if not self._whole:
            self.release()

    @property
    def _file(self) -> h5py.File:
        return self._hdf5.content

    @contextmanager
    def _writing(self) -> Iterator[h5py.File]:
        """To change the file, which keeps nothing of what HDF5 could not write."""
        try:
            yield self._hdf5.changed
        except (OSError, RuntimeError, KeyboardInterrupt):
            self._hdf5.discard()
            raise
        if self._hdf5.age > _LONGEST and not self._whole:
            self.release()

    def release(self) -> None:
        """Close the file until it is needed again, so that others see what it holds, and can write."""
        self._hdf5.release()

    def _check(self) -> None:
        schema = self._file.attrs.get("schema")
        if schema not in _READABLE:
            advice = ""
            if schema == "pidelta frames 1":
                advice = ", of an earlier version: sample and label anew"
            raise DataError(f"{self.path}: expected the schema {_SCHEMA!r}, found {schema!r}{advice}")
        check_seal(str(self.path), self._file, _SEAL, _words(self._file))
        names = list(self._file["frames"])
        if names != [_name(index) for index in range(len(names))]:
            raise DataError(f"{self.path}: expected {len(names)} frames in a row, found gaps: it is damaged")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """HDF5 says of a damaged file whatever it stumbles over."""
        try:
            yield
        except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{self.path}: expected a file of frames that can be read ({reason})") from None

    def __enter__(self) -> FrameStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and self._whole:
            self._hdf5.discard()
        self.release()

    def __len__(self) -> int:
        return len(self._file["frames"])

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(index) for index in range(len(self)))

    def _group(self, index: int) -> h5py.Group:
        if not 0 <= index < len(self):
            raise DataError(f"{self.path}: expected a frame below {len(self)}, found {index}")
        return self._file["frames"][_name(index)]

    @property
    def embedding(self) -> dict[str, str | float] | None:
        """The embedding that the frames were cut with, lengths in bohr, or None where nobody said."""
        with self._reading():
            text = self._file.attrs.get("embedding")
            return None if text is None else dict(json.loads(text))

    def set_embedding(self, settings: Mapping[str, str | float] | None) -> None:
        """Record the embedding of frames before they are added, None where nobody said it.

        Raises:
            DataError: the file holds frames that were cut with another one, or of one of both nobody said it.
        """
        known = self.embedding
        if known is None and settings is not None:
            if len(self):
                raise DataError(
                    f"{self.path}: expected frames whose embedding is not recorded, as those in this file, "
                    "found others: add them to another file"
                )
            with self._writing() as file:
                self._set_word(file, "embedding", json.dumps(dict(settings)))
        elif known is not None and settings is None:
            raise DataError(
                f"{self.path}: expected frames that say with which embedding they were cut, as those in "
                "this file, found others: add them to another file"
            )
        elif known is not None and settings is not None and (differs := difference(known, settings)):
            key, expected, found = differs
            raise DataError(f"{self.path}: expected frames cut with {key} {expected}, found {found}")

    @property
    def provenance(self) -> dict[str, str]:
        """Where the frames come from, by name, such as the structure with its checksum."""
        with self._reading():
            return dict(json.loads(self._file.attrs.get("provenance", "{}")))

    def set_provenance(self, content: Mapping[str, str]) -> None:
        """Record where frames come from; what differs from before is kept beside it."""
        with self._writing() as file:
            self._set_word(file, "provenance", json.dumps(merged(self.provenance, content)))

    @staticmethod
    def _set_word(file: h5py.File, name: str, text: str) -> None:
        file.attrs[name] = text
        seal(file, _SEAL, _words(file))

    def append(self, frame: Frame) -> int:
        """Add a frame and return its index."""
        content = {name: getattr(frame, name) for name in (*_FRAME_ARRAYS, *_FRAME_VALUES)}
        with self._writing() as file:
            index = len(self)
            group = file.create_group(None)  # without a name until it is complete: see set_label
            write_group(group, content, _FRAME_ARRAYS, _FRAME_VALUES, self._rounded)
            file["frames"][_name(index)] = group
        return index

    @property
    def _rounded(self) -> Mapping[str, float]:
        return ROUNDED if self._file.attrs.get("compact", False) else {}

    def frame(self, index: int) -> Frame:
        """Read one frame.

        Raises:
            DataError: there is none, or it is damaged.
        """
        with self._reading():
            where, group = f"{self.path}: frame {index}", self._group(index)
            content = read_group(where, group, _FRAME_ARRAYS, _FRAME_VALUES)
            with named(where):
                return Frame(**content)

    def find(self, frame: Frame) -> int | None:
        """The index of the frame that is the same, as text files and compact stores keep it, or None.

        The source and the elements of the point charges do not count.
        """
        for index in range(len(self._known), len(self)):
            other = self.frame(index)
            self._known.append((other.numbers, other.positions))
        for index, (numbers, positions) in enumerate(self._known):
            alike = np.array_equal(frame.numbers, numbers) and close(frame.positions, positions)
            if alike and same_surroundings(frame, self.frame(index)):
                return index
        return None

    def set_label(self, index: int, kind: LabelKind, label: Label, *, replace: bool = False) -> None:
        """Store a label beside those by other methods.

        The label gets its name when it is complete, so that an interruption leaves none that is half written.

        Args:
            index: of the frame.
            kind: of the label.
            label: the label.
            replace: whether it may take the place of an earlier one of this kind by the same method.

        Raises:
            DataError: there is no such frame, or there is an earlier label and `replace` is not set.
        """
        content = {name: getattr(label, name) for name in (*_LABEL_ARRAYS, *_LABEL_VALUES)}
        arrays = _LABEL_ARRAYS | dict.fromkeys(map(_property, label.properties), np.float64)
        content |= {_property(name): value for name, value in label.properties.items()}
        name = _escape(label.method)
        with self._writing():
            frame = self._group(index)
            with named(f"{self.path}: frame {index}"):
                check_fits(label, len(frame["numbers"]), len(frame["site_charges"]))
            if f"labels/{kind}/{name}" in frame and not replace:
                raise DataError(f"{self.path}: frame {index} has a {kind} label by {label.method} already")
            target = frame.create_group(None)
            write_group(target, content, arrays, _LABEL_VALUES, self._rounded, frame.attrs["checksum"])
            labels = frame.require_group(f"labels/{kind}")
            if name in labels:
                del labels[name]
            labels[name] = target
            if frame.attrs.pop(_failure(kind, label.method), None) is not None:
                seal(frame, _FAILURES, _failures(frame), frame.attrs["checksum"])

    def label(self, index: int, kind: LabelKind, method: str) -> Label | None:
        """Read a label, or None where the frame has none of this kind by this method.

        Raises:
            DataError: there is no such frame, or the label is damaged.
        """
        with self._reading():
            frame = self._group(index)
            name = f"labels/{kind}/{_escape(method)}"
            if name not in frame:
                return None
            what = f"{self.path}: {kind} label of frame {index}"
            group = frame[name]
            properties = list(group.get("properties", ()))
            arrays = _LABEL_ARRAYS | dict.fromkeys(map(_property, properties), np.float64)
            content = read_group(what, group, arrays, _LABEL_VALUES, frame.attrs["checksum"])
            own = {key: content.pop(_property(key)) for key in properties}
            with named(f"{self.path}: frame {index}"):
                label = Label(**content, properties=own)
                check_fits(label, len(frame["numbers"]), len(frame["site_charges"]))
            if label.method != method:
                raise DataError(f"{what}: expected one by {method!r}, found {label.method!r}")
            return label

    def methods(self, kind: LabelKind) -> dict[str, list[int]]:
        """Indices of the frames with a label of this kind, by method, in the order of first appearance."""
        found: dict[str, list[int]] = {}
        with self._reading():
            for index in range(len(self)):
                for name in self._labels(index).get(kind, ()):
                    found.setdefault(_unescape(name), []).append(index)
        return found

    def labels_of(self, index: int, kind: LabelKind) -> list[str]:
        """The methods by which a frame has labels of this kind."""
        with self._reading():
            return [_unescape(name) for name in self._labels(index).get(kind, ())]

    def _labels(self, index: int) -> Mapping[str, h5py.Group]:
        """Labels of a frame by kind; a name that nobody gave would hide some."""
        frame = self._group(index)
        labels: Mapping[str, h5py.Group] = frame.get("labels", {})
        strangers = sorted({*frame} - {*_FRAME_ARRAYS, "labels"} | {*labels} - {*get_args(LabelKind)})
        if strangers:
            raise DataError(
                f"{self.path}: frame {index}: expected its arrays and labels, found {strangers[0]!r}"
            )
        return labels

    def programs(self, kind: LabelKind, method: str) -> dict[str, int]:
        """Which programs computed the labels of this kind by this method, and how many of them."""
        with self._reading():
            labels = [
                self._group(index)[f"labels/{kind}/{_escape(method)}"]
                for index in self.methods(kind).get(method, ())
            ]
            return dict(Counter(str(label.attrs["program"]) for label in labels))

    def unlabelled(self, kind: LabelKind, method: str) -> list[int]:
        """Indices of the frames that have no label of this kind by this method, those that failed last."""
        done = set(self.methods(kind).get(method, ()))
        failed = self.failures(kind, method)
        left = [index for index in range(len(self)) if index not in done]
        return sorted(left, key=lambda index: index in failed)

    def set_failure(self, index: int, kind: LabelKind, method: str, reason: str) -> None:
        """Record why a frame has no label; a label that comes later takes its place."""
        with self._writing():
            frame = self._group(index)
            frame.attrs[_failure(kind, method)] = reason
            seal(frame, _FAILURES, _failures(frame), frame.attrs["checksum"])

    def failures(self, kind: LabelKind, method: str) -> dict[int, str]:
        """Why frames have no label of this kind by this method, by index."""
        name = _failure(kind, method)
        return {index: found[name] for index, found in enumerate(self._all_failures()) if name in found}

    def failed_methods(self, kind: LabelKind) -> list[str]:
        """The methods by which some frame failed to get a label of this kind."""
        start = _failure(kind, "")
        names = dict.fromkeys(name for found in self._all_failures() for name in found)
        return [name.removeprefix(start) for name in names if name.startswith(start)]

    def _all_failures(self) -> Iterator[dict[str, str]]:
        with self._reading():
            for index in range(len(self)):
                frame = self._group(index)
                found = _failures(frame)
                where = f"{self.path}: failures of frame {index}"
                check_seal(where, frame, _FAILURES, found, frame.attrs["checksum"])
                yield found


def merged(provenance: Mapping[str, str], content: Mapping[str, str]) -> dict[str, str]:
    """Two provenances as one; what differs under a name stands beside each other."""
    found = dict(provenance)
    for name, text in content.items():
        known = found.get(name, "").split("; ") if name in found else []
        found[name] = "; ".join([*known, *(part for part in text.split("; ") if part not in known)])
    return found


def _words(file: h5py.File) -> dict[str, str]:
    """What a file says of itself."""
    return {name: str(value) for name, value in file.attrs.items() if name != _SEAL}


def _failures(frame: h5py.Group) -> dict[str, str]:
    """Why a frame lacks labels, by the name of the attribute."""
    starts = tuple(_failure(kind, "") for kind in get_args(LabelKind))
    return {name: str(reason) for name, reason in frame.attrs.items() if name.startswith(starts)}


def _failure(kind: LabelKind, method: str) -> str:
    """The name of an attribute of the frame."""
    return f"no {kind} label by {method}"


def _property(name: str) -> str:
    return f"properties/{name}"


def _name(index: int) -> str:
    return f"{index:06d}"


def _escape(method: str) -> str:
    """A method as the name of a group, in which a slash would divide."""
    return method.replace("%", "%25").replace("/", "%2F")


def _unescape(name: str) -> str:
    return name.replace("%2F", "/").replace("%25", "%")
