{#
    What a segment may read: events that were known at the clock of the run (they had happened and had been received), that
    their person allowed for the segment's purpose when they happened, and of people who allow it at the clock. Missing is
    denied. A segment reads nothing else, and that is why building a past date again gives that date's members.
#}

{# The segment's purpose, from its meta; while dbt parses, the YAML is not known yet, and sqlfluff knows no model. #}
{% macro segment_purpose() -%}
    {{ ((model.config.meta if model is defined else none) or {}).get('purpose', 'personalization') }}
{%- endmacro %}

{# Had it happened and been received by the clock of the run? #}
{% macro is_past(alias) -%}
    {{ alias }}.occurred_at <= {{ as_of() }} and {{ alias }}.received_at <= {{ as_of() }}
{%- endmacro %}

{# People who allow the purpose at the clock. Words that stand for nobody are sorted out here, once a person and not once an
   event: that is a tenth of the rows. #}
{% macro allowed_people() -%}
    (
        select consent.user_id
        from {{ ref('consent_history') }} as consent
        where
            consent.purpose = '{{ segment_purpose() }}' and consent.status = 'granted' and consent.effective_to is null
            and {{ is_known('consent.user_id') }}
            {# of a million people to look up in, a day's thirty thousand: half of what it costs #}
            {% if (segment_meta().get('entity') or 'user') == 'user' %}{{ only_in_scope('consent') }}{% endif %}
    )
{%- endmacro %}

{% macro is_allowed(alias) -%}
    {{ alias }}.consent_{{ segment_purpose() }}
    and {{ alias }}.user_id in {{ allowed_people() }}
{%- endmacro %}

{# Events of these names with all their columns, of people who were logged in; a column that an event lacks is null. #}
{% macro allowed_events(names) -%}
    (
        {% for name in names %}
        select events.*
        from {{ ref('stg_lake__' ~ name) }} as events
        where {{ is_past('events') }} and {{ is_allowed('events') }} {{ only_in_scope('events') }}
        {% if not loop.last %} union all by name {% endif %}
        {% endfor %}
    )
{%- endmacro %}

{# Events of all names with the columns of the envelope, of people who were logged in. #}
{% macro allowed_activity() -%}
    (
        select events.*
        from {{ ref('stg_lake__events') }} as events
        where {{ is_past('events') }} and {{ is_allowed('events') }} {{ only_in_scope('events') }}
    )
{%- endmacro %}

{# The same by device: a device on which anybody was logged in who does not allow it is left out whole. #}
{% macro allowed_device_activity() -%}
    (
        select events.*
        from {{ ref('stg_lake__events') }} as events
        where
            {{ is_past('events') }} and {{ is_allowed('events') }} and {{ is_known('events.device_id') }}
            {{ only_in_scope('events') }}
            and events.device_id not in (
                select logins.device_id
                from (
                    select distinct others.device_id, others.user_id
                    from {{ ref('stg_lake__events') }} as others
                    where {{ is_past('others') }} and others.device_id is not null and others.user_id is not null
                        {{ only_in_scope('others') }}
                ) as logins
                where {{ is_known('logins.user_id') }} and logins.user_id not in {{ allowed_people() }}
            )
    )
{%- endmacro %}

{# Sessions that reach into so many days before the clock, cut by the rules of core.sessions from what was known then. All
   their events are allowed, somebody was logged in, and everybody who was allows it. The activity of core, which knows
   more, only says where to look: more events never part what fewer join.
   with_event : the name of an event that a SELECT asks for besides; activities without it need not be cut. #}
{% macro allowed_sessions(days, with_event=none) -%}
    (
        with activities as (
            select distinct sessions.stream, sessions.active_from, sessions.active_to
            from {{ ref('sessions') }} as sessions
            {% if with_event %}
            inner join {{ ref('stg_lake__events') }} as wanted
                on
                    sessions.stream = wanted.stream
                    and wanted.occurred_at between sessions.active_from and sessions.active_to
                    and wanted.event = '{{ with_event }}'
            {% endif %}
            where
                sessions.active_to > {{ as_of() }} - interval {{ days }} day and sessions.active_from <= {{ as_of() }}
                {{ only_in_scope('sessions') }}
                {% if with_event %}and {{ is_past('wanted') }}{% endif %}
        ),

        events as (
            select
                events.stream,
                events.event,
                events.event_id,
                events.occurred_at,
                events.consent_{{ segment_purpose() }} as is_consented,
                {{ known('events.user_id') }} as user_id
            from {{ ref('stg_lake__events') }} as events
            inner join activities
                on
                    events.stream = activities.stream
                    and events.occurred_at between activities.active_from and activities.active_to
            where {{ is_past('events') }}
        ),

        {{ pieces_of_sessions() }}

        select
            {{ session_id() }} as session_id,
            min(occurred_at) as started_at,
            max(occurred_at) as ended_at,
            count(*) as events,
            count(*) filter (where event = 'add_to_cart') as carts,
            count(*) filter (where event = 'purchase') as purchases
        from pieces
        group by stream, active_from, piece
        having
            max(occurred_at) > {{ as_of() }} - interval {{ days }} day
            and count(user_id) > 0
            and bool_and(coalesce(is_consented, false))
            and bool_and(user_id is null or user_id in {{ allowed_people() }})
    )
{%- endmacro %}
