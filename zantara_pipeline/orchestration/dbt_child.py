"""The dbt program, started so that it dies with its parent (console script `zantara-dbt`).

Killing Dagster orphans dbt, and an orphaned dbt keeps the warehouse locked, so that the next run fails.
"""


def main() -> None:
    from zantara_pipeline.storage.home import die_with_parent

    die_with_parent()
    from dbt.cli.main import cli

    cli()


if __name__ == "__main__":
    main()
