"""API keys and JSON Web Tokens."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any

from sandbox_api.log import logger
from sandbox_api.settings import Settings

if TYPE_CHECKING:
    from jwt import PyJWK

SHORTEST_KEY = 15
"""Characters; as many as NIST SP 800-63B asks of a password that nothing else stands beside."""
SMALLEST_SECRET = 32
"""Bytes; RFC 7518 wants as many as the hash of HS256 has."""
SMALLEST_RSA_KEY = 2048
LEEWAY_S = 10
FETCH_TIMEOUT_S = 5
KEYS_FRESH_S = 300
FETCH_PAUSE_S = 2
"""Shortest time between two fetches, so that tokens with made-up key ids cannot make us flood the publisher."""


class ConfigurationError(ValueError):
    """The settings of authentication do not make sense; the message says what to do."""


class InvalidTokenError(Exception):
    """The token is not accepted; the message says why, without the token."""


def _is_strong(key: Any) -> bool:
    return int(getattr(key, "key_size", 0)) >= SMALLEST_RSA_KEY


class PublishedKeys:
    """RSA keys at a JWKS address. Kept while the address does not answer; fetched again when a key id is unknown."""

    def __init__(self, url: str) -> None:
        from jwt import PyJWKClient, PyJWKClientError

        try:
            self._client = PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_TIMEOUT_S)
        except PyJWKClientError as error:
            raise ConfigurationError(f"SANDBOX_JWKS_URL: {error}") from error
        self._keys: dict[str | None, PyJWK] = {}
        self._lock = asyncio.Lock()
        self._stale_at = self._next_fetch = 0.0

    async def find(self, key_id: str | None) -> PyJWK | None:
        if not self._has(key_id):
            async with self._lock:
                now = time.monotonic()
                if not self._has(key_id) and now >= self._next_fetch:
                    self._next_fetch = now + FETCH_PAUSE_S
                    await self._fetch()
        return self._get(key_id)

    def _has(self, key_id: str | None) -> bool:
        return time.monotonic() < self._stale_at and self._get(key_id) is not None

    def _get(self, key_id: str | None) -> PyJWK | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _fetch(self) -> None:
        from jwt import PyJWTError

        try:
            found = (await asyncio.to_thread(self._client.get_jwk_set)).keys
        except (PyJWTError, ValueError, OSError) as error:
            logger.warning("jwks", problem=str(error))
            return
        usable = (key for key in found if key.key_type == "RSA" and key.public_key_use in ("sig", None))
        self._keys = {key.key_id: key for key in usable if _is_strong(key.key)}
        self._stale_at = time.monotonic() + KEYS_FRESH_S


class Tokens:
    """Verifies tokens by the keys in the settings. An algorithm is only ever used with the key made for it.

    Raises:
        ConfigurationError: a key cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        if any(len(key.get_secret_value()) < SHORTEST_KEY for key in settings.api_keys):
            raise ConfigurationError(
                f"an API key has fewer than {SHORTEST_KEY} characters, so that it could be guessed; "
                "`openssl rand -hex 24` makes one for SANDBOX_API_KEYS"
            )
        self._keys = [hashlib.sha256(key.get_secret_value().encode()).digest() for key in settings.api_keys]
        self._audience, self._issuer = settings.jwt_audience, settings.jwt_issuer
        self._secret = settings.jwt_secret.get_secret_value().encode() if settings.jwt_secret else None
        if self._secret is not None and len(self._secret) < SMALLEST_SECRET:
            raise ConfigurationError(f"SANDBOX_JWT_SECRET is shorter than {SMALLEST_SECRET} bytes")
        self._public_key = _load(settings.jwt_public_key) if settings.jwt_public_key else None
        self._published = PublishedKeys(settings.jwks_url) if settings.jwks_url else None

    @property
    def methods(self) -> list[str]:
        """What is accepted, for people."""
        return [
            name
            for name, accepted in (
                ("API keys", self._keys),
                ("HS256 tokens", self._secret),
                ("RS256 tokens", self._public_key or self._published),
            )
            if accepted
        ]

    @property
    def takes_jwt(self) -> bool:
        return bool(self._secret or self._public_key or self._published)

    def knows_key(self, candidate: str) -> bool:
        """Whether it is an API key. All of them are compared, each in constant time."""
        digest = hashlib.sha256(candidate.encode("utf-8", "surrogatepass")).digest()
        return sum(hmac.compare_digest(digest, known) for known in self._keys) > 0

    async def subject(self, token: str) -> str:
        """Whom a JWT is about.

        Raises:
            InvalidTokenError: it is malformed, not signed by an accepted key, without an end or expired, or meant for
                others.
        """
        if not self.takes_jwt:
            raise InvalidTokenError("the key is not known")
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            keys: list[Any] = []
            if algorithm == "HS256" and self._secret:
                keys = [self._secret]
            elif algorithm == "RS256":
                published = await self._published.find(header.get("kid")) if self._published else None
                keys = [key for key in (published and published.key, self._public_key) if key is not None]
            if not keys:
                raise InvalidTokenError("no key of this sandbox fits the token's algorithm and key id")
            problem: Exception | None = None
            for key in keys:
                try:
                    claims = jwt.decode(
                        token,
                        key,
                        algorithms=[str(algorithm)],
                        audience=self._audience,
                        issuer=self._issuer,
                        leeway=LEEWAY_S,
                        options={"require": ["exp"]},
                    )
                    return str(claims.get("sub", ""))
                except jwt.InvalidSignatureError as error:
                    problem = error
            raise InvalidTokenError("the token's signature is wrong") from problem
        except jwt.InvalidAudienceError as error:
            wanted = self._audience or "none, as SANDBOX_JWT_AUDIENCE is not set"
            raise InvalidTokenError(f"the token is for another audience; accepted here: {wanted}") from error
        except jwt.PyJWTError as error:
            raise InvalidTokenError(f"the token is not accepted: {error}") from error


def _load(text: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        # Environment files often carry line ends as \n.
        key = load_pem_public_key(text.replace("\\n", "\n").encode())
    except ValueError as error:
        raise ConfigurationError("SANDBOX_JWT_PUBLIC_KEY is not a PEM public key") from error
    if not isinstance(key, RSAPublicKey) or not _is_strong(key):
        raise ConfigurationError(f"SANDBOX_JWT_PUBLIC_KEY is not an RSA key of at least {SMALLEST_RSA_KEY} bits")
    return key
