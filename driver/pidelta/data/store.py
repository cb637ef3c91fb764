"""Frames and their labels in one HDF5 file that grows frame by frame, so that labelling can resume.

Frame k is the group ``frames/k`` (six digits), with the arrays of a `Frame` under their own names. Its labels
are the groups ``labels/KIND/METHOD`` in it. Every frame and label carries a checksum of all its numbers and
words, as HDF5 has none for most of them; that of a label takes in the frame it belongs to. Arrays with an
attribute ``unit`` hold integers, multiples of it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import h5py
import numpy as np

from pidelta.data.embedding import difference
from pidelta.data.frames import Frame, Label
from pidelta.errors import DataError

LabelKind = Literal["reference", "low"]

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
_LARGE = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
_SMALL = 500  # numbers, below which compression takes more than it saves
_SAME = 2e-5  # bohr and e: compact stores and text files round
_PATIENCE, _PAUSE = 600.0, 0.05  # s, with a file that another process has open

ROUNDED: Mapping[str, float] = {"site_positions": 1e-5, "site_charges": 1e-7, "site_gradient": 1e-8}
"""To what multiples (bohr, e, hartree/bohr) a compact store rounds what it holds of the point charges.

The energy of a label changes by 1e-7 hartree at most, a gradient on charges by 6e-6 kcal/mol/angstrom.
"""


class FrameStore:
    """An HDF5 file of frames, and of the labels that each has by kind and method.

    ``reference`` labels come from DFT, ``low`` labels from the low-level method; a delta model learns their
    difference. Use it as a context manager; every write is flushed, so a killed job loses one frame at most.
    While it is open to write, others wait; `release` lets them in.

    Args:
        path: the file.
        mode: ``r`` to read, ``a`` to read and write (the file is made where there is none).
        compact: whether a new file rounds numbers of the point charges, see `ROUNDED`: half the size.

    Raises:
        DataError: there is no such file, or it is not a store of frames, or damaged, or another process has
            it open for longer than ten minutes.
    """

    def __init__(self, path: Path, mode: Literal["r", "a"] = "r", compact: bool = False) -> None:
        self.path = path
        self._mode = mode
        # What HDF5 writes by its latest version is smaller, but not readable after a kill: to be made anew.
        self._version = "latest" if compact else "earliest"
        self._opened: h5py.File | None = None
        if mode == "r" and not path.exists():
            raise DataError(f"{path}: no such file of frames")
        with self._reading():
            if mode == "a" and not self._file.attrs and len(self._file) == 0:
                self._file.attrs["schema"] = _SCHEMA
                self._file.attrs["compact"] = compact
                self._file.create_group("frames")
            try:
                self._check()
            except BaseException:
                self.release()
                raise

    @property
    def _file(self) -> h5py.File:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> h5py.File:
        """Open the file once nobody else has it in a way that excludes this."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            with suppress(BlockingIOError):
                return h5py.File(self.path, self._mode, libver=self._version)
            time.sleep(_PAUSE)
        raise DataError(
            f"{self.path}: expected a file that nobody else writes, found it in use for {_PATIENCE:.0f} s"
        )

    def release(self) -> None:
        """Close the file until it is needed again, so that others can read or write meanwhile."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _check(self) -> None:
        schema = self._file.attrs.get("schema")
        if schema not in _READABLE:
            advice = ""
            if schema == "pidelta frames 1":
                advice = ", of an earlier version: sample and label anew"
            raise DataError(f"{self.path}: expected the schema {_SCHEMA!r}, found {schema!r}{advice}")
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

    def set_embedding(self, settings: Mapping[str, str | float]) -> None:
        """Record the embedding of the frames.

        Raises:
            DataError: the file holds frames that were cut with another one.
        """
        known = self.embedding
        if known is not None:
            if differs := difference(known, settings):
                key, expected, found = differs
                raise DataError(f"{self.path}: expected frames cut with {key} {expected}, found {found}")
            return
        self._file.attrs["embedding"] = json.dumps(dict(settings))

    @property
    def provenance(self) -> dict[str, str]:
        """Where the frames come from, by name, such as the structure with its checksum."""
        with self._reading():
            return dict(json.loads(self._file.attrs.get("provenance", "{}")))

    def set_provenance(self, content: Mapping[str, str]) -> None:
        """Record where frames come from; what differs from before is kept beside it."""
        merged = self.provenance
        for name, text in content.items():
            known = merged.get(name, text).split("; ")
            merged[name] = "; ".join(known if text in known else [*known, text])
        self._file.attrs["provenance"] = json.dumps(merged)

    def append(self, frame: Frame) -> int:
        """Add a frame and return its index."""
        index = len(self)
        group = self._file.create_group(None)  # without a name until it is complete: see set_label
        content = {name: getattr(frame, name) for name in (*_FRAME_ARRAYS, *_FRAME_VALUES)}
        self._write(group, content, _FRAME_ARRAYS, _FRAME_VALUES)
        self._file["frames"][_name(index)] = group
        self._file.flush()
        return index

    def frame(self, index: int) -> Frame:
        """Read one frame.

        Raises:
            DataError: there is none, or it is damaged.
        """
        with self._reading():
            return Frame(**self._read(f"frame {index}", self._group(index), _FRAME_ARRAYS, _FRAME_VALUES))

    def find(self, frame: Frame) -> int | None:
        """The index of the frame with these atoms and charges, as text files keep them, or None."""
        for index, other in enumerate(self):
            if (
                np.array_equal(frame.numbers, other.numbers)
                and frame.site_positions.shape == other.site_positions.shape
                and np.allclose(frame.positions, other.positions, rtol=0.0, atol=_SAME)
                and np.allclose(frame.site_positions, other.site_positions, rtol=0.0, atol=_SAME)
                and np.allclose(frame.site_charges, other.site_charges, rtol=0.0, atol=_SAME)
            ):
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
        frame = self._group(index)
        target = frame.create_group(None)
        content = {name: getattr(label, name) for name in (*_LABEL_ARRAYS, *_LABEL_VALUES)}
        arrays = _LABEL_ARRAYS | dict.fromkeys(map(_property, label.properties), np.float64)
        content |= {_property(name): value for name, value in label.properties.items()}
        self._write(target, content, arrays, _LABEL_VALUES, frame.attrs["checksum"])
        labels = frame.require_group(f"labels/{kind}")
        name = _escape(label.method)
        if name in labels:
            if not replace:
                raise DataError(f"{self.path}: frame {index} has a {kind} label by {label.method} already")
            del labels[name]
        labels[name] = target
        frame.attrs.pop(_failure(kind, label.method), None)
        self._file.flush()

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
            what = f"{kind} label of frame {index}"
            group = frame[name]
            properties = list(group.get("properties", ()))
            arrays = _LABEL_ARRAYS | dict.fromkeys(map(_property, properties), np.float64)
            content = self._read(what, group, arrays, _LABEL_VALUES, frame.attrs["checksum"])
            own = {key: content.pop(_property(key)) for key in properties}
            try:
                label = Label(**content, properties=own)
            except DataError as error:
                raise DataError(f"{self.path}: frame {index}: {error}") from None
            if label.method != method:
                raise DataError(f"{self.path}: {what}: expected one by {method!r}, found {label.method!r}")
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
        self._group(index).attrs[_failure(kind, method)] = reason
        self._file.flush()

    def failures(self, kind: LabelKind, method: str) -> dict[int, str]:
        """Why frames have no label of this kind by this method, by index."""
        with self._reading():
            groups = ((index, self._group(index)) for index in range(len(self)))
            name = _failure(kind, method)
            return {index: str(group.attrs[name]) for index, group in groups if name in group.attrs}

    def _read(
        self,
        what: str,
        group: h5py.Group,
        arrays: Mapping[str, Any],
        values: Mapping[str, Any],
        owner: str = "",
    ) -> dict[str, Any]:
        content = {name: _array(group[name], kind) for name, kind in arrays.items()}
        content |= {name: kind(group.attrs[name]) for name, kind in values.items()}
        if group.attrs["checksum"] != _checksum(content, owner):
            raise DataError(f"{self.path}: {what}: expected numbers that fit their checksum: it is damaged")
        return content

    def _write(
        self,
        group: h5py.Group,
        content: Mapping[str, Any],
        arrays: Mapping[str, Any],
        values: Mapping[str, Any],
        owner: str = "",
    ) -> None:
        own = {name: kind(content[name]) for name, kind in values.items()}
        rounded = ROUNDED if self._file.attrs.get("compact", False) else {}
        for name, kind in arrays.items():
            array = np.asarray(content[name], dtype=kind)
            options = _LARGE | {"chunks": array.shape} if array.size > _SMALL else {}
            if name in rounded:
                integers = np.rint(array / rounded[name]).astype(np.int32)
                group.create_dataset(name, data=integers, **options).attrs["unit"] = rounded[name]
            else:
                group.create_dataset(name, data=array, **options)
            own[name] = _array(group[name], kind)
        group.attrs.update({name: own[name] for name in values}, checksum=_checksum(own, owner))


def _array(data: h5py.Dataset, kind: Any) -> Any:
    """The numbers of a dataset, whether they are rounded or not."""
    unit = data.attrs.get("unit")
    return np.asarray(data[()], dtype=kind) if unit is None else data[()] * float(unit)


def _failure(kind: LabelKind, method: str) -> str:
    """The name of an attribute of the frame."""
    return f"no {kind} label by {method}"


def _property(name: str) -> str:
    return f"properties/{name}"


def _checksum(content: Mapping[str, Any], owner: str) -> str:
    """Eight bytes, in hexadecimal digits, that change with any number, shape or word of a group.

    `owner` is the checksum of the frame that a label belongs to.
    """
    digest = hashlib.blake2b(owner.encode(), digest_size=8)
    for name in sorted(content):
        value = content[name]
        if isinstance(value, np.ndarray):
            digest.update(f"{name} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes())
        else:
            digest.update(f"{name} {value!r} ".encode())
    return digest.hexdigest()


def _name(index: int) -> str:
    return f"{index:06d}"


def _escape(method: str) -> str:
    """A method as the name of a group, in which a slash would divide."""
    return method.replace("%", "%25").replace("/", "%2F")


def _unescape(name: str) -> str:
    return name.replace("%2F", "/").replace("%25", "%")
