{{ config(pre_hook="{{ remove_touched('organisation_id', 'organisation') }}") }}

-- One row per organisation that events name. Who belongs to it: organisation_members.
select
    organisation_id,
    count(distinct {{ known('user_id') }}) as users,
    min(occurred_at) as first_seen_at,
    max(occurred_at) as last_seen_at,
    count(*) as events
from {{ ref('stg_lake__events') }}
where {{ is_known('organisation_id') }} and {{ is_touched('organisation_id', 'organisation') }}
group by organisation_id
