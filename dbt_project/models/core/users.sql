{{ config(
    pre_hook="{{ note_moved_clock() }}; {{ remove_touched('user_id', 'user') }}"
) }}

-- One row per person with an accepted event. What they allow is read as of the run's clock; missing is denied.
with activity as (
    select
        user_id,
        min(occurred_at) as first_seen_at,
        max(occurred_at) as last_seen_at,
        count(*) as events,
        count(distinct {{ known('device_id') }}) as devices
    from {{ ref('stg_lake__events') }}
    where {{ is_known('user_id') }} and {{ is_touched('user_id', 'user') }} and occurred_at <= {{ as_of() }}
    group by user_id
),

allowed as (
    select
        user_id,
        bool_or(purpose = 'analytics' and status = 'granted') as analytics_allowed,
        bool_or(purpose = 'personalization' and status = 'granted') as personalization_allowed
    from {{ ref('consent_history') }}
    where effective_to is null and {{ is_touched('user_id', 'user') }}
    group by user_id
)

select
    activity.user_id,
    activity.first_seen_at,
    activity.last_seen_at,
    activity.events,
    activity.devices,
    coalesce(allowed.analytics_allowed, false) as analytics_allowed,
    coalesce(allowed.personalization_allowed, false) as personalization_allowed
from activity
left join allowed on activity.user_id = allowed.user_id
