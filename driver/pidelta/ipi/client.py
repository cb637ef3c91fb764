"""The socket client: evaluate what i-PI asks for until it ends the conversation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from pidelta.errors import GeometryError, SetupError, TransportError
from pidelta.ipi.observers import Alarm, Observer
from pidelta.ipi.protocol import (
    Connection,
    Event,
    Exit,
    GetForce,
    Init,
    PosData,
    SharedPosData,
    Status,
    encode_forces,
    encode_shared,
)
from pidelta.ipi.served import Served, served_in_parameters
from pidelta.ipi.shared_memory import SharedArrays
from pidelta.ipi.transports import Transport
from pidelta.state import Evaluation, Evaluator, FloatArray, json_values

TermsHook = Callable[[Served], Evaluator]


@dataclass
class ServeSummary:
    """What a client did.

    Attributes:
        requests: force requests answered.
        structures: structures evaluated; i-PI pads batches by repeating the last structure, and repeats are
            not evaluated again.
        seconds_evaluating, seconds_waiting: wall time spent in the evaluator, and talking to i-PI or waiting
            for it.
        timings: seconds by part, summed over what the evaluator reports.
        alarms: what a monitor of the uncertainty saw, by property.
        end: how the conversation ended: ``exit`` (i-PI said so) or ``closed`` (the connection was closed).
    """

    requests: int = 0
    structures: int = 0
    seconds_evaluating: float = 0.0
    seconds_waiting: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)
    alarms: dict[str, Alarm] = field(default_factory=dict)
    end: str = "closed"

    def to_json(self) -> str:
        """Return the attributes as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ServeSummary:
        """Read what `to_json` wrote.

        Raises:
            ValueError: `text` is something else.
        """
        try:
            content = json.loads(text)
            alarms = {name: Alarm(**values) for name, values in content.pop("alarms").items()}
            return cls(**content, alarms=alarms)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"expected the summary of a client, found {text!r}") from error


def serve(
    evaluator: Evaluator,
    transport: Transport,
    observers: Sequence[Observer] = (),
    *,
    on_terms: TermsHook | None = None,
) -> ServeSummary:
    """Answer i-PI until it says EXIT or closes the connection between two messages.

    Args:
        evaluator: evaluates the structures.
        transport: the connection to i-PI; left open.
        observers: see each request and its evaluation; what they raise ends the conversation.
        on_terms: called once i-PI has sent INIT, with what the ``<parameters>`` of the forcefield ask for,
            if anything; returns the evaluator of that, for as many atoms.

    Raises:
        SetupError: the ``<parameters>`` hold something else, or ask for terms and there is no `on_terms`.
        ProtocolError: i-PI sent another number of atoms, or something the protocol does not allow.
        TransportError: the connection broke in the middle of a message or of an evaluation.
        GeometryError: the energy or a force is not finite.
    """
    return _Server(evaluator, transport, observers, on_terms).run()


@dataclass(frozen=True, eq=False)
class Answer:
    """What i-PI wants to know of B structures, in atomic units.

    Attributes:
        energies: (B,).
        gradient: (B, N, 3) dE/dR.
        virials: (B, 3, 3) -dE/d(strain).
        extras: B texts in JSON.
    """

    energies: FloatArray
    gradient: FloatArray
    virials: FloatArray
    extras: list[bytes]


class ObservedEvaluator:
    """An evaluator and those who watch it.

    Attributes:
        evaluator: evaluates the structures.
        summary: what it did so far.

    Args:
        evaluator: see above.
        observers: see each request and its evaluation; what they raise leaves `answer`.
    """

    def __init__(self, evaluator: Evaluator, observers: Sequence[Observer] = ()) -> None:
        self.evaluator = evaluator
        self.summary = ServeSummary()
        self._observers = observers

    def answer(self, positions: FloatArray, cells: FloatArray) -> Answer:
        """Evaluate B structures: positions (B, N, 3), cells (B, 3, 3) with vectors as rows, in bohr.

        Raises:
            GeometryError: an energy or a force is not finite.
        """
        batch, distinct = len(positions), _count_without_padding(positions, cells)
        positions, cells = positions[:distinct], cells[:distinct]
        for observer in self._observers:
            observer.before(positions, cells)
        started = time.perf_counter()
        evaluation = self.evaluator.evaluate(positions, cells)
        summary = self.summary
        summary.seconds_evaluating += time.perf_counter() - started
        summary.structures += distinct
        for part, seconds in evaluation.timings.items():
            summary.timings[part] = summary.timings.get(part, 0.0) + seconds
        energy, gradient = evaluation.energy, evaluation.gradient
        _check_finite(energy, gradient)
        for observer in self._observers:
            observer.after(positions, cells, evaluation)
        extras = [encode_extras(evaluation, index) for index in range(distinct)]
        return Answer(
            energies=_repeat_last(energy, batch),
            gradient=_repeat_last(gradient, batch),
            virials=_repeat_last(evaluation.virial, batch),
            extras=extras + extras[-1:] * (batch - distinct),
        )


class _Server:
    """One conversation: the protocol, the evaluator and what was found for the last POSDATA.

    A structure is evaluated once i-PI asks for its state or forces, so that nothing waits to be read
    meanwhile: i-PI bears the end of a client that has read everything, but not the reset of the connection
    that comes from one that has not.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        transport: Transport,
        observers: Sequence[Observer],
        on_terms: TermsHook | None,
    ) -> None:
        self._evaluator = ObservedEvaluator(evaluator, observers)
        self._transport = transport
        self._on_terms = on_terms
        self._connection = Connection(len(evaluator.numbers), shared_memory=transport.shared_memory)
        self._shared: SharedArrays | None = None
        self._structures: tuple[FloatArray, FloatArray] | None = None
        self._reply: bytes | bytearray = b""
        self._summary = self._evaluator.summary

    def run(self) -> ServeSummary:
        started = time.perf_counter()
        try:
            while not self._connection.closed:
                if (event := self._next_event()) is not None:
                    self._handle(event)
        finally:
            if self._shared is not None:
                self._shared.close()
        summary = self._summary
        summary.seconds_waiting = time.perf_counter() - started - summary.seconds_evaluating
        return summary

    def _next_event(self) -> Event | None:
        """Take some bytes; return the event that they complete."""
        if count := self._transport.receive_into(self._connection.wanted()):
            return self._connection.received(count)
        self._connection.receive_end()
        return None

    def _handle(self, event: Event) -> None:
        if isinstance(event, Status):
            self._evaluate()
            self._send(event.reply)
        elif isinstance(event, Init):
            self._choose_terms(event)
        elif isinstance(event, PosData):
            self._structures = event.positions, event.cells
        elif isinstance(event, SharedPosData):
            self._structures = self._attached(event).structures()
        elif isinstance(event, GetForce):
            self._evaluate()
            self._send(self._reply)
            self._summary.requests += 1
        elif isinstance(event, Exit):
            self._summary.end = "exit"

    def _choose_terms(self, init: Init) -> None:
        """Serve what i-PI asks for by the ``<parameters>`` of the forcefield."""
        try:
            served = served_in_parameters(init.parameters)
        except ValueError as error:
            raise SetupError(f"forcefield of the i-PI input: {error}") from None
        if self._on_terms is not None:
            self._evaluator.evaluator = self._on_terms(served)
        elif served != Served():
            raise SetupError(
                f"forcefield of the i-PI input: expected no <parameters>, found {init.parameters.strip()!r}"
            )

    def _attached(self, data: SharedPosData) -> SharedArrays:
        if self._shared is None:
            n_atoms = len(self._evaluator.evaluator.numbers)
            self._shared = SharedArrays(data.segments, self._connection.batch_size, n_atoms)
        return self._shared

    def _evaluate(self) -> None:
        """Evaluate the structures of the last POSDATA, if that has not been done."""
        if self._structures is None:
            return
        answer = self._evaluator.answer(*self._structures)
        self._structures = None
        if self._shared is not None:
            self._shared.write(answer.energies, answer.gradient, answer.virials)
            self._reply = encode_shared(answer.extras)
        else:
            self._reply = encode_forces(answer.energies, answer.gradient, answer.virials, answer.extras)

    def _send(self, data: bytes | bytearray) -> None:
        """Send; a connection closed after EXIT while forces were evaluated is a clean end."""
        try:
            self._transport.send(data)
        except TransportError:
            if not self._exit_is_waiting():
                raise
            self._summary.end = "exit"

    def _exit_is_waiting(self) -> bool:
        connection = self._connection
        while not connection.closed and (count := self._transport.receive_into(connection.wanted())):
            connection.received(count)
        return connection.closed


def encode_extras(evaluation: Evaluation, index: int) -> bytes:
    """Return structure `index` of `evaluation` as the JSON that i-PI calls extras, in atomic units.

    The keys are ``terms`` (energy by term), ``dipole``, ``charges`` and ``embedding`` (``electrostatic`` or
    ``mechanical``) where there are any, and the properties of the evaluation under their own names.
    """
    extras: dict[str, object] = {
        "terms": {name: float(term.energy[index]) for name, term in evaluation.terms.items()}
    }
    if evaluation.dipole is not None:
        extras["dipole"] = evaluation.dipole[index].tolist()
    if evaluation.charges is not None:
        extras["charges"] = evaluation.charges[index].tolist()
    if evaluation.embedding is not None:
        extras["embedding"] = evaluation.embedding
    extras.update({name: json_values(values[index]) for name, values in evaluation.properties.items()})
    return json.dumps(extras).encode()


def _count_without_padding(positions: FloatArray, cells: FloatArray) -> int:
    """Count the structures without the repeats of the last one at the end of the batch.

    Not all repeats are padding: the beads of a ring polymer may start from the same positions.
    """
    count = len(positions)
    while (
        count > 1
        and np.array_equal(positions[count - 2], positions[count - 1])
        and np.array_equal(cells[count - 2], cells[count - 1])
    ):
        count -= 1
    return count


def _repeat_last(values: FloatArray, batch: int) -> FloatArray:
    missing = batch - len(values)
    return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)]) if missing else values


def _check_finite(energy: FloatArray, gradient: FloatArray) -> None:
    """i-PI would go on with NaN until everything is NaN."""
    # the quickest of ways to see that all are numbers; squares of large ones may overflow
    if np.isfinite(np.vdot(energy, energy) + np.vdot(gradient, gradient)):
        return
    if not np.isfinite(energy).all():
        index = int(np.argmax(~np.isfinite(energy)))
        raise GeometryError(
            f"structure {index} of the request: the energy is {energy[index]}, expected a number"
        )
    if not np.isfinite(gradient).all():
        structure, atom, _ = np.argwhere(~np.isfinite(gradient))[0]
        raise GeometryError(
            f"structure {structure} of the request: the gradient of atom {atom} is "
            f"{gradient[structure, atom]}, expected numbers"
        )
