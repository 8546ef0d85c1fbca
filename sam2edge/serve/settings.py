"""What `sam2edge serve` is told, by options or in one TOML file."""

from __future__ import annotations

import dataclasses
import os
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2edge.errors import InvalidInputError
from sam2edge.serve.access import is_loopback

TOKEN_VARIABLE = "SAM2EDGE_TOKEN"
SYSTEM_CONFIG = Path("/etc/sam2edge/serve.toml")
"""Where the systemd unit and `sam2edge doctor` look."""


@dataclass(frozen=True)
class Settings:
    """Every key of the TOML file, with what it is when left out. Options on the command line have the same names."""

    source: str = ""
    loop: bool = False
    model: str = "auto"
    backend: str = "auto"
    checkpoint: str = ""
    size: int = 0
    host: str = "127.0.0.1"
    port: int = 8000
    token_file: str = ""
    allow_hosts: tuple[str, ...] = ()
    tls_cert: str = ""
    tls_key: str = ""
    recordings: str = "recordings"
    max_clients: int = 8
    max_objects: int = 16
    picture_side: int = 1280
    jpeg_quality: int = 80

    def __post_init__(self) -> None:
        for name, low, high in (
            ("port", 0, 65535),
            ("max_clients", 1, 64),
            ("max_objects", 1, 255),
            ("picture_side", 64, 4096),
            ("jpeg_quality", 10, 100),
            ("size", 0, 4096),
        ):
            if not low <= getattr(self, name) <= high:
                raise InvalidInputError(f"{name} out of range", expected=f"{low} to {high}", got=getattr(self, name))
        if not self.source:
            raise InvalidInputError(
                "no source", expected="a file, a camera or an address", remedy="see docs/sources.md"
            )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise InvalidInputError("TLS needs both files", expected="tls_cert and tls_key", got="one of them")
        for path in filter(None, (self.tls_cert, self.tls_key, self.token_file)):
            if not Path(path).is_file():
                raise InvalidInputError("file not found", expected="a file", got=path)

    @property
    def is_open_to_others(self) -> bool:
        """Whether other machines reach the server."""
        return not is_loopback(self.host)

    def check_tls(self) -> None:
        """Raises InvalidInputError where the certificate and the key cannot be used to serve HTTPS."""
        if not self.tls_cert:
            return
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.tls_cert, self.tls_key, password=lambda: "")  # nobody is asked for one
        except OSError as error:
            reason = getattr(error, "reason", None) or ("" if isinstance(error, ssl.SSLError) else error.strerror)
            reason = (reason or "no PEM, or a password").lower().replace("_", " ")
            raise InvalidInputError(
                "certificate or key cannot be used",
                expected="PEM files that belong together, the key without a password",
                got=f"{reason} in {self.tls_cert}, {self.tls_key}",
                remedy="openssl x509 -in CERT and openssl pkey -in KEY tell what they hold",
            ) from error

    def read_token(self) -> str | None:
        """The token, of $SAM2EDGE_TOKEN or the file; None where none is set.

        Raises InvalidInputError for one that is too short to be one.
        """
        token = os.environ.get(TOKEN_VARIABLE, "")
        if not token and self.token_file:
            token = Path(self.token_file).read_text(encoding="utf-8", errors="replace").strip()
        elif not token:
            return None
        if not 16 <= len(token) <= 200 or not token.isascii() or not token.isprintable() or " " in token:
            raise InvalidInputError(
                "token cannot be used",
                expected="16 to 200 letters, digits and signs without a space",
                got=f"{len(token)} characters",
                remedy="openssl rand -hex 16 makes one",
            )
        return token


def read_settings(path: Path | None, options: dict[str, Any]) -> Settings:
    """The settings of a TOML file, if there is one, with `options` before them.

    Raises InvalidInputError, naming the key, for a file that cannot be read and keys that are not known.
    """
    found = {} if path is None else _read_toml(path)
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    for name, value in found.items():
        if name not in fields:
            raise InvalidInputError("unknown key in the configuration", expected=", ".join(fields), got=name)
        wanted = type(fields[name].default)
        if wanted is tuple and isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            found[name] = tuple(value)
        elif type(value) is not wanted:
            kinds = {str: "a text", int: "a whole number", bool: "true or false", tuple: "a list of texts"}
            raise InvalidInputError(f"{name} in the configuration cannot be used", expected=kinds[wanted], got=value)
    return Settings(**{**found, **options})


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            "configuration cannot be read", expected="a TOML file", got=f"{path}: {error}", remedy="see docs/serve.md"
        ) from error
