{{ config(meta={'dagster': {'ref': {'name': 'identities'}}}) }}

-- An id is one person's at a time: no interval is empty, and each ends where the next begins.
select
    id_type,
    id
from {{ ref('identities') }}
qualify
    valid_to <= valid_from
    or valid_to is distinct from lead(valid_from) over (partition by id_type, id order by valid_from)
