"""What hooks may know of Parhelia's state: its directory and the numbers of the budget, never the database."""

import posix

import call


def home():
    """The state directory, as bytes."""
    get = posix.environ.get
    given = get(b"PARHELIA_HOME")
    if given:
        return given
    return (get(b"XDG_STATE_HOME") or get(b"HOME", b"") + b"/.local/state") + b"/parhelia"


def budget():
    """The numbers in budget.json, or None where nothing was ever recorded. Raises for a file that makes no sense."""
    try:
        descriptor = posix.open(home() + b"/budget.json", posix.O_RDONLY)
    except FileNotFoundError:
        return None
    numbers = call.parse(posix.read(descriptor, 1 << 20).decode())
    for name in ("ceiling_usd", "spent_usd", "reserved_usd"):
        if not 0 <= numbers[name] < 1e12:
            raise ValueError(name + " is out of range")
    return numbers
