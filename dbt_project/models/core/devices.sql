{{ config(pre_hook="{{ remove_touched('device_id', 'device') }}") }}
-- depends_on: {{ ref('int_events__touched') }}

-- One row per device id. Several people may share a device; the one who logged in last is named, all keep what they did.
select
    device_id,
    arg_max(platform, (occurred_at, event_id)) as platform,
    count(distinct {{ known('user_id') }}) as users,
    count(distinct {{ known('user_id') }}) > 1 as is_shared,
    arg_max(user_id, (occurred_at, event_id)) filter (where {{ is_known('user_id') }}) as last_user_id,
    max(occurred_at) filter (where {{ is_known('user_id') }}) as last_login_at,
    min(occurred_at) as first_seen_at,
    max(occurred_at) as last_seen_at,
    count(*) as events
from {{ ref('int_events__touched') if takes_changes_only() else ref('stg_lake__events') }}
where {{ is_known('device_id') }} and {{ is_touched('device_id', 'device') }}
group by device_id
