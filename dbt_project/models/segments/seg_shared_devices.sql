-- Devices on which two people or more were logged in within the last {{ var('shared_device_days') }} days, all of whom allow it.
select
    device_id as entity_id,
    min(occurred_at) as entered_at,
    max(occurred_at) as qualified_at,
    count(distinct user_id) as people
from {{ allowed_device_activity() }}
where {{ within_days('occurred_at', var('shared_device_days')) }}
group by device_id
having count(distinct user_id) >= 2
