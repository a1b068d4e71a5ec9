{#
    How core follows the lake without reading all of it again.

    int_events__indexed writes into state.touched which entities gained or lost an event, once per build (a number that
    only grows). Every model of core that follows it remembers in state.touched_seen the last build that it has taken,
    in the transaction that changes its rows. It then removes the entities touched since and makes them anew from all
    their events. So a build that was killed, or ran some models only, leaves nothing out: what a model has not seen, it
    still has to take.
#}

{# Made before every build (on-run-start). #}
{% macro make_touched_tables() %}
    create schema if not exists state;
    create table if not exists state.touched (
        build bigint, entity varchar, entity_id varchar, first_at timestamp with time zone, last_at timestamp with time zone
    );
    create table if not exists state.touched_seen (model varchar, build bigint, as_of timestamp with time zone);
{% endmacro %}

{% macro next_build() -%}
    (
        select 1 + coalesce(max(builds.build), 0)
        from (select touched.build from state.touched as touched union all select seen.build from state.touched_seen as seen) as builds
    )
{%- endmacro %}

{# What core reads of an event: an event that comes back with all of it equal has not changed. #}
{% macro followed_columns() -%}
    event_id, occurred_at, user_id, anonymous_id, session_id, device_id, organisation_id, platform, stream
{%- endmacro %}

{# The events of one table that the other has not, with all of it equal. By their id: a set operation of all columns costs
   seven times as much on a usual day, when nothing leaves. Of what was staged together, one event of an id is no copy; of
   what leaves, two may be that lay too far apart. #}
{% macro without(these, those) -%}
    select these.*
    from {{ these }} as these
    anti join {{ those }} as those
        on
            these.event_id = those.event_id
            {%- for column in followed_columns().split(',') + ['copies'] %}
            and these.{{ column | trim }} is not distinct from those.{{ column | trim }}
            {%- endfor %}
{%- endmacro %}

{# Before the index forgets rows: keep what core read of them. An index made from nothing begins the count anew. #}
{% macro keep_leaving_events() %}
    {% if is_incremental() %}
        create or replace table state.leaving_events as
        select {{ followed_columns() }}, count(*) as copies
        from {{ this }}
        where not is_duplicate and {{ is_unstaged() }}
        group by all;
        create or replace table state.leaving_dates as
        select distinct received_date from {{ this }} where {{ is_unstaged() }};
    {% else %}
        {# consent_history follows the ledger of consent and not events; it may have run before #}
        delete from state.touched where entity != 'consent';
        delete from state.touched_seen where model != 'consent_history';
    {% endif %}
{% endmacro %}

{# After the index is filled: note the entities of events that came, went or changed, and forget notes that all have read. #}
{% macro note_touched() %}
    {% if is_incremental() %}
        create or replace table state.changed_events as
        with came as (
            select {{ followed_columns() }}, 1 as copies
            from {{ this }}
            where not is_duplicate and {{ is_restaged('received_date') }}
        )
        {{ without('came', 'state.leaving_events') }}
        union all
        {{ without('state.leaving_events', 'came') }};
        delete from state.touched
        where build <= (select min(seen.build) from state.touched_seen as seen);
        insert into state.touched
        with noted as (
            {% for entity, column in [
                ('user', 'user_id'), ('anonymous', 'anonymous_id'), ('device', 'device_id'),
                ('organisation', 'organisation_id'), ('stream', 'stream')
            ] %}
            select '{{ entity }}' as entity, {{ column }} as entity_id, min(occurred_at) as first_at, max(occurred_at) as last_at
            from state.changed_events
            where {{ is_known(column) }}
            group by {{ column }}
            {% if not loop.last %} union all {% endif %}
            {% endfor %}
        )
        select {{ next_build() }}, noted.* from noted
        union all
        {# properties may have changed where nothing of the index did: whoever reads those asks the events of these dates;
           of a date that retention took there are none to ask, and whoever kept what they were has to know that, too #}
        select {{ next_build() }}, 'received_date', cast(dates.received_date as varchar), null, null
        from (
            select events.received_date from {{ this }} as events where {{ is_restaged('events.received_date') }}
            union
            select leaving.received_date from state.leaving_dates as leaving
        ) as dates;
        drop table state.leaving_events;
        drop table state.leaving_dates;
        drop table state.changed_events;
    {% else %}
        select 1
    {% endif %}
{% endmacro %}

{% macro has_seen(name) %}
    {{ return(run_query("select count(*) from state.touched_seen where model = '" ~ name ~ "'").columns[0].values()[0] > 0) }}
{% endmacro %}

{# Can this model take changes only? Not when it is made anew, and not when the index was. #}
{% macro takes_changes_only() %}
    {% if not execute or not is_incremental() %}
        {{ return(false) }}
    {% endif %}
    {{ return(has_seen(this.name) and (this.name not in reads_touched_events() or has_seen('int_events__touched'))) }}
{% endmacro %}

{#
    The events of all touched people, anonymous ids and devices are found once, in int_events__touched, for the models that
    make those anew. It has them since the last build that each of these models has taken, and they take notes up to the
    build that it had seen: what came later, it does not have. Each names both tables where it reads: a macro that asked
    takes_changes_only() for them would render as False where sqlfluff lints.
#}
{% macro reads_touched_events() %}
    {{ return(['devices', 'identities', 'identity_map', 'organisation_members', 'users']) }}
{% endmacro %}

{# Is a column one of the ids of which a model of these has not taken the notes yet? #}
{% macro is_to_be_taken(column, entity) -%}
    {{ column }} in (
        select touched.entity_id
        from state.touched as touched
        where
            touched.entity = '{{ entity }}'
            and touched.build > (
                select min(seen.build) from state.touched_seen as seen
                where seen.model in ('{{ reads_touched_events() | join("', '") }}')
            )
    )
{%- endmacro %}

{# Before int_events__touched is made. Without what it has seen nobody knows how the clock moved: all are made anew then. #}
{% macro begin_touched_events() %}
    {% if execute and has_seen(this.name) %}
        {{ note_moved_clock() }}
    {% else %}
        delete from state.touched_seen where model in ('{{ reads_touched_events() | join("', '") }}')
    {% endif %}
{% endmacro %}

{# The notes that this model has not taken yet. #}
{% macro unseen(entity) -%}
    select
        touched.entity_id,
        touched.first_at,
        touched.last_at
    from state.touched as touched
    where
        touched.entity = '{{ entity }}'
        and touched.build > (select seen.build from state.touched_seen as seen where seen.model = '{{ this.name }}')
        {%- if this.name in reads_touched_events() %}
        and touched.build <= (select seen.build from state.touched_seen as seen where seen.model = 'int_events__touched')
        {%- endif %}
{%- endmacro %}

{# The entities to make anew: a condition on a column. Everything, where changes alone will not do. #}
{% macro is_touched(column, entity) -%}
    {% if takes_changes_only() -%}
        {{ column }} in (select unseen.entity_id from ({{ unseen(entity) }}) as unseen)
    {%- else -%}
        true
    {%- endif %}
{%- endmacro %}

{# Before a model is filled: remove the entities to make anew. #}
{% macro remove_touched(column, entity) %}
    {% if is_incremental() %}
        delete from {{ this }} where {{ is_touched(column, entity) }}
    {% else %}
        select 1
    {% endif %}
{% endmacro %}

{# After a model is filled, in the same transaction: all notes of now are taken, or all that int_events__touched had. #}
{% macro mark_seen() %}
    delete from state.touched_seen where model = '{{ this.name }}';
    insert into state.touched_seen
    {% if this.name in reads_touched_events() -%}
    select '{{ this.name }}', seen.build, {{ as_of() }} from state.touched_seen as seen where seen.model = 'int_events__touched';
    {%- else -%}
    select '{{ this.name }}', coalesce(max(touched.build), 0), {{ as_of() }} from state.touched as touched;
    {%- endif %}
{% endmacro %}

{# The same for ids of two kinds in one table. #}
{% macro remove_touched_ids() %}
    {% if is_incremental() %}
        delete from {{ this }}
        where
            (id_type = 'anonymous' and {{ is_touched('id', 'anonymous') }})
            or (id_type = 'device' and {{ is_touched('id', 'device') }})
    {% else %}
        select 1
    {% endif %}
{% endmacro %}

{# An event may be dated up to a day after it was received, and counts for its person once the clock has passed it. Where
   the clock moved, forth or back, the people with an event between are touched too. #}
{% macro note_moved_clock() %}
        insert into state.touched
        with clocks as (
            select least(seen.as_of, {{ as_of() }}) as earlier, greatest(seen.as_of, {{ as_of() }}) as later
            from state.touched_seen as seen
            where seen.model = '{{ this.name }}'
        )
        select {{ next_build() }}, 'user', events.user_id, min(events.occurred_at), max(events.occurred_at)
        from {{ ref('stg_lake__events') }} as events
        inner join clocks on events.occurred_at > clocks.earlier and events.occurred_at <= clocks.later
        where {{ is_known('events.user_id') }}
        group by events.user_id
{% endmacro %}

{# Sessions to make anew: of every touched stream, from the first to the last touched event and on to the ends of the
   activity that these fall into or come near enough to join. #}
{% macro find_session_windows() %}
    {% if takes_changes_only() %}
        create or replace table state.session_windows as
        with touched as (
            select unseen.entity_id as stream, min(unseen.first_at) as first_at, max(unseen.last_at) as last_at
            from ({{ unseen('stream') }}) as unseen
            group by unseen.entity_id
        )
        select
            touched.stream,
            least(touched.first_at, min(sessions.active_from)) as first_at,
            greatest(touched.last_at, max(sessions.active_to)) as last_at
        from touched
        left join {{ this }} as sessions
            on
                touched.stream = sessions.stream
                and sessions.active_from <= touched.last_at + {{ session_idle() }}
                and sessions.active_to >= touched.first_at - {{ session_idle() }}
        group by touched.stream, touched.first_at, touched.last_at
    {% else %}
        select 1
    {% endif %}
{% endmacro %}

{% macro remove_session_windows() %}
    {% if takes_changes_only() %}
        delete from {{ this }} as sessions
        using state.session_windows as windows
        where
            sessions.stream = windows.stream
            and sessions.started_at >= windows.first_at
            and sessions.started_at <= windows.last_at
    {% elif is_incremental() %}
        delete from {{ this }}
    {% else %}
        select 1
    {% endif %}
{% endmacro %}

{# Statements of consent have no build: what a person's statements amount to, at the clock and now, is kept as one number,
   and a person whose number differs is touched. That holds for statements that were erased and for clocks that went back.
   Each statement is one text: the hash of several values takes the last one in by xor, and two that change cancel out. #}
{% macro statements_as_numbers() -%}
    select
        consent.user_id,
        bit_xor(hash(concat_ws(
            ' ', consent.purpose, consent.status, consent.origin, consent.effective_from, {{ was_known('consent') }}
        ))) as number
    from state.consent as consent
    where cast(consent.effective_from as timestamp with time zone) <= {{ latest_clock() }}
    group by consent.user_id
{%- endmacro %}

{% macro note_consent_changes() %}
    create table if not exists state.consent_seen (user_id varchar, number ubigint);
    {% if takes_changes_only() %}
        create or replace table state.consent_changed as
        select coalesce(now.user_id, seen.user_id) as user_id, now.number
        from ({{ statements_as_numbers() }}) as now
        full outer join state.consent_seen as seen on now.user_id = seen.user_id
        where now.number is distinct from seen.number;
        insert into state.touched
        select {{ next_build() }}, entities.entity, changed.user_id, null, null
        from state.consent_changed as changed
        cross join (values ('consent'), ('user')) as entities (entity);
    {% endif %}
{% endmacro %}

{# After consent_history is filled. Only numbers that differ are written: to write all of them costs as much as the model. #}
{% macro keep_consent_numbers() %}
    {% if takes_changes_only() %}
        delete from state.consent_seen where user_id in (select changed.user_id from state.consent_changed as changed);
        insert into state.consent_seen
        select changed.user_id, changed.number from state.consent_changed as changed where changed.number is not null;
        drop table state.consent_changed
    {% else %}
        create or replace table state.consent_seen as {{ statements_as_numbers() }};
        {# nobody was noted: segments that follow are made whole once #}
        delete from state.touched_seen where starts_with(model, 'seg_')
    {% endif %}
{% endmacro %}

{# Interactions follow their people, and the restaged dates as well: a rating may change where nothing else of it does. #}
{% macro remove_interactions() %}
    {% if is_incremental() %}
        delete from {{ this }}
        where
            {{ is_touched('user_id', 'user') }}
            or event_id in (
                select events.event_id from {{ ref('stg_lake__events') }} as events
                where {{ is_restaged('events.received_date') }}
            )
    {% else %}
        select 1
    {% endif %}
{% endmacro %}
