"""What Claude Code asks of people, leave to use a tool or the answer to a question, and how the reply is put."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parhelia_mcp.errors import Usage
from parhelia_mcp.inside import stream

QUESTION_TOOL = "AskUserQuestion"
DENIED = "The user said no."


@dataclass(frozen=True, slots=True)
class Ask:
    """One open request of the client."""

    id: str
    tool: str
    input: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return "question" if self.tool == QUESTION_TOOL else "permission"

    @property
    def questions(self) -> list[Mapping[str, Any]]:
        return self.input.get("questions") or []

    @property
    def summary(self) -> str:
        if self.kind == "permission":
            return stream.line(f"permission for {stream.call(self.tool, self.input)}")
        return stream.line(" ".join(f"{each.get('question')} {_numbered(each)}".strip() for each in self.questions))

    def reply(self, allow: bool, text: str | None) -> dict[str, Any]:
        """The client's form of the answer. Raises Usage `answer-needed` when it is none.

        A permission takes no text: whoever wrote something has not said yes.
        """
        if not allow:
            return {"behavior": "deny", "message": text or DENIED}
        if self.kind == "permission":
            if text:
                what = f"The session waits for {self.summary}. That takes allow or deny; it still waits."
                raise Usage("answer-needed", what, "parhelia send ID allow")
            return {"behavior": "allow", "updatedInput": self.input}
        return {"behavior": "allow", "updatedInput": {**self.input, "answers": self._answers(text or "")}}

    def _answers(self, text: str) -> dict[str, str]:
        """Each question's answer: one line for each, or the whole text where there is one question."""
        said = [text.strip()] if len(self.questions) == 1 else [part.strip() for part in text.strip().splitlines()]
        if len(said) != len(self.questions) or not all(said):
            raise Usage(
                "answer-needed",
                f"The session asks: {self.summary} An answer is a number, an option or any text"
                f"{', one line a question' if len(self.questions) > 1 else ''}.",
                "parhelia send ID 'ANSWER'",
            )
        return {
            str(asked.get("question")): _choice(asked, answer)
            for asked, answer in zip(self.questions, said, strict=True)
        }


def _labels(question: Mapping[str, Any]) -> list[str]:
    return [str(option.get("label")) for option in question.get("options") or []]


def _numbered(question: Mapping[str, Any]) -> str:
    labels = _labels(question)
    return f"({', '.join(f'{number} {label}' for number, label in enumerate(labels, 1))})" if labels else ""


def _choice(question: Mapping[str, Any], text: str) -> str:
    """The label that `text` means, by number or by name; several where the question takes several; else the text."""
    labels = _labels(question)
    names = {label.lower(): label for label in labels} | {str(number): name for number, name in enumerate(labels, 1)}
    parts = [part.strip().lower() for part in text.split(",")] if question.get("multiSelect") else [text.lower()]
    return ", ".join(names[part] for part in parts) if all(part in names for part in parts) else text
