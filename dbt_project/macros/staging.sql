{# Staging is rebuilt from one received date on (and single dates before it): what it held of them is removed first, and
   so is what retention took from the lake since the last build. #}
{% macro delete_from_rebuild_date() %}
    {# core has to know what goes, and that has to be asked before it is gone #}
    {% if model.name == 'int_events__indexed' %}{{ keep_leaving_events() }}{% endif %}
    {% if is_incremental() %}
        delete from {{ this }} where {{ is_unstaged() }}
    {% else %}
        select 1
    {% endif %}
{% endmacro %}

{# The rows that a build removes before it stages. Its first condition lets the engine skip, as that of is_restaged. #}
{% macro is_unstaged() %}
    (
        received_date >= (
            select min(dates.received_date) from (
                select {{ first_restaged() }} as received_date
                union all
                select removed.received_date from state.removed_partitions as removed
            ) as dates
        )
        and (
            {{ is_restaged('received_date') }}
            or (event, received_date) in (select (removed.event, removed.received_date) from state.removed_partitions as removed)
        )
    )
{% endmacro %}

{# One event of the lake without its duplicates, with all declared properties. #}
{% macro staged_event(event) %}
select event_rows.*
from {{ source('lake', event) }} as event_rows
anti join {{ ref('int_events__indexed') }} as duplicates
    on
        duplicates.is_duplicate
        and {{ is_restaged('duplicates.received_date') }}
        and event_rows.source = duplicates.source
        and event_rows.line_no = duplicates.line_no
where {{ is_restaged('event_rows.received_date') }}
{% endmacro %}

{# An event that only an overlay of contracts declares is kept in the lake, and no model stages it. #}
{% macro some_events_are_not_staged() %}
exists (
    select kept_events.event
    from state.kept_events as kept_events
    where kept_events.event not in ('{{ lake_events() | join("', '") }}')
)
{%- endmacro %}
