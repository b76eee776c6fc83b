"""Secrets leave no trace, whatever the text looks like."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.diagnostics.redact import MASK, redacted, redacted_value, secrets_in

SECRET = "s3cr3t-battery-staple"


@pytest.mark.parametrize(
    "text",
    [
        f'secret = "{SECRET}"',
        f"api_key: {SECRET}",
        f'tokens = [{{name="a", secret="{SECRET}"}}]',
        f'secret = "{SECRET}',
        f"secret = '{SECRET}'",
        f'my-password = """\n{SECRET}\n"""',
        f'secret = """\nfirst {SECRET}',
        f"secret={SECRET}",
        f'tokens = ["first", "{SECRET}"]',
        f"tokens = [\n  '{SECRET}'",
        f'"client_secret" : "{SECRET}",',
        f"Authorization: Bearer {SECRET}",
        f"https://user:{SECRET}@host/path",
        f'[[api.tokens\nsecret="x\\"{SECRET}"',
    ],
)
def test_a_secret_is_masked_where_its_name_tells(text: str) -> None:
    clean = redacted(text)
    assert SECRET not in clean
    assert MASK in clean


@pytest.mark.parametrize("text", ["port = 8470", "tokens were read", "step 3: charge", "frames=7", ""])
def test_other_text_is_left_alone(text: str) -> None:
    assert redacted(text) == text


def test_known_secrets_are_masked_wherever_they_stand() -> None:
    assert redacted(f"GET /x?k={SECRET} 200", [SECRET, "abc"]) == f"GET /x?k={MASK} 200"


def test_secrets_are_found_by_name_in_settings() -> None:
    text = f'[[api.tokens]]\nname = "viewer"\nsecret = "{SECRET}"\n[camera.options]\npassword = 1234\n'
    assert secrets_in(text) == [SECRET, "1234"]
    assert secrets_in(f'tokens = ["{SECRET}"]') == [SECRET]
    assert secrets_in("broken = ") == []


def test_redacted_settings_still_parse() -> None:
    text = f'[api]\ntokens = [{{name="a", secret="{SECRET}"}}]\n[x]\npassword = \'{SECRET}\'\n'
    assert tomllib.loads(redacted(text))["api"]["tokens"] == [{"name": "a", "secret": MASK}]


def test_values_keep_their_shape() -> None:
    value = {"tokens": [{"name": "a", "secret": SECRET}], "log": [f"secret={SECRET}", 5, None], "password": SECRET}
    clean = redacted_value(value)
    assert clean == {"tokens": [{"name": "a", "secret": MASK}], "log": [f"secret={MASK}", 5, None], "password": MASK}


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=3),
        max_leaves=8,
    )
)
def test_any_value_stays_json(value: object) -> None:
    json.dumps(redacted_value(value))


@given(st.text(), st.sampled_from(["", " ", "\n", '"']))
def test_a_secret_after_any_text_is_masked(before: str, gap: str) -> None:
    quotes = before.count('"') + before.count("'")
    if quotes == 0 and "=" not in before and ":" not in before and gap != '"':
        assert SECRET not in redacted(f'{before}{gap}\nsecret = "{SECRET}"')


@pytest.mark.parametrize("word", ["a", "token", "secret=", "://x:", "Bearer ", '"""', "secret = '"])
def test_megabytes_of_hostile_text_are_no_trap(word: str) -> None:
    """A pattern that tries each beginning anew would take hours; the time limit of every test is the referee."""
    redacted(word * (1_000_000 // len(word)))
