"""Every failure gittrack can report, in one table.

A class is one row: a stable ``code`` (also MLflow's REST error code), the exit status of the command line and the
HTTP status of the server.  An instance adds the message and, where one exists, the next step (``hint``).  Nothing in
here imports anything of gittrack, and no other module defines an exception.  ``gittrack help errors`` lists the rows.
"""

from __future__ import annotations

from typing import ClassVar, Final

_SHOWN: Final = 80  #: characters of a value that a message shows


def shown(value: object) -> str:
    """``value`` for an error message: one line, printable, at most 80 characters long."""
    if isinstance(value, str):
        text = value[:_SHOWN].encode("unicode_escape").decode("ascii") + value[_SHOWN:]
    elif isinstance(value, int) and value.bit_length() > _SHOWN * 4:  # Python refuses to print very long ones
        text = f"an int of {value.bit_length()} bits"
    else:
        text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _printable(text: str) -> str:
    """``text``, in which names and values of others may be, as one line, and only text."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class GittrackError(Exception):
    """Base of every error that gittrack raises on purpose.

    Args:
        message: One line, lower case, no full stop; names the thing that is wrong.
        hint: The next step, as a command or an instruction.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        message = _printable(message)
        super().__init__(message)
        self.message = message
        self.hint = None if hint is None else _printable(hint)

    def leaving(self, left: str, *, hint: str | None = None) -> None:
        """Add to the message what was and was not done before, and to the hint another way on."""
        self.message = f"{self.message}; {left}"
        self.args = (self.message,)
        if hint is not None:
            self.hint = hint if self.hint is None else f"{self.hint}; {hint}"

    @property
    def error_code(self) -> str:
        """The code under MLflow's name, so that ``except MlflowException as e: e.error_code`` works."""
        return self.code

    def get_http_status_code(self) -> int:
        """``http_status`` under MLflow's name."""
        return self.http_status

    def serialize_as_json(self) -> str:
        """Code and message as the JSON text that MLflow's REST API answers with."""
        import json  # here: every command starts with this module

        return json.dumps({"error_code": self.code, "message": str(self)})

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} (hint: {self.hint})"


class InvalidValueError(GittrackError, ValueError):
    """A name, value or argument is outside its limits."""

    code = "INVALID_PARAMETER_VALUE"
    exit_status = 2
    http_status = 400


class QuerySyntaxError(InvalidValueError):
    """A filter or an order cannot be read.  ``column`` is 1-based and points at the first character at fault."""

    def __init__(self, message: str, *, text: str, column: int, hint: str | None = None) -> None:
        shown = text if len(text) <= 200 else f"…{text[max(0, column - 60) : column + 60]}…"
        super().__init__(f"cannot read `{shown}` at column {column}: {message}", hint=hint)
        self.text = text
        self.column = column


class SchemaError(InvalidValueError):
    """A model's input is not what its signature says: columns, types, shapes or parameters."""


class UsageError(GittrackError):
    """A call that can never work as written: a verb without its argument, two options that exclude each other."""

    code = "BAD_REQUEST"
    exit_status = 2
    http_status = 400


class PredictionError(UsageError):
    """A model failed on an input that fits its signature; the cause is for whoever runs it."""


class MediaTypeError(UsageError):
    """The body of a request is of a type that the server does not read."""

    http_status = 415


class TooLargeError(UsageError):
    """The body of a request is larger than the server takes."""

    http_status = 413


class NotFoundError(GittrackError, LookupError):
    """A run, experiment, artifact, metric or topic of that name does not exist."""

    code = "RESOURCE_DOES_NOT_EXIST"
    exit_status = 1
    http_status = 404


class NoEndpointError(GittrackError):
    """The server answers nothing at this address."""

    code = "ENDPOINT_NOT_FOUND"
    exit_status = 1
    http_status = 404


class NoMethodError(GittrackError):
    """The server does not answer this method at this address."""

    code = "BAD_REQUEST"
    exit_status = 1
    http_status = 405


class UnauthenticatedError(GittrackError):
    """The server does not know who asks: no credentials, or wrong, expired or revoked ones."""

    code = "UNAUTHENTICATED"
    exit_status = 1
    http_status = 401


class PermissionDeniedError(GittrackError):
    """The server knows who asks, and he may not do that."""

    code = "PERMISSION_DENIED"
    exit_status = 1
    http_status = 403


class TooManyRequestsError(GittrackError):
    """Somebody asked too often, or gave wrong credentials too often; later it works again.

    Args:
        message: As ``GittrackError``.
        hint: As ``GittrackError``.
        again: Seconds after which it works again.
    """

    code = "REQUEST_LIMIT_EXCEEDED"
    exit_status = 1
    http_status = 429

    def __init__(self, message: str, *, hint: str | None = None, again: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.again = again


class MisdirectedError(GittrackError):
    """A request names another server than the one that got it: the header `Host` is not one of its names."""

    code = "BAD_REQUEST"
    exit_status = 1
    http_status = 421


class AlreadyExistsError(GittrackError):
    """The name is taken."""

    code = "RESOURCE_ALREADY_EXISTS"
    exit_status = 1
    http_status = 400


class StateError(GittrackError):
    """The thing exists, but its state forbids the call: a deleted run is written to, a run is already active."""

    code = "INVALID_PARAMETER_VALUE"
    exit_status = 1
    http_status = 400


class NotARepositoryError(GittrackError):
    """There is no git repository and no gittrack store where one is needed."""

    code = "RESOURCE_DOES_NOT_EXIST"
    exit_status = 1
    http_status = 404


class ReadOnlyError(GittrackError, PermissionError):
    """The store can be read but not written."""

    code = "PERMISSION_DENIED"
    exit_status = 1
    http_status = 403


class LockedError(GittrackError):
    """Another process holds a lock and did not let go in time."""

    code = "TEMPORARILY_UNAVAILABLE"
    exit_status = 1
    http_status = 503


class OverloadedError(GittrackError):
    """The server has more work waiting than it can answer in time; the same request may be sent again later."""

    code = "TEMPORARILY_UNAVAILABLE"
    exit_status = 1
    http_status = 503


class DeadlineError(GittrackError):
    """The answer was not there in time."""

    code = "DEADLINE_EXCEEDED"
    exit_status = 1
    http_status = 504


class ConflictError(GittrackError):
    """Someone else changed the same thing first; nothing was written."""

    code = "RESOURCE_CONFLICT"
    exit_status = 1
    http_status = 409


class CorruptError(GittrackError):
    """Stored bytes are not what they claim to be."""

    code = "DATA_LOSS"
    exit_status = 4
    http_status = 500


class FormatError(CorruptError, ValueError):
    """Bytes from outside break the format or its limits (depth, size, duplicate keys, wrong types)."""

    code = "INVALID_PARAMETER_VALUE"
    http_status = 400


class RemoteDataError(CorruptError):
    """A remote sent what cannot be: objects that git refuses, or runs and tags that are none.  They do not count."""

    http_status = 502


class NetworkError(GittrackError):
    """A remote cannot be reached, does not let us in, or the connection broke.

    Args:
        message: As ``GittrackError``.
        hint: As ``GittrackError``.
        again: Seconds after which the same may work; None if waiting does not help.
        denied: The remote wants credentials, or others.
    """

    code = "TEMPORARILY_UNAVAILABLE"
    exit_status = 1
    http_status = 503

    def __init__(
        self, message: str, *, hint: str | None = None, again: float | None = None, denied: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.again = again
        self.denied = denied


class PushRefusedError(GittrackError):
    """A remote did not take what was pushed: its rules, its hooks, or no right to write there."""

    code = "PERMISSION_DENIED"
    exit_status = 1
    http_status = 403


class UntrustedModelError(GittrackError, PermissionError):
    """Loading the model would run code that came with it, and nobody said that it may."""

    code = "PERMISSION_DENIED"
    exit_status = 1
    http_status = 403


class GitError(GittrackError):
    """The git program failed; the message carries its last line."""

    code = "INTERNAL_ERROR"
    exit_status = 1
    http_status = 500


class StorageError(GittrackError, OSError):
    """The operating system refused a read or a write: disk full, no permission, input/output error."""

    code = "INTERNAL_ERROR"
    exit_status = 1
    http_status = 507


class MissingDependencyError(GittrackError, ImportError):
    """An optional package is needed for this call and is not installed."""

    code = "NOT_IMPLEMENTED"
    exit_status = 1
    http_status = 501


class UnsupportedError(GittrackError, NotImplementedError):
    """A call of MLflow's that gittrack does not offer, or not in this place."""

    code = "NOT_IMPLEMENTED"
    exit_status = 1
    http_status = 501


class ReproductionError(GittrackError):
    """A rerun gave metrics outside the tolerance, or could not be made at all."""

    code = "ABORTED"
    exit_status = 3
    http_status = 409


class PolicyError(GittrackError):
    """The team's rules about models forbid it: a signature is missing, or the run is not good enough."""

    code = "PERMISSION_DENIED"
    exit_status = 1
    http_status = 403


#: MLflow's name for the base class: ``except mlflow.exceptions.MlflowException`` keeps working.
MlflowException = GittrackError
