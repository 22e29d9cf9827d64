"""The program `parhelia`: the little that must be right before anything else of it is loaded."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line. An interruption while it loads ends it without a word; closed streams are stood in for.

    A file that was opened as descriptor 1 because nobody held it would be written to as if it were standard output.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 - takes the lowest free descriptor: its own
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ignored:
        signal.signal(signal.SIGINT, _end)
    from parhelia_mcp import cli

    if not ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
