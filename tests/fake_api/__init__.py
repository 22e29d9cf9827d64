"""A scripted Messages API on loopback, good enough for the real Claude Code client.

    with fake_api([use("Bash", command="echo hi"), say("done")]) as api:
        ...  # run something against api.url, then look at api.messages and api.billed

Replies are given in order; one with `when` is only given to a request that it accepts. A request that no reply is
left for gets a 400 that says so. Side requests of the client (a title for the terminal) never use up the script.
"""

from tests.fake_api.replies import Reply, Request, fail, from_main, from_subagent, say, use, with_token
from tests.fake_api.server import FakeApi, fake_api

__all__ = [
    "FakeApi",
    "Reply",
    "Request",
    "fail",
    "fake_api",
    "from_main",
    "from_subagent",
    "say",
    "use",
    "with_token",
]
