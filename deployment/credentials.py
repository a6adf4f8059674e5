"""Certificates and keys of a federation, in the formats that Flower reads.

A certificate authority signs the SuperLink's certificate; every party has a key pair,
whose public half the SuperLink's operator registers.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

# Flower takes NIST curves for SuperNodes; one curve for all keys is simplest.
_CURVE = ec.SECP384R1
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class ServerCertificate:
    """Paths of PEM files: the authority's certificate, the server's, and its key."""

    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class NodeKeys:
    """Paths of a SuperNode's key pair, both in OpenSSH's format."""

    private: Path
    public: Path


def make_server_certificate(
    folder: Path, hosts: Sequence[str], *, days: int = 365
) -> ServerCertificate:
    """Write a certificate for a SuperLink, signed by an authority made for it.

    The authority's own key is kept nowhere: nobody can sign more certificates with it.

    Parameters
    ----------
    folder : Path
        Made where it is missing; ``ca.crt``, ``server.pem`` and ``server.key`` are
        written into it, the last readable by its owner only.
    hosts : sequence of str
        Names and addresses at which SuperNodes and ``flwr`` reach the SuperLink; they
        refuse it at any other. The first names the certificate.
    days : int
        Days from now on which both certificates hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = ServerCertificate(
        folder / "ca.crt", folder / "server.pem", folder / "server.key"
    )
    authority_key = ec.generate_private_key(_CURVE())
    authority_name = _name("CollabEdit federation")
    authority = (
        _unsigned(authority_name, authority_name, authority_key, authority_key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA384())
    )
    key = ec.generate_private_key(_CURVE())
    certificate = (
        _unsigned(_name(hosts[0]), authority_name, key, authority_key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(list(map(_host, hosts))), False)
        .sign(authority_key, hashes.SHA384())
    )
    paths.authority.write_bytes(authority.public_bytes(Encoding.PEM))
    paths.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    _write_private(paths.key, key, Encoding.PEM, PrivateFormat.PKCS8)
    return paths


def make_node_keys(folder: Path, name: str) -> NodeKeys:
    """Write a SuperNode's key pair, ``<name>`` and ``<name>.pub``, into a folder.

    In a real federation each party does so on its own machine and hands over the
    public file only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = NodeKeys(folder / name, folder / f"{name}.pub")
    key = ec.generate_private_key(_CURVE())
    _write_private(paths.private, key, Encoding.PEM, PrivateFormat.OpenSSH)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    paths.public.write_bytes(public + b"\n")
    return paths


def _unsigned(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    days: int,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    # Verifiers that go by RFC 5280 to the letter (Python from 3.13) want both ids.
    of_issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False
        )
        .add_extension(of_issuer(issuer_key.public_key()), False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_private(
    path: Path,
    key: ec.EllipticCurvePrivateKey,
    encoding: Encoding,
    form: PrivateFormat,
) -> None:
    path.unlink(missing_ok=True)
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "wb") as file:
        file.write(key.private_bytes(encoding, form, NoEncryption()))
