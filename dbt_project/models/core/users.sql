{{ config(
    pre_hook="{{ remove_touched('user_id', 'user') }}"
) }}
-- depends_on: {{ ref('int_events__touched') }}

-- One row per person with an accepted event. What they allow is read as of the run's clock; missing is denied. Where a past
-- date is built anew, whoever denied since allows nothing: only segments tell what was (macros/allowed.sql), and what is
-- learnt of people or offered to them follows what is known now.
with activity as (
    select
        user_id,
        min(occurred_at) as first_seen_at,
        max(occurred_at) as last_seen_at,
        count(*) as events,
        count(distinct {{ known('device_id') }}) as devices
    from {{ ref('int_events__touched') if takes_changes_only() else ref('stg_lake__events') }}
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
),

latest_words as (
    select
        consent.user_id,
        consent.purpose,
        max((cast(consent.effective_from as timestamp with time zone), consent.status = 'denied')) as latest
    from {{ source('state', 'consent') }} as consent
    where
        {{ as_of() }} < {{ latest_clock() }}
        and cast(consent.effective_from as timestamp with time zone) <= {{ latest_clock() }}
        and {{ is_touched('consent.user_id', 'user') }}
    group by consent.user_id, consent.purpose, consent.origin
),

denied_since as (
    select
        user_id,
        bool_or(purpose = 'analytics') as analytics,
        bool_or(purpose = 'personalization') as personalization
    from latest_words
    where latest[2]
    group by user_id
)

select
    activity.user_id,
    activity.first_seen_at,
    activity.last_seen_at,
    activity.events,
    activity.devices,
    coalesce(allowed.analytics_allowed and not coalesce(denied_since.analytics, false), false) as analytics_allowed,
    coalesce(allowed.personalization_allowed and not coalesce(denied_since.personalization, false), false)
        as personalization_allowed
from activity
left join allowed on activity.user_id = allowed.user_id
left join denied_since on activity.user_id = denied_since.user_id
