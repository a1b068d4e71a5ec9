-- One row per organisation that events name.
select
    organisation_id,
    count(distinct user_id) as users,
    min(occurred_at) as first_seen_at,
    max(occurred_at) as last_seen_at,
    count(*) as events
from {{ ref('stg_lake__events') }}
where organisation_id is not null
group by organisation_id
