"""Whose key opens what: everything but the session's own pair is refused by the real client, before anything is sent."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from parhelia_mcp.errors import LocalFault, Refused, Unreachable
from parhelia_mcp.ssh import client
from parhelia_mcp.ssh.keys import Keys, forget, make
from tests.attach.server import SESSION, Server, run
from tests.attach.test_ssh_server import free_port


def test_a_session_has_one_pair_of_keys_that_only_its_owner_may_read(tmp_path: Path) -> None:
    keys = make(tmp_path, SESSION)
    before = keys.for_sandbox()
    assert make(tmp_path, SESSION).for_sandbox() == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys.directory.iterdir()} == {0o600}
    assert before != make(tmp_path, "task-0a1b2c3d.2").for_sandbox()
    forget(tmp_path, SESSION)
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["task-0a1b2c3d.2"]


def other_key(server: Server, keys: Keys) -> None:
    """The key of an earlier session of the same task, offered to this one."""
    old = make(server.home, "task-0a1b2c3d.9")
    for name in ("client", "client.pub"):  # ssh offers what the public half says
        (keys.directory / name).write_bytes((old.directory / name).read_bytes())


def other_host(server: Server, keys: Keys) -> None:
    known = keys.directory / "known_hosts"
    strange = make(server.home, "task-0a1b2c3d.8").host_public
    known.write_text(f"{client.aliases(SESSION)[0]} {strange}\n")


def no_host(server: Server, keys: Keys) -> None:
    (keys.directory / "known_hosts").write_text("")


def readable_key(server: Server, keys: Keys) -> None:
    keys.client.chmod(0o644)


def other_user(server: Server, keys: Keys) -> None:
    replaced(keys, f"User {client.USER}", "User root")


def nobody_listens(server: Server, keys: Keys) -> None:
    replaced(keys, f"Port {server.port}", f"Port {free_port()}")


def replaced(keys: Keys, old: str, new: str) -> None:
    config = keys.directory / "config"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("change", "code", "kind"),
    [
        (other_key, "key-rejected", Refused),
        (other_user, "key-rejected", Refused),
        (other_host, "host-key-changed", Refused),
        (no_host, "host-key-unknown", Refused),
        (readable_key, "key-permissions", LocalFault),
        (nobody_listens, "ssh-refused", Unreachable),
    ],
)
def test_ssh_is_refused_with_the_right_cause_and_nothing_is_run(
    server: Server, tmp_path: Path, change: Callable[[Server, Keys], None], code: str, kind: type
) -> None:
    keys = Keys(SESSION, tmp_path / "keys" / SESSION)
    keys.directory.parent.mkdir()
    run(["cp", "-a", str(server.keys.directory), str(keys.directory)])
    client.configure(keys, "127.0.0.1", server.port)
    change(server, keys)
    done = run(client.command(keys.directory / "config", SESSION, ["touch", str(server.workspace / code)]))
    assert done.returncode == 255
    problem = client.failure(done.stderr.decode(), keys)
    assert problem is not None and (problem.code, type(problem)) == (code, kind), done.stderr
    assert not (server.workspace / code).exists()


def test_a_seventh_key_ends_the_connection(server: Server, tmp_path: Path) -> None:
    others = [make(tmp_path, f"task-0a1b2c3d.{number}").client for number in range(10, 18)]
    offered = [word for key in others for word in ("-i", str(key))]
    config = tmp_path / "config"
    text = server.config.read_text()
    config.write_text("\n".join(line for line in text.splitlines() if "IdentityFile" not in line) + "\n")
    done = run(["ssh", "-F", str(config), *offered, server.host, "true"])
    assert b"Too many authentication failures" in done.stderr
    problem = client.failure(done.stderr.decode(), server.keys)
    assert problem is not None and problem.code == "key-rejected"


def test_passwords_are_not_asked_for(server: Server) -> None:
    done = server.ssh("true", options=["-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password"])
    assert done.returncode == 255 and b"Permission denied (publickey)." in done.stderr
