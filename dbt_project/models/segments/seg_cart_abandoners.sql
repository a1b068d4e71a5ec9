-- People who put a product into the cart within the last {{ var('cart_abandoner_days') }} days and did not buy it since.
select
    carts.user_id as entity_id,
    min(carts.occurred_at) as entered_at,
    max(carts.occurred_at) as qualified_at
from {{ allowed_events(['add_to_cart']) }} as carts
anti join {{ allowed_events(['purchase']) }} as purchases
    on
        carts.user_id = purchases.user_id
        and carts.product_id = purchases.product_id
        and carts.occurred_at <= purchases.occurred_at
where {{ within_days('carts.occurred_at', var('cart_abandoner_days')) }}
group by carts.user_id
