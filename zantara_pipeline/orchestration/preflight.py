"""Reading every contract before a run takes anything: a typo must be found first, not after the events are in.

Belongs here: which contracts a run needs, files of an overlay that nothing reads, a lake that the plan cannot read. Does not belong here: what a
contract means (each domain's own loader says what is wrong, with file, line and key).
"""

from fnmatch import fnmatch
from pathlib import Path

from zantara_pipeline.alerts import load_alerts_config
from zantara_pipeline.contracts_io import PACKAGED, overlay_files, refuse_misplaced
from zantara_pipeline.errors import InputError
from zantara_pipeline.experiments import load_experiments
from zantara_pipeline.privacy.keyed_hash import load_keyring
from zantara_pipeline.recommend import load_config
from zantara_pipeline.segments.contract import check_segments
from zantara_pipeline.segments.destinations import check_destinations, load_export_keys
from zantara_pipeline.segments.visibility import load_rules
from zantara_pipeline.settings import PROJECT_ROOT, Settings
from zantara_pipeline.storage.home import Home
from zantara_pipeline.tracking.adapters import load_adapters
from zantara_pipeline.tracking.direct import refuse_missing_keys
from zantara_pipeline.tracking.migrations import refuse_unread_types
from zantara_pipeline.tracking.plan import load_plan

# What the loaders below look for; a file of an overlay with another name would be ignored without a word.
KNOWN_FILES = (
    "tracking_plan/*.yaml",
    "experiments/*.yaml",
    "recommendation.yaml",
    "privacy.yaml",
    "alerts.yaml",
    "adapters.yaml",
    "segments.yaml",
)

DBT_PROJECT = PROJECT_ROOT / "dbt_project"


def check_contracts(settings: Settings) -> None:
    """Load tracking plan, privacy, adapters, experiments, recommendation, segments, destinations and alerts as the steps will.

    Raises
    ------
    InputError : the first thing wrong, with file, line and key (of segments: everything, a line each); a YAML file of the overlay that nothing reads; a type
        that changed without a migration while the lake holds the event; direct identifiers or destinations of exports and no key.
    """
    folders = settings.contract_dirs
    if settings.contracts is not None:
        refuse_misplaced(settings.contracts)  # first: of a folder that is one too deep nothing would be read
        _refuse_unread(settings.contracts)
    load_adapters(folders, load_plan(folders).privacy)
    keyring = load_keyring(settings.pii_keys_file, settings.pii_keys_text)
    refuse_missing_keys(load_plan(folders), keyring, folders)
    refuse_unread_types(Home(settings.home), load_plan(folders), folders)
    load_experiments([folder / "experiments" for folder in folders])
    load_config(folders)
    load_rules(folders)
    plan = load_plan(folders)
    metas = check_segments(DBT_PROJECT, plan.purposes)
    check_destinations(plan.privacy, metas, load_export_keys(settings), folders)
    load_alerts_config(overlay_files(folders, "alerts.yaml")["alerts.yaml"])


def _refuse_unread(overlay: Path) -> None:
    for path in sorted(p for p in overlay.rglob("*") if p.suffix in (".yaml", ".yml")):
        name = path.relative_to(overlay).as_posix()
        if not any(fnmatch(name, known) and name.count("/") == known.count("/") for known in KNOWN_FILES):
            raise InputError(
                "nothing reads a contract of this name",
                path,
                f"name it like those in {PACKAGED.name}/: {', '.join(KNOWN_FILES)}",
            )
