-- Sessions of the last {{ var('cart_session_days') }} days that are over, with something put into the cart and nothing bought.
select
    session_id as entity_id,
    started_at as entered_at,
    ended_at as qualified_at,
    carts
from {{ allowed_sessions(var('cart_session_days'), with_event='add_to_cart') }}
where carts > 0 and purchases = 0 and ended_at < {{ as_of() }} - {{ session_idle() }}
