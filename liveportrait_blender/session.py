# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend as the add-on sees it: started or connected to when needed, its jobs, and how all of it is.

    session = Session(settings)           # nothing starts
    record = session.submit(request)      # the backend starts; returns at once
    for deliver in session.take(0.010):   # every so often, on the main thread
        deliver()

Only `call` and `connected` wait for the network. Imports no bpy.
"""

from __future__ import annotations

import collections
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .client import BackendError, Client, Event, Reply
from .job_records import JobRecord, Request
from .names import UserError
from .session_state import SessionState, close_within, connection_state, tls_context
from .supervisor import BackendSettings, Supervisor

ASK_EVERY = 2.0  # seconds between two questions for its status
SILENT_AFTER = 8.0  # seconds without an answer
REMOTE_ATTEMPTS = 8  # connections in a row, about 25 seconds; a local one is the supervisor's to give up
MOST_RECORDS = 100  # of ended jobs that are remembered

Then = Callable[[dict[str, Any] | None, BackendError | None], None]


class Session:
    """One backend, local or remote. All methods may be called from any thread; `take` by one at a time."""

    def __init__(
        self,
        settings: Callable[[], BackendSettings],
        *,
        supervisor: Callable[..., Supervisor] = Supervisor,
        patience: float = SILENT_AFTER,
        on_end: Callable[[JobRecord], None] | None = None,
        wake: Callable[[], None] | None = None,
    ) -> None:
        """settings: asked at every start. patience: seconds without an answer that count as silence.

        on_end: called out of `take` with each job that has ended. wake: called on the main thread, when there
        is something to take from now on.
        """
        self._read_settings, self._make_supervisor, self._patience = settings, supervisor, patience
        self._on_end, self._wake = on_end, wake
        self._lock = threading.RLock()
        self._supervisor: Supervisor | None = None
        self._client: Client | None = None
        self._address: tuple[str, str] | None = None
        self._wanted = self._closed = False
        self._settings = BackendSettings()
        self._failure: SessionState | None = None
        self._state = SessionState()
        self._records: dict[str, JobRecord] = {}
        self._awaited: list[tuple[Reply, Then, float]] = []
        self._outbox: collections.deque[Callable[[], None]] = collections.deque()
        self._asked: Reply | None = None
        self._since = 0.0  # when it was last heard of, or began to be awaited
        self.serial = 0  # grows with every change of a job

    # --- the backend ----------------------------------------------------------------------------------------

    @property
    def state(self) -> SessionState:
        """As of the last `take`, or of what ensure and stop did since."""
        return self._state

    @property
    def jobs(self) -> list[JobRecord]:
        """In the order in which they were submitted."""
        with self._lock:
            return list(self._records.values())

    @property
    def active(self) -> bool:
        """Whether there is anything that `take` has to look after."""
        return self._wanted or bool(self._awaited) or bool(self._outbox)

    @property
    def local(self) -> bool:
        """Whether the backend has seen that it is on this machine."""
        return self._client is not None and self._client.local

    def ensure(self) -> None:
        """Start the backend or connect to it, unless that has been done; returns at once.

        Where the settings have changed and no job runs, the one that they name now is started. Raises
        UserError where they name none.
        """
        with self._lock:
            if self._closed:
                raise UserError("Blender is closing.")
            if self._wake is not None and threading.current_thread() is threading.main_thread():
                self._wake()
            idle = all(record.ended for record in self._records.values())
            if self._wanted and self._failure is None and not idle:
                return
            settings = self._read_settings()
            if self._wanted and self._failure is None and settings == self._settings:
                return
            self._let_go(0.0)
            self._wanted, self._failure, self._settings = False, None, settings
            if settings.why_not or (settings.local is None and not settings.remote_url):
                sentence = settings.why_not or "There is no backend."
                hint = "" if settings.why_not else "Set one up in the add-on's preferences."
                self._state = SessionState("stopped", sentence, hint, fix=settings.fix)
                raise UserError(sentence, hint, settings.fix)
            if settings.remote_url:
                context = tls_context(settings.remote_url, settings.remote_certificate)
                self._connect(settings.remote_url, settings.remote_token, context, REMOTE_ATTEMPTS)
            elif settings.local is not None:
                self._supervisor = self._make_supervisor(settings.local)
                self._supervisor.start()
            self._wanted, self._since = True, time.monotonic()
            self._judge()

    def stop(self, timeout: float = 3.0) -> None:
        """End the backend, or the connection, within about so long; jobs end as cancelled."""
        with self._lock:
            self._wanted, self._failure = False, None
            for record in self._records.values():
                if not record.ended:
                    self._end(record, "cancelled", None)
            self._let_go(timeout)
            self._judge()

    def restart(self) -> None:
        """Start anew, which also ends a backend that hangs; jobs go on where they were. Raises UserError."""
        with self._lock:
            self._since, self._asked = time.monotonic(), None
            supervisor = self._supervisor
            if supervisor is None or self._failure is not None:
                self._let_go(0.0)
                self._wanted = False
                for record in self._records.values():
                    if not record.ended:
                        record.job, record.state = None, "waiting"
                self.ensure()
            else:
                supervisor.restart()

    def close(self, timeout: float = 2.0) -> None:
        """End everything, for good, within about so long."""
        self._closed = True
        self.stop(timeout)

    # --- asking ---------------------------------------------------------------------------------------------

    def submit(self, request: Request) -> JobRecord:
        """Put a job in the queue; the backend starts if need be. Returns at once. Raises UserError."""
        with self._lock:
            self.ensure()
            record = JobRecord.of(request)
            ended = [key for key, old in self._records.items() if old.ended]
            for key in ended[: max(len(ended) - MOST_RECORDS, 0)]:
                del self._records[key]
            return self._enqueue(record)

    def resume(self, key: str) -> JobRecord:
        """Do a failed or cancelled job again; what is whole comes at once. Raises UserError."""
        with self._lock:
            record = self._records.get(key)
            if record is None or not record.ended or record.state == "done":
                raise UserError("There is nothing to go on with.")
            self.ensure()
            del self._records[key]  # it goes to the end of the list
            fresh = JobRecord(record.request, key, record.label, record.folder, record.landing)
            return self._enqueue(fresh)

    def record(self, key: str) -> JobRecord | None:
        """A job by its key."""
        return self._records.get(key)

    def cancel(self, key: str) -> None:
        """Ask for a job's end; what is finished stays."""
        with self._lock:
            record = self._records.get(key)
            if record is None or record.ended:
                return
            if record.job is not None and self._client is not None:
                self._client.cancel(record.job)
            if record.job is None or not self._connected or self._state.kind == "silent":
                self._end(record, "cancelled", None)  # nobody would tell

    def remove(self, key: str) -> None:
        """Forget a job; its files stay. One that runs is cancelled."""
        self.cancel(key)
        with self._lock:
            if self._records.pop(key, None) is not None:
                self.serial += 1

    def detach(self) -> None:
        """The file that the jobs belong to is closed: they end, and land nowhere. Finished frames stay.

        A download of models belongs to no file and goes on.
        """
        for record in self.jobs:
            record.landing = None
            if record.method != "models.download":
                self.cancel(record.key)

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, timeout: float = 30.0
    ) -> dict[str, Any]:
        """Ask and wait for the answer. Paths in `params` become inputs. Raises UserError, BackendError."""
        return self.connected(timeout).call(method, params, timeout)

    def connected(self, timeout: float = 60.0) -> Client:
        """The client, once it has a connection; waits for it. Raises UserError, BackendError."""
        self.ensure()
        end = time.monotonic() + timeout
        while True:
            self._look()
            client, state = self._client, self._state
            if client is not None and client.error is None and client.connected:
                return client
            if state.kind in ("failed", "stopped"):
                raise UserError(state.sentence, state.hint, state.fix)
            if time.monotonic() > end:
                raise BackendError("timeout", "The backend has not answered in time.", "Try again.")
            time.sleep(0.01)

    def later(
        self, method: str, params: Mapping[str, Any] | None, then: Then, timeout: float = 60.0
    ) -> Reply:
        """Ask; `then(result, error)`, of which one is None, comes out of `take`. Returns at once.

        Paths in `params` become inputs (uploads, where the backend is elsewhere). Without a connection the
        error is "lost".
        """
        with self._lock:
            client = self._client
            if client is None or not self._connected:
                reply = Reply()
                reply.settle(None, BackendError("lost", "There is no connection to the backend."))
            else:
                reply = client.request(method, params)
            self._awaited.append((reply, then, time.monotonic() + timeout))
        return reply

    # --- what comes -----------------------------------------------------------------------------------------

    def take(self, seconds: float = 0.010) -> Iterator[Callable[[], None]]:
        """Note for about so long what has happened, and yield what is to be called because of it."""
        end = time.monotonic() + seconds
        self._look()
        with self._lock:
            if self._client is not None:
                for event in self._client.drain(seconds / 2):
                    self._note(event)
            self._judge()
            now = time.monotonic()
            come = [each for each in self._awaited if each[0].done() or now > each[2]]
            self._awaited = [each for each in self._awaited if each not in come]
            for reply, then, _ in come:
                self._outbox.append(functools.partial(_deliver, reply, then))
        while self._outbox:
            yield self._outbox.popleft()
            if time.monotonic() > end:
                return

    def _note(self, event: Event) -> None:
        if event.kind == "connected":
            self._asked, self._since = None, time.monotonic()
            self._start_waiting()
        elif event.kind == "disconnected":
            self._asked, self._since = None, time.monotonic()
        if event.job is None:
            return
        record = next((each for each in self._records.values() if each.job is event.job), None)
        if record is None or record.ended:
            return
        record.take(event)
        self.serial += 1
        if record.ended:
            self._tell_end(record)

    # --- inside ---------------------------------------------------------------------------------------------

    @property
    def _connected(self) -> bool:
        return self._client is not None and self._client.connected

    def _enqueue(self, record: JobRecord) -> JobRecord:
        self._records[record.key] = record
        self.serial += 1
        self._start_waiting()
        return record

    def _start_waiting(self) -> None:
        if self._client is None or not self._connected:
            return
        for record in self._records.values():
            if record.state == "waiting":
                params = dict(record.request.params())
                record.job = self._client.start_job(record.method, record.folder, **params)
                record.state = "preparing"

    def _end(self, record: JobRecord, state: str, error: BackendError | None) -> None:
        record.end(state, error)
        self.serial += 1
        self._tell_end(record)

    def _tell_end(self, record: JobRecord) -> None:
        if self._on_end is not None:
            self._outbox.append(functools.partial(self._on_end, record))

    def _connect(self, url: str, token: str, context: Any, attempts: int | None) -> None:
        self._address = url, token
        # Only what this add-on has started may learn what a file of this machine holds.
        self._client = Client(url, token, context=context, attempts=attempts, local=attempts is None)
        self._client.start()

    def _let_go(self, timeout: float) -> None:
        """Close the connection and end the backend, waiting no longer than so."""
        client, supervisor = self._client, self._supervisor
        self._client = self._supervisor = self._asked = self._address = None
        close_within(timeout, client, supervisor)

    def _look(self) -> None:
        """Look after the backend: cheap, and never waits."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if not self._wanted or self._failure is not None:
                return
            if self._supervisor is not None:
                self._follow(self._supervisor)
            client = self._client
            if client is not None and client.error is not None and self._failure is None:
                self._fail(client.error.message, client.error.hint)
            elif client is not None and self._connected:
                self._ask(client)
            self._judge()
        finally:
            self._lock.release()

    def _follow(self, supervisor: Supervisor) -> None:
        told, address = supervisor.watch(), supervisor.address
        if told.kind == "stopped" and all(record.ended for record in self._records.values()):
            self._wanted = False
            self._let_go(0.0)
        elif told.kind in ("failed", "stopped"):
            self._fail(told.sentence, told.hint, told.fix)
        elif address is not None and self._client is None:
            self._since = time.monotonic()
            self._connect(*address, None, None)
        elif address is not None and self._client is not None and address != self._address:
            self._address, self._since = address, time.monotonic()
            self._client.move(*address)

    def _ask(self, client: Client) -> None:
        """Ask for its status, so that silence is noticed."""
        now = time.monotonic()
        if self._asked is not None and self._asked.done():
            self._asked, self._since = None, now
        elif self._asked is None and now - self._since >= ASK_EVERY:
            self._asked, self._since = client.request("status"), now

    def _fail(self, sentence: str, hint: str, fix: str = "") -> None:
        log = None if self._supervisor is None else self._supervisor.state.log
        self._failure = SessionState("failed", sentence, hint, log, fix)
        if self._client is not None:
            for event in self._client.drain(0.05):  # what came before that
                self._note(event)
        for record in self._records.values():
            if not record.ended:
                self._end(record, "failed", BackendError("lost", sentence, hint))
        self._let_go(0.0)

    def _judge(self) -> None:
        if self._failure is not None:
            self._state = self._failure
            return
        if not self._wanted:
            if self._state.kind != "stopped":
                self._state = SessionState()
            return
        quiet = time.monotonic() - self._since
        silent = quiet > self._patience and (self._asked is not None or not self._connected)
        busy = sum(not record.ended for record in self._records.values())
        self._state = connection_state(self._supervisor, self._client, self._connected, silent, busy)


def _deliver(reply: Reply, then: Then) -> None:
    try:
        result = reply.result(0.0)
    except BackendError as error:
        then(None, error)
    else:
        then(result, None)
