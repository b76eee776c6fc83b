"""Taking secrets out of text, also where it does not parse."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

MASK = "********"
WORDS = r"(?:secret|passw(?:or)?d|passphrase|token|api_?key|credential)"
SHORTEST_SECRET = 4  # shorter values would mask half of every log

# the patterns begin with a word and repeat within bounds: megabytes of hostile text take seconds, not hours
_ASSIGNMENT = re.compile(
    rf"""(?P<key>{WORDS}[\w.-]{{0,64}}["']?[ \t]{{0,20}}[=:][ \t]{{0,20}})
    (?P<value>\"{{3}}.*?(?:\"{{3}}|\Z) | '{{3}}.*?(?:'{{3}}|\Z) | "(?:\\.|[^"\\\n])*(?:"|$) | '[^'\n]*(?:'|$)
    | \[[^\[\]{{}}]*(?:\]|\Z) | [^\s,\]}}\[{{"']+)""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_BEARER = re.compile(r"(?P<key>\bBearer\s+)[\w.~+/=-]+", re.IGNORECASE)
_URL = re.compile(r"(?P<key>://)[^\s/@:]{1,200}:[^\s/@]{1,200}(?=@)")


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without the given secrets, without values of names that sound secret, bearer tokens and URL passwords."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, MASK)
    text = _ASSIGNMENT.sub(_masked_assignment, text)
    text = _BEARER.sub(rf"\g<key>{MASK}", text)
    return _URL.sub(rf"\g<key>{MASK}", text)


def redacted_value(value: Any, secrets: Iterable[str] = ()) -> Any:
    """JSON values with every text redacted, and all that is named like a secret masked."""
    secrets = list(secrets)
    if isinstance(value, dict):
        return {key: _masked_or(key, inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_value(inner, secrets) for inner in value]
    return redacted(value, secrets) if isinstance(value, str) else value


def secrets_in(toml: str) -> list[str]:
    """The values that sound secret by their names; none when the text is no TOML."""
    try:
        return list(_secrets(tomllib.loads(toml), False))
    except (tomllib.TOMLDecodeError, RecursionError):
        return []


def _masked_assignment(match: re.Match[str]) -> str:
    value = match["value"]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{match['key']}{quote}{MASK}{quote}"


def _masked_or(key: Any, value: Any, secrets: list[str]) -> Any:
    is_secret = re.search(WORDS, str(key), re.IGNORECASE) is not None and isinstance(value, str)
    return MASK if is_secret else redacted_value(value, secrets)


def _secrets(value: Any, is_secret: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _secrets(inner, re.search(WORDS, key, re.IGNORECASE) is not None)
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets(inner, is_secret)
    elif is_secret:
        yield str(value)
