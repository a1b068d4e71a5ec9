"""The dbt program, started so that it dies with its parent (console script `zantara-dbt`).

Killing Dagster orphans dbt, and an orphaned dbt keeps the warehouse locked, so that the next run fails.

`--parsed FILE` before the verb hands dbt the project as it was parsed before (`orchestration.dbt.ensure_manifest` knows that
it is this project). Left to itself dbt compares every file with what it kept, and parses all of them again (2.5 CPU
seconds) in a home that is new or was copied, because the path of the warehouse is part of the comparison.
"""

import gc
import sys
from pathlib import Path
from typing import Any

PARSED = "--parsed"


def main() -> None:
    from zantara_pipeline.storage.home import die_with_parent

    die_with_parent()
    gc.set_threshold(50_000, 20, 100)  # as in zantara_pipeline.cli
    from dbt.cli.main import cli, dbtRunner
    from dbt_common.exceptions import DbtBaseException

    if sys.argv[1:2] != [PARSED]:
        cli()
        return
    done = dbtRunner(manifest=_manifest(Path(sys.argv[2]))).invoke(sys.argv[3:])
    if done.exception is not None and not isinstance(done.exception, DbtBaseException):  # its own dbt has said already
        print(repr(done.exception), file=sys.stderr)
    # the codes are those of its command
    sys.exit(0 if done.success else 2 if done.exception else 1)


def _manifest(parsed: Path) -> Any:
    from dbt.contracts.graph.manifest import Manifest
    from dbt.parser.manifest import extended_mashumuro_decoder

    manifest: Any = Manifest.from_msgpack(parsed.read_bytes(), decoder=extended_mashumuro_decoder)
    # what is not kept and macros ask for (`graph`); dbt makes it after every parse
    manifest.build_parent_and_child_maps()
    manifest.build_flat_graph()
    return manifest


if __name__ == "__main__":
    main()
