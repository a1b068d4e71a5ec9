-- People who were logged in on two devices or more within the last {{ var('multi_device_days') }} days.
select
    user_id as entity_id,
    min(occurred_at) as entered_at,
    max(occurred_at) as qualified_at,
    count(distinct device_id) as devices
from {{ allowed_activity() }}
where {{ is_known('device_id') }} and {{ within_days('occurred_at', var('multi_device_days')) }}
group by user_id
having count(distinct device_id) >= 2
