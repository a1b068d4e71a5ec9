{#
    What makes members of a SELECT; the materialization of segments sends it (materializations/segment.sql, a folder of its own
    because sqlfluff reads the macros and knows no materializations).
#}

{# Made before every build (on-run-start). #}
{% macro make_segment_tables() %}
    create schema if not exists state;
    create table if not exists state.segment_sql (segment varchar, sql varchar);
{% endmacro %}

{# Who is a member at the clock: qualified, and not expired. #}
{% macro members_of(select_sql, meta) -%}
with qualified as (
    {{ select_sql }}
),

dated as (
    select
        entity_id,
        entered_at,
        qualified_at + interval {{ meta['ttl_days'] }} day as expires_at,
        qualified.* exclude (entity_id, entered_at)
    from qualified
)

select * exclude (qualified_at)
from dated
where
    entity_id is not null
    and entered_at <= qualified_at
    and qualified_at <= {{ as_of() }}
    and expires_at > {{ as_of() }}
{%- endmacro %}
