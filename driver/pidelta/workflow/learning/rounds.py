"""The folders of `pidelta learn`: one a round, whose files say what is done, and its result when all is."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from pidelta.delta.assessment import ErrorSummary
from pidelta.delta.calibration import Judgement
from pidelta.errors import DataError
from pidelta.output_files import replacing
from pidelta.units import ANGSTROM, KCAL_PER_MOL
from pidelta.workflow.learning.settings import Budget, LearningFile, Targets

_CLOCK = "seconds.json"


@dataclass(frozen=True)
class Round:
    """Where a round keeps what. Files are written whole, so that one that is there is complete.

    Attributes:
        root: the folder of all rounds.
        number: from 0.
    """

    root: Path
    number: int

    @property
    def folder(self) -> Path:
        """Of this round."""
        return self.root / f"round-{self.number:02d}"

    @property
    def frames(self) -> Path:
        """Frames for training; labels come one by one."""
        return self.folder / "frames.h5"

    @property
    def test_frames(self) -> Path:
        """Frames that no training sees; likewise."""
        return self.folder / "test.h5"

    @property
    def selection(self) -> Path:
        """What the frames were picked from (`Selection`)."""
        return self.folder / "selection.json"

    @property
    def models(self) -> Path:
        """The folder of the models that this round trains."""
        return self.folder / "models"

    @property
    def committee(self) -> Path:
        """The section delta of a configuration, with the models of this round."""
        return self.models / "delta.yaml"

    def model_files(self) -> list[Path]:
        """The models of a round that is complete; others may be left of a larger committee.

        Raises:
            DataError: the section delta cannot be read.
        """
        try:
            content = yaml.safe_load(self.committee.read_text(encoding="utf-8"))
            return [self.models / name for name in content["models"]]
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
            raise _malformed(self.committee) from None

    @property
    def result(self) -> Path:
        """What came of it (`RoundResult`); where it is, the round is complete."""
        return self.folder / "round.json"

    @property
    def before(self) -> Round | None:
        """The round before."""
        return Round(self.root, self.number - 1) if self.number else None

    def and_before(self) -> list[Round]:
        """All rounds up to this one."""
        return [Round(self.root, number) for number in range(self.number + 1)]


@dataclass(frozen=True)
class Selection:
    """What the frames of a round were picked from.

    Attributes:
        sampled, picked: number of frames by source.
        collided: how many frames were left out as atoms had collided.
        plane: two principal components of the descriptors of all candidates, for a picture.
        places: candidates that were picked, in order.
        notes: what went wrong.
    """

    sampled: dict[str, int]
    picked: dict[str, int]
    collided: int
    plane: list[tuple[float, float]]
    places: list[int]
    notes: list[str]


@dataclass(frozen=True)
class RoundResult:
    """What came of a round, in kcal/mol and angstrom; pairs are mean absolute and root mean square.

    Attributes:
        number: of the round.
        seconds: of all rounds so far.
        frames, test_frames: labelled ones of all rounds so far.
        low, corrected: errors on all test frames without and with the models of this round.
        before: errors of the models that drove the sampling on the test frames of this round, which they led
            to; None in the first.
        calibration: factors of the spread of energy and forces.
        inside: share of energies whose error is below the calibrated spread, on the frames of its fit.
        energy_errors, energy_spread: of each test frame, the spread calibrated.
        judgement: of the factors on test frames held back from their fit; None where they are too few, or an
            earlier version wrote the round.
    """

    number: int
    seconds: float
    frames: int
    test_frames: int
    low: ErrorSummary
    corrected: ErrorSummary
    before: ErrorSummary | None
    calibration: tuple[float, float]
    inside: float
    energy_errors: list[float]
    energy_spread: list[float]
    judgement: Judgement | None = None


def write_json(path: Path, item: Selection | RoundResult) -> None:
    """Write the attributes."""
    with replacing(path) as stream:
        stream.write(json.dumps(asdict(item), indent=1) + "\n")


def read_selection(path: Path) -> Selection:
    """Read what was written of a selection.

    Raises:
        DataError: it is something else.
    """
    try:
        return Selection(**_read(path))
    except TypeError:
        raise _malformed(path) from None


def completed(root: Path) -> list[RoundResult]:
    """The results of the rounds that are complete, in their order.

    Raises:
        DataError: one cannot be read.
    """
    results: list[RoundResult] = []
    while (path := Round(root, len(results)).result).exists():
        content = _read(path)
        try:
            for name in ("low", "corrected", "before"):
                if content[name] is not None:
                    content[name] = ErrorSummary(**{key: tuple(v) for key, v in content[name].items()})
            if (judgement := content.get("judgement")) is not None:
                pairs: dict[str, Any] = {
                    k: tuple(v) if isinstance(v, list) else v for k, v in judgement.items()
                }
                content["judgement"] = Judgement(**pairs)
            results.append(RoundResult(**content))
        except (TypeError, KeyError, AttributeError, ValueError):
            raise _malformed(path) from None
    return results


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise _malformed(path) from None
    if not isinstance(content, dict):
        raise _malformed(path)
    return content


def _malformed(path: Path) -> DataError:
    return DataError(f"{path}: expected what pidelta learn writes of a round, found something else")


def why_to_end(results: Sequence[RoundResult], settings: LearningFile, hours: float) -> str | None:
    """Why no further round is to begin, or None.

    Args:
        results: of the rounds so far.
        settings: with targets and budget.
        hours: spent so far.
    """
    if not results:
        return None
    if _are_met(settings.targets, results[-1].corrected):
        return "the errors asked for are reached"
    return _what_is_spent(results, settings, settings.budget, hours)


def _are_met(targets: Targets, errors: ErrorSummary) -> bool:
    gradient = KCAL_PER_MOL / ANGSTROM
    asked = [
        (targets.energy, errors.energy[0] * KCAL_PER_MOL),
        (targets.qm_gradient, errors.qm_gradient[0] * gradient),
        (targets.mm_gradient, errors.mm_gradient[0] * gradient),
    ]
    given = [(target, found) for target, found in asked if target is not None]
    return bool(given) and all(found <= target for target, found in given)


def _what_is_spent(
    results: Sequence[RoundResult], settings: LearningFile, budget: Budget, hours: float
) -> str | None:
    if len(results) >= budget.rounds:
        return f"the budget of {budget.rounds} rounds is spent"
    labelled = results[-1].frames + results[-1].test_frames
    if budget.frames is not None and labelled + settings.select.frames + settings.test.frames > budget.frames:
        return (
            f"another round would exceed the budget of {budget.frames} labelled frames: there are {labelled}"
        )
    if budget.hours is not None:
        last = results[-1].seconds - (results[-2].seconds if len(results) > 1 else 0.0)
        if hours + last / 3600.0 > budget.hours:
            return f"another round would exceed the budget of {budget.hours:g} hours: {hours:.2f} are spent"
    return None


class Clock:
    """Seconds that were spent in a folder, over all times the command was started; a context manager.

    Args:
        root: the folder of all rounds.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / _CLOCK
        self._last = time.monotonic()
        try:
            self.seconds = float(json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            self.seconds = 0.0

    def __enter__(self) -> Clock:
        self._last = time.monotonic()
        return self

    def __exit__(self, *exception: object) -> None:
        self.tick()

    def tick(self) -> None:
        """Count the time since it was looked at, on disk, so that a kill loses no more than one step's."""
        now = time.monotonic()
        self.seconds, self._last = self.seconds + now - self._last, now
        with replacing(self._path) as stream:
            stream.write(json.dumps(self.seconds) + "\n")
