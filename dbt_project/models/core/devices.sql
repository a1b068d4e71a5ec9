-- One row per device id.
select
    device_id,
    min(platform) as platform,
    count(distinct user_id) as users,
    min(occurred_at) as first_seen_at,
    max(occurred_at) as last_seen_at,
    count(*) as events
from {{ ref('stg_lake__events') }}
where device_id is not null
group by device_id
