"""Run i-PI and its clients as processes, notice which of them fails, and stop them without losing a step."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pidelta.errors import RunError, SetupError
from pidelta.ipi import watchdog
from pidelta.ipi.client import ServeSummary
from pidelta.ipi.folder_lock import FolderLock
from pidelta.ipi.forcefields import ForceSocket
from pidelta.ipi.observers import Alarm, merge_alarms, read_status
from pidelta.ipi.simulation import Simulation, step_in_restart
from pidelta.ipi.transports import UNIX_MODES, remove_stale_socket, socket_path
from pidelta.output_files import back_up

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_CLIENT_PATIENCE_SECONDS = 300.0
_IPI_EXIT_SECONDS = 60.0
_CLIENT_EXIT_SECONDS = 3.0
_CLIENTS_GONE_SECONDS = 15.0
_POLL_SECONDS = 0.1


@dataclass
class _Process:
    """A child process with its log."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    def failure(self) -> str | None:
        """Say why it failed, in one line, or None while it runs or if it ended well."""
        code = self.process.poll()
        if not code:
            return None
        if code < 0:
            return f"{self.name} was killed by signal {signal.Signals(-code).name}; see {self.log}"
        return f"{self.name}: {_last_line(self.log) or 'no message'} (exit code {code}, log: {self.log})"


class Supervisor:
    """i-PI and its clients, as a context manager that leaves no process behind.

    The processes get sessions of their own, so that Ctrl-C in a terminal reaches only the supervisor: i-PI
    writes RESTART on the first signal but aborts on a second. A watchdog ends them if the supervisor is
    killed. Logs of an earlier run are kept under other names, as i-PI keeps its outputs.

    Args:
        simulation: what to run.
        client_command: the command of a client; ``--mode``, ``--address`` and so on are appended, and
            ``--terms`` where the ffsocket says what it serves.
        n_clients: clients by the name of an ffsocket, 1 where it is not there.

    Attributes:
        kept: logs of an earlier run, under their new names.
    """

    def __init__(
        self, simulation: Simulation, client_command: Sequence[str], n_clients: Mapping[str, int]
    ) -> None:
        self.kept: list[Path] = []
        self._simulation = simulation
        self._client_command = list(client_command)
        self._n_clients = n_clients
        self._lock: FolderLock | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._ipi: _Process | None = None
        self._clients: list[_Process] = []
        self._final_alarms: dict[str, Alarm] | None = None
        self._clients_gone_since: float | None = None
        self._stop_sent = False
        self._started = 0.0

    def __enter__(self) -> Supervisor:
        """Start i-PI and the clients.

        Raises:
            SetupError: i-PI is not installed, somebody listens at one of its addresses, or another run is
                under way in this folder.
        """
        simulation = self._simulation
        folder, prefix = simulation.path.parent, simulation.sockets_prefix
        self._lock = FolderLock(folder, simulation.path.name)
        try:
            for ffsocket in simulation.forces.sockets:
                _check_free(ffsocket, prefix)
            command = [*_ipi_command(), simulation.path.name]
            self._watchdog = _start_watchdog(self._lock)
            self._started = time.time()
            self._ipi = self._start("i-PI", command, simulation.output_path("i-pi.log"), folder)
            for index, ffsocket in enumerate(self._sockets_of_clients(), start=1):
                command = [*self._client_command, *_client_options(ffsocket, prefix)]
                log = simulation.output_path(f"client-{index}.log")
                command += ["--status", str(_status_path(log).resolve())]
                self._clients.append(self._start(f"client {index}", command, log, Path.cwd()))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop what still runs."""
        self.close()

    @property
    def logs(self) -> list[Path]:
        """The logs of i-PI and of the clients."""
        return [child.log for child in self._children()]

    def is_running(self) -> bool:
        """Tell whether i-PI runs.

        Raises:
            RunError: i-PI or a client failed; the message is the last line of its log.
        """
        ipi = self._running_ipi()
        if ipi.process.poll() is not None:
            if failure := ipi.failure():
                raise RunError(failure)
            return False
        if failure := self._client_failure():
            # A client also fails when i-PI goes down under it; then i-PI is what to report.
            _wait(ipi.process, 1.0)
            raise RunError(ipi.failure() or failure)
        self._check_clients_left()
        return True

    def last_step(self) -> int | None:
        """Return the step i-PI, once it has ended, would continue from; None if this run saved nothing."""
        state = self.saved_state()
        return None if state is None else state[1]

    def saved_state(self) -> tuple[Path, int] | None:
        """Return the newest whole state that this run saved, in RESTART or a checkpoint, and its step."""
        names = tuple(path.name for path in self._simulation.checkpoints)
        files = self._simulation.path.parent.iterdir()
        times = {
            path: path.stat().st_mtime
            for path in files
            if path.is_file() and (path.name == "RESTART" or path.name.startswith(names))
        }
        # A file system may round times down; of files of the same time RESTART is the last one.
        for path in sorted(times, key=lambda path: (times[path], path.name == "RESTART"), reverse=True):
            if times[path] > self._started - 1.0 and (step := step_in_restart(path)) is not None:
                return path, step
        return None

    def finished(self) -> bool:
        """Tell whether i-PI, once it has ended, did all of its steps."""
        step = self.last_step()
        return step is not None and step >= self._simulation.total_steps

    def stop(self) -> None:
        """Ask i-PI to write RESTART and to end, and wait for it.

        What it had computed of the current step is lost; all complete steps are kept.
        """
        ipi = self._running_ipi()
        if ipi.process.poll() is None:
            self._stop_sent = True
            ipi.process.send_signal(signal.SIGINT)
            _wait(ipi.process, _IPI_EXIT_SECONDS)

    def client_summaries(self) -> list[ServeSummary]:
        """Return what the clients that ended well reported in the last line of their logs."""
        summaries = []
        for client in self._clients:
            with contextlib.suppress(ValueError):
                summaries.append(ServeSummary.from_json(_last_line(client.log)))
        return summaries

    def alarms(self) -> dict[str, Alarm]:
        """Return what the clients have seen of the uncertainty of the model, by property."""
        if self._final_alarms is not None:
            return self._final_alarms
        return merge_alarms(read_status(path) for path in self._status_paths())

    def _status_paths(self) -> list[Path]:
        return [_status_path(client.log) for client in self._clients]

    def close(self) -> None:
        """Stop i-PI, then the clients; whoever stopped i-PI before and comes here again is in a hurry."""
        try:
            self._close_gently()
        finally:  # a second Ctrl-C must not leave processes behind
            for child in self._children():
                if child.process.poll() is None:
                    child.process.kill()
                    child.process.wait()
            self._clean_up()

    def _clean_up(self) -> None:
        """Remove what an i-PI that failed leaves behind, and let others run in this folder."""
        if self._ipi is not None:
            for ffsocket in self._simulation.forces.sockets:
                if ffsocket.mode in UNIX_MODES:
                    with contextlib.suppress(SetupError):
                        remove_stale_socket(socket_path(ffsocket.address, self._simulation.sockets_prefix))
        self._final_alarms = self.alarms()
        for path in self._status_paths():
            path.unlink(missing_ok=True)
        if self._watchdog is not None:
            self._tell_watchdog(watchdog.DONE)
            self._watchdog.communicate()
            self._watchdog = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _close_gently(self) -> None:
        if self._ipi is not None and not self._stop_sent:
            self.stop()
        # After EXIT from i-PI clients end by themselves, unless they are in the middle of an evaluation.
        deadline = time.monotonic() + _CLIENT_EXIT_SECONDS
        for child in reversed(self._children()):
            if not _wait(child.process, deadline - time.monotonic()):
                child.process.terminate()
                _wait(child.process, _CLIENT_EXIT_SECONDS)

    def _start(self, name: str, command: Sequence[str], log: Path, folder: Path) -> _Process:
        environment = {**dict.fromkeys(_THREAD_VARIABLES, "1"), "PYTHONUNBUFFERED": "1", **os.environ}
        continued = self._simulation.step > 0
        if not continued and (kept := back_up(log)) is not None:
            self.kept.append(kept)
        with log.open("ab" if continued else "wb") as stream:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._tell_watchdog(str(process.pid))
        return _Process(name, log, process)

    def _tell_watchdog(self, line: str) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with contextlib.suppress(OSError):  # somebody killed it
                self._watchdog.stdin.write(f"{line}\n".encode())
                self._watchdog.stdin.flush()

    def _sockets_of_clients(self) -> list[ForceSocket]:
        """The sockets in turn, each as often as it has clients."""
        sockets = self._simulation.forces.sockets
        return [socket for socket in sockets for _ in range(self._n_clients.get(socket.name, 1))]

    def _children(self) -> list[_Process]:
        return [*([] if self._ipi is None else [self._ipi]), *self._clients]

    def _running_ipi(self) -> _Process:
        if self._ipi is None:
            raise ValueError("the supervisor was not entered")
        return self._ipi

    def _client_failure(self) -> str | None:
        return next((failure for client in self._clients if (failure := client.failure())), None)

    def _check_clients_left(self) -> None:
        """i-PI waits for ever after it has dropped its last client (its ``timeout`` may do that)."""
        if any(client.process.poll() is None for client in self._clients):
            self._clients_gone_since = None
        elif self._clients_gone_since is None:
            self._clients_gone_since = time.monotonic()
        elif time.monotonic() - self._clients_gone_since > _CLIENTS_GONE_SECONDS:
            raise RunError(
                f"i-PI sent all clients away and waits for new ones; see {self._running_ipi().log}"
            )


def _start_watchdog(lock: FolderLock) -> subprocess.Popen[bytes]:
    """The watchdog holds the lock as well: a killed run blocks the folder until its processes have ended."""
    return subprocess.Popen(
        [sys.executable, "-m", watchdog.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(lock.descriptor,),
    )


def _status_path(log: Path) -> Path:
    """Where a client says, while the run goes on, how sure the model is."""
    return log.with_suffix(".status")


def _last_line(path: Path) -> str:
    """Return the last line of a log that is not blank, or nothing."""
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _ipi_command() -> list[str]:
    """Return the command of i-PI: the script beside this Python, or else the one on the PATH."""
    script = Path(sys.executable).with_name("i-pi")
    if script.is_file():
        return [sys.executable, str(script)]
    found = shutil.which("i-pi")
    if found is None:
        raise SetupError(
            f"expected the program i-pi in {script.parent} or on the PATH, found none: pip install ipi"
        )
    return [found]


def _client_options(ffsocket: ForceSocket, sockets_prefix: str) -> list[str]:
    options = ["--mode", ffsocket.mode, "--address", ffsocket.address, "--port", str(ffsocket.port)]
    options += ["--sockets-prefix", sockets_prefix, "--patience", str(_CLIENT_PATIENCE_SECONDS)]
    if ffsocket.terms is not None:
        options += ["--terms", "+".join(sorted(ffsocket.terms))]
    return options


def _check_free(ffsocket: ForceSocket, sockets_prefix: str) -> None:
    """Check that i-PI can listen at its address; a file left by a killed i-PI is removed."""
    if ffsocket.mode in UNIX_MODES:
        remove_stale_socket(socket_path(ffsocket.address, sockets_prefix))
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ffsocket.address, ffsocket.port))
        except OSError as error:
            reason = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
            raise SetupError(
                f"ffsocket {ffsocket.name}: expected an address i-PI can listen at, "
                f"found {ffsocket.address}:{ffsocket.port}: {reason}"
            ) from error


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for the end of a process; False if it still runs after `seconds`."""
    try:
        process.wait(max(seconds, 0.0))
    except subprocess.TimeoutExpired:
        return False
    return True
