"""Run i-PI and its clients as processes, start again what dies, and stop them without losing a step."""

from __future__ import annotations

import contextlib
import errno
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pidelta.errors import RunError, SetupError
from pidelta.ipi import watchdog
from pidelta.ipi.child import Child
from pidelta.ipi.client import ServeSummary
from pidelta.ipi.client_status import STATUS_VARIABLE, direct_status_path, read_status
from pidelta.ipi.folder_lock import FolderLock
from pidelta.ipi.forces import ForceSocket
from pidelta.ipi.interrupts import interrupts_wait
from pidelta.ipi.ipi_log import LastWords, last_words, lost_forcefield
from pidelta.ipi.observers import Alarm, merge_alarms
from pidelta.ipi.saved_states import SavedState, newest_state
from pidelta.ipi.simulation import Simulation, read_simulation
from pidelta.ipi.transports import ANY_ADDRESS, UNIX_MODES, remove_stale_socket, socket_path
from pidelta.output_files import back_up

_CLIENT_PATIENCE_SECONDS = 300.0
_IPI_EXIT_SECONDS = 60.0
_CLIENT_EXIT_SECONDS = 3.0
_CLIENT_GONE_SECONDS = 15.0
_ERROR_OF_THE_USER = 2
"""Exit code of a client that has found something wrong, which another would find as well."""
_FRUITLESS_LIVES = 2
"""So many clients in one place may die before they have answered anything."""


@dataclass
class _Client:
    """A client, and what is needed to start another in its place.

    Attributes:
        child: the process.
        command: what it was started by.
        fruitless: how many before it, in a row, have died in this place without an answer.
        ended: when it was first seen to have ended, by the monotonic clock.
    """

    child: Child
    command: Sequence[str]
    fruitless: int = 0
    ended: float | None = None

    @property
    def status_path(self) -> Path:
        """Where it says, while the run goes on, what it has done and how sure the model is."""
        return _status_path(self.child.log)


class Supervisor:
    """i-PI and its clients, as a context manager that leaves no process behind.

    The processes get sessions of their own, so that Ctrl-C in a terminal reaches only the supervisor: i-PI
    writes RESTART on the first signal but aborts on a second. A watchdog ends them if the supervisor is
    killed. Logs of an earlier run are kept under other names, as i-PI keeps its outputs.

    i-PI gives the structures of a client that has died to others. The supervisor starts one in its place, as
    often as it is allowed to, but not where the next would die as well: after an error of the set-up, or of a
    geometry, and where two in a row have died without an answer. Where i-PI does not bear the end of a
    client, it starts again, too, with all of them, from its last step.

    Args:
        simulation: what to run.
        client_command: the command of a client; ``--mode``, ``--address`` and so on are appended, and
            ``--terms`` where the ffsocket says what it serves.
        n_clients: clients by the name of an ffsocket, 1 where it is not there.
        restarts: how often, in all, a client or all may be started again.
        variables: of the environment of i-PI and the clients, besides ours.

    Attributes:
        kept: logs of an earlier run, under their new names.
        restarted: why clients or all were started again, a line each.
    """

    def __init__(
        self,
        simulation: Simulation,
        client_command: Sequence[str],
        n_clients: Mapping[str, int],
        *,
        restarts: int = 0,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.kept: list[Path] = []
        self.restarted: list[str] = []
        self._simulation = simulation
        self._client_command = list(client_command)
        self._n_clients = n_clients
        self._restarts = restarts
        self._variables = {STATUS_VARIABLE: str(self._status_of_ipi()), **variables}
        self._lock: FolderLock | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._ipi: Child | None = None
        self._clients: list[_Client] = []
        self._past_alarms: list[Mapping[str, Alarm]] = []
        self._stop_sent = False
        self._started = 0.0

    def __enter__(self) -> Supervisor:
        """Start i-PI and the clients.

        Raises:
            SetupError: i-PI is not installed, somebody listens at one of its addresses, or another run is
                under way in this folder.
        """
        simulation = self._simulation
        try:
            self._lock = FolderLock(simulation.path.parent, simulation.path.name)
            self._started = time.time()
            self._start_all()
        except BaseException:
            self.close()
            raise
        return self

    @interrupts_wait()
    def _start_all(self) -> None:
        simulation = self._simulation
        folder, prefix = simulation.path.parent, simulation.sockets_prefix
        for ffsocket in simulation.forces.sockets:
            _check_free(ffsocket, prefix)
        command = [*_ipi_command(), simulation.path.name]
        if self._watchdog is None and self._lock is not None:
            self._watchdog = _start_watchdog(self._lock)
        self._ipi = self._start("i-PI", command, simulation.output_path("i-pi.log"), folder)
        for index, ffsocket in enumerate(self._sockets_of_clients(), start=1):
            command = [*self._client_command, *_client_options(ffsocket, prefix)]
            log = simulation.output_path(f"client-{index}.log")
            command += ["--status", str(_status_path(log).resolve())]
            self._clients.append(_Client(self._start(f"client {index}", command, log, Path.cwd()), command))

    def __exit__(self, *exception: object) -> None:
        """Stop what still runs."""
        self.close()

    @property
    def logs(self) -> list[Path]:
        """The logs of i-PI and of the clients."""
        return [child.log for child in self._children()]

    def is_running(self) -> bool:
        """Tell whether i-PI runs, after starting again what has died.

        Raises:
            RunError: i-PI or a client failed; the message is the last line of its log.
        """
        ipi = self._running_ipi()
        if ipi.is_running():
            self._look_after_clients(ipi)
        if self._running_ipi().is_running():
            return True
        if failure := ipi.failure():
            raise RunError(failure)
        if (words := self.last_words()).is_problem:
            raise RunError(f"i-PI: {words.message} (log: {ipi.log})")
        return False

    def _look_after_clients(self, ipi: Child) -> None:
        """Start again each client that has ended, or i-PI and all where it cannot bear that one has.

        Raises:
            RunError: they are not to be started again.
        """
        for client in self._clients:
            reason = None if client.child.is_running() else client.child.failure() or self._sent_away(client)
            # A client also fails when i-PI goes down under it; then i-PI is what to report.
            if reason is None or ipi.wait(1.0):
                continue
            if lost_forcefield(ipi.end_of_log()):
                break
            self._replace(client, reason)
        if lost := lost_forcefield(ipi.end_of_log()):
            self._restart_all(f"i-PI lost a client ({lost}; log: {ipi.log})")

    def _replace(self, client: _Client, reason: str) -> None:
        """Start another client in place of one that has ended.

        Raises:
            RunError: it is not to be started again.
        """
        status = read_status(client.status_path)
        fruitless = 0 if status.structures else client.fruitless + 1
        if client.child.process.returncode == _ERROR_OF_THE_USER:
            raise RunError(reason)
        if fruitless >= _FRUITLESS_LIVES and self._restarts:
            raise RunError(f"{reason}; so did the one before it, and neither had answered anything")
        self._count_restart(reason)
        self._past_alarms.append(status.alarms)
        client.status_path.unlink(missing_ok=True)
        self._tell_watchdog(f"{watchdog.GONE} {client.child.process.pid}")
        child = client.child
        with interrupts_wait():
            client.child = self._start(child.name, client.command, child.log, Path.cwd(), append=True)
        client.fruitless, client.ended = fruitless, None

    def _restart_all(self, reason: str) -> None:
        """Start i-PI and all clients again, from the last step.

        Raises:
            RunError: no step was saved, or they are not to be started again.
        """
        self._close_gently()
        state = self.saved_state()
        if state is None or state.step <= self._simulation.step:
            raise RunError(reason)
        self._count_restart(reason)
        self._past_alarms = [self.alarms()]
        for child in self._children():
            child.kill()
            self._tell_watchdog(f"{watchdog.GONE} {child.process.pid}")
        for path in self._status_paths():
            path.unlink(missing_ok=True)
        self._clients, self._stop_sent = [], False
        self._simulation = read_simulation(state.path)
        self._start_all()

    def _count_restart(self, reason: str) -> None:
        if len(self.restarted) >= self._restarts:
            times = "once" if self._restarts == 1 else f"{self._restarts} times"
            before = f"; clients were started again {times} before" if self._restarts else ""
            raise RunError(f"{reason}{before}")
        self.restarted.append(reason)

    def _sent_away(self, client: _Client) -> str | None:
        """Say that i-PI, or its ``timeout``, has sent a client away; None where i-PI may be about to end."""
        now = time.monotonic()
        client.ended = now if client.ended is None else client.ended
        if now - client.ended < _CLIENT_GONE_SECONDS:
            return None
        return f"i-PI sent {client.child.name} away and goes on; see {self._running_ipi().log}"

    def last_step(self) -> int | None:
        """Return the step i-PI, once it has ended, would continue from; None if this run saved nothing."""
        state = self.saved_state()
        return None if state is None else state.step

    def saved_state(self) -> SavedState | None:
        """Return the newest whole state that this run saved, in RESTART or a checkpoint."""
        return newest_state(self._simulation, self._started)

    def finished(self) -> bool:
        """Tell whether i-PI, once it has ended, did all of its steps, or all that there was to do."""
        step = self.last_step()
        all_steps = step is not None and step >= self._simulation.total_steps
        return all_steps or (self._simulation.may_end_early and self.last_words().is_early)

    def last_words(self) -> LastWords:
        """Return how i-PI says it has ended."""
        ipi = self._running_ipi()
        return LastWords() if ipi.is_running() else last_words(ipi.end_of_log())

    def stop(self) -> None:
        """Ask i-PI to write RESTART and to end, and wait for it.

        What it had computed of the current step is lost; all complete steps are kept.
        """
        ipi = self._running_ipi()
        if ipi.is_running():
            self._stop_sent = True
            ipi.process.send_signal(signal.SIGINT)
            ipi.wait(_IPI_EXIT_SECONDS)

    def client_summaries(self) -> list[ServeSummary]:
        """Return what the clients that ended well reported in the last line of their logs.

        Nobody knows what those did that had to be started again: then there are no summaries.
        """
        summaries: list[ServeSummary] = []
        for client in self._clients if not self.restarted else ():
            with contextlib.suppress(ValueError):
                summaries.append(ServeSummary.from_json(client.child.last_line()))
        return summaries

    def alarms(self) -> dict[str, Alarm]:
        """Return what the clients have seen of the uncertainty of the model, by property."""
        return merge_alarms(
            [*self._past_alarms, *(read_status(path).alarms for path in self._status_paths())]
        )

    def _status_of_ipi(self) -> Path:
        return _status_path(self._simulation.output_path("i-pi.log")).resolve()

    def _status_paths(self) -> list[Path]:
        """Of the forcefields in the process of i-PI, and of the clients."""
        directs = range(len(self._simulation.forces.directs))
        of_ipi = [direct_status_path(self._status_of_ipi(), number) for number in directs]
        return [*of_ipi, *(client.status_path for client in self._clients)]

    def close(self) -> None:
        """Stop i-PI, then the clients; whoever stopped i-PI before and comes here again is in a hurry."""
        try:
            self._close_gently()
        finally:  # a second Ctrl-C must not leave processes behind
            for child in self._children():
                child.kill()
            self._clean_up()

    def _clean_up(self) -> None:
        """Remove what an i-PI that failed leaves behind, and let others run in this folder."""
        if self._ipi is not None:
            for ffsocket in self._simulation.forces.sockets:
                if ffsocket.mode in UNIX_MODES:
                    with contextlib.suppress(SetupError):
                        remove_stale_socket(socket_path(ffsocket.address, self._simulation.sockets_prefix))
        self._past_alarms = [self.alarms()]
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
            if not child.wait(deadline - time.monotonic()):
                child.process.terminate()
                child.wait(_CLIENT_EXIT_SECONDS)

    def _start(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        folder: Path,
        *,
        append: bool = False,
    ) -> Child:
        append = append or self._simulation.step > 0
        if not append and (kept := back_up(log)) is not None:
            self.kept.append(kept)
        child = Child.start(name, command, log, folder, append=append, variables=self._variables)
        self._tell_watchdog(str(child.process.pid))
        return child

    def _tell_watchdog(self, line: str) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with contextlib.suppress(OSError):  # somebody killed it
                self._watchdog.stdin.write(f"{line}\n".encode())
                self._watchdog.stdin.flush()

    def _sockets_of_clients(self) -> list[ForceSocket]:
        """The sockets in turn, each as often as it has clients."""
        sockets = self._simulation.forces.sockets
        return [socket for socket in sockets for _ in range(self._n_clients.get(socket.name, 1))]

    def _children(self) -> list[Child]:
        return [*([] if self._ipi is None else [self._ipi]), *(client.child for client in self._clients)]

    def _running_ipi(self) -> Child:
        if self._ipi is None:
            raise ValueError("the supervisor was not entered")
        return self._ipi


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
    address = "localhost" if ffsocket.address == ANY_ADDRESS else ffsocket.address
    options = ["--mode", ffsocket.mode, "--address", address, "--port", str(ffsocket.port)]
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
