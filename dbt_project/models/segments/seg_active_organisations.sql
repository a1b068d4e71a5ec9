-- Organisations for which {{ var('active_organisation_min_people') }} people or more acted
-- within the last {{ var('active_organisation_days') }} days.
select
    organisation_id as entity_id,
    min(occurred_at) as entered_at,
    max(occurred_at) as qualified_at,
    count(distinct user_id) as people
from {{ allowed_activity() }}
where {{ is_known('organisation_id') }} and {{ within_days('occurred_at', var('active_organisation_days')) }}
group by organisation_id
having count(distinct user_id) >= {{ var('active_organisation_min_people') }}
