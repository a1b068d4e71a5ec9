-- Who was erased, as keyed hashes: nobody can be read from them, and nobody among them is taken in again.
select
    kind,
    token,
    erasure_id,
    cast(erased_at as timestamp with time zone) as erased_at
from {{ source('state', 'tombstones') }}
