"""What is wrong with a session: evidence from independent channels, one cause, the next command."""

from __future__ import annotations

from parhelia_mcp import follow
from parhelia_mcp.context import Context
from parhelia_mcp.diagnosis import evidence
from parhelia_mcp.diagnosis.rules import Diagnosis, judge
from parhelia_mcp.store import Session

__all__ = ["Diagnosis", "glance", "judge", "study"]


def glance(ctx: Context, session: Session) -> Diagnosis | None:
    """What is wrong with a session as far as can be seen at once; None where nothing is.

    A session that looks well costs a few file reads; the probes run only for one that does not. One that a later session
    has followed is history.
    """
    if not session.latest:
        return None
    facts = evidence.known(ctx, session)
    if session.live and session.handle and evidence.suspicious(facts):
        facts |= evidence.probed(ctx, session)
    found = judge(facts)
    return None if found.well else found


def study(ctx: Context, session: Session) -> Diagnosis:
    """The cause after every probe that can say something about this session."""
    if session.live:
        session = follow.advance(ctx, session)
    return judge(evidence.known(ctx, session) | evidence.probed(ctx, session))
