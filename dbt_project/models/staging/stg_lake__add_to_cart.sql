{{ staged_event('add_to_cart') }}
