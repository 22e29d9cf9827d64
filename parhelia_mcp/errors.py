"""Every error a person or an agent can meet, and the exit code it ends in.

Problem                 exit 125 (a fault of ours; never raised by itself)
├── TaskFailed          1   the task failed (`submit --wait`, `recover`)
├── Usage               2   usage, bad input, broken hooks or configuration
├── NotFound            3
├── Refused             4   refused by policy: budget, trust, conflict
├── Unreachable         5   a provider that did not answer, or an outcome that is not known
├── Corrupted           6   stored data that does not match its hash or its schema
├── LocalFault          7   this machine: disk, permission, missing tool, database
├── Busy                8   somebody else holds it; try again
└── Partial             9   done in part; the message says which part
"""

from __future__ import annotations


class Problem(Exception):
    """What went wrong, as three things a reader can use.

    `code` is stable kebab-case, for scripts. `message` says what happened with the numbers, and what is safe.
    `hint` is the exact next command or value, without the word "Fix".
    """

    exit_code = 125

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, str]:
        """The object behind `"error"` in JSON output."""
        return {"code": self.code, "message": self.message, "hint": self.hint}

    def __str__(self) -> str:
        return f"{self.message} Fix: {self.hint}" if self.hint else self.message


class TaskFailed(Problem):
    exit_code = 1


class Usage(Problem):
    exit_code = 2


class NotFound(Problem):
    exit_code = 3


class Refused(Problem):
    exit_code = 4


class Unreachable(Problem):
    exit_code = 5


class Corrupted(Problem):
    exit_code = 6


class LocalFault(Problem):
    exit_code = 7


class Busy(Problem):
    exit_code = 8


class Partial(Problem):
    exit_code = 9
