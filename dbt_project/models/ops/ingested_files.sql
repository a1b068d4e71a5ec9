-- One row per landed file: what became of its rows. rows_in is the sum of the four outcomes.
with duplicates as (
    select
        source,
        count(*) as duplicates
    from {{ ref('int_events__indexed') }}
    where is_duplicate
    group by source
)

select
    files.file,
    files.sha256,
    files.rows_in,
    files.unparsable,
    files.suppressed,
    files.quarantined,
    files.accepted,
    files.late,
    files.exempt,
    files.consent_unreadable,
    files.erased,
    coalesce(duplicates.duplicates, 0) as duplicates,
    cast(files.min_received_at as timestamp with time zone) as min_received_at,
    cast(files.max_received_at as timestamp with time zone) as max_received_at
from {{ source('state', 'ingested_files') }} as files
left join duplicates on files.source = duplicates.source
