"""Credentials: what TLS and Flower itself make of them."""

import ssl
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    load_ssh_private_key,
    load_ssh_public_key,
)
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, uses_nist_ec_curve

from deployment.credentials import (
    ServerCertificate,
    make_node_keys,
    make_server_certificate,
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    return make_server_certificate(folder, ["127.0.0.1", "localhost"])


def shake_hands(server: ServerCertificate, authority, host: str) -> None:
    """Let a client that trusts ``authority`` greet the server, in memory."""
    of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    of_server.load_cert_chain(server.certificate, server.key)
    of_client = ssl.create_default_context(cafile=str(authority))
    of_client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        of_client.wrap_bio(to_client, to_server, server_hostname=host),
        of_server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert all(end.version() for end in ends)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_client_that_trusts_the_authority_accepts_the_server(certificate, host):
    shake_hands(certificate, certificate.authority, host)


@pytest.mark.parametrize("host", ["127.0.0.2", "example.org"])
def test_the_server_is_refused_at_any_other_host(certificate, host):
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
        shake_hands(certificate, certificate.authority, host)


def test_a_server_of_another_authority_is_refused(certificate, tmp_path):
    other = make_server_certificate(tmp_path, ["127.0.0.1"])

    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(other, certificate.authority, "127.0.0.1")


def test_an_expired_certificate_is_refused(tmp_path):
    expired = make_server_certificate(tmp_path, ["127.0.0.1"], days=0)

    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(expired, expired.authority, "127.0.0.1")


def test_only_the_authority_may_sign_certificates(certificate):
    for path, is_authority in (
        (certificate.authority, True),
        (certificate.certificate, False),
    ):
        found = x509.load_pem_x509_certificate(path.read_bytes()).extensions
        usage = found.get_extension_for_class(x509.KeyUsage).value
        constraints = found.get_extension_for_class(x509.BasicConstraints).value
        assert usage.key_cert_sign == constraints.ca == is_authority


def test_flower_takes_the_keys_of_a_node(tmp_path):
    keys = make_node_keys(tmp_path, "hospital")

    private = load_ssh_private_key(keys.private.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert uses_nist_ec_curve(private.public_key())
    registered = try_load_public_key(keys.public)
    assert registered == public_key_to_bytes(private.public_key())
    assert load_ssh_public_key(keys.public.read_bytes()) == private.public_key()


def test_no_two_nodes_have_the_same_keys(tmp_path):
    first, second = (make_node_keys(tmp_path, name) for name in ("a", "b"))

    assert first.public.read_bytes() != second.public.read_bytes()


def test_private_keys_are_their_owners_only(certificate, tmp_path):
    keys = make_node_keys(tmp_path, "hospital")
    keys = make_node_keys(tmp_path, "hospital")  # also where one is replaced

    for path in (certificate.key, keys.private):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
