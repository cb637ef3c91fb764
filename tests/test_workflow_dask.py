"""Labels on the workers of a dask scheduler: equal to those made here; what is lost or out of reach."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import socket
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pyscf")
pytest.importorskip("distributed")

import distributed

from pidelta import errors
from pidelta.data.frames import Frame, Label
from pidelta.data.store import FrameStore
from pidelta.errors import PideltaError, RunError, SetupError
from pidelta.qm.reference import label_frame
from pidelta.qm.reference_settings import ReferenceSettings
from pidelta.workflow import dask_labelling, labelling
from pidelta.workflow.dask_labelling import dask_labels

QUICK = ReferenceSettings(xc="PBE", basis="STO-3G", grid_level=0)


def frame(step: int) -> Frame:
    """Hydrogen, a little longer with each step, beside a charge."""
    return Frame(
        numbers=np.array([1, 1]),
        positions=np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.4 + 0.01 * step]]),
        site_positions=np.array([[0.0, 0.0, 5.0]]),
        site_charges=np.array([0.4]),
        site_numbers=np.array([1]),
        source=f"step {step}",
    )


@pytest.fixture
def store(tmp_path):
    with FrameStore(tmp_path / "frames.h5", "a") as frames:
        for step in range(5):
            frames.append(frame(step))
        yield frames


@pytest.fixture
def cluster():
    """A scheduler and two workers of one thread each, all in this process."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, silence_logs=logging.ERROR
    ) as started:
        yield started.scheduler_address


@pytest.fixture
def fake(monkeypatch):
    """Labels without a calculation; step 1 has none."""

    def compute(frame: Frame, settings: ReferenceSettings, check: bool) -> Label:
        if frame.multiplicity != 1:
            raise SetupError(f"frame {frame.source}: not closed-shell")
        if frame.source == "step 1":
            raise RunError(f"frame {frame.source}: the SCF did not converge, checked: {check}")
        return Label(settings.method, -1.0, np.zeros((2, 3)), np.zeros((1, 3)), np.zeros(2))

    monkeypatch.setattr(dask_labelling, "checked_label", compute)


def test_labels_of_workers_equal_labels_here(store, cluster):
    outcomes = dask_labels(store, list(range(5)), QUICK, cluster)
    assert labelling.write_labels(store, "reference", QUICK.method, outcomes) == []
    for index in (0, 3):
        expected, found = label_frame(frame(index), QUICK), store.label(index, "reference", QUICK.method)
        assert found.program == expected.program
        assert found.energy == pytest.approx(expected.energy, abs=1e-9)
        np.testing.assert_allclose(found.gradient, expected.gradient, atol=1e-8)
        np.testing.assert_allclose(found.site_gradient, expected.site_gradient, atol=1e-8)


def test_the_command_goes_on_and_keeps_what_failed(store, cluster, fake, tmp_path, run, capsys):
    (tmp_path / "scheduler.json").write_text(json.dumps({"address": cluster}))
    store.release()
    options = ["--xc", "PBE", "--basis", "STO-3G", "--grid-level", "0"]
    command = [
        "label",
        store.path,
        *options,
        "--scheduler",
        tmp_path / "scheduler.json",
        "--check-every",
        "1",
    ]
    assert run(*command, "--limit", "3") == 2
    reason = "frame step 1: the SCF did not converge, checked: True"
    assert f"pidelta: frame 1: {reason}" in capsys.readouterr().err
    assert store.failures("reference", QUICK.method) == {1: reason}
    assert store.unlabelled("reference", QUICK.method) == [3, 4, 1]
    store.release()
    assert run(*command) == 2
    assert "3 of 5 frames to label" in capsys.readouterr().out
    assert store.unlabelled("reference", QUICK.method) == [1]


def test_a_frame_that_cannot_be_labelled_stops_everything(store, cluster, fake):
    store.append(replace(frame(0), multiplicity=3))
    with pytest.raises(SetupError, match="not closed-shell"):
        list(dask_labels(store, [5, 0], QUICK, cluster))


def test_workers_with_other_versions_are_refused(store, cluster, fake, monkeypatch):
    here = dask_labelling._versions()
    monkeypatch.setattr(dask_labelling, "_check_environments", lambda *arguments: None)
    answers = iter([{**here, "pyscf": "1.0"}])  # here; the workers have their own
    monkeypatch.setattr(dask_labelling, "_versions", lambda: next(answers, here))
    with pytest.raises(SetupError, match=rf"expected pyscf 1\.0 as here, found {here['pyscf']}"):
        list(dask_labels(store, [0], QUICK, cluster))


def test_another_version_of_pidelta_is_refused_before_any_work(store, cluster, fake, monkeypatch):
    monkeypatch.setattr(dask_labelling, "_versions", lambda: {"pidelta": "99.0"})
    with pytest.raises(SetupError, match=r"^scheduler inproc.*: expected pidelta 99\.0 as here, found 0"):
        list(dask_labels(store, [0], QUICK, cluster))


def test_workers_of_several_threads_are_refused(store, fake):
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as started,
        pytest.raises(SetupError, match="expected one thread, found 2: start workers by dask worker --nthr"),
    ):
        list(dask_labels(store, [0], QUICK, started.scheduler_address))


def test_labels_wait_for_workers(store, fake, monkeypatch):
    monkeypatch.setattr(dask_labelling, "_PAUSE", 0.1)
    notes = []
    with distributed.LocalCluster(
        n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None
    ) as started:

        def hire(note):
            notes.append(note)
            started.scale(1)

        outcomes = list(dask_labels(store, [0, 2], QUICK, started.scheduler_address, note=hire))
    assert sorted(index for index, _ in outcomes) == [0, 2]
    assert notes == ["note: the scheduler has no workers; labels wait for some"]


def test_frames_of_a_killed_worker_go_to_another(store):
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as started:
        outcomes = dask_labels(store, list(range(5)), QUICK, started.scheduler_address)
        found = [next(outcomes)]
        with distributed.Client(started, set_as_default=False) as client:
            (process,) = client.run(os.getpid).values()
        os.kill(process, signal.SIGKILL)
        found += outcomes
    assert sorted(index for index, _ in found) == list(range(5))
    assert all(isinstance(label, Label) for _, label in found)


def killed(frame):
    return distributed.KilledWorker(f"label {frame}", SimpleNamespace(address="tcp://node7:4000"), 3)


def test_a_frame_that_kills_its_workers_is_reported():
    def result():
        raise killed(0)

    outcome, died = dask_labelling._result(None, "tcp://host:8786", SimpleNamespace(result=result))
    assert str(outcome) == "4 workers died, the last tcp://node7:4000, perhaps for want of memory"
    assert died


def test_workers_that_die_at_frame_after_frame_end_the_labelling(store, cluster, monkeypatch):
    def compute(frame, settings, check):
        raise killed(frame.source)

    monkeypatch.setattr(dask_labelling, "checked_label", compute)
    outcomes = []
    with pytest.raises(RunError, match=r"the workers of inproc.* died at [5-9] frames in a row"):
        outcomes += dask_labels(store, [0, 1, 2, 3, 4] * 2, QUICK, cluster)


def test_a_lost_scheduler_is_one_line(store, fake, caplog, monkeypatch):
    monkeypatch.setattr(dask_labelling, "_PATIENCE", 1.0)  # for which the client looks for it
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as started:
        outcomes = dask_labels(store, list(range(5)), QUICK, started.scheduler_address)
        next(outcomes)
        started.close()
        with pytest.raises(RunError, match=r"^inproc.*: lost the dask scheduler; labels so far are kept$"):
            list(outcomes)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_scheduler_that_is_not_there_is_one_line(store, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_labelling, "_PATIENCE", 0.5)
    wrong, other, text = (tmp_path / name for name in ("wrong.json", "other.json", "text.json"))
    wrong.write_text('{"type": "Worker"}')
    other.write_text("[1]")
    text.write_text("tcp://")
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        for scheduler, expected in (
            (f"tcp://127.0.0.1:{silent.getsockname()[1]}", "cannot reach a dask scheduler there: no answer"),
            (f"127.0.0.1:{deaf.getsockname()[1]}", "cannot reach a dask scheduler there: Timed out"),
            ("http://127.0.0.1:80", "cannot reach a dask scheduler there: unknown address scheme"),
            ("tls://127.0.0.1:80", "cannot reach a dask scheduler there: "),
            ("", "expected the address of a dask scheduler, such as tcp://host:8786, or"),
            (tmp_path / "none.json", "expected the address of a dask scheduler, such as tcp://host:8786, or"),
            *((path, "expected a file that dask scheduler") for path in (wrong, other, text)),
        ):
            with pytest.raises(SetupError) as caught:
                list(dask_labels(store, [0], QUICK, str(scheduler)))
            assert str(caught.value).startswith(f"{scheduler or 'scheduler'}: {expected}")
            assert "\n" not in str(caught.value)


def test_workers_without_pidelta_are_named():
    missing = PackageNotFoundError("pidelta")
    answers = {"tcp://a:1": dask_labelling._versions()["pidelta"], "tcp://b:2": OSError("lost")}

    def client(scheduler, **workers):
        def run_on_scheduler(function, package):
            assert (function.__module__, package) == ("importlib.metadata", "pidelta")
            if scheduler is missing:
                raise missing
            return scheduler

        return SimpleNamespace(run_on_scheduler=run_on_scheduler, run=lambda *_, on_error: workers)

    own = answers["tcp://a:1"]
    dask_labelling._check_environments(client(own, **answers), "tcp://s:1")
    for wrong, where in (
        (client(own, **answers, **{"tcp://c:3": missing}), "worker tcp://c:3"),
        (client(missing), "scheduler tcp://s:1"),
    ):
        with pytest.raises(SetupError, match=f"^{where}: expected pidelta {own} as here, found none$"):
            dask_labelling._check_environments(wrong, "tcp://s:1")


def test_a_worker_without_pidelta_that_has_left_is_one_line():
    missing = ModuleNotFoundError("No module named 'pidelta'")
    own = dask_labelling._versions()["pidelta"]
    client = SimpleNamespace(run_on_scheduler=lambda *_: own, run=lambda *_, on_error: {})
    for error in (missing, RuntimeError("Error during deserialization of the task graph.")):
        error.__cause__ = None if error is missing else missing

        def result(error=error):
            raise error

        with pytest.raises(SetupError) as caught:
            dask_labelling._result(client, "tcp://host:8786", SimpleNamespace(result=result))
        message = "a worker of tcp://host:8786: expected pidelta there, found: No module named 'pidelta'"
        assert str(caught.value) == message


def test_a_missing_package_is_named(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SetupError, match=r"needs the package distributed: pip install 'pidelta\[dask\]'"):
        list(dask_labels(store, [0], QUICK, "tcp://127.0.0.1:8786"))


@pytest.mark.parametrize("options", [("--workers", "2"), ("--low", "pidelta.yaml")])
def test_options_that_exclude_each_other_are_refused(store, options, fail):
    message = fail("label", store.path, "--scheduler", "tcp://127.0.0.1:8786", *options)
    assert message.startswith("pidelta: --scheduler: expected neither --low nor --workers with it")


def test_errors_pass_between_processes():
    """Also those whose arguments are not their message."""
    for error in (
        errors.RunError("text"),
        errors.SettingError("xc", "expected another"),
        errors.MissingExtraError("pyscf", "label", "a DFT label"),
        errors.SCCConvergenceError(1, 2, 0.5, np.array([1]), np.zeros((1, 3))),
    ):
        other = pickle.loads(pickle.dumps(error))
        assert isinstance(other, PideltaError)
        assert (type(other), str(other)) == (type(error), str(error))
        assert vars(other).keys() == vars(error).keys()
