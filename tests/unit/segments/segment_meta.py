"""What a sound segment says of itself."""

from __future__ import annotations

from typing import Any

META: dict[str, Any] = {
    "owner": "growth@example.com",
    "purpose": "personalization",
    "legal_basis": "consent",
    "entity": "user",
    "ttl_days": 30,
    "access_level": "internal",
    "min_size": 10,
}
