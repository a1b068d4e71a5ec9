-- Which person an anonymous id belongs to: the last one who was logged in under it.
select
    anonymous_id,
    arg_max(user_id, (occurred_at, event_id)) as user_id,
    count(distinct user_id) as users,
    min(occurred_at) as first_seen_at,
    max(occurred_at) as last_seen_at
from {{ ref('stg_lake__events') }}
where anonymous_id is not null and user_id is not null
group by anonymous_id
