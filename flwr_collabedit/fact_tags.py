"""Keyed tags of facts: a server can compare them, and cannot read or guess them.

HMAC-SHA256 under a key that the clients share and the server does not have.
``docs/conflicts.md`` says what tags still reveal.

Krawczyk, Bellare and Canetti. "HMAC: Keyed-Hashing for Message Authentication",
    RFC 2104, 1997.
"""

import base64
import hmac
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from flwr_collabedit.data.normal_form import fact_of, normal_form
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.errors import ConfigurationError

KEY_BYTES = 32
TAG_BYTES = 16
"""Half of SHA-256's output, the least that RFC 2104 (section 5) calls safe: two of a
million unequal facts share a tag with a probability of about 1e-27."""
_DOMAIN = "flwr-collabedit/conflicts/1"
_MIN_DISTINCT = 8  # 32 random bytes have fewer once in 1e36 keys; placeholders do


@dataclass(frozen=True)
class TagKey:
    """The clients' secret; neither its ``repr`` nor any error shows it.

    Parameters
    ----------
    secret : bytes
        At least 32.

    Raises
    ------
    ConfigurationError
        If it is shorter, or a placeholder (fewer than 8 distinct bytes).
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < KEY_BYTES or len(set(self.secret)) < _MIN_DISTINCT:
            raise ConfigurationError(
                f"Expected a conflict key of at least {KEY_BYTES} random bytes, found "
                f"{len(self.secret)} bytes, {len(set(self.secret))} of them distinct. "
                "Make one with TagKey.generate() and give every client the same."
            )

    @classmethod
    def generate(cls) -> Self:
        """Return a new random key."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Return the key in a text file: hexadecimal, else base64.

        Raises
        ------
        ConfigurationError
            If there is no such file, it holds something else, or the key is too short.
        """
        try:
            text = Path(path).read_bytes().strip()
        except OSError as error:
            raise ConfigurationError(
                f"Expected the file of a conflict key at {str(path)!r}, found "
                f"{error.strerror}. Copy the one that the other clients have."
            ) from error
        try:
            is_hex = not text.strip(b"0123456789abcdefABCDEF")
            decoded = (
                bytes.fromhex(text.decode())
                if is_hex
                else base64.b64decode(text, validate=True)
            )
        except ValueError:
            # Not chained: the original message may quote a part of the key.
            raise ConfigurationError(
                f"Expected a conflict key in {str(path)!r} as hexadecimal digits or "
                "base64, found other text. Write one with TagKey.generate().to_file()."
            ) from None
        try:
            return cls(decoded)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from None

    def to_file(self, path: str | Path) -> None:
        """Write the key in hexadecimal to a new file that only its owner can read.

        Raises
        ------
        ConfigurationError
            If there is a file already.
        """
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise ConfigurationError(
                f"Expected no file at {str(path)!r}, found one. A conflict key is "
                "never overwritten; choose another path."
            ) from None
        with os.fdopen(descriptor, "w") as file:
            file.write(self.secret.hex() + "\n")


class RequestTags(NamedTuple):
    """What the server sees of one request: 32 hexadecimal digits each."""

    fact: str
    target: str


def tag_request(key: TagKey, request: EditRequest) -> RequestTags:
    """Return the tags of a request's fact and of its new target."""
    kind, relation, subject = fact_of(request)
    fact = _tag(key, f"fact-by-{kind}", relation, subject)
    return RequestTags(fact, target_tag(key, fact, request.target_new))


def fact_tag(key: TagKey, subject: str, relation: str) -> str:
    """Return the tag of subject and relation identifier, whatever the target is.

    Both are taken in `flwr_collabedit.data.normal_form.normal_form`. For a request,
    which may have a template in the place of the identifier, see :func:`tag_request`.
    """
    return _tag(key, "fact-by-id", normal_form(relation), normal_form(subject))


def target_tag(key: TagKey, fact: str, target: str) -> str:
    """Return the tag of a target, bound to the tag of its fact.

    Equal targets of different facts have unequal tags, so that the server cannot tell
    which facts have the same answer.
    """
    return _tag(key, "target", fact, normal_form(target))


def key_check(key: TagKey) -> str:
    """Return what is equal for two clients if, and only if, they have the same key."""
    return _tag(key, "key-check")


def _tag(key: TagKey, purpose: str, *texts: str) -> str:
    # A JSON list says where each text ends, so that no two lists give one message; it
    # escapes lone surrogates, which UTF-8 could not write.
    message = json.dumps([_DOMAIN, purpose, *texts]).encode("ascii")
    return hmac.digest(key.secret, message, "sha256")[:TAG_BYTES].hex()
