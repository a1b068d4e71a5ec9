{#
    How a segment whose meta says `incremental: true` follows the lake without reading all of it again.

    Who is a member depends then on the member's own events, on the consent of the people in them, and on the clock. So the
    entities to ask again are those with a note since the segment's last build (touched.sql), with an event that was staged
    again, and with an event that the clock has passed: when it became known, or an edge of a window that it left. All
    others stay what they are, until they expire. The macros of allowed.sql read the events of these entities only.

    When anything else may have changed, the segment is made whole: its SELECT, a clock that went back, an index of events
    or a history of consent that was made anew, a build that did not bring up to date first what the segment reads.
#}

{% macro segment_meta() -%}
    {{ return((model.config.meta if model is defined else none) or {}) }}
{%- endmacro %}

{# The column of an event that names the entity of this segment. A session is followed by its stream: all sessions of a
   stream are cut again where one of its events changed. #}
{% macro entity_column() -%}
    {{ return(
        {'device': 'device_id', 'organisation': 'organisation_id', 'session': 'stream'}.get(segment_meta().get('entity'), 'user_id')
    ) }}
{%- endmacro %}

{# Only events of the scope, as a comment that the materialization opens where it follows: what is compiled, and kept for
   `zantara segments why`, is the whole SELECT. Its condition asks no macro that returns: sqlfluff would read {} for all of it. #}
{% macro only_in_scope(alias) -%}
    {% if ((model.config.meta if model is defined else none) or {}).get('incremental') -%}
    /* where it follows: and {{ alias }}.{{ entity_column() }} in (select scope.entity_id from state.segment_scope as scope) */
    {%- endif %}
{%- endmacro %}

{% macro select_of_all(sql) -%}
    {{ return(modules.re.sub(' */\\* where it follows: .*? \\*/', '', sql)) }}
{%- endmacro %}

{% macro select_of_scope(sql) -%}
    {{ return(modules.re.sub('/\\* where it follows: (.*?) \\*/', '\\1', sql)) }}
{%- endmacro %}

{# The same, from the extract of the events of the scope. #}
{% macro select_of_extract(sql) -%}
    {{ return(select_of_scope(sql) | replace(all_events(), 'temp.scope_events')) }}
{%- endmacro %}

{# Does the SELECT read events of all names? Then those of the scope are found once: to find them among all events costs
   most of what such a segment costs, whose conditions would be asked of every event besides. Not those of sessions: they
   read a week of few streams, and the extract would have all of these streams. #}
{% macro reads_all_events(sql) -%}
    {{ return(entity_column() != 'stream' and all_events() in sql) }}
{%- endmacro %}

{# The columns of events that a SELECT names; all of them where it hands on what it does not name. #}
{% macro columns_read(sql) -%}
    {% set of_macros = 'select events\\.\\*\\s+from ' ~ modules.re.escape(all_events()) %}
    {% set unnamed = '*' in (modules.re.sub(of_macros, '', select_of_all(sql)) | replace('count(*)', '')) %}
    {% set found = [] %}
    {% for column in adapter.get_columns_in_relation(load_cached_relation(api.Relation.create(
        database=model.database, schema='staging', identifier='stg_lake__events'))) %}
        {% if unnamed or modules.re.search('\\b' ~ column.name ~ '\\b', sql) %}{% do found.append(column.name) %}{% endif %}
    {% endfor %}
    {{ return(found) }}
{%- endmacro %}

{# Temporary: it holds what people did, and nothing may be left of that after the run. #}
{% macro extract_scope(sql) -%}
    create or replace temporary table scope_events as
    select {{ columns_read(sql) | join(', ') }}
    from {{ all_events() }} as events
    where events.{{ entity_column() }} in (select scope.entity_id from state.segment_scope as scope)
{%- endmacro %}

{# By its name and not by ref: what a model reads has to be known when dbt parses, and no SELECT of a segment says this. Its
   index is made before, because all that a segment can read is made of it. #}
{% macro all_events() -%}
    {{ graph.nodes['model.' ~ project_name ~ '.stg_lake__events'].relation_name }}
{%- endmacro %}

{# Is all that the segment reads brought up to date by this build? Else nobody knows which notes are in it already. #}
{% macro reads_this_build() -%}
    {% set needed = model.depends_on.nodes + ['model.' ~ project_name ~ '.int_events__indexed'] %}
    {{ return(needed | reject('in', selected_resources) | list | length == 0) }}
{%- endmacro %}

{# Does the table hold what this SELECT said at an earlier clock, with all notes up to a known one? #}
{% macro table_can_follow(members_sql) -%}
    select count(*) > 0 as can_follow
    from state.touched_seen as seen
    inner join state.segment_sql as kept on seen.model = kept.segment
    inner join information_schema.tables as tables on seen.model = tables.table_name
    where
        seen.model = '{{ this.name }}' and seen.as_of <= {{ as_of() }}
        and tables.table_schema = '{{ this.schema }}' and tables.table_catalog = '{{ this.database }}'
        and kept.sql = '{{ members_sql | replace("'", "''") }}'
{%- endmacro %}

{% macro segment_follows(members_sql) -%}
    {% if not segment_meta().get('incremental') or flags.FULL_REFRESH or not reads_this_build() or not knows_its_edges(model.compiled_code) %}
        {{ return(false) }}
    {% endif %}
    {{ return(run_query(table_can_follow(members_sql)).columns[0].values()[0]) }}
{%- endmacro %}

{# After how many seconds time alone changes what a SELECT says of an event: the windows that it looks back over, what it
   adds to a time, and both together. #}
{% macro edges_of(sql) -%}
    {% set edges = [0] %}
    {% for added in seconds_after(sql, '\\+') %}
        {% for edge in edges | list %}{% do edges.append(edge + added) %}{% endfor %}
    {% endfor %}
    {% set windows = [0] + seconds_after(sql, '-') %}
    {% set found = [] %}
    {% for edge in edges %}
        {% for window in windows %}{% do found.append(edge + window) %}{% endfor %}
    {% endfor %}
    {{ return(found | reject('equalto', 0) | unique | sort) }}
{%- endmacro %}

{% macro seconds_after(sql, sign) -%}
    {% set lengths = {'second': 1, 'minute': 60, 'hour': 3600, 'day': 86400} %}
    {% set found = [] %}
    {% for number, unit in modules.re.findall(sign ~ '\\s*interval (\\d+) (second|minute|hour|day)\\b', sql) %}
        {% do found.append((number | int) * lengths[unit]) %}
    {% endfor %}
    {{ return(found | unique | list) }}
{%- endmacro %}

{# Is every interval that is added or taken off one of those that edges_of reads? #}
{% macro knows_its_edges(sql) -%}
    {{ return(
        modules.re.findall('[-+]\\s*interval\\b', sql, modules.re.I) | length
        == modules.re.findall('[-+]\\s*interval \\d+ (?:second|minute|hour|day)\\b', sql) | length
    ) }}
{%- endmacro %}

{# Entities whose membership may differ from what the table says. Each part begins with a bound that is one subquery: with
   that the engine skips nearly all blocks of the index, which lies in the order of receipt. #}
{% macro find_scope() -%}
    {% set column = entity_column() %}
    create or replace table state.segment_scope as
    with seen as (select seen.build, seen.as_of from state.touched_seen as seen where seen.model = '{{ this.name }}'),

    notes as (
        select touched.entity, touched.entity_id from state.touched as touched
        where touched.build > (select seen.build from seen)
    ),

    entities as (
        select notes.entity_id from notes where notes.entity = '{{ "stream" if column == "stream" else segment_meta()["entity"] }}'
        union all
        select events.{{ column }}
        from {{ all_events() }} as events
        where
            events.received_date >= (select min(cast(notes.entity_id as date)) from notes where notes.entity = 'received_date')
            and events.received_date in (select cast(notes.entity_id as date) from notes where notes.entity = 'received_date')
        {% for known_at in ['occurred_at', 'received_at'] %}
        union all
        select events.{{ column }}
        from {{ all_events() }} as events
        where events.{{ known_at }} > (select seen.as_of from seen) and events.{{ known_at }} <= {{ as_of() }}
        {% endfor %}
        {% for edge in edges_of(model.compiled_code) %}
        union all
        select events.{{ column }}
        from {{ all_events() }} as events
        where
            events.occurred_at > (select seen.as_of - interval {{ edge }} second from seen)
            and events.occurred_at <= {{ as_of() }} - interval {{ edge }} second
        {% endfor %}
        {% if column == 'stream' %}
        {# sessions of core are cut from all that is known: where that is more than was known at the clock, nobody can tell
           by them which members are of a stream that stays #}
        {% for known_at in ['occurred_at', 'received_at'] %}
        union all
        select events.stream from {{ all_events() }} as events where events.{{ known_at }} > {{ as_of() }}
        {% endfor %}
        {% endif %}
        {% if column != 'user_id' %}
        union all
        select events.{{ column }}
        from {{ all_events() }} as events
        where events.user_id in (select notes.entity_id from notes where notes.entity = 'consent')
        {% endif %}
    )

    select distinct entities.entity_id from entities where entities.entity_id is not null
{%- endmacro %}

{# Members that may not be members any more. A session of the scope may have another id now: what stays is a session of core
   whose stream is not in the scope. #}
{% macro leave_scope(relation) -%}
    delete from {{ relation }}
    where
        expires_at <= {{ as_of() }}
        {% if entity_column() == 'stream' %}
        or entity_id not in (
            select sessions.session_id
            from {{ graph.nodes['model.' ~ project_name ~ '.sessions'].relation_name }} as sessions
            where
                sessions.session_id in (select members.entity_id from {{ relation }} as members)
                and sessions.stream not in (select scope.entity_id from state.segment_scope as scope)
        )
        {% else %}
        or entity_id in (select scope.entity_id from state.segment_scope as scope)
        {% endif %}
{%- endmacro %}

{# In the transaction that changes the members. A segment that is made whole each time takes no notes, and none wait for it. #}
{% macro mark_followed() -%}
    {% if segment_meta().get('incremental') and reads_this_build() %}
        {{ mark_seen() }}
    {% else %}
        delete from state.touched_seen where model = '{{ this.name }}'
    {% endif %}
{%- endmacro %}
