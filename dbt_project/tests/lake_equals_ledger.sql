{{ config(meta={'dagster': {'ref': {'name': 'int_events__indexed'}}}) }}

-- The lake holds exactly the rows that the ledger says were accepted (exempt ones lie apart),
-- but for those that retention removed. Rows of events that no model stages can only be missing here.
with counted as (
    select
        source,
        count(*) as rows_found
    from {{ ref('int_events__indexed') }}
    group by source
),

expired as (
    select
        source,
        sum(rows) as rows_removed
    from {{ source('state', 'expired_rows') }}
    group by source
)

select files.source
from {{ source('state', 'ingested_files') }} as files
left join counted on files.source = counted.source
left join expired on files.source = expired.source
where
    files.accepted - files.exempt < coalesce(counted.rows_found, 0) + coalesce(expired.rows_removed, 0)
    or (
        files.accepted - files.exempt > coalesce(counted.rows_found, 0) + coalesce(expired.rows_removed, 0)
        and not {{ some_events_are_not_staged() }}
    )
