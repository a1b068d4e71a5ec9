"""dagster-dbt without dbt in this process; the rest of the package takes dagster-dbt's names from here.

dagster-dbt does not need dbt-core (it also drives engines that are none), but where it finds it, it imports most of it: 2 of
5 CPU seconds of every process that loads the graph. Nothing here asks dbt in this process: the graph is read off the
manifest, every node of it, and dbt works in a process of its own. A selection of models by dbt's own syntax in
`@dbt_assets(select=...)` would need it; dagster-dbt says so in that case.

Belongs here: that import and nothing else.
"""

import sys

_SEEN_BY = "dbt.version"  # what dagster-dbt looks for
_hidden = _SEEN_BY not in sys.modules
if _hidden:  # whoever has dbt already (a test) loses nothing by it, and keeps it
    sys.modules[_SEEN_BY] = None  # type: ignore[assignment]
try:
    from dagster_dbt import (
        DagsterDbtTranslator,
        DagsterDbtTranslatorSettings,
        DbtCliResource,
        DbtProject,
        dbt_assets,
    )
    from dagster_dbt.errors import DagsterDbtCliRuntimeError
finally:
    if _hidden:
        del sys.modules[_SEEN_BY]

__all__ = [
    "DagsterDbtCliRuntimeError",
    "DagsterDbtTranslator",
    "DagsterDbtTranslatorSettings",
    "DbtCliResource",
    "DbtProject",
    "dbt_assets",
]
