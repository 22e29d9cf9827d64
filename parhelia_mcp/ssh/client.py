"""The system's ssh client: the configuration it gets for one session, its command lines, what its failures mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from parhelia_mcp import files, model
from parhelia_mcp.errors import LocalFault, Problem, Refused, Unreachable
from parhelia_mcp.ssh.keys import Keys

USER = "parhelia"  # the only user name a session's server knows; who that is there is the server's business
CONNECT_S = 10  # seconds for TCP and the first line of the server
CUT = "ssh-reset"  # the code of a line that broke when it had been made

_OPTIONS = {
    "GlobalKnownHostsFile": "/dev/null",
    "StrictHostKeyChecking": "yes",
    "HostKeyAlgorithms": "ssh-ed25519",
    "CheckHostIP": "no",
    "UpdateHostKeys": "no",
    "IdentitiesOnly": "yes",
    "IdentityAgent": "none",
    "PreferredAuthentications": "publickey",
    "BatchMode": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "ControlPath": "none",
    "ConnectTimeout": str(CONNECT_S),
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
}


def aliases(session: str) -> tuple[str, str]:
    """The names a session has for ssh: the session's own, and its task's, which means the newest session."""
    return f"parhelia-{session}", f"parhelia-{model.split_session(session)[0]}"


def entry(keys: Keys, host: str, port: int) -> str:
    """The `Host` entry by which ssh, scp, rsync and editors reach the session at `host`:`port`.

    Writes the file that pins the host key. The entry is complete: nothing of the user's own configuration changes
    what is checked.
    """
    own, task = aliases(keys.session)
    known_hosts = keys.directory / "known_hosts"
    files.replace(known_hosts, f"{own} {keys.host_public}\n".encode())
    options = {
        "HostName": host,
        "Port": str(port),
        "User": USER,
        "HostKeyAlias": own,
        "UserKnownHostsFile": _quoted(known_hosts),
        "IdentityFile": _quoted(keys.client),
        **_OPTIONS,
    }
    return "\n".join([f"Host {own} {task}", *(f"  {name} {value}" for name, value in options.items())]) + "\n"


def configure(keys: Keys, host: str, port: int) -> Path:
    """Write `entry` as the session's own configuration file, for `ssh -F`, and return its path."""
    path = keys.directory / "config"
    files.replace(path, entry(keys, host, port).encode())
    return path


def command(config: Path, session: str, remote: Sequence[str] = (), *, terminal: bool = False) -> list[str]:
    """The command line of the system's ssh that runs the words `remote`, or a shell, in the session.

    ssh sends one string that a shell there reads: words with anything special in them must be quoted by the caller.
    """
    mode = ["-tt", "-e", "none"] if terminal else ["-T"]  # no escape character: `~.` is text in an editor
    return ["ssh", "-F", str(config), *mode, "--", aliases(session)[0], *remote]


def failure(stderr: str, keys: Keys) -> Problem | None:
    """What ssh's own words on exit code 255 mean; None where it is nothing that we know."""
    for words, code, kind, what, hint in _FAILURES:
        if any(word in stderr for word in words):
            return kind(code, what.format(session=keys.session), hint.format(session=keys.session, key=keys.client))
    return None


def passing(problem: Problem | None) -> bool:
    """Whether trying again can help: the network or the server was away, nothing was refused."""
    return problem is not None and isinstance(problem, Unreachable)


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("%", "%%") + '"'


# In this order: what is refused says more than how the connection ended.
_FAILURES: tuple[tuple[tuple[str, ...], str, type[Problem], str, str], ...] = (
    (
        ("has changed and you have requested strict checking",),
        "host-key-changed",
        Refused,
        "What answers for {session} does not have the host key that was made for it. Nothing was sent to it.",
        "parhelia recover {session}",
    ),
    (
        ("No ED25519 host key is known for", "was revoked and you have requested", "Host key verification failed"),
        "host-key-unknown",
        Refused,
        "The host key of {session} is not the pinned one. Nothing was sent to it.",
        "parhelia recover {session}",
    ),
    (
        ("no matching host key type found", "no matching key exchange method", "no matching cipher"),
        "ssh-no-common-algorithm",
        LocalFault,
        "This ssh client and the server of {session} have no algorithm in common.",
        "ssh -V",
    ),
    (
        ("bad permissions", "UNPROTECTED PRIVATE KEY FILE"),
        "key-permissions",
        LocalFault,
        "Others may read the private key of {session}, so ssh does not use it.",
        "chmod 600 {key}",
    ),
    (
        ("Permission denied (", "Too many authentication failures"),
        "key-rejected",
        Refused,
        "{session} does not accept this key: it belongs to another session, or was replaced.",
        "parhelia status {session}",
    ),
    (
        ("Bad configuration option", "terminating, "),
        "ssh-client",
        LocalFault,
        "This ssh client does not understand the configuration written for it.",
        "ssh -V",
    ),
    (
        ("Connection refused", "No route to host", "Network is unreachable", "Could not resolve hostname"),
        "ssh-refused",
        Unreachable,
        "Nothing answers at the ssh port of {session}.",
        "parhelia status {session}",
    ),
    (
        ("client_loop", "ssh_packet_write", "Read from remote host", "Timeout, server", "closed by remote host."),
        CUT,
        Unreachable,
        "The connection to {session} was cut. The session goes on.",
        "parhelia attach {session}",
    ),
    (
        ("timed out",),
        "ssh-timeout",
        Unreachable,
        "The ssh server of {session} does not answer.",
        "parhelia status {session}",
    ),
    (
        ("Connection closed by", "Connection reset by", "kex_exchange_identification", "banner line contains invalid"),
        "ssh-closed",
        Unreachable,
        "The line to the ssh server of {session} is closed before anything is said on it.",
        "parhelia status {session}",
    ),
)
