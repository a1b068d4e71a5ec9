{#
    The materialization of segments. A model selects entity_id, entered_at (since when it qualifies) and qualified_at (when it
    last did); it may add columns. What is kept is who is a member at the clock of the run: expires_at is qualified_at plus
    the ttl_days of the meta, and nobody past it is in the table. The whole SELECT is kept for `zantara segments why`. A segment
    that follows asks only entities of which something changed (macros/following.sql).
#}
{% materialization segment, adapter='duckdb' %}
    {%- set relation = this.incorporate(type='table') -%}
    {%- set members = members_of(select_of_all(sql), config.get('meta')) -%}
    {{ run_hooks(pre_hooks) }}
    {% if segment_follows(members) %}
        {% call statement('scope') -%}
            {{ find_scope() }}
        {%- endcall %}
        {% if reads_all_events(sql) %}
            {% call statement('extract') -%}
                {{ extract_scope(model.compiled_code) }}
            {%- endcall %}
        {% endif %}
        {% call statement('leave') -%}
            {{ leave_scope(relation) }}
        {%- endcall %}
        {% call statement('main') -%}
            {% set of_scope = select_of_extract(sql) if reads_all_events(sql) else select_of_scope(sql) %}
            insert into {{ relation }} by name {{ members_of(of_scope, config.get('meta')) }}
        {%- endcall %}
        {% if reads_all_events(sql) %}
            {% call statement('forget') -%}
                drop table temp.scope_events
            {%- endcall %}
        {% endif %}
    {% else %}
        {% call statement('main') -%}
            create or replace table {{ relation }} as {{ members }}
        {%- endcall %}
        {% call statement('kept') -%}
            delete from state.segment_sql where segment = '{{ this.name }}'
        {%- endcall %}
        {% call statement('keep') -%}
            insert into state.segment_sql values ('{{ this.name }}', '{{ members | replace("'", "''") }}')
        {%- endcall %}
    {% endif %}
    {% call statement('seen') -%}
        {{ mark_followed() }}
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
