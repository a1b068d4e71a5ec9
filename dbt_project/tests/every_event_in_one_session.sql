{{ config(meta={'dagster': {'ref': {'name': 'sessions'}}}) }}

-- The sessions hold every event that has a stream, once each.
with counted as (
    select
        (select sum(sessions.events) from {{ ref('sessions') }} as sessions) as in_sessions,
        (select count(events.stream) from {{ ref('stg_lake__events') }} as events) as with_stream
)

select *
from counted
where coalesce(in_sessions, 0) != with_stream
