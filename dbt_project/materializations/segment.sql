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
