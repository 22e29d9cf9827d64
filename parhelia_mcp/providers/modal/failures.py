"""What the SDK raises, as our errors: one table, by the name of the class, so that the SDK need not be imported."""

from __future__ import annotations

from typing import NamedTuple

from parhelia_mcp.errors import Busy, Corrupted, LocalFault, NotFound, Problem, Refused, Unreachable, Usage


class Kind(NamedTuple):
    """How one class of exception reads to the user."""

    problem: type[Problem]
    code: str
    what: str
    fix: str


_AGAIN = "parhelia doctor, or try again: what was started is found again by its name"
_UPGRADE = "pip install --upgrade parhelia-mcp modal"
_unreachable = Kind(Unreachable, "provider-unreachable", "Modal could not be reached", _AGAIN)
_internal = Kind(Unreachable, "provider-fault", "Modal had a fault of its own", _AGAIN)
_slow = Kind(Unreachable, "provider-timeout", "Modal did not finish in time", _AGAIN)
_gone = Kind(Unreachable, "sandbox-ended", "The sandbox has ended", "parhelia recover ID")
_misuse = Kind(LocalFault, "provider-misuse", "The Modal SDK was used in a way it does not support", _UPGRADE)
_file = Kind(LocalFault, "sandbox-file", "A file in the sandbox could not be used", "parhelia logs ID")

KINDS: dict[str, Kind] = {
    "AuthError": Kind(Refused, "provider-auth", "Modal does not accept the token", "modal setup"),
    "PermissionDeniedError": Kind(
        Refused, "provider-permission", "Modal does not allow this to your account", "modal profile current"
    ),
    "NotFoundError": Kind(NotFound, "provider-not-found", "Modal has no such thing", "parhelia doctor"),
    "AlreadyExistsError": Kind(Busy, "provider-name-taken", "Modal has this name already", "parhelia reconcile"),
    "ResourceExhaustedError": Kind(
        Unreachable,
        "provider-capacity",
        "Modal has no capacity for this now, or a quota is used up",
        "try another --gpu or --region, or wait",
    ),
    "InvalidError": Kind(Refused, "provider-refused", "Modal refuses this request", "parhelia submit --dry-run"),
    "ConflictError": Kind(Unreachable, "provider-conflict", "Modal says that the state has changed", "parhelia status"),
    "UnimplementedError": Kind(LocalFault, "provider-version", "Modal does not offer this to this SDK", _UPGRADE),
    "VersionError": Kind(LocalFault, "provider-version", "Modal no longer supports this SDK", _UPGRADE),
    "DataLossError": Kind(Corrupted, "provider-data-loss", "Modal reports lost data", "parhelia checkpoint list"),
    "ServiceError": _unreachable,
    "ConnectionError": _unreachable,
    "ClientClosed": _unreachable,
    "InternalError": _internal,
    "InternalFailure": _internal,
    "RemoteError": _internal,
    "ExecutionError": _internal,
    "ImageBuildError": Kind(
        Refused, "image-build", "The image could not be built", "mend dockerfile, apt and setup under [modal]"
    ),
    "SnapshotCreationError": Kind(
        Unreachable, "snapshot-failed", "Modal could not take the snapshot", "parhelia checkpoint list"
    ),
    "SandboxTimeoutError": _gone,
    "SandboxTerminatedError": _gone,
    "TimeoutError": _slow,
    "ExecTimeoutError": _slow,
    "FunctionTimeoutError": _slow,
    "InteractiveTimeoutError": _slow,
    "OutputExpiredError": _slow,
    "MountUploadTimeoutError": _slow,
    "VolumeUploadTimeoutError": _slow,
    "RequestSizeError": Kind(Usage, "request-too-large", "Modal refuses a request of this size", "send less at once"),
    "LogsFetchError": Kind(
        Usage, "too-many-logs", "Modal refuses to send that much log", "parhelia logs ID --tail 100"
    ),
    "WorkspaceManagementError": Kind(
        Refused, "provider-permission", "Modal could not change the workspace", "modal profile current"
    ),
    "SandboxFilesystemError": _file,
    "SandboxFilesystemNotFoundError": Kind(NotFound, "sandbox-file", "No such file in the sandbox", "parhelia logs ID"),
    "SandboxFilesystemDirectoryNotEmptyError": _file,
    "SandboxFilesystemIsADirectoryError": _file,
    "SandboxFilesystemNotADirectoryError": _file,
    "SandboxFilesystemPermissionError": _file,
    "SandboxFilesystemFileTooLargeError": _file,
    "SandboxFilesystemPathAlreadyExistsError": _file,
    "DeserializationError": _misuse,
    "SerializationError": _misuse,
    "ModuleNotMountable": _misuse,
    "DeprecationError": _misuse,
    "ServerWarning": _misuse,
    "AsyncUsageWarning": _misuse,
    "InternalAPIWarning": _misuse,
    "Error": _internal,
}
# Not from modal.exception: the system's own, and what the SDK's libraries let through.
FOREIGN: dict[str, Kind] = {
    "TimeoutError": _slow,
    "ConnectionError": _unreachable,
    "OSError": _unreachable,
    "GRPCError": _unreachable,
    "ProtocolError": _unreachable,
    "StreamTerminatedError": _unreachable,
    "ClientError": _unreachable,
}


def translate(raised: BaseException) -> Problem:
    """The error of ours for what was raised, by the nearest class in the tables."""
    for known in type(raised).__mro__:
        table = KINDS if known.__module__ == "modal.exception" else FOREIGN
        if known.__name__ in table:
            kind = table[known.__name__]
            break
    else:
        kind = _internal
    text = " ".join(str(raised).split())[:500]
    return kind.problem(kind.code, f"{kind.what}{': ' + text if text else ''}.".replace("..", "."), kind.fix)
