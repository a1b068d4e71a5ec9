-- What retention removed, by store, event and (quarantine) kind of failure; the counts of landed files keep it.
-- Memberships of segments and versions of the recommender are known from the run after the one that removed them.
select
    'quarantine' as store,
    event,
    reasons,
    sum(rows) as rows,
    min(cast(cast(first_seen as timestamp with time zone) as date)) as first_received_date,
    max(cast(cast(last_seen as timestamp with time zone) as date)) as last_received_date,
    max(cast(as_of as timestamp with time zone)) as expired_at
from {{ source('state', 'expired_lines') }}
group by event, reasons

union all

select
    'accepted' as store,
    event,
    cast(null as varchar) as reasons,
    sum(rows) as rows,
    min(cast(received_date as date)) as first_received_date,
    max(cast(received_date as date)) as last_received_date,
    max(cast(as_of as timestamp with time zone)) as expired_at
from {{ source('state', 'expired_rows') }}
group by event

union all

select
    'exempt' as store,
    event,
    cast(null as varchar) as reasons,
    sum(rows) as rows,
    min(cast(received_date as date)) as first_received_date,
    max(cast(received_date as date)) as last_received_date,
    max(cast(as_of as timestamp with time zone)) as expired_at
from {{ source('state', 'expired_exempt_rows') }}
group by event

union all

select
    'segment_history' as store,
    segment as event,
    cast(null as varchar) as reasons,
    sum(memberships) as rows,
    min(cast(first_day as date)) as first_received_date,
    max(cast(last_day as date)) as last_received_date,
    max(cast(as_of as timestamp with time zone)) as expired_at
from {{ source('state', 'expired_memberships') }}
group by segment

union all

select
    'models' as store,
    cast(null as varchar) as event,
    cast(null as varchar) as reasons,
    count(*) as rows,
    min(cast(cast(trained_at as timestamp with time zone) as date)) as first_received_date,
    max(cast(cast(trained_at as timestamp with time zone) as date)) as last_received_date,
    max(cast(as_of as timestamp with time zone)) as expired_at
from {{ source('state', 'expired_models') }}
having count(*) > 0
