{#
    How events are cut into sessions, once for core.sessions (all that is known) and for segments (what was known then).
#}

{# CTEs from `events` (stream, event_id, occurred_at, ...) to `pieces`: when the activity without a pause began that an event
   belongs to, and its number in that activity, which is cut every session_max_hours from its start. No two activities of a
   stream begin at one time. #}
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

active as (
    select
        *,
        max(occurred_at) filter (where begins) over (
            partition by stream order by occurred_at, event_id rows between unbounded preceding and current row
        ) as active_from
    from pauses
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
