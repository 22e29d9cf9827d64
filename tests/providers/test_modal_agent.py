"""On Modal the agent is a user of its own: it works there as anywhere, and reaches nothing of the runner's."""

from __future__ import annotations

import os
import pwd
from urllib.parse import urlsplit

from tests.budget.proof import prove
from tests.claude_client import claude_path
from tests.fake_api import fake_api, say, use
from tests.front import Front
from tests.modal_loopback.client import Loopback
from tests.providers.test_modal_main_job import cloud  # noqa: F401 -- a fixture
from tests.test_delegation import ASKED, asking, by_child, by_parent

KEY = "sk-that-nobody-shall-see"
# What is looked for is put together here, so that a search does not find itself.
HUNT = r"""
id -un > who.txt
needle="sk-that-no""body-shall-see"; other="OPENSSH PRI""VATE KEY"
{
  for file in /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/fd/*; do
    [ -f "$file" ] && timeout 1 grep -al -e "$needle" -e "$other" "$file"
  done
  timeout 5 grep -ral -e "$needle" -e "$other" /parhelia /tmp/parhelia-* /workspace /home/agent /run
  for file in /parhelia/tasks/*/spec.json /parhelia/tasks/*/sessions/1/*; do cat "$file" && echo "$file"; done
  for file in /parhelia/tasks/*/sessions /parhelia/tasks/* /opt/parhelia; do touch "$file/mine" && echo "$file"; done
} > found.txt 2>/dev/null
cat "$HOME/.claude.json" > /dev/null && stat -c %U "$HOME" . > owners.txt
git add -A && git commit -qm Hunted
"""


def agent_of(loopback: Loopback) -> str:
    return "agent" if loopback.isolated else pwd.getpwuid(os.getuid()).pw_name


def test_claude_code_works_as_a_user_that_cannot_find_the_key_and_hands_on_what_it_may(
    cloud: Front,  # noqa: F811
    loopback: Loopback,
) -> None:
    script = [
        use("Bash", command=HUNT).but(when=by_parent),
        use("mcp__parhelia__submit", prompt="The CUB.", max_usd=2).but(when=by_parent),
        asking(use("mcp__parhelia__status", task_id="", wait_s=600)),
        say("Done.").but(when=by_parent),
        use("Bash", command="id -un > cub.txt; cat who.txt >> cub.txt").but(when=by_child),
        say("Done too.").but(when=by_child),
    ]
    with fake_api(script) as api:
        loopback.egress(urlsplit(api.url).port)
        keys = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": api.url}
        env = {**keys, **ASKED, "PARHELIA_AGENT_COMMAND": str(claude_path())}
        task = cloud.json("submit", "The LION: look.", env=env)["task_id"]
        cloud.until(task, "completed", within=120)
        assert {request.token for request in api.messages} == {KEY}
    user = agent_of(loopback)
    (cub,) = (row["task_id"] for row in cloud.json("list")["tasks"] if row["parent"] == f"{task}.1")
    assert cloud.git("show", f"parhelia/{cub}:cub.txt").split() == [user, user]
    assert prove(cloud.home / "parhelia.db")[1] == 0
    assert cloud.git("show", f"parhelia/{task}:who.txt").split() == [user]
    assert cloud.git("show", f"parhelia/{task}:owners.txt").split() == [user, user]
    if loopback.isolated:
        assert cloud.git("show", f"parhelia/{task}:found.txt") == ""
    assert not [line for line in cloud.text("logs", task).splitlines() if "warning" in line]


def test_a_command_works_as_that_user_and_its_files_come_home(cloud: Front, loopback: Loopback) -> None:  # noqa: F811
    (cloud.cwd / "own.sh").write_text("#!/bin/sh\nid -un\n")
    (cloud.cwd / "own.sh").chmod(0o700)
    done = cloud.run(
        "run", "--", "sh", "-c", "./own.sh; touch $HOME/x; mkdir new && id -u > new/uid; git status --short"
    )
    assert done.stdout.split()[0].decode() == agent_of(loopback)
    task = cloud.json("list")["tasks"][0]["task_id"]
    assert cloud.git("show", f"parhelia/{task}:new/uid").strip().isdigit()
