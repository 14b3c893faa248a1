"""Certificates and clocks: what makes every TLS connection fail at once, some weeks from now."""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from platformctl.verify.context import Context
from platformctl.verify.model import Check, CheckFailed, CheckSkipped
from platformctl.verify.network_errors import reason

__all__ = ["CHECKS", "judge"]

LEFT_AT_LEAST = 0.2
"""Share of its life that a certificate must have left. Renewal is due with a third left: less means that it failed."""
MAX_SKEW = 5.0
PEM_BYTES = 1 << 20


def judge(certificate: x509.Certificate, what: str, now: datetime) -> str:
    """'29 days left'; CheckFailed when it is not valid now, or soon will not be."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        raise CheckFailed(f"{what} is not valid before {_date(begin)}", f"{what} is from the future: check the clocks.")
    if now >= end:
        raise CheckFailed(f"{what} expired at {_date(end)}", f"{what} has expired: renew it.")
    left = end - now
    if left < (end - begin) * LEFT_AT_LEAST:
        detail = f"{what} expires at {_date(end)}, in {_span(left.total_seconds())}"
        raise CheckFailed(detail, f"{what} was due for renewal and was not renewed: see the log of its owner.")
    return f"{_span(left.total_seconds())} left"


def _date(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"


def _span(seconds: float) -> str:
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.0f} days"
    return f"{seconds / 3600:.0f} hours" if seconds >= 7200 else f"{seconds / 60:.0f} minutes"


async def hub_certificate(ctx: Context) -> str:
    listeners = [("public certificate", ctx.replica.public_url), ("tunnel certificate", ctx.replica.tunnel_url)]
    details = []
    for what, url in listeners:
        if urlsplit(url).scheme in ("https", "wss"):
            details.append(
                f"{what.split()[0]} {judge(await _presented(url, ctx.env.tls, what), what, datetime.now(UTC))}"
            )
    if not details:
        raise CheckSkipped("the replica has no TLS listener")
    return ", ".join(details)


async def _presented(url: str, tls: ssl.SSLContext, what: str) -> x509.Certificate:
    """The certificate that a listener presents; the handshake verifies its chain and name.

    A tunnel listener asks for ours too, and in TLS 1.3 misses it only after the handshake is complete on our side.
    """
    at = urlsplit(url)
    try:
        _, writer = await asyncio.open_connection(at.hostname, at.port or 443, ssl=tls)
    except ssl.SSLCertVerificationError as error:
        hint = f"The CA in env.json does not vouch for the certificate at {url}: {error.verify_message}."
        raise CheckFailed(f"{what} at {url}: {error.verify_message}", hint) from error
    except OSError as error:
        raise CheckFailed(f"{what}: no TLS connection to {url}: {reason(error)}") from error
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return x509.load_der_x509_certificate(der)


async def ca_certificate(ctx: Context) -> str:
    if not ctx.env.ca_file:
        raise CheckSkipped("the environment names no CA file; the system's authorities are used")
    details = [judge(one, "CA certificate", datetime.now(UTC)) for one in await _read([Path(ctx.env.ca_file)])]
    if not details:
        raise CheckFailed(f"{ctx.env.ca_file} holds no certificate")
    return "; ".join(details)


async def satellite_certificate(ctx: Context) -> str:
    state = Path(ctx.satellite.state) if ctx.satellite.state else None
    if state is None or not state.is_dir():
        raise CheckSkipped("the satellite's state is not on this machine")
    found = await _read(sorted({*state.rglob("*.crt"), *state.rglob("*.pem"), *state.rglob("*.cert")}))
    ours = [one for one in found if f"/satellite/{ctx.satellite.name}" in _spiffe(one)]
    if not ours:
        hint = f"Satellite {ctx.satellite.name} has not joined, or its state folder was emptied: join it again."
        raise CheckFailed(f"no client certificate of {ctx.satellite.name} in {state}", hint)
    newest = max(ours, key=lambda one: one.not_valid_after_utc)
    return judge(newest, "client certificate", datetime.now(UTC))


async def _read(paths: Sequence[Path]) -> list[x509.Certificate]:
    return await asyncio.to_thread(lambda: [one for path in paths for one in _certificates(path)])


def _certificates(path: Path) -> list[x509.Certificate]:
    """Those in a PEM file; none for a file that holds a key alone, or that we may not read."""
    try:
        with path.open("rb") as file:
            return x509.load_pem_x509_certificates(file.read(PEM_BYTES))
    except (OSError, ValueError):
        return []


def _spiffe(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    return " ".join(names.get_values_for_type(x509.UniformResourceIdentifier))


async def clock_skew(ctx: Context) -> str:
    before = time.time()
    response = await ctx.client.request("GET", "/api/v1/version")
    after = time.time()
    date = response.headers.get("date")
    if date is None:
        raise CheckFailed(
            "the answer has no Date field", "RFC 9110 section 6.6.1 asks an origin with a clock for Date."
        )
    try:
        theirs = email.utils.parsedate_to_datetime(date).timestamp()
    except ValueError as error:
        raise CheckFailed(f"the Date field is no date: {date[:40]}") from error
    # Date is cut to whole seconds, so the true time there was in [theirs, theirs + 1).
    skew = max(before - (theirs + 1), theirs - after, 0.0)
    if skew > MAX_SKEW:
        ahead = "behind" if theirs < before else "ahead of"
        detail = f"the replica's clock is {skew:.0f} s {ahead} this machine's"
        raise CheckFailed(
            detail, f"{detail[0].upper()}{detail[1:]}: set both by NTP; tokens and certificates depend on it."
        )
    return "within a second of this machine's" if skew < 1 else f"{skew:.0f} s off this machine's"


CHECKS = (
    Check(
        name="hub-certificate",
        category="certificates",
        scope="replica",
        description="Each TLS listener has a certificate of the hub's CA, for its name, with a fifth of its life left.",
        run=hub_certificate,
        remedy="Renew the listener's certificate; in local mode `platformctl down` and `platformctl up` make new ones.",
        needs=("hub-ready",),
    ),
    Check(
        name="ca-certificate",
        category="certificates",
        scope="environment",
        description="The hub's CA is valid and has a fifth of its life left.",
        run=ca_certificate,
        remedy="Replace the CA before it expires: every certificate of the platform ends with it.",
    ),
    Check(
        name="satellite-certificate",
        category="certificates",
        scope="satellite",
        description="The satellite holds a client certificate with its own name and a fifth of its life left.",
        run=satellite_certificate,
        remedy="The agent renews its certificate at two thirds of its life, over the tunnel: see its log.",
    ),
    Check(
        name="clock-skew",
        category="clock",
        scope="replica",
        description="The replica's clock is within 5 s of this machine's.",
        run=clock_skew,
        remedy="Set both clocks by NTP.",
        needs=("hub-ready",),
    ),
)
