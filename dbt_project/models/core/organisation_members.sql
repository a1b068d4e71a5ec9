{{ config(pre_hook="{{ remove_touched('user_id', 'user') }}") }}
-- depends_on: {{ ref('int_events__touched') }}

-- Who acted for which organisation. A person may act for several; the one that their latest event names is the current one.
with memberships as (
    select
        organisation_id,
        user_id,
        min(occurred_at) as first_seen_at,
        max(occurred_at) as last_seen_at,
        max((occurred_at, event_id)) as latest,
        count(*) as events
    from {{ ref('int_events__touched') if takes_changes_only() else ref('stg_lake__events') }}
    where {{ is_known('organisation_id') }} and {{ is_known('user_id') }} and {{ is_touched('user_id', 'user') }}
    group by organisation_id, user_id
)

select
    organisation_id,
    user_id,
    first_seen_at,
    last_seen_at,
    events,
    latest = max(latest) over (partition by user_id) as is_current
from memberships
