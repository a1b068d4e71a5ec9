{{ config(pre_hook="{{ remove_touched('anonymous_id', 'anonymous') }}") }}
-- depends_on: {{ ref('int_events__touched') }}

-- Which person an anonymous id belongs to now: the last one who was logged in under it. Over time, and by which rule: identities.
select
    anonymous_id,
    arg_max(user_id, (occurred_at, event_id)) as user_id,
    count(distinct user_id) as users,
    min(occurred_at) as first_seen_at,
    max(occurred_at) as last_seen_at
from {{ ref('int_events__touched') if takes_changes_only() else ref('stg_lake__events') }}
where {{ is_known('anonymous_id') }} and {{ is_known('user_id') }} and {{ is_touched('anonymous_id', 'anonymous') }}
group by anonymous_id
