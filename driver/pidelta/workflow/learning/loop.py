"""The loop of `pidelta learn`: sample, pick, label, train, test, again, until the errors are small enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml

from pidelta.data.frames import Frame
from pidelta.data.labelled import LabelledSet, read_labelled
from pidelta.data.store import FrameStore
from pidelta.delta.assessment import ErrorSummary, assess, predict, summarise
from pidelta.delta.base import Correction
from pidelta.delta.calibration import Reliability, reliability
from pidelta.delta.committee import Committee
from pidelta.delta.files import models_digest
from pidelta.delta.loading import load_correction
from pidelta.output_files import replacing
from pidelta.state import FloatArray
from pidelta.units import HARTREE_IN_KCAL_PER_MOL
from pidelta.workflow.learning.agreement import check_rounds
from pidelta.workflow.learning.pool import Sampler, Subject, Tasks, evenly
from pidelta.workflow.learning.rounds import (
    Clock,
    Round,
    RoundResult,
    Selection,
    completed,
    why_to_end,
    write_json,
)
from pidelta.workflow.learning.selection import descriptors, farthest, has_collided, most_uncertain
from pidelta.workflow.learning.settings import LearningFile

Report = Callable[[Sequence[RoundResult]], None]


class Loop:
    """The rounds of one folder. Whatever is done is found there again, so that it goes on after any end.

    Args:
        root: the folder.
        settings: sources, targets, budget.
        subject: what is sampled.
        tasks: who does the work.
        report: called at the start and after each round with the results of all.
    """

    def __init__(
        self, root: Path, settings: LearningFile, subject: Subject, tasks: Tasks, report: Report
    ) -> None:
        self._root, self._settings, self._subject = root, settings, subject
        self._tasks, self._report = tasks, report
        root.mkdir(parents=True, exist_ok=True)
        self._clock = Clock(root)

    def run(self) -> str:
        """Do rounds until there is a reason to end, and return it.

        Raises:
            PideltaError: a step failed; the same call goes on from there.
        """
        while True:
            results = completed(self._root)
            self._report(results)
            if reason := why_to_end(results, self._settings, self._clock.seconds / 3600.0):
                return reason
            with self._clock:
                self._do(Round(self._root, len(results)))

    def _do(self, current: Round) -> None:
        """What is left to do of a round."""
        files_are_whole = current.selection.exists()
        check_rounds(current.and_before() if files_are_whole else current.and_before()[:-1], self._subject)
        current.folder.mkdir(exist_ok=True)
        self._tasks.note(f"round {current.number}: sampling")
        self._sample(current)
        for path in (current.test_frames, current.frames):
            self._clock.tick()
            self._tasks.label(path)
        self._clock.tick()
        self._tasks.note(f"round {current.number}: training")
        files = [each.frames for each in current.and_before()]
        models = self._tasks.train(files, current.models, self._subject.reference, self._subject.low)
        self._assess(current, models)

    def _sample(self, current: Round) -> None:
        """Run the sources and keep what is to be labelled; the selection comes last."""
        if current.selection.exists():
            self._note_changes(current)
            return
        notes: list[str] = []
        sampler = Sampler(self._subject, self._settings, current, self._tasks, notes)
        tests = [frame for frame in sampler.test_candidates() if not has_collided(frame)]
        by_source = sampler.candidates()
        candidates = [frame for own in by_source.values() for frame in own if not has_collided(frame)]
        places, plane = self._pick(current, candidates)
        chosen = [candidates[place] for place in places]
        self._write(current.test_frames, [tests[i] for i in evenly(len(tests), self._settings.test.frames)])
        self._write(current.frames, chosen)
        picked = Counter(frame.source.split("/")[1].split(" ")[0] for frame in chosen)
        sampled = {name: len(own) for name, own in by_source.items()}
        collided = sum(sampled.values()) - len(candidates)
        write_json(current.selection, Selection(sampled, dict(picked), collided, plane, places, notes))

    def _note_changes(self, current: Round) -> None:
        """Say where frames that are picked already are not those that the settings ask for now."""
        with FrameStore(current.frames) as store:
            known = store.provenance.get("learn")
        if known != self._settings.sampling:
            self._tasks.note(
                f"note: round {current.number}: its frames were picked before seed, sample, select or test "
                "changed, and stay"
            )

    def _pick(self, current: Round, candidates: list[Frame]) -> tuple[list[int], list[tuple[float, float]]]:
        """Candidates to label, by their places, and the plane in which the candidates vary most."""
        select = self._settings.select
        known = [frame for other in current.and_before()[:-1] for frame in _frames(other.frames)]
        rows = descriptors([*known, *candidates])
        known_rows, own = rows[: len(known)], rows[len(known) :]
        plane = _principal_plane(own)
        if select.method == "random":
            rng = np.random.default_rng([self._settings.seed, current.number])
            return rng.permutation(len(candidates))[: select.frames].tolist(), plane
        kept = np.arange(len(candidates))
        if current.before is not None:
            uncertainty = _uncertainty(current.before.model_files(), candidates)
            kept = most_uncertain(uncertainty, select.uncertain, select.frames)
        return kept[farthest(own[kept], known_rows, select.frames)].tolist(), plane

    def _write(self, path: Path, frames: Sequence[Frame]) -> None:
        """A file of frames that is whole under its name. What a stop has left of it is written anew."""
        draft = path.with_suffix(".part")
        draft.unlink(missing_ok=True)
        with FrameStore(draft, "a") as store:
            store.set_embedding(self._subject.region.surroundings.settings)
            store.set_provenance({**self._subject.origin, "learn": self._settings.sampling})
            for frame in frames:
                store.append(frame)
        draft.replace(path)

    def _assess(self, current: Round, models: Sequence[Path]) -> None:
        """Test the models on all frames kept for that, and those before them on frames they have led to."""
        rounds = current.and_before()
        members = _load(models)
        labelled = self._labelled([each.test_frames for each in rounds])
        predictions = predict(Committee(members, force_deviation=True), labelled.frames)
        errors, found = summarise(predictions), reliability(predictions, len(members))
        write_delta(current.committee, models, found, self._settings.trust)
        before: ErrorSummary | None = None
        if current.before is not None:
            earlier = Committee(_load(current.before.model_files()))
            before = assess(earlier, self._labelled([current.test_frames]).frames)["low + delta"]
        factor = found.calibration
        spread = factor.energy * found.energy_spread
        self._clock.tick()
        write_json(
            current.result,
            RoundResult(
                number=current.number,
                seconds=self._clock.seconds,
                frames=len(self._labelled([each.frames for each in rounds])),
                test_frames=len(labelled),
                low=errors["low"],
                corrected=errors["low + delta"],
                before=before,
                calibration=(factor.energy, factor.force),
                inside=found.inside(),
                energy_errors=(found.energy_errors * HARTREE_IN_KCAL_PER_MOL).tolist(),
                energy_spread=(spread * HARTREE_IN_KCAL_PER_MOL).tolist(),
                judgement=found.judgement,
            ),
        )

    def _labelled(self, paths: Sequence[Path]) -> LabelledSet:
        """The frames that have both labels."""
        return read_labelled(paths, reference=self._subject.reference, low=self._subject.low)


def write_delta(path: Path, models: Sequence[Path], reliability: Reliability, trust: float | None) -> None:
    """Write the section delta of a configuration for models beside it.

    Args:
        path: the file.
        models: in the same folder.
        reliability: of them, for offset and calibration.
        trust: error of the low level for a weighted baseline, in hartree, or None.
    """
    factor = reliability.calibration
    content: dict[str, object] = {
        "models": [model.name for model in models],
        "offset": f"{reliability.offset:.6f} hartree",
        "calibration": {
            "energy": round(factor.energy, 4),
            "force": round(factor.force, 4),
            "models": models_digest(models),
        },
    }
    if trust is not None:
        content["baseline_error"] = f"{trust:.6f} hartree"
    with replacing(path) as stream:
        stream.write(yaml.safe_dump(content, sort_keys=False))


def _uncertainty(models: Sequence[Path], frames: Sequence[Frame]) -> FloatArray:
    """(F,) the spread of forces on the QM atoms, as root mean square over them."""
    committee = Committee(_load(models), force_deviation=True)
    spreads = [committee.evaluate(frame.region).properties["delta_force_deviation"][0] for frame in frames]
    return np.asarray(np.sqrt((np.array(spreads) ** 2).mean(axis=1)))


def _load(paths: Sequence[Path]) -> list[Correction]:
    return [load_correction(path) for path in paths]


def _principal_plane(rows: FloatArray) -> list[tuple[float, float]]:
    """Coordinates of rows (F, D) in the plane in which they vary most."""
    centred = rows - rows.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return [(float(row[0]), float(row[-1])) for row in (centred @ axes[:2].T).round(4)]


def _frames(path: Path) -> list[Frame]:
    with FrameStore(path) as store:
        return list(store)
