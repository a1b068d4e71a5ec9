{#
    The materialization of segments. A model selects entity_id, entered_at (since when it qualifies) and qualified_at (when it
    last did); it may add columns. What is kept is who is a member at the clock of the run: expires_at is qualified_at plus
    the ttl_days of the meta, and nobody past it is in the table. The SELECT that ran is kept for `zantara segments why`.
#}
{% materialization segment, adapter='duckdb' %}
    {%- set relation = this.incorporate(type='table') -%}
    {{ run_hooks(pre_hooks) }}
    {% call statement('main') -%}
        create or replace table {{ relation }} as {{ members_of(sql, config.get('meta')) }}
    {%- endcall %}
    {% call statement('kept') -%}
        delete from state.segment_sql where segment = '{{ this.name }}'
    {%- endcall %}
    {% call statement('keep') -%}
        insert into state.segment_sql values ('{{ this.name }}', '{{ members_of(sql, config.get("meta")) | replace("'", "''") }}')
    {%- endcall %}
    {{ run_hooks(post_hooks) }}
    {{ adapter.commit() }}
    {{ return({'relations': [relation]}) }}
{% endmaterialization %}

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

{# One row a member, and nobody who has expired or entered after the clock. #}
{% test sound_segment(model) %}
select entity_id
from {{ model }}
group by entity_id
having
    count(*) > 1
    or entity_id is null
    or not coalesce(bool_and(entered_at <= {{ as_of() }} and expires_at > {{ as_of() }} and entered_at < expires_at), false)
{% endtest %}
