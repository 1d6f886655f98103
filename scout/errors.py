"""What a user can mend: one exception whose message is the whole story."""

import difflib
from collections.abc import Iterable


class ScoutError(Exception):
    """A mistake or a condition that the user can mend.

    The message names the key or file, the value, what was expected and what to do; it is shown without a traceback.
    """


class SharedError(ScoutError):
    """One that all ranks of a job have at once, so that the first of them alone says it."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """A clause for an error message: the closest spelling where there is one, and the list of right ones."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}valid: {', '.join(choices)}"
