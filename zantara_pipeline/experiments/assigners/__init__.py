"""What an application takes along to assign units as experiments.json says: one file without dependencies, each language.

Belongs here: those files (assigner.py, assigner.ts), as they are handed out. Does not belong here: writing experiments.json
(served.py). They are held to each other and to SQL by one table of vectors (tests/unit/experiments).
"""

from __future__ import annotations

from pathlib import Path

FILES = {"python": "assigner.py", "typescript": "assigner.ts"}


def assigner_files(language: str) -> dict[str, str]:
    """Name -> text of the file of a language of `FILES`, named for its new place."""
    name = FILES[language]
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return {f"zantara_experiments{Path(name).suffix}": text}
