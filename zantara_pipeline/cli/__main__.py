"""`python -m zantara_pipeline.cli` is the `zantara` command."""

from zantara_pipeline.cli import main

main()
