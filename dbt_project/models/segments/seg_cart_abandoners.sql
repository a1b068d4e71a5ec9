-- People who put a product into the cart within the last {{ var('cart_abandoner_days') }} days and did not buy it since.
with carts as (
    select
        user_id,
        product_id,
        occurred_at
    from {{ ref('interactions') }}
    where event = 'add_to_cart' and {{ within_days('occurred_at', var('cart_abandoner_days')) }}
),

purchases as (
    select
        user_id,
        product_id,
        occurred_at
    from {{ ref('interactions') }}
    where event = 'purchase'
)

select
    carts.user_id as entity_id,
    min(carts.occurred_at) as entered_at,
    max(carts.occurred_at) + interval {{ var('cart_abandoner_days') }} day as expires_at
from carts
anti join purchases
    on
        carts.user_id = purchases.user_id
        and carts.product_id = purchases.product_id
        and carts.occurred_at <= purchases.occurred_at
group by carts.user_id
