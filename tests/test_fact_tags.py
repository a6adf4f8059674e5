"""Tags compare facts, are bound to key and purpose, and the key stays hidden."""

import base64
import hashlib
import hmac
import stat
from itertools import combinations
from pathlib import Path

import pytest

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.fact_tags import (
    TagKey,
    fact_tag,
    key_check,
    tag_request,
    target_tag,
)

SECRET = bytes(range(100, 132))
KEY = TagKey(SECRET)


def request(**changes: str) -> EditRequest:
    values = {
        "prompt": "The capital of {} is",
        "subject": "France",
        "target_new": "Rome",
        "relation_id": "P36",
    }
    return EditRequest(case_id=0, **{**values, **changes})


def plain_tag(message: str) -> str:
    """RFC 2104 written out: H(K ^ opad, H(K ^ ipad, text)), its first half."""
    padded = SECRET + bytes(32)
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in padded) + message.encode())
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in padded) + inner.digest())
    return outer.digest()[:16].hex()


def test_tags_are_hmac_sha256_of_purpose_and_normal_forms():
    fact = plain_tag('["flwr-collabedit/conflicts/1", "fact-by-id", "p36", "france"]')
    target = plain_tag(f'["flwr-collabedit/conflicts/1", "target", "{fact}", "rome"]')

    assert tag_request(KEY, request()) == (fact, target)
    assert fact_tag(KEY, "France", "P36") == fact
    assert target_tag(KEY, fact, "Rome") == target
    assert key_check(KEY) == plain_tag('["flwr-collabedit/conflicts/1", "key-check"]')


def test_a_record_without_relation_is_tagged_by_its_template():
    found = tag_request(KEY, request(relation_id="")).fact

    assert found == plain_tag(
        '["flwr-collabedit/conflicts/1", "fact-by-template", '
        '"the capital of {} is", "france"]'
    )


def test_spelling_and_template_do_not_matter_where_the_relation_has_a_name():
    other = request(
        prompt="{} is governed from", subject=" FRANCE.", target_new="“rome”"
    )

    assert tag_request(KEY, other) == tag_request(KEY, request())


def test_another_target_is_the_same_fact_and_another_target_tag():
    one, other = tag_request(KEY, request()), tag_request(KEY, request(target_new="X"))

    assert one.fact == other.fact
    assert one.target != other.target


@pytest.mark.parametrize("change", [{"subject": "Spain"}, {"relation_id": "P30"}])
def test_another_fact_with_the_same_target_shares_no_tag(change: dict[str, str]):
    one, other = tag_request(KEY, request()), tag_request(KEY, request(**change))

    assert not set(one) & set(other)


def test_where_a_text_ends_is_part_of_the_tag():
    assert fact_tag(KEY, "a b", "c") != fact_tag(KEY, "a", "b c")
    assert fact_tag(KEY, 'a", "b', "c") != fact_tag(KEY, "b", 'c", "a')


def test_purposes_are_apart_even_for_equal_texts():
    fact = fact_tag(KEY, "x", "y")
    tags = [
        fact,
        target_tag(KEY, "y", "x"),
        tag_request(KEY, request(subject="x", prompt="y{}", relation_id="")).fact,
        fact_tag(KEY, "x", "y{}"),
        key_check(KEY),
    ]

    assert all(one != other for one, other in combinations(tags, 2))


def test_another_key_gives_other_tags_and_another_check():
    other = TagKey.generate()

    assert not set(tag_request(KEY, request())) & set(tag_request(other, request()))
    assert key_check(other) != key_check(KEY)
    assert key_check(TagKey(SECRET)) == key_check(KEY)


def test_text_that_utf8_cannot_write_has_a_tag():
    assert fact_tag(KEY, "\ud800", "P36") != fact_tag(KEY, "\ud801", "P36")


@pytest.mark.parametrize(
    "text",
    [
        SECRET.hex(),
        SECRET.hex().upper() + "\n",
        base64.b64encode(SECRET).decode() + "\r\n",
    ],
    ids=["hex", "upper-hex", "base64"],
)
def test_a_key_is_read_from_a_text_file(tmp_path: Path, text: str):
    (tmp_path / "key").write_text(text)

    assert TagKey.from_file(tmp_path / "key") == KEY


def test_a_generated_key_survives_a_private_file(tmp_path: Path):
    path = tmp_path / "key"
    key = TagKey.generate()

    key.to_file(path)

    assert TagKey.from_file(path) == key
    assert key != TagKey.generate()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="found one"):
        TagKey.generate().to_file(path)
    assert TagKey.from_file(path) == key


# 44 hexadecimal digits are base64 of 33 bytes as well: they are 22 bytes.
SHORT = {
    "short-hex": SECRET[:31].hex(),
    "hex-that-is-base64-too": SECRET[:22].hex(),
    "short-base64": base64.b64encode(SECRET[:31]).decode(),
    "empty": "\n",
    "zeros": "00" * 32,
    "placeholder": "changeme" * 4 + "changeme" * 4,
}


@pytest.mark.parametrize("text", SHORT.values(), ids=SHORT)
def test_a_short_key_and_a_placeholder_are_refused(tmp_path: Path, text: str):
    path = tmp_path / "key"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match="at least 32 random bytes") as caught:
        TagKey.from_file(path)

    assert str(path) in str(caught.value)
    assert not text.strip() or text not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"not a key!", b"\xff\xfe" * 30, b"ab" * 32 + b"-"]
)
def test_a_file_of_something_else_is_refused_without_showing_it(
    tmp_path: Path, content: bytes
):
    path = tmp_path / "key"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match="hexadecimal digits or base64") as e:
        TagKey.from_file(path)

    assert content.decode("latin-1") not in str(e.value)
    assert e.value.__suppress_context__


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"no-key', found No such file"):
        TagKey.from_file(tmp_path / "no-key")


def test_a_key_is_never_shown():
    for shown in (repr(KEY), str(KEY), f"{[KEY]}"):
        assert SECRET.hex() not in shown
        assert repr(SECRET)[2:-1] not in shown
    assert repr(KEY) == "TagKey()"


def test_the_standard_library_agrees_with_the_formula_of_the_rfc():
    assert hmac.digest(SECRET, b"x", "sha256")[:16].hex() == plain_tag("x")
