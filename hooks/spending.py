"""Whether a call that costs money fits the budget: deny over the ceiling, ask above the warning threshold, else say it.

Reads `budget.json`, which Parhelia rewrites after every ledger commit; the server's own reservation is the real gate.
Ends with code 42 once it has judged the call; the shell around it blocks the call on any other end.
"""

import sys

sys.path.insert(0, __file__.rpartition("/")[0])
import call
from state import budget

JUDGED = 42
HOURS, CORES, GIB = 4.0, 4.0, 16.0  # what a task gets that names nothing else
ALIASES = {"A10G": "A10", "A100": "A100-80GB", "H100!": "H100", "B200+": "B300"}
STARTS = frozenset(
    "submit;run;resume;recover resume;recover restart;checkpoint rollback;checkpoint restore".split(";"),
)


def number(value, default):
    return float(value) if value not in (None, "") else default


def estimate(arguments, runs_command, numbers):
    """The most the call can cost in dollars: a task's limit, for a command the price of its whole time if that is less."""
    limit = number(arguments.get("max_usd"), float(numbers.get("per_task_usd", 5.0)))
    rates = numbers.get("rates")
    if not runs_command or not rates:
        return limit
    gpu = (arguments.get("gpu") or "").upper()
    if arguments.get("provider") == "local" or not (gpu or arguments.get("provider")):
        hourly = rates["local"]
    else:
        hourly = rates["cpu_core"] * number(arguments.get("cpu"), CORES)
        hourly += rates["memory_gb"] * number(arguments.get("memory"), GIB)
        hourly += gpu_price(gpu, rates["gpu"]) if gpu else 0.0
    return min(limit, hourly * number(arguments.get("timeout_hours"), HOURS))


def gpu_price(gpu, table):
    """Of `NAME` or `NAME:COUNT`; the dearest for a name that the table lacks."""
    name, _, count = gpu.partition(":")
    return table.get(name, table.get(ALIASES.get(name), max(table.values()))) * number(count, 1.0)


def judge_start(verb, arguments, numbers):
    """The decision and its reason for a call that starts a session."""
    ceiling, spent, held = numbers["ceiling_usd"], numbers["spent_usd"], numbers["reserved_usd"]
    left = ceiling - spent - held
    runs_command = verb == "run" or bool(arguments.get("command"))
    cost = estimate(arguments, runs_command, numbers)
    text = (
        f"Parhelia: this {verb} may cost up to ${cost:.2f}; ${max(left, 0):.2f} of ${ceiling:.2f} is left "
        f"(${spent:.2f} spent, ${held:.2f} reserved)."
    )
    if cost == 0.0 and arguments.get("provider") == "local":
        return None, text
    if left <= 0 or cost > left:
        return "deny", (
            f"{text} Nothing was started. To free some: parhelia list --status running, then parhelia session kill ID. "
            f"Only the user raises the ceiling, in their own terminal: parhelia budget set {spent + held + cost + 1:.0f}"
        )
    numbers["reserved_usd"] = held + cost  # the next call of the same command line finds that much less
    if spent + held + cost > ceiling * float(numbers.get("warning_threshold", 0.8)):
        return "ask", text + " That is above the warning threshold."
    return None, text


def judge_ceiling(arguments, numbers):
    words = arguments.get("words") or [arguments.get("ceiling_usd")]
    asked = float(str(words[0]).lstrip("$"))
    ceiling, spent, held = numbers["ceiling_usd"], numbers["spent_usd"], numbers["reserved_usd"]
    text = f"from ${ceiling:.2f} to ${asked:.2f}; ${spent:.2f} is spent, ${held:.2f} reserved."
    if asked <= ceiling:
        return None, "Parhelia: this lowers the ceiling " + text
    return "ask", "Parhelia: this raises the ceiling " + text


def judge(verb, arguments, numbers):
    """`(decision, text)` for a call that costs money, None for any other."""
    if "dry_run" in arguments or "help" in arguments:
        return None
    if verb == "recover":
        verb = "recover " + (arguments.get("action") or "")
    if verb == "budget set":
        return judge_ceiling(arguments, numbers) if numbers else ("ask", "Parhelia: this sets the first ceiling.")
    if verb not in STARTS or (verb == "resume" and arguments.get("target")):
        return None
    if numbers is None:
        return None, "Parhelia: nothing is spent or reserved yet; the ceiling is checked when the session is created."
    return judge_start(verb, arguments, numbers)


def main():
    calls = call.parhelia(call.read())
    numbers = budget() if calls else None
    verdicts = [verdict for verb, arguments in calls if (verdict := judge(verb, arguments, numbers))]
    if verdicts:
        call.answer(*min(verdicts, key=lambda verdict: ("deny", "ask", None).index(verdict[0])))
    call.leave(JUDGED)


try:
    main()
except (ValueError, TypeError, KeyError) as problem:
    sys.exit(
        f"{type(problem).__name__}: {problem}"
    )  # the call is blocked; this is read by the model, a traceback is not
