"""The dbt program, started so that it dies with its parent (console script `zantara-dbt`).

Killing Dagster orphans dbt, and an orphaned dbt keeps the warehouse locked, so that the next run fails.
"""

import sys


def main() -> None:
    from zantara_pipeline.storage.home import die_with_parent

    die_with_parent()
    if sys.argv[1:] == ["--version"]:
        # dagster-dbt asks before every build; dbt takes 4 CPU seconds to say it.
        from importlib.metadata import version

        print(f"Core:\n  - installed: {version('dbt-core')}")
        return
    from dbt.cli.main import cli

    cli()


if __name__ == "__main__":
    main()
