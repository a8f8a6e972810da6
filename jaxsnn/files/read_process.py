"""A separate process that reads files of unknown origin: it has limits of time, processor and
memory, and returns plain bytes.

A fork costs a few milliseconds and imports nothing again. The child uses only the file, the pipe and
the decoded data, and exits with `os._exit`, so it does not depend on the threads of the parent, which
do not exist in the child.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter, BytesIO
from types import FrameType
from typing import Any, NoReturn

from jaxsnn import errors
from jaxsnn.errors import FileError, JaxsnnError
from jaxsnn.files.read_limits import ReadLimits, out_of_memory, read_limits, too_late
from jaxsnn.wording import Text, text_of_json, text_to_json

#: Bytes that decoding needs in addition to the arrays: chunks, names, copies of text.
_BESIDE = 2**29
#: Limit for the JSON text of a message of the child.
_LARGEST_HEADER = 2**26

#: Seconds to wait for Ctrl-C in this process after it has ended the child process.
_UNTIL_OURS = 0.1


class _OneFork:
    """Lock by which only one thread forks at a time: libraries that watch forks (filelock, which
    torch has) refuse a second.
    """

    def __init__(self) -> None:
        self.renew()
        # The other threads of the parent do not exist in a child and could never release the lock.
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self._lock = threading.RLock()  # reentrant: a signal handler during a fork may read, too

    @contextmanager
    def until(self, deadline: float) -> Iterator[bool]:
        """Acquire the lock before a time of `time.monotonic`, and yield whether that succeeded."""
        lock = self._lock
        came = lock.acquire(timeout=max(deadline - time.monotonic(), 0.0))
        try:
            yield came
        finally:
            if came:
                lock.release()


_ONE_FORK = _OneFork()


@contextmanager
def _ctrl_c_afterwards() -> Iterator[None]:
    """Delay Ctrl-C until the end of the context: functions that run at a fork lose exceptions that
    are raised in them.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *arguments: came.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            before(*came[0])


class ReadProcess:
    """Child process that writes to a pipe: a context manager, which ends the process on exit.

    Args:
        path: Path of the file, for messages.
        work: Function that runs in the child; its argument is the writable end of the pipe.
        limits: Limits with a timeout.
        decoder: Name of the library that decodes the file, for messages.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        work: Callable[[BufferedWriter], None],
        limits: ReadLimits,
        decoder: str = "HDF5",
    ):
        assert limits.timeout is not None
        self._path, self._work, self._limits = os.fspath(path), work, limits
        self._decoder = decoder
        self._deadline = time.monotonic() + limits.timeout
        self._status: int | None = None
        self._pid = 0  # no child process yet

    def __enter__(self) -> ReadProcess:
        self._end, theirs = os.pipe()
        try:
            # No call may follow this block: Ctrl-C in it would leave the child running.
            with _ctrl_c_afterwards():
                try:
                    self._fork(theirs)
                finally:
                    with suppress(OSError):
                        os.close(theirs)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _fork(self, theirs: int) -> None:
        with _ONE_FORK.until(self._deadline) as came, warnings.catch_warnings():
            if not came:
                raise self._too_late()
            # Python warns about locks of other threads, none of which the child uses.
            warnings.simplefilter("ignore")
            try:
                self._pid = os.fork()
            except OSError as error:
                raise FileError(
                    Text(
                        "{path} cannot be read: the reading process cannot be started ({reason})",
                        path=self._path,
                        reason=error.strerror,
                    ),
                    fix="end other processes or free memory",
                ) from error
            if self._pid == 0:
                _be_the_child(theirs, self._end, self._work, self._limits)

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            os.close(self._end)
        if self._pid and self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._wait()

    def _wait(self) -> int:
        if self._status is None:
            with suppress(ChildProcessError):  # other code has waited for all children
                _, self._status = os.waitpid(self._pid, 0)
        return self._status or 0

    def read(self, size: int) -> bytearray:
        """Read the specified number of bytes.

        Raises:
            FileError: The timeout is exceeded, or the child ended.
        """
        buffer = bytearray(size)
        self.read_into(memoryview(buffer))
        return buffer

    def read_into(self, room: memoryview) -> None:
        """Fill a buffer; raises the errors of `read`."""
        while len(room):
            remaining = self._deadline - time.monotonic()
            if remaining <= 0 or not select.select([self._end], [], [], remaining)[0]:
                raise self._too_late()
            count = os.readv(self._end, [room[: 2**20]])
            if count == 0:
                raise self._ended()
            room = room[count:]

    def _too_late(self) -> FileError:
        assert self._limits.timeout is not None
        return too_late(self._path, self._limits.timeout)

    def _ended(self) -> FileError:
        """Return the error that explains why the child stopped writing.

        Raises:
            KeyboardInterrupt: Ctrl-C ended it.
        """
        status = self._wait()
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        if number == signal.SIGINT:
            # Ctrl-C reaches both processes, and possibly the child first.
            time.sleep(_UNTIL_OURS)
            raise KeyboardInterrupt
        if number == getattr(signal, "SIGXCPU", None) and number is not None:
            return self._too_late()
        if number is None or number in (signal.SIGKILL, signal.SIGTERM):
            cause = "the reading process was killed"
        else:
            cause = Text(
                "{decoder} crashed while reading it ({signal})",
                decoder=self._decoder,
                signal=signal.Signals(number).name,
            )
        return FileError(
            Text("{path} cannot be read: {cause}", path=self._path, cause=cause),
            fix="download or export it again",
        )


def process_limits() -> ReadLimits | None:
    """Return the limits of a process that reads, or None if this process has to read: without a time
    limit, and on systems without fork.
    """
    limits = read_limits()
    return limits if limits.timeout is not None and hasattr(os, "fork") else None


@contextmanager
def reporting_errors(out: BufferedWriter, path: str | os.PathLike[str]) -> Iterator[None]:
    """Send errors of the context to the parent, where `receive_header` raises them, and end the child.

    Nothing may be sent in the context: the parent would take the error for the rest of it.
    """
    try:
        yield
    except (JaxsnnError, MemoryError) as error:
        met = error if isinstance(error, JaxsnnError) else out_of_memory(path)
        problem = met.problem
        texts = {"message": text_to_json(problem.message), "fix": text_to_json(problem.fix)}
        facts = problem.as_dict()["facts"]
        send_header(out, {"error": type(met).__name__, **texts, "facts": facts})
        raise


def send_header(out: BufferedWriter | BytesIO, content: Any) -> None:
    """Write JSON with its length to a pipe."""
    text = json.dumps(content).encode()
    out.write(len(text).to_bytes(8, "little") + text)


def receive_header(child: Any, path: str | os.PathLike[str]) -> Any:
    """Receive JSON; `child` has the method `read` of `ReadProcess`.

    Raises:
        JaxsnnError: The error that occurred in the child.
        FileError: The text is too long.
    """
    size = int.from_bytes(child.read(8), "little")
    if size > _LARGEST_HEADER:
        raise FileError(
            Text(
                "the names in {path} exceed the limit of {limit} bytes",
                path=os.fspath(path),
                limit=_LARGEST_HEADER,
            ),
            fix="export it again",
        )
    content = json.loads(bytes(child.read(size)))
    if "error" in content:
        kind: type[JaxsnnError] = getattr(errors, content["error"])
        message, fix = text_of_json(content["message"]), text_of_json(content["fix"])
        raise kind(message, fix=fix, facts=content["facts"])
    return content


def _be_the_child(
    end: int, end_of_parent: int, work: Callable[[BufferedWriter], None], limits: ReadLimits
) -> NoReturn:
    """Run the child process until it exits; no exception may leave it, because the child would
    continue as a second parent.
    """
    try:
        with suppress(OSError):
            os.close(end_of_parent)
        # The child must not destroy objects of the parent, and Ctrl-C must also end calls that
        # never return to Python.
        gc.disable()
        faulthandler.disable()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        # Keep messages of crashing libraries off the terminal.
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        _restrict(limits)
        with os.fdopen(end, "wb") as out:
            work(out)
    except BaseException:
        os._exit(1)
    os._exit(0)


def _restrict(limits: ReadLimits) -> None:
    """Set limits of memory and processor time that the operating system enforces."""
    import resource

    assert limits.timeout is not None
    for kind, requested in (
        (resource.RLIMIT_AS, _address_space() + limits.max_bytes + _BESIDE),
        (resource.RLIMIT_CPU, int(sum(os.times()[:2]) + limits.timeout) + 1),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        allowed = requested if hard == resource.RLIM_INFINITY else min(requested, hard)
        with suppress(ValueError, OSError):  # the system does not support this limit
            resource.setrlimit(kind, (allowed, hard))


def _address_space() -> int:
    """Return the size of this process's address space in bytes; a large fallback if the system does
    not report it.
    """
    with suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 2**40
