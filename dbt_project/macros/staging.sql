{# Staging is rebuilt from one received date on: what it held from there is removed first. #}
{% macro delete_from_rebuild_date() %}
    {% if is_incremental() %}
        delete from {{ this }} where received_date >= {{ rebuild_from() }}
    {% else %}
        select 1
    {% endif %}
{% endmacro %}

{# One event of the lake without its duplicates, with all declared properties. #}
{% macro staged_event(event) %}
select event_rows.*
from {{ source('lake', event) }} as event_rows
anti join {{ ref('int_events__indexed') }} as duplicates
    on
        duplicates.is_duplicate
        and duplicates.received_date >= {{ rebuild_from() }}
        and event_rows.source = duplicates.source
        and event_rows.line_no = duplicates.line_no
where event_rows.received_date >= {{ rebuild_from() }}
{% endmacro %}
