-- What retention removed, by store, event and (quarantine) kind of failure; the counts of landed files keep it.
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
