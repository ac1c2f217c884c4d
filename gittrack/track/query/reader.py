"""A text read from left to right: spaces, words, quoted texts, and errors that point at their column.

It knows the characters of the language, not its grammar.  It may assume nothing of the text.
"""

from __future__ import annotations

import re
from typing import Final

from gittrack.errors import QuerySyntaxError

MAX_LENGTH: Final = 262_144  #: characters of a filter

WORD: Final = re.compile(r"[^\W\d]\w*")
BARE_KEY: Final = re.compile(r"[\w./:@-]+")
SIGNS: Final = re.compile(r"[<>=!~&|*%^]+")


class Reader:
    """Reads one text; ``at`` is where its next character is.

    Raises:
        QuerySyntaxError: The text is too long, or has what is no character; later, from any method: it cannot be read.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        if len(text) > MAX_LENGTH:
            # Only the start is shown: the message would be as long as the text.
            raise QuerySyntaxError(
                f"{len(text)} characters, at most {MAX_LENGTH}",
                text=text[:40] + "…",
                column=1,
                hint="ask for less at once",
            )
        if text.isascii() and "\x00" not in text:
            return  # nearly every text; the pattern below takes long to compile
        bad = re.search("[\x00\ud800-\udfff]", text)
        if bad is not None:
            raise self.error("not a character: a NUL or half of one (a lone surrogate)", at=bad.start())

    def error(self, message: str, hint: str | None = None, at: int | None = None) -> QuerySyntaxError:
        """The error to raise about what is here, or at ``at``."""
        column = (self.at if at is None else at) + 1
        return QuerySyntaxError(message, text=self.text, column=column, hint=hint)

    def here(self) -> str:
        """The next character, be it a space; empty at the end."""
        return self.text[self.at : self.at + 1]

    def space(self) -> None:
        """Read spaces, if any."""
        while self.here().isspace():
            self.at += 1

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        self.space()
        return self.here()

    def match(self, pattern: re.Pattern[str]) -> str:
        """What ``pattern`` matches here, after spaces; empty if nothing."""
        self.space()
        found = pattern.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found.group()

    def keyword(self, *words: str) -> bool:
        """True if these words come next; then they are read."""
        self.space()
        start = self.at
        for word in words:
            if self.match(WORD).upper() != word:
                self.at = start
                return False
        return True

    def quoted(self, marks: str) -> str | None:
        """The inside of a quoted text that comes next, in one of ``marks``; None if none does."""
        mark = self.peek()
        if not mark or mark not in marks:
            return None
        end = self.text.find(mark, self.at + 1)
        if end < 0:
            raise self.error(f"no closing {mark}")
        inside = self.text[self.at + 1 : end]
        self.at = end + 1
        after = self.here()
        if after == mark or (inside.endswith("\\") and (after.isalnum() or after == "_")):
            raise self.error(
                "more text right after a closing quote", "there are no escapes: quote with the other of ' and \""
            )
        return inside

    def describe(self) -> str:
        """What comes next, for a message."""
        character = self.peek()
        if not character:
            return "the end"
        word = BARE_KEY.match(self.text, self.at) or SIGNS.match(self.text, self.at)
        return f"`{word.group() if word else character:.40}`"
