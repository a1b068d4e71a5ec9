-- How many events were measured without consent, where privacy.yaml exempts them: counts, and nothing else.
select
    event,
    received_date,
    country,
    platform,
    legal_reference,
    count(*) as events
from {{ source('exempt', 'exempt_events') }}
group by event, received_date, country, platform, legal_reference
