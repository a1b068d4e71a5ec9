-- One row per session id as the collector cut it.
select
    session_id,
    min(user_id) as user_id,
    count(distinct user_id) as users,
    min(device_id) as device_id,
    min(platform) as platform,
    min(occurred_at) as started_at,
    max(occurred_at) as ended_at,
    count(*) as events
from {{ ref('stg_lake__events') }}
where session_id is not null
group by session_id
