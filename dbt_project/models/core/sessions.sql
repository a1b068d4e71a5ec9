{{ config(
    pre_hook=["{{ find_session_windows() }}", "{{ remove_session_windows() }}"]
) }}

-- Sessions, cut by activity: a pause of more than session_idle_minutes ends one, midnight does not; activity that never
-- pauses is cut every session_max_hours from its start. What one device sent is one session, whoever used it: where two
-- people logged in, it is nobody's. A late event makes the whole of its session anew.
with events as (
    select
        events.stream,
        events.event_id,
        events.occurred_at,
        events.platform,
        {{ known('events.user_id') }} as user_id,
        {{ known('events.anonymous_id') }} as anonymous_id,
        {{ known('events.device_id') }} as device_id,
        {{ known('events.organisation_id') }} as organisation_id,
        {{ known('events.session_id') }} as collector_session_id
    from {{ ref('stg_lake__events') }} as events
    {% if takes_changes_only() %}
    inner join state.session_windows as windows
        on
            events.stream = windows.stream
            and events.occurred_at >= windows.first_at
            and events.occurred_at <= windows.last_at
    {% else %}
    where events.stream is not null
    {% endif %}
),

{{ pieces_of_sessions() }}

select
    {{ session_id() }} as session_id,
    stream,
    case when count(distinct user_id) = 1 then min(user_id) end as user_id,
    count(distinct user_id) as users,
    count(distinct user_id) > 1 as is_shared,
    min(device_id) as device_id,
    case when count(distinct organisation_id) = 1 then min(organisation_id) end as organisation_id,
    arg_min(platform, (occurred_at, event_id)) as platform,
    min(occurred_at) as started_at,
    max(occurred_at) as ended_at,
    count(*) as events,
    count(*) filter (where user_id is null) as anonymous_events,
    count(distinct collector_session_id) as collector_sessions,
    active_from,
    max(max(occurred_at)) over (partition by stream, active_from) as active_to
from pieces
group by stream, active_from, piece
