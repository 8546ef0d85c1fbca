"""What `sam2edge doctor` says of the service: whether its configuration can be read, and what it follows."""

from __future__ import annotations

from pathlib import Path

from sam2edge.diagnosis.findings import BROKEN, MISSING, NOTE, Finding
from sam2edge.errors import Sam2EdgeError
from sam2edge.serve.settings import SYSTEM_CONFIG, read_settings
from sam2edge.video.sources.address import without_password


def look_at_service(path: Path = SYSTEM_CONFIG) -> Finding:
    """Never raises."""
    name = "service"
    try:
        if not path.exists():
            return Finding(name, MISSING, f"no {path}", "see docs/serve.md to run sam2edge serve as a service")
        settings = read_settings(path, {})
        settings.check_tls()
        has_token = settings.read_token() is not None
    except (Sam2EdgeError, OSError) as error:
        return Finding(name, BROKEN, f"{path}: {error}", f"edit {path}")
    guarded = "a token" if has_token else "a new token each time" if settings.is_open_to_others else "no token"
    where = f"{settings.host}:{settings.port}, {guarded}"
    return Finding(name, NOTE, f"{path}: follows {without_password(settings.source)}, model {settings.model}, {where}")
