{#
    How events are cut into sessions, once for core.sessions (all that is known) and for segments (what was known then).
#}

{# CTEs from `events` (stream, event_id, occurred_at, ...) to `pieces`: the activity without a pause that an event belongs
   to, and its number in that activity, which is cut every session_max_hours from its start. #}
{% macro pieces_of_sessions() -%}
pauses as (
    select
        *,
        coalesce(
            occurred_at - lag(occurred_at) over (partition by stream order by occurred_at, event_id) > {{ session_idle() }},
            true
        ) as begins
    from events
),

numbered as (
    select
        *,
        count(*) filter (where begins) over (
            partition by stream order by occurred_at, event_id rows between unbounded preceding and current row
        ) as activity
    from pauses
),

active as (
    select
        *,
        min(occurred_at) over (partition by stream, activity) as active_from,
        max(occurred_at) over (partition by stream, activity) as active_to
    from numbered
),

pieces as (
    select
        *,
        (epoch_us(occurred_at) - epoch_us(active_from)) // ({{ var('session_max_hours') }} * 3600000000) as piece
    from active
)
{%- endmacro %}

{# The id of a session among pieces of one: its stream and its start. #}
{% macro session_id() -%}
    md5(concat_ws(' ', stream, epoch_us(min(occurred_at))))
{%- endmacro %}
