{{ config(meta={'dagster': {'ref': {'name': 'int_events__indexed'}}}) }}

-- The lake holds exactly the rows that the ledger says were accepted (files that this run staged).
with counted as (
    select
        source,
        count(*) as rows_found
    from {{ ref('int_events__indexed') }}
    group by source
)

select files.source
from {{ source('state', 'ingested_files') }} as files
left join counted on files.source = counted.source
where files.accepted != coalesce(counted.rows_found, 0)
